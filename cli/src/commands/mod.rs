//! The commands of `streamer`, a file for each.

pub mod demo;
pub mod down;
pub mod logs;
pub mod send;
pub mod set_up;
pub mod target;
pub mod token;
pub mod up;
