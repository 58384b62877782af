//! The scenarios: loads, and the tables that they print.

pub mod against;
pub mod emulator;
pub mod herd;
pub mod kept;
pub mod loads;
pub mod outage;
pub mod replies;
pub mod shared;
pub mod sizes;
pub mod tuning;
