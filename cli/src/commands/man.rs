//! `streamer man`: prints or writes the man pages.

use std::{
    fs,
    io::{Write as _, stdout},
    path::PathBuf,
};

use anyhow::Context as _;
use clap::{Args, Command};
use clap_mangen::{Man as Page, generate_to};

/// Print the man page, or write the pages of all commands to a folder
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  streamer man | man -l -
  streamer man --output ~/.local/share/man/man1      then: man streamer, man streamer-send")]
pub struct Man {
    /// Write the pages of `streamer` and of each command to this folder
    #[arg(long, value_name = "FOLDER")]
    output: Option<PathBuf>,
}

impl Man {
    /// Runs the command.
    ///
    /// # Errors
    /// When a page cannot be written.
    pub fn run(self, streamer: Command) -> anyhow::Result<()> {
        let Some(folder) = self.output else {
            let mut page = Vec::new();
            Page::new(streamer.disable_help_subcommand(true)).render(&mut page)?;
            return Ok(stdout().write_all(&page)?);
        };
        fs::create_dir_all(&folder)
            .and_then(|()| generate_to(streamer, &folder))
            .with_context(|| format!("cannot write man pages to {}", folder.display()))?;
        Ok(writeln!(stdout(), "wrote the man pages to {}", folder.display())?)
    }
}
