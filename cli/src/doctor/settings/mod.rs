//! Compares a deployment's settings with the rules of the Terraform module.
//!
//! Each rule is a function from the values that AWS answered to a [`Check`]. A resource that cannot be read gives one
//! skipped check, which names the action that the credentials lack.
//!
//! - `queue`: the outbound queue. `parts`, `dead_letters`, `receipts`: the others. `policy`: queue policies.
//! - `mapping`: the event source mappings. `functions`: the functions. `variables`: their environment variables.
//! - `table`: the connection table and the mailbox table. `api`: the WebSocket API.
//! - `clock`: this machine's clock. `quotas`: the account's quotas.
//! - `read`: bounded reads.

mod api;
pub mod clock;
mod dead_letters;
mod functions;
mod mapping;
mod parts;
mod policy;
mod queue;
mod quotas;
mod read;
mod receipts;
mod rule;
mod table;
mod variables;

use std::time::SystemTime;

use aws_config::SdkConfig;

use self::{
    mapping::{Limit, Mappings},
    read::{Unread, read},
    rule::Rule,
};
use super::{Check, Subject, Verdict};

/// A summary of the checks, for the plan that is printed before them.
pub const PLAN: &str = "Reads the settings of queues, event source mappings, functions, tables and WebSocket API, the clock and \
                        Lambda's quota. It changes nothing.";

/// Runs the checks, each through `done` when it ends.
pub async fn examine(subject: &Subject, done: &mut impl FnMut(Check)) {
    done(clock::check(&subject.config, SystemTime::now).await);
    let sqs = aws_sdk_sqs::Client::new(&subject.config);
    let lambda = aws_sdk_lambda::Client::new(&subject.config);
    let outbound = queue::read_variable(&sqs, subject, "QUEUE_URL").await;
    let mappings =
        Mappings::read(&lambda, subject, outbound.as_ref().ok().and_then(queue::Attributes::arn)).await;
    let mapping = mappings.as_ref().ok().and_then(Mappings::of_worker);
    let invocations = mappings.as_ref().map_or(Limit::Unknown, Mappings::limit);
    queue::checks(subject, outbound.as_ref(), mapping).into_iter().for_each(&mut *done);
    let parts = parts::read(&sqs, subject).await;
    parts::checks(subject, parts.as_ref(), mappings.as_ref()).into_iter().for_each(&mut *done);
    let letters = queue::read_variable(&sqs, subject, "DEAD_LETTER_QUEUE_URL").await;
    let parts = parts.as_ref().and_then(|parts| parts.as_ref().ok());
    dead_letters::checks(subject, letters.as_ref(), outbound.as_ref().ok(), parts)
        .into_iter()
        .for_each(&mut *done);
    receipts::examine(&sqs, subject, done).await;
    mapping::checks(subject, mappings.as_ref()).into_iter().for_each(&mut *done);
    let reserved = functions::examine(&lambda, subject, invocations, done).await;
    table::examine(subject, done).await;
    api::examine(subject, done).await;
    quotas::examine(&lambda, subject, invocations, reserved, done).await;
}

/// Runs the check of the clock, and reports that the functions' configurations cannot be read. A clock that is off makes
/// every call fail.
pub async fn unread(config: &SdkConfig, error: &anyhow::Error, done: &mut impl FnMut(Check)) {
    let clock = clock::check(config, SystemTime::now).await;
    let remedy = match clock.verdict {
        Verdict::Failed => "synchronize this machine's clock first, and run the command again",
        _ => "correct the cause that the line names, and run the command again",
    };
    done(clock);
    let expected = "Lambda returns the configurations of the functions";
    done(Check::failed("functions.read", expected, format!("{error:#}"), remedy));
}
