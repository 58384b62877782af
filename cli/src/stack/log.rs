//! The emulator's log file, which is also the stack's lock, and names the stack's owner.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{BufRead as _, BufReader, ErrorKind, Write as _},
    path::{Path, PathBuf},
};

use anyhow::Context as _;

/// A log file that is locked while any process writes to it. The emulator and its supervisor inherit the lock with the
/// file, and the kernel releases it when the last of them has ended, even by SIGKILL.
#[derive(Debug)]
pub struct Log {
    file: File,
    path: PathBuf,
    /// The first line.
    header: Option<String>,
}

impl Log {
    /// Opens and locks the log at `path`. Returns `None` while a stack writes to it.
    ///
    /// # Errors
    /// When the file cannot be opened or locked.
    pub fn try_lock(path: PathBuf) -> anyhow::Result<Option<Self>> {
        path.parent().map_or(Ok(()), fs::create_dir_all)?;
        let file = OpenOptions::new().create(true).append(true).open(&path);
        let file = file.with_context(|| format!("cannot open {}", path.display()))?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Self { file, path, header: None })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => {
                Err(error).with_context(|| format!("cannot lock {}", path.display()))
            }
        }
    }

    /// Returns whether a stack writes to the log at `path`. The check takes a shared lock for a moment.
    ///
    /// # Errors
    /// When the file cannot be opened or locked.
    pub fn is_locked(path: &Path) -> anyhow::Result<bool> {
        match File::open(path).and_then(|file| match file.try_lock_shared() {
            Ok(()) => Ok(false),
            Err(TryLockError::WouldBlock) => Ok(true),
            Err(TryLockError::Error(error)) => Err(error),
        }) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            locked => locked.with_context(|| format!("cannot lock {}", path.display())),
        }
    }

    /// Returns the log's text. Empty if it cannot be read.
    #[must_use]
    pub fn read(&self) -> String {
        fs::read_to_string(&self.path).unwrap_or_default()
    }

    /// Truncates the log, and starts it with this line from now on.
    pub(super) fn set_header(&mut self, header: String) -> std::io::Result<()> {
        self.header = Some(header);
        self.truncate().map(drop)
    }

    /// Returns the first line of the log at `path`.
    pub(super) fn first_line(path: &Path) -> Option<String> {
        BufReader::new(File::open(path).ok()?).lines().next()?.ok()
    }

    /// Truncates the log and returns a handle for a process that writes to it and shares the lock.
    pub(super) fn truncate(&self) -> std::io::Result<File> {
        self.file.set_len(0)?;
        if let Some(header) = &self.header {
            writeln!(&self.file, "{header}")?;
        }
        self.file.try_clone()
    }
}
