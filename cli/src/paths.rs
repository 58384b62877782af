//! The folders of the workspace that commands and tests use.
//!
//! They are found at run time: a copy of the workspace has the path of the original in its binaries.

use std::{
    env, fs,
    path::{Path, PathBuf, absolute},
    sync::OnceLock,
};

use anyhow::Context as _;

/// Returns the workspace's folder. It is the first that is found:
///
/// 1. above the package whose command cargo runs (`cargo run`, `cargo test`),
/// 2. above this program, which cargo writes to the workspace's `target`,
/// 3. above the current folder.
///
/// Returns the current folder if there is none, for which callers check with [`require_workspace`] before.
#[must_use]
pub fn workspace() -> &'static Path {
    found().unwrap_or(Path::new("."))
}

/// Checks that there is a workspace.
///
/// # Errors
/// When there is none.
pub fn require_workspace() -> anyhow::Result<()> {
    found().map(|_| ()).context(
        "there is no checkout of Streamer above this program or the current folder: run the command in a checkout, \
         or from its `target` folder",
    )
}

fn found() -> Option<&'static Path> {
    static WORKSPACE: OnceLock<Option<PathBuf>> = OnceLock::new();
    let found = WORKSPACE.get_or_init(|| {
        let package = env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from);
        let program = env::current_exe().and_then(fs::canonicalize);
        let found = find([package, program.ok(), env::current_dir().ok()])?;
        // A stack's processes are found by this path, so it has one spelling.
        Some(fs::canonicalize(&found).unwrap_or(found))
    });
    found.as_deref()
}

/// Returns the first workspace above one of the `places`, in their order.
fn find(places: impl IntoIterator<Item = Option<PathBuf>>) -> Option<PathBuf> {
    let mut places = places.into_iter().flatten();
    places.find_map(|place| place.ancestors().find(|folder| is_workspace(folder)).map(Path::to_owned))
}

/// Returns whether `folder` is a workspace with this package.
fn is_workspace(folder: &Path) -> bool {
    let contains = |file: &str, line: &str| {
        fs::read_to_string(folder.join(file)).is_ok_and(|text| text.lines().any(|found| found.trim() == line))
    };
    contains("Cargo.toml", "[workspace]")
        && contains("cli/Cargo.toml", concat!("name = \"", env!("CARGO_PKG_NAME"), "\""))
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
    state_variable().unwrap_or_else(|| shared("")).join(path)
}

/// Checks that there is a folder for stacks' state.
///
/// # Errors
/// When there is no workspace, and `STREAMER_STATE` is not set.
pub fn require_state() -> anyhow::Result<()> {
    state_variable().map_or_else(require_workspace, |_| Ok(()))
}

fn state_variable() -> Option<PathBuf> {
    let folder = env::var_os("STREAMER_STATE").filter(|folder| !folder.is_empty())?;
    Some(absolute(&folder).unwrap_or_else(|_| folder.into()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    /// Creates a folder with the marks of a workspace.
    fn checkout(name: &str) -> PathBuf {
        let folder = env::temp_dir().join(format!("streamer-{}", std::process::id())).join(name);
        fs::create_dir_all(folder.join("cli")).unwrap();
        fs::write(folder.join("Cargo.toml"), "[workspace]\n").unwrap();
        fs::write(folder.join("cli/Cargo.toml"), "[package]\nname = \"streamer-cli\"\n").unwrap();
        folder
    }

    #[test]
    fn copied_checkout_uses_its_own_folders() {
        let (original, copy) = (checkout("original"), checkout("a copy é"));
        let program = |folder: &Path| Some(folder.join("target/debug/streamer"));
        assert_eq!(find([None, program(&copy), Some(original.clone())]), Some(copy.clone()));
        assert_eq!(find([None, program(&original), Some(copy.clone())]), Some(original.clone()));
        // With a shared target folder, the package that cargo runs tells.
        assert_eq!(find([Some(copy.join("cli")), program(&original), None]), Some(copy.clone()));
        // A package of the user's, and an installed program: only the current folder is left.
        let outside = || Some(PathBuf::from("/usr/local/bin/streamer"));
        assert_eq!(find([outside(), outside(), Some(copy.join("docs"))]), Some(copy));
        assert_eq!(find([None, outside(), Some("/".into())]), None);
        fs::remove_dir_all(original.parent().unwrap()).unwrap();
    }

    #[test]
    fn this_workspace_is_found() {
        let package = fs::canonicalize(env!("CARGO_MANIFEST_DIR")).unwrap();
        assert_eq!(workspace(), package.parent().unwrap());
    }
}
