//! Takes the run's own messages off a queue.

use std::{fmt, future::pending, time::Duration};

use aws_sdk_sqs::types::QueueAttributeName;
use tokio::time::Instant;

use super::run::Run;
use crate::{
    aws::Call,
    queue::{HeldQueue, MessageCounts, Received},
};

/// The outbound queue in texts.
pub(super) const OUTBOUND: &str = "outbound queue";

/// The parts queue in texts.
pub(super) const PARTS: &str = "parts queue";

/// The dead-letter queue in texts.
pub(super) const DEAD_LETTERS: &str = "dead-letter queue";

/// The receipts queue in texts.
pub(super) const RECEIPTS: &str = "receipts queue";

/// Time for which other consumers do not see a received message if this process crashes before it releases it. It covers
/// the time from the first receive to the release, so that each message of others is received once.
const VISIBILITY: Duration = Duration::from_secs(60);

/// Messages of others that are held at the same time. Each counts as a receive.
const MAX_OTHERS: usize = 50;

/// Messages of a queue with which it is not read.
const MAX_MESSAGES: usize = 100;

/// A queue that can be read. Messages of others are held from the first receive on, and released once.
pub(super) struct OpenQueue<'a> {
    run: &'a Run<'a>,
    /// `None` after the release.
    queue: Option<HeldQueue>,
    own: Vec<Received>,
}

/// The reason for which a queue is not read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum NotOpen {
    /// Messages of others would be received.
    Crowded(String),
    /// A call failed.
    Failed(String),
}

impl fmt::Display for NotOpen {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Crowded(text) | Self::Failed(text) => formatter.write_str(text),
        }
    }
}

impl Run<'_> {
    /// Opens a queue, and receives once, which shows whether this is permitted.
    ///
    /// # Errors
    /// [`NotOpen`] if the queue has many messages, if a receive could move messages of others to a dead-letter queue of
    /// its own, or if SQS refuses a call.
    pub(super) async fn open(&self, name: &'static str, url: &str) -> Result<OpenQueue<'_>, NotOpen> {
        let failed = |error: anyhow::Error| NotOpen::Failed(error.to_string());
        let messages = MessageCounts::read(&self.sqs, url).await.map_err(failed)?.total();
        if messages > MAX_MESSAGES {
            let text =
                format!("the {name} has {messages} messages, and more than {MAX_MESSAGES} are not read");
            return Err(NotOpen::Crowded(text));
        }
        // The queues that invoke the worker have a redrive policy in every deployment, which allows several receives.
        if ![OUTBOUND, PARTS].contains(&name)
            && messages > 0
            && self.has_redrive_policy(url).await.map_err(failed)?
        {
            return Err(NotOpen::Crowded(format!(
                "other messages wait on the {name}, and its own redrive policy counts each receive"
            )));
        }
        let queue = HeldQueue::new(self.sqs.clone(), name, url.to_owned(), VISIBILITY);
        let mut open = OpenQueue { run: self, queue: Some(queue), own: Vec::new() };
        match open.receive().await {
            Ok(()) => Ok(open),
            Err(error) => {
                let error = error.to_string();
                let key = if error.contains("do not permit") {
                    "; a queue with a key of its own also needs kms:Decrypt"
                } else {
                    ""
                };
                Err(NotOpen::Failed(format!("{error}{key}")))
            }
        }
    }

    async fn has_redrive_policy(&self, url: &str) -> anyhow::Result<bool> {
        let name = QueueAttributeName::RedrivePolicy;
        let answer =
            self.sqs.get_queue_attributes().queue_url(url).attribute_names(name.clone()).send().await;
        let resource = format!("queue {url}");
        let call = Call { action: "sqs:GetQueueAttributes", resource: &resource };
        let answer = answer.map_err(|error| call.failed(&error))?;
        Ok(answer.attributes().is_some_and(|attributes| attributes.contains_key(&name)))
    }
}

impl OpenQueue<'_> {
    /// Receives until the run's messages are enough, `limit` has passed, or many messages of others are held. Deletes
    /// those of the run, and releases the others.
    ///
    /// # Errors
    /// When SQS does not answer.
    pub(super) async fn take(
        mut self,
        limit: Duration,
        is_enough: impl Fn(&[Received]) -> bool,
    ) -> anyhow::Result<Vec<Received>> {
        let deadline = Instant::now() + limit;
        let result = loop {
            let held = self.queue.as_ref().map_or(0, HeldQueue::held);
            if is_enough(&self.own) || held >= MAX_OTHERS || Instant::now() >= deadline {
                break Ok(());
            }
            if let Err(error) = self.receive().await {
                break Err(error);
            }
        };
        let own = std::mem::take(&mut self.own);
        self.release().await;
        result.map(|()| own)
    }

    /// Releases the messages of others.
    pub(super) async fn release(mut self) {
        let Some(mut queue) = self.queue.take() else { return };
        self.run.uninterrupted(queue.release()).await;
    }

    /// Receives once, and deletes the run's messages.
    async fn receive(&mut self) -> anyhow::Result<()> {
        let Some(queue) = &mut self.queue else { return Ok(()) };
        let (run, own) = (self.run, &mut self.own);
        let receive = async {
            let received = queue.poll().await?;
            let found: Vec<_> =
                received.into_iter().filter(|message| message.body.contains(&run.id)).collect();
            let ids: Vec<_> = found.iter().map(|message| message.id.as_str()).collect();
            let deletion = queue.delete(&ids).await;
            if let (Some(cause), true) = (deletion.causes.first(), deletion.deleted.len() < found.len()) {
                anyhow::bail!("a message was not deleted: {cause}");
            }
            own.extend(found);
            Ok(())
        };
        run.uninterrupted(receive).await
    }
}

/// Leaves the messages of others to the cleanup, which releases them.
impl Drop for OpenQueue<'_> {
    fn drop(&mut self) {
        self.run.made.held.borrow_mut().extend(self.queue.take());
    }
}

impl Run<'_> {
    /// Completes a call after which messages are hidden or visible, also after a signal. Does not return after one.
    async fn uninterrupted<T>(&self, call: impl Future<Output = T>) -> T {
        self.calls.set(self.calls.get() + 1);
        let result = call.await;
        self.calls.set(self.calls.get() - 1);
        if self.is_ending.get() {
            pending::<()>().await;
        }
        result
    }
}
