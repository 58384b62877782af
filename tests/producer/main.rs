//! The producer against scripted queues, and against SQS as others have built it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod batching;
mod localstack;
mod progress;
mod redrive;
mod sending;
