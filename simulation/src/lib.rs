//! The worker's own code in a simulated AWS, in virtual time.
//!
//! - [`model`]: the numbers of the simulated AWS with their sources, and the settings of a deployment.
//! - [`world`]: SQS, Lambda, API Gateway and DynamoDB around [`Worker::handle`](delivery_worker::Worker::handle).
//! - [`report`] and [`cost`]: the figures of a run, and its bill.
//! - [`scenario`]: the loads, and the tables that they print.
//! - [`plot`] and [`drawing`]: the plots in `docs/images/`.
//!
//! The same seed gives the same output.

pub mod cost;
pub mod drawing;
pub mod histogram;
pub mod model;
pub mod plot;
pub mod published;
pub mod random;
pub mod report;
pub mod scenario;
pub mod table;
pub mod world;
