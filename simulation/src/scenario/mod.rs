//! The loads.

pub mod loads;
