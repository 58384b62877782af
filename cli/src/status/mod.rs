//! Reads the state of a deployment from AWS's APIs.
//!
//! - [`Deployment`]: the deployment to read. [`read`]: reads it.
//! - [`DeploymentStatus`]: the result. [`lines`](DeploymentStatus::lines) formats it for people; as JSON it is for
//!   programs.

mod cloudwatch;
mod read;
mod snapshot;
mod table;

pub use read::{Deployment, read};
pub use snapshot::DeploymentStatus;
