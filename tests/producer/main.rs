//! The producer against scripted queues and against LocalStack's SQS.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod batching;
mod localstack;
mod progress;
mod receipts;
mod redrive;
mod redrive_totals;
mod sending;
mod vectors;
