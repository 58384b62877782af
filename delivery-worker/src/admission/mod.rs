//! Admission: decides which posts may begin, and when.
//!
//! [`Admission`] combines three state machines, the [circuit breaker](breaker), the [concurrency
//! limit](concurrency) and the [pacer]. They are pure: callers pass the time, and nothing does I/O. [`Gate`] is the
//! async shell in which lanes wait for a [`Permit`]. The state lives as long as the execution environment, so its
//! [clock](streamer_gateway::clock) runs on while the environment is frozen.

pub mod breaker;
pub mod concurrency;
mod decision;
mod gate;
pub mod in_flight;
pub mod pacer;
mod samples;
mod window;

pub use self::{
    breaker::OpenCircuit,
    decision::{Admission, Admitted, Decision, Stats},
    gate::{Gate, Permit},
};
