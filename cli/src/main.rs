//! `streamer`, the command.

use std::process::ExitCode;

use clap::Parser;
use streamer_cli::commands::demo;

/// Streamer on this machine: without a command, the demo of the whole AWS path.
#[derive(Parser)]
#[command(version, about)]
struct Arguments {
    /// Leaves the demo's stack up until Ctrl-C, and says how to use it.
    #[arg(long)]
    keep: bool,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let Arguments { keep } = Arguments::parse();
    match demo::run(keep).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("streamer: {error:#}");
            ExitCode::FAILURE
        }
    }
}
