//! The command `streamer`.

use std::{
    io::{self, ErrorKind},
    process::ExitCode,
};

use clap::{Parser, Subcommand};
use streamer_cli::{
    arguments,
    commands::{
        connections::Connections, demo, disconnect::Disconnect, down::Down, logs::Logs, package::Package,
        redrive::Redrive, send::Send, status::Status, token::Token, up::Up,
    },
    screen::print_error,
};

/// Streamer delivers messages to the clients of an AWS WebSocket API.
///
/// Without a command, it runs the demo: builds the Lambda functions, starts an emulator of AWS, deploys the whole path,
/// checks it as a client, and stops. The demo needs neither Docker nor an AWS account.
#[derive(Parser)]
#[command(
    version,
    about,
    args_conflicts_with_subcommands = true,
    help_template = HELP,
    after_help = COMMANDS,
    verbatim_doc_comment
)]
struct Streamer {
    /// Keep the demo's stack up until Ctrl-C, and print how to use it
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
Local stack:
  (none)      Run the demo
  up          Start the local stack and print its logs
  down        Stop the local stack
  logs        Print the functions' logs of the local stack
  token       Print a JWT

Any deployment (the local stack, or AWS with --aws):
  send        Send messages to connections, a user or a tenant
  connections List live connections
  disconnect  List or close the connections of a tenant or user
  redrive     List dead letters, send them back or drop them
  status      Show queues, dead letters, connections, functions and circuit breaker

Deployment to AWS:
  package     Build the deployment packages

Examples:
  streamer --keep
  streamer up --detach
  streamer send --tenant acme --payload '\"hello\"'
  streamer redrive --help";

#[derive(Subcommand)]
enum Command {
    Up(Up),
    Down(Down),
    Logs(Logs),
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
    let Streamer { keep, command } = arguments::parse();
    let result = match command {
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
    match result {
        Ok(()) => ExitCode::SUCCESS,
        // A reader such as `head` closed the pipe.
        Err(error)
            if error
                .downcast_ref::<io::Error>()
                .is_some_and(|error| error.kind() == ErrorKind::BrokenPipe) =>
        {
            ExitCode::SUCCESS
        }
        Err(error) => {
            print_error(&format!("streamer: {error:#}"), None);
            ExitCode::FAILURE
        }
    }
}
