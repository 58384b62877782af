//! Signals that end a command.

use std::io;

use futures::{Stream, StreamExt as _, stream};
use tokio::signal::unix::{self, SignalKind, signal};

use crate::exit::Exit;

/// A signal that ends a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// Ctrl-C.
    Interrupt,
    /// SIGTERM.
    Terminate,
}

impl Signal {
    /// Returns the exit code by which shells know the signal: 128 plus its number.
    #[must_use]
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Interrupt => 130,
            Self::Terminate => 143,
        }
    }

    /// Returns the error of a command that this signal ended. `state` says what it had done, and may be empty.
    #[must_use]
    pub fn interrupted(self, state: impl AsRef<str>) -> anyhow::Error {
        let signal = match self {
            Self::Interrupt => "interrupted by Ctrl-C",
            Self::Terminate => "ended by SIGTERM",
        };
        let text = match state.as_ref() {
            "" => signal.to_owned(),
            state => format!("{signal}: {state}"),
        };
        Exit { code: self.exit_code(), text }.into()
    }
}

/// Waits for Ctrl-C or SIGTERM. A signal counts from this call on, also before the future is polled.
pub fn requested() -> impl Future<Output = Signal> {
    let both = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()));
    async {
        let (interrupt, terminate) = both;
        tokio::select! {
            () = received(interrupt) => Signal::Interrupt,
            () = received(terminate) => Signal::Terminate,
        }
    }
}

/// Waits for a signal, forever if it cannot be handled.
async fn received(signal: io::Result<unix::Signal>) {
    match signal {
        Ok(mut signal) => _ = signal.recv().await,
        Err(_) => std::future::pending().await,
    }
}

/// Returns every Ctrl-C and SIGTERM from now on.
///
/// # Errors
/// When the signals cannot be handled.
pub fn signals() -> io::Result<impl Stream<Item = Signal> + Unpin> {
    let both = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let next = async |(mut interrupt, mut terminate): (unix::Signal, unix::Signal)| {
        let signal = tokio::select! {
            _ = interrupt.recv() => Signal::Interrupt,
            _ = terminate.recv() => Signal::Terminate,
        };
        Some((signal, (interrupt, terminate)))
    };
    Ok(stream::unfold(both, next).boxed_local())
}

#[cfg(test)]
mod tests {
    use rustix::process::{getpid, kill_process};

    use super::*;

    #[tokio::test]
    async fn signal_counts_before_the_future_is_polled() {
        let requested = requested();
        kill_process(getpid(), rustix::process::Signal::TERM).unwrap();
        assert_eq!(requested.await, Signal::Terminate);
    }

    #[test]
    fn error_names_signal_and_state() {
        let text = |signal: Signal, state| signal.interrupted(state).to_string();
        assert_eq!(text(Signal::Interrupt, "nothing was sent"), "interrupted by Ctrl-C: nothing was sent");
        assert_eq!(text(Signal::Terminate, ""), "ended by SIGTERM");
        assert_eq!([Signal::Interrupt, Signal::Terminate].map(Signal::exit_code), [130, 143]);
    }
}
