//! Why a call to AWS failed, by its remedy.

use std::error::Error;

use aws_credential_types::provider::error::CredentialsError;
use aws_smithy_runtime_api::client::result::SdkError;
use aws_smithy_types::error::metadata::ProvideErrorMetadata;

/// Why a call failed, by its remedy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureKind {
    /// No credentials could be loaded.
    NoCredentials,
    /// The credentials have expired.
    Expired,
    /// AWS does not accept the credentials.
    NotAccepted,
    /// The credentials do not permit the call.
    Denied,
    /// The resource does not exist.
    NotFound,
    /// The service limits the rate of calls.
    Throttled,
    /// There was no connection, or no answer in time.
    Unreachable,
    /// Anything else.
    Other,
}

impl FailureKind {
    /// Returns the kind of a failed call.
    #[must_use]
    pub fn of<E, R>(error: &SdkError<E, R>) -> Self
    where
        E: ProvideErrorMetadata + Error + 'static,
        R: std::fmt::Debug + 'static,
    {
        if let Some(code) = error.as_service_error().and_then(ProvideErrorMetadata::code) {
            return Self::of_code(code);
        }
        if has_source::<CredentialsError>(error) {
            return Self::NoCredentials;
        }
        match error {
            SdkError::DispatchFailure(_) | SdkError::TimeoutError(_) => Self::Unreachable,
            _ => Self::Other,
        }
    }

    /// Returns the kind of a service's error code, such as `AWS.SimpleQueueService.NonExistentQueue`.
    ///
    /// Source: <https://docs.aws.amazon.com/IAM/latest/APIReference/CommonErrors.html>, and the services' own codes.
    #[must_use]
    pub fn of_code(code: &str) -> Self {
        match code.rsplit(['.', '#']).next().unwrap_or(code) {
            "ExpiredToken" | "ExpiredTokenException" | "RequestExpired" | "TokenRefreshRequired" => {
                Self::Expired
            }
            "AuthFailure"
            | "IncompleteSignature"
            | "IncompleteSignatureException"
            | "InvalidAccessKeyId"
            | "InvalidClientTokenId"
            | "InvalidSecurity"
            | "InvalidSignatureException"
            | "InvalidToken"
            | "MissingAuthenticationToken"
            | "MissingAuthenticationTokenException"
            | "SignatureDoesNotMatch"
            | "UnrecognizedClientException" => Self::NotAccepted,
            "AccessDenied"
            | "AccessDeniedException"
            | "ForbiddenException"
            | "NotAuthorized"
            | "UnauthorizedOperation" => Self::Denied,
            // SQS answers `InvalidAddress` to a URL that is not one of its queues.
            "InvalidAddress" | "NonExistentQueue" | "QueueDoesNotExist" | "ResourceNotFoundException" => {
                Self::NotFound
            }
            "ProvisionedThroughputExceededException"
            | "RequestLimitExceeded"
            | "RequestThrottled"
            | "Throttling"
            | "ThrottlingException"
            | "TooManyRequestsException" => Self::Throttled,
            _ => Self::Other,
        }
    }

    /// Returns what a function's operator can do about a failed `operation` on the DynamoDB table that the environment
    /// variable `variable` names.
    #[must_use]
    pub fn remedy_for_table(self, variable: &str, operation: &str) -> String {
        match self {
            Self::Throttled => {
                "DynamoDB limits the rate of calls: if that lasts, raise the maximum or provisioned capacity of the \
                 table and of its indexes"
                    .to_owned()
            }
            Self::Unreachable => "check the function's network and the health of DynamoDB".to_owned(),
            Self::Other => {
                format!("check {variable} and the table's indexes and, if that lasts, the health of DynamoDB")
            }
            Self::NoCredentials | Self::Expired | Self::NotAccepted | Self::Denied | Self::NotFound => format!("check {variable}, and that the role may call dynamodb:{operation}"),
        }
    }

    /// Returns whether the same call with the same credentials can succeed later.
    #[must_use]
    pub fn is_transient(self) -> bool {
        matches!(self, Self::Throttled | Self::Unreachable | Self::Other)
    }
}

/// Returns whether an error or one of its sources is an `S`.
fn has_source<S: Error + 'static>(error: &(dyn Error + 'static)) -> bool {
    error.is::<S>() || error.source().is_some_and(has_source::<S>)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_have_kinds_despite_prefixes() {
        let kinds = [
            ("AWS.SimpleQueueService.NonExistentQueue", FailureKind::NotFound),
            ("com.amazonaws.sqs#QueueDoesNotExist", FailureKind::NotFound),
            ("ResourceNotFoundException", FailureKind::NotFound),
            ("KMS.AccessDeniedException", FailureKind::Denied),
            ("ExpiredTokenException", FailureKind::Expired),
            ("UnrecognizedClientException", FailureKind::NotAccepted),
            ("ThrottlingException", FailureKind::Throttled),
            ("ProvisionedThroughputExceededException", FailureKind::Throttled),
            ("RequestLimitExceeded", FailureKind::Throttled),
            ("InternalError", FailureKind::Other),
        ];
        for (code, kind) in kinds {
            assert_eq!(FailureKind::of_code(code), kind, "{code}");
        }
    }

    #[test]
    fn throttled_call_blames_no_setting() {
        let remedy = |kind: FailureKind| kind.remedy_for_table("CONNECTIONS_TABLE", "Query");
        assert!(remedy(FailureKind::Throttled).contains("capacity of the table and of its indexes"));
        assert!(remedy(FailureKind::Unreachable).contains("the function's network"));
        let denied = "check CONNECTIONS_TABLE, and that the role may call dynamodb:Query";
        assert_eq!(
            (remedy(FailureKind::Denied), remedy(FailureKind::NotFound)),
            (denied.into(), denied.into())
        );
    }
}
