//! `streamer completions`: prints a shell's completions.

use std::io::{Write as _, stdout};

use clap::{Args, Command};
use clap_complete::{Shell, generate};

/// Print the completions of a shell
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  streamer completions bash > ~/.local/share/bash-completion/completions/streamer
  streamer completions zsh > \"${fpath[1]}/_streamer\"
  streamer completions fish > ~/.config/fish/completions/streamer.fish")]
pub struct Completions {
    /// The shell
    shell: Shell,
}

impl Completions {
    /// Runs the command.
    ///
    /// # Errors
    /// When the output cannot be written.
    pub fn run(self, mut streamer: Command) -> anyhow::Result<()> {
        // `generate` panics if it cannot write, so it writes to memory.
        let (mut script, name) = (Vec::new(), streamer.get_name().to_owned());
        generate(self.shell, &mut streamer, name, &mut script);
        Ok(stdout().write_all(&script)?)
    }
}
