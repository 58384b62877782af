//! Reads the command line. Help and errors fit the terminal.

use clap::{Parser, error::Error};

use crate::{
    layout::fit,
    screen::{error_width, print_error, width},
};

/// Exit code for invalid arguments.
const INVALID: i32 = 2;

/// Parses the arguments of the process. Prints help, the version or an error, and then ends the process.
pub fn parse<P: Parser>() -> P {
    // Without a terminal, 0 turns wrapping off.
    let mut command = P::command().term_width(width().unwrap_or(0));
    let matches = command.try_get_matches_from_mut(std::env::args_os());
    let parsed =
        matches.and_then(|matches| P::from_arg_matches(&matches).map_err(|error| error.format(&mut command)));
    parsed.unwrap_or_else(|error| exit(&error))
}

fn exit(error: &Error) -> ! {
    let text = error.render().to_string();
    let fitted = fit(&text, error_width());
    if !error.use_stderr() || fitted == text {
        error.exit();
    }
    print_error(fitted.trim_end(), None);
    std::process::exit(INVALID)
}
