//! Takes the run's own messages off a queue.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::run::Run;
use crate::queue::{HeldQueue, Received};

/// How long other consumers do not see a message that was received and, after a crash, not released.
const VISIBILITY: Duration = Duration::from_secs(20);

/// Longest time for which messages of others are held.
const PASS: Duration = Duration::from_millis(500);

/// Minimum time in which others can take the messages that were released, and half of its maximum.
const PAUSE: Duration = Duration::from_millis(100);

/// Messages of others that one look may receive. Each counts as a receive.
const MAX_OTHERS: usize = 200;

/// Messages of a queue that belong to others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Others {
    /// Another run may wait for them.
    Awaited,
    /// A worker takes them.
    Consumed,
}

impl Run<'_> {
    /// Receives messages of a queue until `wanted` of the run's have come or `limit` has passed. Deletes those of the run,
    /// and releases the others: at the end, or again and again if another run may wait for one of them. Each time then
    /// counts as a receive, so the outbound queue, which limits receives, is not to be read like that.
    ///
    /// # Errors
    /// When SQS does not answer.
    pub(super) async fn take(
        &self,
        name: &'static str,
        url: &str,
        wanted: usize,
        limit: Duration,
        others: Others,
    ) -> anyhow::Result<Vec<Received>> {
        let mut queue = HeldQueue::new(self.sqs.clone(), name, url.to_owned(), VISIBILITY);
        let (deadline, mut own) = (Instant::now() + limit, Vec::new());
        let mut pass = Instant::now();
        let result = loop {
            if own.len() >= wanted || Instant::now() >= deadline || queue.held() >= MAX_OTHERS {
                break Ok(());
            }
            let received = match queue.poll().await {
                Ok(received) => received,
                Err(error) => break Err(error),
            };
            let found: Vec<_> =
                received.into_iter().filter(|message| message.body.contains(&self.id)).collect();
            let ids: Vec<_> = found.iter().map(|message| message.id.as_str()).collect();
            let deletion = queue.delete(&ids).await;
            if let (Some(cause), true) = (deletion.causes.first(), deletion.deleted.is_empty()) {
                break Err(anyhow::anyhow!("{cause}"));
            }
            own.extend(found);
            // Another run may wait for a message that this one holds.
            if others == Others::Awaited && pass.elapsed() >= PASS && own.len() < wanted {
                queue.release().await;
                sleep(PAUSE.mul_f64(1.0 + fastrand::f64())).await;
                pass = Instant::now();
            }
        };
        queue.release().await;
        result.map(|()| own)
    }
}
