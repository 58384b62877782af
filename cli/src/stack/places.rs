//! Where stacks keep what they need.

use std::path::{Path, PathBuf};

/// The workspace's folder.
#[must_use]
pub fn workspace() -> &'static Path {
    let cli = Path::new(env!("CARGO_MANIFEST_DIR"));
    cli.parent().unwrap_or(cli)
}

/// What all stacks of this workspace share: `target/streamer/`, and what is asked for in it.
#[must_use]
pub fn shared(path: impl AsRef<Path>) -> PathBuf {
    workspace().join("target/streamer").join(path)
}

/// Where stacks keep their state and their logs, and what is asked for in it: the folder that `STREAMER_STATE`
/// names, else `target/streamer/`.
#[must_use]
pub fn state(path: impl AsRef<Path>) -> PathBuf {
    std::env::var_os("STREAMER_STATE").map_or_else(|| shared(""), PathBuf::from).join(path)
}
