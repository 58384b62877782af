//! The file of messages that were not sent.

use std::{
    fs::{self, File, OpenOptions},
    io::{ErrorKind, Write as _},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, ensure};
use streamer_producer::Message;

/// A file that takes the messages that were not sent, one body a line. `send --retry` reads it.
#[derive(Debug)]
pub(super) struct UnsentFile {
    path: PathBuf,
    file: File,
    is_new: bool,
    is_empty: bool,
}

impl UnsentFile {
    /// Opens the file before anything is sent.
    ///
    /// # Errors
    /// When the file cannot be written, or holds messages of an earlier run.
    pub(super) fn open(path: &Path) -> anyhow::Result<Self> {
        let unwritable = || format!("cannot write {}", path.display());
        let (file, is_new) = match OpenOptions::new().write(true).create_new(true).open(path) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                let file = OpenOptions::new().append(true).open(path).with_context(unwritable)?;
                ensure!(
                    file.metadata().with_context(unwritable)?.len() == 0,
                    "{0} holds messages of an earlier run: send them with `streamer send --retry {0}`, \
                     or name another file",
                    path.display()
                );
                (file, false)
            }
            file => (file.with_context(unwritable)?, true),
        };
        Ok(Self { path: path.to_owned(), file, is_new, is_empty: true })
    }

    /// Writes a message, at once, so that it survives the end of this process.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub(super) fn write(&mut self, message: &Message) -> anyhow::Result<()> {
        let mut lines = message.encode().join("\n");
        lines.push('\n');
        self.is_empty = false;
        self.file
            .write_all(lines.as_bytes())
            .with_context(|| format!("cannot write message {} to {}", message.id(), self.path.display()))
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Removes the file if this command created it and wrote nothing.
    pub(super) fn close(self) {
        if self.is_new && self.is_empty {
            _ = fs::remove_file(&self.path);
        }
    }
}
