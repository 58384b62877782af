//! Signals that end a command.

use std::io;

use futures::{Stream, StreamExt as _, stream};
use tokio::signal::{
    ctrl_c,
    unix::{Signal, SignalKind, signal},
};

/// Exit code after Ctrl-C: 128 and the number of the signal, as shells report it.
pub const INTERRUPTED: u8 = 130;

/// Exit code after SIGTERM.
pub const TERMINATED: u8 = 143;

/// Waits for Ctrl-C or SIGTERM.
pub async fn requested() {
    let terminated = async {
        match signal(SignalKind::terminate()) {
            Ok(mut terminate) => _ = terminate.recv().await,
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        _ = ctrl_c() => {}
        () = terminated => {}
    }
}

/// Returns every Ctrl-C and SIGTERM from now on, each as the exit code that it leads to.
///
/// # Errors
/// When the signals cannot be handled.
pub fn signals() -> io::Result<impl Stream<Item = u8> + Unpin> {
    let both = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let next = async |(mut interrupt, mut terminate): (Signal, Signal)| {
        let code = tokio::select! {
            _ = interrupt.recv() => INTERRUPTED,
            _ = terminate.recv() => TERMINATED,
        };
        Some((code, (interrupt, terminate)))
    };
    Ok(stream::unfold(both, next).boxed_local())
}
