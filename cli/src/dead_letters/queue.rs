//! The dead-letter queue's operations.

use std::{
    collections::{BTreeSet, HashSet},
    time::Duration,
};

use anyhow::Context as _;
use aws_sdk_sqs::{Client, types::QueueAttributeName};
use serde::Deserialize;

use super::{
    dead_letter::DeadLetter,
    outcome::{Handled, Outcome},
};
use crate::{
    aws::Call,
    queue::{Deletion, HeldQueue, MessageCounts},
};

/// The dead-letter queue of an outbound queue.
#[derive(Debug)]
pub struct DeadLetterQueue {
    pub(super) client: Client,
    pub(super) outbound: String,
    queue: HeldQueue,
    /// Hashes of the bodies that were sent back.
    pub(super) sent: HashSet<u64>,
}

/// The field of a redrive policy that names the dead-letter queue.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RedrivePolicy {
    dead_letter_target_arn: String,
}

impl DeadLetterQueue {
    /// Finds the queue that the redrive policy of `outbound` names. Received dead letters are hidden for at most
    /// `visibility_timeout`.
    ///
    /// # Errors
    /// When SQS does not answer, or the outbound queue has no dead-letter queue.
    pub async fn of(client: Client, outbound: String, visibility_timeout: Duration) -> anyhow::Result<Self> {
        let name = QueueAttributeName::RedrivePolicy;
        let get = client.get_queue_attributes().queue_url(&outbound).attribute_names(name.clone());
        let resource = format!("queue {outbound}");
        let call = Call { action: "sqs:GetQueueAttributes", resource: &resource };
        let response = get.send().await.map_err(|error| call.failed(&error))?;
        let policy = response.attributes.and_then(|mut attributes| attributes.remove(&name));
        let policy = policy.with_context(|| format!("queue {outbound} has no dead-letter queue"))?;
        let policy: RedrivePolicy = serde_json::from_str(&policy)
            .with_context(|| format!("cannot parse the redrive policy of queue {outbound}"))?;
        let arn = &policy.dead_letter_target_arn;
        let mut parts = arn.rsplit(':');
        let (name, owner) = (parts.next().unwrap_or_default(), parts.next());
        let get = client.get_queue_url().queue_name(name);
        let get = get.set_queue_owner_aws_account_id(owner.map(str::to_owned)).send().await;
        let resource = format!("dead-letter queue {arn}");
        let call = Call { action: "sqs:GetQueueUrl", resource: &resource };
        let url = get.map_err(|error| call.failed(&error))?.queue_url;
        let url = url.with_context(|| format!("the dead-letter queue {arn} has no URL"))?;
        let queue = HeldQueue::new(client.clone(), "dead-letter queue", url, visibility_timeout);
        Ok(Self { client, outbound, queue, sent: HashSet::new() })
    }

    /// Returns the queue's URL.
    #[must_use]
    pub fn url(&self) -> &str {
        self.queue.url()
    }

    /// Reads the queue's message counts.
    ///
    /// # Errors
    /// When SQS does not answer.
    pub async fn counts(&self) -> anyhow::Result<MessageCounts> {
        self.queue.counts().await
    }

    /// Returns the number of dead letters that were received and neither deleted nor released.
    #[must_use]
    pub fn held(&self) -> usize {
        self.queue.held()
    }

    /// Returns whether the visibility timeout of a held dead letter passed, so that SQS delivered it again. Some dead
    /// letters may then never have been received.
    #[must_use]
    pub fn is_overdue(&self) -> bool {
        self.queue.is_overdue()
    }

    /// Receives some dead letters, each once. Returns none when the queue is empty, when as many are held as allowed,
    /// or when one [is overdue](Self::is_overdue).
    ///
    /// # Errors
    /// When SQS does not answer.
    pub async fn receive(&mut self) -> anyhow::Result<Vec<DeadLetter>> {
        let received = self.queue.receive().await?;
        Ok(received.into_iter().map(DeadLetter::from).collect())
    }

    /// Deletes dead letters for good.
    pub async fn drop_letters(&mut self, letters: Vec<DeadLetter>) -> Handled {
        let mut handled = Handled::default();
        let deleted = self.delete(&letters.iter().collect::<Vec<_>>(), &mut handled).await;
        let outcome = |id| if deleted.contains(&id) { Outcome::Dropped } else { Outcome::NotDropped };
        let letters = letters.into_iter().enumerate().map(|(id, letter)| (letter, outcome(id)));
        handled.letters.extend(letters);
        handled
    }

    /// Deletes up to ten dead letters, and returns the positions of those that are deleted.
    pub(super) async fn delete(&mut self, letters: &[&DeadLetter], handled: &mut Handled) -> BTreeSet<usize> {
        let ids: Vec<_> = letters.iter().map(|letter| letter.message_id.as_str()).collect();
        let Deletion { deleted, causes, is_final } = self.queue.delete(&ids).await;
        handled.causes.extend(causes);
        handled.is_final |= is_final;
        deleted
    }

    /// Makes every held dead letter visible to other consumers. Returns the number that could not be released: these
    /// stay hidden until their visibility timeout has passed.
    pub async fn release(&mut self) -> usize {
        self.queue.release().await
    }
}
