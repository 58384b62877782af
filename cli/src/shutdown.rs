//! Signals that end a command.

use std::{fmt, future::pending, io};

use tokio::signal::unix::{self, SignalKind, signal};

/// A signal that ends a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// Ctrl-C.
    Interrupt,
    /// SIGTERM.
    Terminate,
}

/// The error of a command that a signal ended.
#[derive(Debug)]
pub struct Interrupted {
    /// The signal.
    pub signal: Signal,
    /// State in which the command ended.
    state: String,
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
    pub fn interrupted(self, state: impl Into<String>) -> anyhow::Error {
        Interrupted { signal: self, state: state.into() }.into()
    }
}

impl fmt::Display for Interrupted {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self.signal {
            Signal::Interrupt => "interrupted by Ctrl-C",
            Signal::Terminate => "ended by SIGTERM",
        })?;
        if self.state.is_empty() { Ok(()) } else { write!(formatter, ": {}", self.state) }
    }
}

impl std::error::Error for Interrupted {}

/// Returns a future that waits for Ctrl-C or SIGTERM. From this call on, neither ends the process by itself.
pub fn requested() -> impl Future<Output = Signal> {
    let (interrupt, terminate) = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()));
    async {
        tokio::select! {
            () = received(interrupt) => Signal::Interrupt,
            () = received(terminate) => Signal::Terminate,
        }
    }
}

async fn received(signal: io::Result<unix::Signal>) {
    match signal {
        Ok(mut signal) => _ = signal.recv().await,
        Err(_) => pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_names_signal_and_state() {
        let text = |signal: Signal, state| signal.interrupted(state).to_string();
        assert_eq!(text(Signal::Interrupt, "nothing was sent"), "interrupted by Ctrl-C: nothing was sent");
        assert_eq!(text(Signal::Terminate, ""), "ended by SIGTERM");
        assert_eq!([Signal::Interrupt, Signal::Terminate].map(Signal::exit_code), [130, 143]);
    }
}
