//! The command `streamer`, and the local stack that the command and the tests run.
//!
//! Each module uses only modules below it:
//!
//! - [`commands`]: one file per command.
//! - [`status`]: reads the state of a deployment. [`dead_letters`]: reads and re-sends dead letters.
//!   [`receipts`]: reads and awaits receipts.
//! - [`doctor`]: examines a deployment.
//! - [`stack`]: installs and starts an emulator of AWS, and deploys the Lambda functions to it.
//! - [`package`]: builds the zips that Lambda runs.
//! - [`spec`]: the resources that `infra/stack.json` describes. [`paths`]: the workspace's folders.
//!   [`queue`]: messages of a queue, and their number. [`aws`]: the configuration on AWS, and errors of its services.
//!   [`arguments`]: the command line. [`screen`] and [`paint`]: output for people.
//!   [`layout`]: lines and tables that fit a terminal. [`log_line`]: log lines for people. [`private_key`]: keys that
//!   sign tokens.
//!   [`shutdown`]: Ctrl-C and SIGTERM. [`exit`]: exit codes.

pub mod arguments;
mod audience;
pub mod aws;
mod cargo;
pub mod commands;
pub mod dead_letters;
pub mod doctor;
pub mod exit;
pub mod layout;
mod log_events;
pub mod log_line;
pub mod package;
pub mod paint;
pub mod paths;
pub mod private_key;
pub mod queue;
pub mod receipts;
mod recent;
pub mod screen;
pub mod shutdown;
pub mod spec;
pub mod stack;
pub mod status;
