//! The folders of the workspace that commands and tests use.

use std::path::{Path, PathBuf};

/// Returns the workspace's folder.
#[must_use]
pub fn workspace() -> &'static Path {
    let cli = Path::new(env!("CARGO_MANIFEST_DIR"));
    cli.parent().unwrap_or(cli)
}

/// Returns `path` in `target/streamer/`, which all stacks of this workspace share.
#[must_use]
pub fn shared(path: impl AsRef<Path>) -> PathBuf {
    workspace().join("target/streamer").join(path)
}

/// Returns `path` in the folder for stacks' state and logs: the folder that `STREAMER_STATE` names, or else
/// `target/streamer/`.
#[must_use]
pub fn state(path: impl AsRef<Path>) -> PathBuf {
    std::env::var_os("STREAMER_STATE").map_or_else(|| shared(""), PathBuf::from).join(path)
}
