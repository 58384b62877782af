//! `streamer`, the command.

use std::{
    io::{self, ErrorKind},
    process::ExitCode,
};

use clap::{Parser, Subcommand};
use streamer_cli::commands::{
    connections::Connections, demo, disconnect::Disconnect, down::Down, logs::LogsOf, package::Package,
    redrive::Redrive, send::Send, status::Status, token::Token, up::Up,
};

/// Streamer delivers messages to the clients of an AWS WebSocket API.
///
/// Without a command: the demo. It builds the Lambdas, starts an emulator of AWS, deploys the whole path to it,
/// plays a client, checks what arrives, and stops. It needs no Docker and no account.
#[derive(Parser)]
#[command(version, about, args_conflicts_with_subcommands = true, help_template = HELP, after_help = COMMANDS)]
struct Streamer {
    /// Leaves the demo's stack up until Ctrl-C, and says how to use it.
    #[arg(long)]
    keep: bool,
    #[command(subcommand)]
    command: Option<Command>,
}

const HELP: &str = "{about-with-newline}
{usage-heading} {usage}
{after-help}

Options:
{options}
";

const COMMANDS: &str = "\
On this machine:
  (none)      The demo: build, start, deploy, play, check, stop
  up          The stack: an emulator, our Lambdas, a router
  down        Ends it
  logs        What its functions say
  token       A JWT that it accepts

On any deployment (the stack on this machine if one is up; AWS only with --aws):
  send        A message, or a line a message from standard input
  connections Who is live
  disconnect  Closes the connections of a tenant or a user
  redrive     Dead letters, and the way back to the queue
  status      Queues, dead letters, connections, functions and circuit at a glance

For a deployment:
  package     Zips for Lambda, which infra/ deploys

`streamer COMMAND --help` tells more, with examples.";

#[derive(Subcommand)]
enum Command {
    Up(Up),
    Down(Down),
    Logs(LogsOf),
    Token(Token),
    Send(Send),
    Connections(Connections),
    Disconnect(Disconnect),
    Redrive(Redrive),
    Status(Status),
    Package(Package),
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let Streamer { keep, command } = Streamer::parse();
    let done = match command {
        None => demo::run(keep).await,
        Some(Command::Up(up)) => up.run().await,
        Some(Command::Down(down)) => down.run().await,
        Some(Command::Logs(logs)) => logs.run().await,
        Some(Command::Token(token)) => token.run().await,
        Some(Command::Send(send)) => send.run().await,
        Some(Command::Connections(connections)) => connections.run().await,
        Some(Command::Disconnect(disconnect)) => disconnect.run().await,
        Some(Command::Redrive(redrive)) => redrive.run().await,
        Some(Command::Status(status)) => status.run().await,
        Some(Command::Package(package)) => package.run().await,
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever reads has seen enough: `head` does.
        Err(error)
            if error
                .downcast_ref::<io::Error>()
                .is_some_and(|error| error.kind() == ErrorKind::BrokenPipe) =>
        {
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("streamer: {error:#}");
            ExitCode::FAILURE
        }
    }
}
