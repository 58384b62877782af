//! Faults of a front door, which tests cause while clients are connected.

use http::StatusCode;
use tokio::sync::watch::{Receiver, Sender};

/// Causes faults at a running front door, from any thread. A clone causes them at the same front door.
#[derive(Debug, Clone, Default)]
pub struct Faults(Sender<State>);

/// The result of each handshake while the front door refuses them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// An answer with this status, such as 429, 500 or 403.
    Status(StatusCode),
    /// The end of the TCP connection, without an answer.
    Closed,
}

#[derive(Debug, Clone, Default)]
struct State {
    is_stalled: bool,
    refusal: Option<Refusal>,
    /// Number of cuts so far.
    cuts: u64,
}

impl Faults {
    /// Ends the TCP connections of all WebSockets on both sides, without a close frame. A client sees code 1006.
    pub fn cut_all(&self) {
        self.0.send_modify(|state| state.cuts += 1);
    }

    /// Begins or ends a stall. During a stall, connections stay open, but no byte passes in either direction: neither
    /// handshakes, nor frames, nor the front door's own close frames, which are late then.
    pub fn stall(&self, is_stalled: bool) {
        self.0.send_modify(|state| state.is_stalled = is_stalled);
    }

    /// Begins to refuse all handshakes, or with `None` to pass them on again. Open WebSockets stay open.
    pub fn refuse(&self, refusal: Option<Refusal>) {
        self.0.send_modify(|state| state.refusal = refusal);
    }

    pub(super) fn refusal(&self) -> Option<Refusal> {
        self.0.borrow().refusal
    }

    /// Returns the faults of a connection that begins now.
    pub(super) fn of_connection(&self) -> ConnectionFaults {
        ConnectionFaults { cuts: self.0.borrow().cuts, state: self.0.subscribe() }
    }
}

/// The faults of one connection.
#[derive(Debug, Clone)]
pub(super) struct ConnectionFaults {
    state: Receiver<State>,
    /// Number of cuts before the connection began.
    cuts: u64,
}

impl ConnectionFaults {
    /// Waits for a cut after the connection's begin.
    pub(super) async fn cut(&mut self) {
        let before = self.cuts;
        self.wait(|state| state.cuts > before).await;
    }

    /// Waits until a stall has begun.
    pub(super) async fn stalled(&mut self) {
        self.wait(|state| state.is_stalled).await;
    }

    /// Waits until there is no stall.
    pub(super) async fn unstalled(&mut self) {
        if self.state.borrow().is_stalled {
            self.wait(|state| !state.is_stalled).await;
        }
    }

    async fn wait(&mut self, condition: impl FnMut(&State) -> bool) {
        if self.state.wait_for(condition).await.is_err() {
            // Without its front door, nothing can cause a fault.
            std::future::pending().await
        }
    }
}
