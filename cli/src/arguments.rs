//! Reads the command line. Help and errors fit the terminal.

use std::io::Write as _;

use clap::{Parser, error::Error};

use crate::{
    layout::fit,
    screen::{error_width, width},
};

/// Parses the arguments of the process. Prints help, the version or an error, and then ends the process.
pub fn parse<P: Parser>() -> P {
    // Without a terminal, 0 turns wrapping off.
    let mut command = P::command().term_width(width().unwrap_or(0));
    let matches = command.try_get_matches_from_mut(std::env::args_os());
    let parsed =
        matches.and_then(|matches| P::from_arg_matches(&matches).map_err(|error| error.format(&mut command)));
    parsed.unwrap_or_else(|error| exit(&error))
}

/// Prints help or an error of clap, whose usage lines may still be too wide.
fn exit(error: &Error) -> ! {
    let text = error.render().ansi().to_string();
    // A reader such as `head` may have closed the pipe.
    _ = match error.use_stderr() {
        true => anstream::stderr().write_all(fit(&text, error_width()).as_bytes()),
        false => anstream::stdout().write_all(fit(&text, width()).as_bytes()),
    };
    std::process::exit(error.exit_code())
}
