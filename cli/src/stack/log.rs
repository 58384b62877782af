//! The emulator's log, which is also the stack's lock.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::ErrorKind,
    path::{Path, PathBuf},
};

use anyhow::Context as _;

/// A log file that is locked as long as any process writes to it: the emulator and its supervisor inherit the
/// lock with the file, and the kernel releases it when the last of them has ended, however it ended.
#[derive(Debug)]
pub struct Log {
    file: File,
    path: PathBuf,
}

impl Log {
    /// The log at `path`, or `None` while a stack writes to it.
    ///
    /// # Errors
    /// When the file cannot be opened or locked.
    pub fn claim(path: PathBuf) -> anyhow::Result<Option<Self>> {
        path.parent().map_or(Ok(()), fs::create_dir_all)?;
        let file = OpenOptions::new().create(true).append(true).open(&path);
        let file = file.with_context(|| format!("cannot open {}", path.display()))?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Self { file, path })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => {
                Err(error).with_context(|| format!("cannot lock {}", path.display()))
            }
        }
    }

    /// Whether a stack writes to the log at `path`. To look takes a lock that others may take too, for a moment.
    ///
    /// # Errors
    /// When the file cannot be opened or locked.
    pub fn is_claimed(path: &Path) -> anyhow::Result<bool> {
        match File::open(path).and_then(|file| match file.try_lock_shared() {
            Ok(()) => Ok(false),
            Err(TryLockError::WouldBlock) => Ok(true),
            Err(TryLockError::Error(error)) => Err(error),
        }) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            claimed => claimed.with_context(|| format!("cannot lock {}", path.display())),
        }
    }

    /// What it says.
    #[must_use]
    pub fn read(&self) -> String {
        fs::read_to_string(&self.path).unwrap_or_default()
    }

    /// Empties it, and opens it for a process that is to write to it, and to hold its lock.
    pub(super) fn restart(&self) -> std::io::Result<File> {
        self.file.set_len(0)?;
        self.file.try_clone()
    }
}
