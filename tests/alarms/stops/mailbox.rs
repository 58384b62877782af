//! Stops of the mailbox, and hours in which clients sync.

use super::{
    Extent::{self, Nothing, Part, Total},
    Play, Stop,
    connections::aws,
};
use crate::{
    cloudwatch::Values,
    world::{END, STOP},
    written::{of_function, of_mailbox},
};

pub(super) fn mailbox() -> Vec<Stop> {
    vec![
        syncs("the mailbox table denies every call", Total, |minute| [1, u32::from(minute < STOP)]),
        syncs("three of ten syncs receive no page, 10 a minute", Part, |minute| {
            [10, if minute < STOP { 10 } else { 7 }]
        }),
        aws("`mailbox` crashes", Total, of_function("mailbox", "Errors")),
        aws("Lambda throttles `mailbox`", Total, of_function("mailbox", "Throttles")),
    ]
}

pub(super) fn normal() -> Vec<Stop> {
    vec![
        syncs("an hour of clients that sync, of which one in ten closes first", Nothing, |_| [10, 9]),
        syncs("an hour in which two clients close while they sync", Nothing, |minute| {
            [1, u32::from(![30, 31].contains(&minute))]
        }),
    ]
}

fn syncs(name: &'static str, extent: Extent, counts: fn(usize) -> [u32; 2]) -> Stop {
    Stop { name, extent, play: Play::Syncs(counts) }
}

/// The handler writes no zeros.
pub(super) fn sync_values(counts: fn(usize) -> [u32; 2]) -> Values {
    let mut values = Values::default();
    for minute in 0..END {
        for (name, count) in ["Syncs", "PagesPosted"].into_iter().zip(counts(minute)) {
            (0..count).for_each(|_| values.add(of_mailbox(name), minute, 1.0));
        }
    }
    values
}
