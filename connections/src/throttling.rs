//! Names the limit of DynamoDB that throttled a call. A write is throttled, too, if an index cannot keep up, while the table has
//! capacity left.

use std::error::Error;

use aws_sdk_dynamodb::types::{
    ThrottlingReason,
    error::{ProvisionedThroughputExceededException, RequestLimitExceeded, ThrottlingException},
};

/// Returns the limits that a throttled call exceeded, such as
/// `IndexWriteKeyRangeThroughputExceeded at streamer_connections/index/by_tenant`. Empty for any other error.
pub(crate) fn exceeded_limits(error: &(dyn Error + 'static)) -> Vec<String> {
    let reasons = reasons(error).iter();
    let limits = reasons.filter_map(|reason| {
        let (limit, resource) = (reason.reason()?, reason.resource().unwrap_or_default());
        let resource = resource.split_once(":table/").map_or(resource, |(_, name)| name);
        Some(if resource.is_empty() { limit.to_owned() } else { format!("{limit} at {resource}") })
    });
    limits.collect()
}

fn reasons<'a>(error: &'a (dyn Error + 'static)) -> &'a [ThrottlingReason] {
    if let Some(error) = error.downcast_ref::<ThrottlingException>() {
        return error.throttling_reasons();
    }
    if let Some(error) = error.downcast_ref::<ProvisionedThroughputExceededException>() {
        return error.throttling_reasons();
    }
    if let Some(error) = error.downcast_ref::<RequestLimitExceeded>() {
        return error.throttling_reasons();
    }
    error.source().map_or(&[], reasons)
}

#[cfg(test)]
mod tests {
    use aws_sdk_dynamodb::{error::SdkError, operation::put_item::PutItemError};

    use super::*;

    fn reason(limit: &str, resource: &str) -> ThrottlingReason {
        ThrottlingReason::builder().reason(limit).resource(resource).build()
    }

    #[test]
    fn index_that_throttles_is_named() {
        let table = "arn:aws:dynamodb:eu-central-1:123456789012:table/streamer_connections";
        let error = ThrottlingException::builder()
            .throttling_reasons(reason(
                "IndexWriteKeyRangeThroughputExceeded",
                &format!("{table}/index/by_user"),
            ))
            .throttling_reasons(reason("AccountLimitExceeded", ""))
            .build();
        let error = SdkError::service_error(PutItemError::ThrottlingException(error), ());
        assert_eq!(
            exceeded_limits(&error),
            [
                "IndexWriteKeyRangeThroughputExceeded at streamer_connections/index/by_user",
                "AccountLimitExceeded"
            ]
        );
        let error = ProvisionedThroughputExceededException::builder()
            .throttling_reasons(reason("TableReadProvisionedThroughputExceeded", table))
            .build();
        assert_eq!(
            exceeded_limits(&PutItemError::ProvisionedThroughputExceededException(error)),
            ["TableReadProvisionedThroughputExceeded at streamer_connections"]
        );
        let error = RequestLimitExceeded::builder().build();
        assert_eq!(exceeded_limits(&PutItemError::RequestLimitExceeded(error)), Vec::<String>::new());
    }
}
