//! The configuration on AWS, and one sentence for each failed call that says what to do.

use std::{fmt::Debug, time::Duration};

use anyhow::{Context as _, anyhow, bail};
use aws_config::SdkConfig;
use aws_credential_types::provider::{ProvideCredentials as _, error::CredentialsError};
use aws_sdk_sqs::error::{ProvideErrorMetadata, SdkError};
use streamer_connections::TableError;
use streamer_environment::{aws, failure::FailureKind};
use streamer_mailbox::MailboxError;
use streamer_producer::SendError;
use tokio::time::timeout;

use crate::screen::sanitize;

/// Time in which Region and credentials have to be found. Outside of EC2, the instance metadata service is the last
/// place where the SDK looks, and nothing answers there.
const LOAD_TIMEOUT: Duration = Duration::from_secs(10);

/// Loads the configuration as the AWS SDKs do, and checks that it has a Region and credentials.
///
/// # Errors
/// When there is no Region, or no credentials. The error says where to set them.
pub async fn load() -> anyhow::Result<SdkConfig> {
    const NO_REGION: &str =
        "no AWS Region is set: set the variable AWS_REGION, or `region` in your AWS profile";
    let config = timeout(LOAD_TIMEOUT, aws::load()).await.context(NO_REGION)?;
    config.region().context(NO_REGION)?;
    let provider = config.credentials_provider().with_context(|| no_credentials(None))?;
    match timeout(LOAD_TIMEOUT, provider.provide_credentials()).await {
        Ok(Ok(_)) => Ok(config),
        Ok(Err(error)) => bail!(no_credentials(Some(&error))),
        Err(_) => bail!(no_credentials(None)),
    }
}

fn no_credentials(error: Option<&CredentialsError>) -> String {
    let profile = std::env::var("AWS_PROFILE").ok().filter(|profile| !profile.is_empty());
    describe_missing(error, profile.as_deref())
}

/// Returns why there are no credentials. The error's own text may quote the output of a credential process, so it is
/// left out.
fn describe_missing(error: Option<&CredentialsError>, profile: Option<&str>) -> String {
    match (error, profile) {
        (Some(CredentialsError::ProviderError(_) | CredentialsError::Unhandled(_)), _) => {
            "the AWS credentials could not be loaded: check the profile, process or service that provides them \
             with `aws sts get-caller-identity`"
                .to_owned()
        }
        (_, Some(profile)) => format!(
            "the AWS profile {} has no credentials that can be used: check AWS_PROFILE and ~/.aws/config, or, for \
             single sign-on, run `eval \"$(aws configure export-credentials --format env)\"`",
            sanitize(profile)
        ),
        (Some(CredentialsError::InvalidConfiguration(_)), None) => {
            "the AWS configuration cannot be used: check ~/.aws/config, or, for single sign-on, run \
             `eval \"$(aws configure export-credentials --format env)\"`"
                .to_owned()
        }
        _ => "no AWS credentials were found: set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
            .to_owned(),
    }
}

/// A call to AWS, as its error describes it.
#[derive(Debug, Clone, Copy)]
pub struct Call<'a> {
    /// The action, as IAM names it.
    pub action: &'a str,
    /// The resource.
    pub resource: &'a str,
}

impl Call<'_> {
    /// Returns the error of a failed call.
    #[must_use]
    pub fn failed<E, R>(&self, error: &SdkError<E, R>) -> anyhow::Error
    where
        E: ProvideErrorMetadata + std::error::Error + 'static,
        R: Debug + 'static,
    {
        self.explain(FailureKind::of(error), &aws::cause(error))
    }

    /// Returns an error that says what happened and what to do.
    #[must_use]
    pub fn explain(&self, kind: FailureKind, cause: &str) -> anyhow::Error {
        let Self { action, resource } = self;
        match kind {
            FailureKind::NoCredentials => anyhow!("{}", no_credentials(None)),
            FailureKind::Expired => {
                anyhow!("the AWS credentials have expired: sign in again, then repeat the command")
            }
            FailureKind::NotAccepted => anyhow!(
                "AWS does not accept the credentials: check AWS_PROFILE, or AWS_ACCESS_KEY_ID, \
                 AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN"
            ),
            FailureKind::Denied => anyhow!(
                "the AWS credentials do not permit {action} on {resource}: allow it in the role's or user's policy"
            ),
            FailureKind::NotFound => {
                anyhow!("there is no {resource}: check the name, the Region and the account")
            }
            FailureKind::Throttled => {
                anyhow!("AWS limits the rate of {action} on {resource}: repeat the command later")
            }
            FailureKind::Unreachable => anyhow!(
                "cannot reach {} for {resource}: check the network, the Region and AWS_ENDPOINT_URL ({})",
                service(action),
                sanitize(cause)
            ),
            FailureKind::Other => anyhow!("{action} on {resource} failed: {}", sanitize(cause)),
        }
    }
}

/// Returns the name of the service to which an action belongs.
fn service(action: &str) -> &str {
    match action.split(':').next() {
        Some("sqs") => "SQS",
        Some("dynamodb") => "DynamoDB",
        Some("lambda") => "Lambda",
        Some("cloudwatch") => "CloudWatch",
        Some("logs") => "CloudWatch Logs",
        Some("execute-api") => "API Gateway",
        _ => "AWS",
    }
}

