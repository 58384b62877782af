//! `streamer doctor` on deployments that work, and on deployments that are broken in one way each.

mod live;
mod settings;
