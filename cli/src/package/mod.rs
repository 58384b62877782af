//! The Lambda functions' deployment packages: zips that are byte-identical on every machine that packages a commit.
//!
//! - [`project`]: finds a router's workspace and binary.
//! - [`build`]: compiles the binaries, for this machine's architecture or across, without this machine's paths.
//! - [`inspect`]: rejects binaries that would not run on Amazon Linux 2023, or that hold a path of this machine.
//! - [`archive`]: builds the zip. [`start`]: starts it once, against a stub of the Runtime API ([`runtime_api`]).

pub mod archive;
pub mod build;
pub mod inspect;
pub mod project;
pub mod runtime_api;
pub mod start;

use std::fmt;

use clap::ValueEnum;

/// A processor architecture, with Lambda's names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Architecture {
    /// Graviton.
    #[value(name = "arm64")]
    Arm64,
    /// Intel and AMD.
    #[value(name = "x86_64")]
    X86_64,
}

impl Architecture {
    /// The architecture of this machine.
    pub const HERE: Self = if cfg!(target_arch = "aarch64") { Self::Arm64 } else { Self::X86_64 };

    /// Returns the target triple.
    #[must_use]
    pub fn target(self) -> &'static str {
        match self {
            Self::Arm64 => "aarch64-unknown-linux-gnu",
            Self::X86_64 => "x86_64-unknown-linux-gnu",
        }
    }
}

impl fmt::Display for Architecture {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Arm64 => "arm64",
            Self::X86_64 => "x86_64",
        })
    }
}