/// Returns the error of an operation on the connection table.
#[must_use]
pub fn table_failed(error: &TableError) -> anyhow::Error {
    match error {
        TableError::Call { operation, table, kind, cause } => {
            let (action, resource) = (format!("dynamodb:{operation}"), format!("connection table {table}"));
            Call { action: &action, resource: &resource }.explain(*kind, cause)
        }
        TableError::Row(error) => anyhow!("{error}"),
    }
}

/// Returns the error of an operation on the mailbox.
#[must_use]
pub fn mailbox_failed(error: &MailboxError) -> anyhow::Error {
    match error {
        MailboxError::Table(streamer_mailbox::TableError::Call {
            table,
            kind: FailureKind::NotFound,
            ..
        }) => anyhow!(
            "there is no mailbox table {table}: check the name, the Region and the account, or deploy it with \
             `mailbox = true` in Terraform"
        ),
        MailboxError::Table(streamer_mailbox::TableError::Call { operation, table, kind, cause }) => {
            let (action, resource) = (format!("dynamodb:{operation}"), format!("mailbox table {table}"));
            Call { action: &action, resource: &resource }.explain(*kind, cause)
        }
        error => anyhow!("{error}"),
    }
}

/// Returns the error of a message that is not on the queue at `url`.
#[must_use]
pub fn send_failed(error: SendError, url: &str) -> anyhow::Error {
    // The cause of a timeout is the last error, as `CODE: MESSAGE` if SQS answered.
    let code = match &error {
        SendError::Refused { code, .. } => code.as_str(),
        SendError::TimedOut { cause, .. } => cause.split(':').next().unwrap_or_default(),
        _ => return error.into(),
    };
    let (kind, resource) = (FailureKind::of_code(code), format!("queue {url}"));
    if kind.is_transient() {
        return error.into();
    }
    Call { action: "sqs:SendMessage", resource: &resource }.explain(kind, "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_credentials_never_quote_their_source() {
        let errors = [
            CredentialsError::not_loaded("secret"),
            CredentialsError::provider_error("secret"),
            CredentialsError::invalid_configuration("secret"),
            CredentialsError::provider_timed_out(LOAD_TIMEOUT),
            CredentialsError::unhandled("secret"),
        ];
        let expected =
            ["set AWS_PROFILE", "get-caller-identity", "~/.aws/config", "set AWS_PROFILE", "get-caller"];
        for (error, expected) in errors.iter().zip(expected) {
            let text = describe_missing(Some(error), None);
            assert!(text.contains(expected) && !text.contains("secret"), "{text}");
        }
        let text = describe_missing(Some(&errors[0]), Some("work"));
        assert!(text.starts_with("the AWS profile work has no credentials"), "{text}");
    }

    #[test]
    fn each_kind_has_one_sentence() {
        let call = Call { action: "sqs:ReceiveMessage", resource: "queue https://sqs.example.com/q" };
        let text = |kind| call.explain(kind, "Secret: wJalrXUtnFEMI").to_string();
        let sentences = [
            (FailureKind::Expired, "the AWS credentials have expired: sign in again"),
            (FailureKind::NotAccepted, "AWS does not accept the credentials: check AWS_PROFILE"),
            (
                FailureKind::Denied,
                "do not permit sqs:ReceiveMessage on queue https://sqs.example.com/q: allow it",
            ),
            (FailureKind::NotFound, "there is no queue https://sqs.example.com/q: check the name"),
            (FailureKind::Throttled, "AWS limits the rate of sqs:ReceiveMessage on queue"),
        ];
        for (kind, sentence) in sentences {
            let text = text(kind);
            assert!(text.contains(sentence) && !text.contains("Secret"), "{text}");
        }
        assert!(text(FailureKind::Unreachable).starts_with("cannot reach SQS for queue https://"));
    }

    #[test]
    fn missing_mailbox_table_names_setting() {
        let text = |kind| {
            let (operation, table) = ("GetItem", "streamer_mailbox".to_owned());
            let error =
                streamer_mailbox::TableError::Call { operation, table, kind, cause: "Secret".to_owned() };
            mailbox_failed(&error.into()).to_string()
        };
        let missing = text(FailureKind::NotFound);
        assert!(missing.starts_with("there is no mailbox table streamer_mailbox: "), "{missing}");
        assert!(missing.ends_with("deploy it with `mailbox = true` in Terraform"), "{missing}");
        let denied = text(FailureKind::Denied);
        assert!(
            denied.contains("do not permit dynamodb:GetItem on mailbox table streamer_mailbox"),
            "{denied}"
        );
    }

    #[test]
    fn send_errors_name_the_remedy() {
        let url = "https://sqs.example.com/q";
        let refused = |code: &str| SendError::Refused { code: code.to_owned(), message: "detail".to_owned() };
        let text = |error| send_failed(error, url).to_string();
        assert!(text(refused("AccessDenied")).contains("do not permit sqs:SendMessage on queue https://"));
        assert!(text(refused("QueueDoesNotExist")).contains("there is no queue https://"));
        let late = |cause: &str| SendError::TimedOut { timeout: LOAD_TIMEOUT, cause: cause.to_owned() };
        assert!(text(late("ExpiredToken: The security token is expired")).contains("have expired"));
        assert!(text(late("no connection: refused")).contains("did not confirm the message within 10s"));
        assert!(text(refused("InvalidMessageContents")).contains("the queue refused the message"));
    }
}
