//! Where the stack keeps what it needs: everything under `target/streamer/`.

use std::path::{Path, PathBuf};

/// The workspace's folder.
#[must_use]
pub fn workspace() -> &'static Path {
    let cli = Path::new(env!("CARGO_MANIFEST_DIR"));
    cli.parent().unwrap_or(cli)
}

/// `target/streamer/` and what is asked for in it.
#[must_use]
pub fn under(path: impl AsRef<Path>) -> PathBuf {
    workspace().join("target/streamer").join(path)
}
