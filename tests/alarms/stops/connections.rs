//! Stops of connections and of functions.

use super::{
    Extent::{self, Part, Total},
    Play, Stop, connects,
};
use crate::{
    cloudwatch::{Metric, Values},
    connects::Clients,
    world::{END, STOP},
    written::{of_api, of_function},
};

pub(super) fn connections() -> Vec<Stop> {
    vec![
        connects("the issuer's keys cannot be fetched", Total, Clients::WithoutKeys),
        connects("the table takes no connections, 20 clients a minute", Total, Clients::WithoutTable),
        connects("`$connect` has no authorizer", Total, Clients::WithoutAuthorizer),
        connects("every token names another issuer", Total, Clients::OfOtherIssuer),
        connects(
            "two of five tokens name another issuer, 20 clients a minute",
            Part,
            Clients::OfOtherIssuerInPart,
        ),
        aws("API Gateway may not call `connect`", Total, of_api("ExecutionError")),
        aws("`connect` crashes", Total, of_function("connect", "Errors")),
        aws("Lambda throttles `connect`", Total, of_function("connect", "Throttles")),
        aws("`disconnect` crashes", Part, of_function("disconnect", "Errors")),
        aws("Lambda throttles `disconnect`", Part, of_function("disconnect", "Throttles")),
    ]
}

pub(super) fn aws(name: &'static str, extent: Extent, metric: Metric) -> Stop {
    Stop { name, extent, play: Play::Aws(metric) }
}

pub(super) fn aws_values(metric: &Metric) -> Values {
    let mut values = Values::default();
    (0..END).for_each(|minute| values.add(metric.clone(), minute, f64::from(u8::from(minute >= STOP))));
    values
}
