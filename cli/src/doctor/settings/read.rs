//! Reads that end: each has a limit of time, and a reason if it gives nothing.

use std::{error::Error, fmt::Debug, future::Future, time::Duration};

use aws_sdk_sqs::error::{ProvideErrorMetadata, SdkError};
use streamer_environment::{aws, failure::FailureKind};
use tokio::time::timeout;

use super::Rule;
use crate::{aws::Call, doctor::Check};

/// Time in which AWS has to answer a read, retries included.
const LIMIT: Duration = Duration::from_secs(10);

/// Why a read gave nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Unread {
    /// The resource does not exist.
    Absent,
    /// It cannot be read, for a reason that says what to do.
    Unknown(String),
}

impl Unread {
    /// Returns the check of a resource's existence: failed if it does not exist, else skipped.
    pub(super) fn check(&self, rule: Rule, resource: &str) -> Check {
        match self {
            Self::Absent => rule.failed(format!("there is no {resource}")),
            Self::Unknown(reason) => rule.skipped(reason),
        }
    }

    /// Returns why a rule that needs the resource is not checked.
    pub(super) fn reason(&self, resource: &str) -> String {
        match self {
            Self::Absent => format!("there is no {resource}"),
            Self::Unknown(reason) => reason.clone(),
        }
    }
}

/// Waits for the answer to a call of `action`, as IAM names it.
pub(super) async fn read<T, E, R>(
    action: &str,
    resource: &str,
    sending: impl Future<Output = Result<T, SdkError<E, R>>>,
) -> Result<T, Unread>
where
    E: ProvideErrorMetadata + Error + 'static,
    R: Debug + 'static,
{
    let call = Call { action, resource };
    match timeout(LIMIT, sending).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) if is_absent(&error) => Err(Unread::Absent),
        Ok(Err(error)) => Err(Unread::Unknown(call.failed(&error).to_string())),
        Err(_) => {
            let cause = format!("no answer within {} s", LIMIT.as_secs());
            Err(Unread::Unknown(call.explain(FailureKind::Unreachable, &cause).to_string()))
        }
    }
}

/// Returns whether the resource does not exist. Only API Gateway has the code `NotFoundException`.
fn is_absent<E, R>(error: &SdkError<E, R>) -> bool
where
    E: ProvideErrorMetadata + Error + 'static,
    R: Debug + 'static,
{
    FailureKind::of(error) == FailureKind::NotFound || aws::cause(error).starts_with("NotFoundException:")
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use aws_sdk_sqs::{
        error::ErrorMetadata,
        operation::get_queue_attributes::{GetQueueAttributesError, GetQueueAttributesOutput},
    };

    use super::*;
    use crate::doctor::Verdict;

    type Answer = Result<GetQueueAttributesOutput, SdkError<GetQueueAttributesError, ()>>;

    async fn refused(code: &str) -> Option<Unread> {
        let error = GetQueueAttributesError::generic(ErrorMetadata::builder().code(code).build());
        let answer: Answer = Err(SdkError::service_error(error, ()));
        read("sqs:GetQueueAttributes", "queue q", async { answer }).await.err()
    }

    #[tokio::test(start_paused = true)]
    async fn silent_service_is_given_up() {
        let unread = read("sqs:GetQueueAttributes", "queue q", pending::<Answer>()).await.err();
        let Some(Unread::Unknown(reason)) = unread else { panic!("{unread:?}") };
        assert!(
            reason.contains("cannot reach SQS for queue q") && reason.contains("within 10 s"),
            "{reason}"
        );
    }

    #[tokio::test]
    async fn denied_read_is_skipped_with_its_action() {
        let unread = refused("AccessDenied").await;
        let Some(unread) = unread else { panic!("the call succeeded") };
        let check = unread.check(Rule::new("queue.exists", "a queue", "create it"), "queue q");
        assert_eq!(check.verdict, Verdict::Skipped);
        assert!(check.seen.contains("do not permit sqs:GetQueueAttributes on queue q"), "{check:?}");
    }

    #[tokio::test]
    async fn absent_resource_fails() {
        for code in ["AWS.SimpleQueueService.NonExistentQueue", "NotFoundException"] {
            let Some(unread) = refused(code).await else { panic!("the call succeeded") };
            let check = unread.check(Rule::new("queue.exists", "a queue", "create it"), "queue q");
            assert_eq!(
                (check.verdict, check.seen.as_str()),
                (Verdict::Failed, "there is no queue q"),
                "{code}"
            );
        }
    }
}
