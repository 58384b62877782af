//! A queue whose messages are inspected: their number, and the messages themselves.

mod held;

use anyhow::Context as _;
use aws_sdk_sqs::{Client, types::QueueAttributeName};

use crate::aws::Call;

pub use held::{Deletion, HeldQueue, Received};

/// Approximate message counts of a queue. SQS's counts are eventually consistent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MessageCounts {
    /// Messages that a consumer can receive.
    pub waiting: usize,
    /// Messages that a consumer has received and neither deleted nor released.
    pub in_flight: usize,
    /// Messages whose delay has not passed.
    pub delayed: usize,
}

impl MessageCounts {
    /// Reads the counts of the queue at `url`.
    ///
    /// # Errors
    /// When SQS does not answer, or an attribute is missing.
    pub async fn read(sqs: &Client, url: &str) -> anyhow::Result<Self> {
        let names = [
            QueueAttributeName::ApproximateNumberOfMessages,
            QueueAttributeName::ApproximateNumberOfMessagesNotVisible,
            QueueAttributeName::ApproximateNumberOfMessagesDelayed,
        ];
        let get = sqs.get_queue_attributes().queue_url(url).set_attribute_names(Some(names.to_vec()));
        let resource = format!("queue {url}");
        let call = Call { action: "sqs:GetQueueAttributes", resource: &resource };
        let response = get.send().await.map_err(|error| call.failed(&error))?;
        let attributes = response.attributes.unwrap_or_default();
        let count = |name| {
            let number = attributes.get(name).and_then(|number| number.parse().ok());
            number.with_context(|| format!("queue {url} has no attribute {}", name.as_str()))
        };
        let [waiting, in_flight, delayed] = &names;
        Ok(Self { waiting: count(waiting)?, in_flight: count(in_flight)?, delayed: count(delayed)? })
    }

    /// Returns the sum of all counts.
    #[must_use]
    pub fn total(&self) -> usize {
        self.waiting + self.in_flight + self.delayed
    }
}
