//! The commands of `streamer`, a file for each.

pub mod demo;
