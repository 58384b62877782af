//! The command `streamer`.

use std::{
    io::{self, ErrorKind},
    process::ExitCode,
};

use clap::{CommandFactory as _, Parser, Subcommand};
use streamer_cli::commands::{
    completions::Completions, connections::Connections, demo, disconnect::Disconnect, down::Down,
    listen::Listen, logs::Logs, man::Man, package::Package, redrive::Redrive, send::Send, status::Status,
    token::Token, up::Up,
};

/// Streamer delivers messages to the clients of an AWS WebSocket API.
///
/// Without a command, it runs the demo: builds the Lambda functions, starts an emulator of AWS, deploys the whole path,
/// checks it as a client, and stops. The demo needs neither Docker nor an AWS account.
#[derive(Parser)]
#[command(
    name = "streamer",
    version,
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
  listen      Connect as a client and print each message

Any deployment (the local stack, or AWS with --aws):
  send        Send messages to connections, a user or a tenant
  connections List live connections
  disconnect  Close the connections of a tenant or user
  redrive     List dead letters and send them back
  status      Show queues, dead letters, connections, functions and circuit breaker

Deployment to AWS:
  package     Build the deployment packages

This command:
  completions Print the completions of a shell
  man         Print the man page

Examples:
  streamer --keep
  streamer up --detach
  streamer listen --user anna --tenant acme
  streamer send --tenant acme --payload '\"hello\"'
  streamer redrive --help";

#[derive(Subcommand)]
enum Command {
    Up(Up),
    Down(Down),
    Logs(Logs),
    Token(Token),
    Listen(Listen),
    Send(Send),
    Connections(Connections),
    Disconnect(Disconnect),
    Redrive(Redrive),
    Status(Status),
    Package(Package),
    Completions(Completions),
    Man(Man),
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let Streamer { keep, command } = Streamer::parse();
    let result = match command {
        None => demo::run(keep).await,
        Some(Command::Up(up)) => up.run().await,
        Some(Command::Down(down)) => down.run().await,
        Some(Command::Logs(logs)) => logs.run().await,
        Some(Command::Token(token)) => token.run().await,
        Some(Command::Listen(listen)) => listen.run().await,
        Some(Command::Send(send)) => send.run().await,
        Some(Command::Connections(connections)) => connections.run().await,
        Some(Command::Disconnect(disconnect)) => disconnect.run().await,
        Some(Command::Redrive(redrive)) => redrive.run().await,
        Some(Command::Status(status)) => status.run().await,
        Some(Command::Package(package)) => package.run().await,
        Some(Command::Completions(completions)) => completions.run(Streamer::command()),
        Some(Command::Man(man)) => man.run(Streamer::command()),
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
            eprintln!("streamer: {error:#}");
            ExitCode::FAILURE
        }
    }
}
