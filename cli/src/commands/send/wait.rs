//! Waits for the outcomes of messages that were sent.

use std::time::Duration;

use futures::{Stream, StreamExt as _};
use streamer_message::MessageId;

use super::outcome::describe;
use crate::{
    commands::target::Target,
    exit::Exit,
    queue::HeldQueue,
    receipts::{self, Wait},
    screen::{Screen, print_error},
    shutdown::Signal,
};

/// How long receipts of other messages stay hidden if this process is killed while it waits.
const VISIBILITY_TIMEOUT: Duration = Duration::from_secs(30);

/// The receipts queue of a deployment, and the time to wait.
pub(super) struct Outcomes {
    queue: HeldQueue,
    limit: Duration,
    is_aws: bool,
}

impl Outcomes {
    /// Finds the receipts queue.
    ///
    /// # Errors
    /// When no stack is up, or `--aws` is set without the queue's URL, a Region or credentials.
    pub(super) async fn of(target: &Target, limit: Duration) -> anyhow::Result<Self> {
        let (client, url) = target.receipts_queue().await?;
        Ok(Self { queue: receipts::queue(client, url, VISIBILITY_TIMEOUT), limit, is_aws: target.is_aws() })
    }

    /// Waits for the receipts of messages for `audience` and prints their outcomes, unless a signal ends the wait.
    ///
    /// # Errors
    /// When SQS does not answer, a message is not delivered or its receipts have not come, or at a signal.
    pub(super) async fn print(
        mut self,
        ids: impl IntoIterator<Item = MessageId>,
        audience: &str,
        mut signals: impl Stream<Item = Signal> + Unpin,
    ) -> anyhow::Result<()> {
        let mut wait = Wait::new(ids);
        let ended = wait.run(&mut self.queue, self.limit, signals.next()).await;
        self.queue.release().await;
        if let Some(Some(signal)) = ended? {
            let text = "interrupted while waiting for the outcome".to_owned();
            return Err(Exit { code: signal.exit_code(), text }.into());
        }
        for cause in &wait.causes {
            print_error(&format!("receipts stay on their queue: {cause}"), None);
        }
        let (lines, error) = describe(&wait.outcomes(), audience, self.limit, self.is_aws);
        lines.iter().for_each(|line| Screen::new().line(line));
        error.map_or(Ok(()), |error| Err(error.into()))
    }
}
