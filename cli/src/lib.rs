//! The command `streamer`, and the stack on this machine that it and the tests run.
//!
//! - [`stack`]: installs and starts an emulator of AWS, and deploys our real Lambda binaries to it.
//! - [`package`]: the Lambdas as AWS takes them.
//! - [`dead_letters`]: what is in the dead-letter queue, and the way back.
//! - [`overview`]: a deployment at a glance. [`queue`]: how full a queue is.
//! - [`commands`]: a file for each command. [`screen`]: what a person sees of them. [`interrupt`]: how a person
//!   ends them.

pub mod commands;
pub mod dead_letters;
pub mod interrupt;
pub mod overview;
pub mod package;
pub mod queue;
pub mod screen;
pub mod stack;
