//! Examines a deployment: connects to it as a client, delivers messages through it, and compares its settings with the
//! rules of the Terraform module.
//!
//! - [`Report`]: the checks and their results, for people and as JSON.
//! - [`Subject`]: the deployment, as its functions' configurations describe it.
//! - [`settings`]: reads queues, functions, the event source mapping, tables, policies, the clock and quotas.
//! - [`live`]: connects, delivers and posts.

pub mod live;
mod report;
pub mod settings;
mod subject;

pub use report::{Check, Report, Verdict};
pub use subject::{Function, Subject};
