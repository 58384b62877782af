//! The command `streamer`.

use std::{
    future::ready,
    io::{self, ErrorKind},
    path::PathBuf,
    process::ExitCode,
};

use clap::{
    CommandFactory as _, Parser, Subcommand,
    builder::{PathBufValueParser, TypedValueParser as _},
};
use futures::FutureExt as _;
use streamer_cli::{
    arguments,
    commands::{
        completions::Completions, connections::Connections, demo, disconnect::Disconnect, doctor::Doctor,
        down::Down, env::Env, forget::Forget, listen::Listen, logs::Logs, mailbox::Mailbox, man::Man,
        package::Package, receipts::Receipts, redrive::Redrive, send::Send, status::Status, token::Token,
        up::Up, web::Web,
    },
    exit::Exit,
    screen::print_error,
    stack::router::Router,
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
    /// Run the demo with this router instead of the example, as `streamer up --router` takes it
    #[arg(long, value_name = "PATH", value_parser = PathBufValueParser::new().try_map(Router::check))]
    router: Option<PathBuf>,
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
  env         Print variables for programs that use the local stack
  listen      Connect as a client and print each message
  web         Serve a page that shows the local stack at work

Any deployment (the local stack, or AWS with --aws):
  send        Send messages to connections, a user or a tenant
  connections List live connections
  disconnect  List or close the connections of a tenant or user
  mailbox     List the messages that are kept for a user
  forget      List or erase the personal data of a user
  receipts    List the outcomes of messages
  redrive     List dead letters, send them back or drop them
  status      Show queues, dead letters, connections, functions and circuit breaker
  doctor      Examine a deployment: settings, connections, delivery, API Gateway's answers

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
    Env(Env),
    Listen(Listen),
    Web(Web),
    Send(Send),
    Connections(Connections),
    Disconnect(Disconnect),
    Mailbox(Mailbox),
    Forget(Forget),
    Receipts(Receipts),
    Redrive(Redrive),
    Status(Status),
    Doctor(Doctor),
    Package(Package),
    Completions(Completions),
    Man(Man),
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let Streamer { keep, router, command } = arguments::parse();
    let running = match command {
        None => demo::run(keep, router).boxed_local(),
        Some(Command::Up(up)) => up.run().boxed_local(),
        Some(Command::Down(down)) => down.run().boxed_local(),
        Some(Command::Logs(logs)) => logs.run().boxed_local(),
        Some(Command::Token(token)) => token.run().boxed_local(),
        Some(Command::Env(env)) => env.run().boxed_local(),
        Some(Command::Listen(listen)) => listen.run().boxed_local(),
        Some(Command::Web(web)) => web.run().boxed_local(),
        Some(Command::Send(send)) => send.run().boxed_local(),
        Some(Command::Connections(connections)) => connections.run().boxed_local(),
        Some(Command::Disconnect(disconnect)) => disconnect.run().boxed_local(),
        Some(Command::Mailbox(mailbox)) => mailbox.run().boxed_local(),
        Some(Command::Forget(forget)) => forget.run().boxed_local(),
        Some(Command::Receipts(receipts)) => receipts.run().boxed_local(),
        Some(Command::Redrive(redrive)) => redrive.run().boxed_local(),
        Some(Command::Status(status)) => status.run().boxed_local(),
        Some(Command::Doctor(doctor)) => doctor.run().boxed_local(),
        Some(Command::Package(package)) => package.run().boxed_local(),
        Some(Command::Completions(completions)) => ready(completions.run(Streamer::command())).boxed_local(),
        Some(Command::Man(man)) => ready(man.run(Streamer::command())).boxed_local(),
    };
    match running.await {
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
            error.downcast_ref::<Exit>().map_or(ExitCode::FAILURE, |exit| ExitCode::from(exit.code))
        }
    }
}
