//! How full a queue is.

use anyhow::Context as _;
use aws_sdk_sqs::{Client, types::QueueAttributeName};

/// Messages on a queue; SQS knows it by and by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    /// Those that anybody can receive.
    pub waiting: usize,
    /// Those that somebody holds.
    pub in_flight: usize,
    /// Those that wait for their time.
    pub delayed: usize,
}

impl Counts {
    /// Those of the queue at `url`.
    ///
    /// # Errors
    /// When the queue does not say.
    pub async fn of(sqs: &Client, url: &str) -> anyhow::Result<Self> {
        let wanted = [
            QueueAttributeName::ApproximateNumberOfMessages,
            QueueAttributeName::ApproximateNumberOfMessagesNotVisible,
            QueueAttributeName::ApproximateNumberOfMessagesDelayed,
        ];
        let get = sqs.get_queue_attributes().queue_url(url).set_attribute_names(Some(wanted.to_vec()));
        let found = get.send().await.with_context(|| format!("the queue {url} does not answer"))?.attributes;
        let found = found.unwrap_or_default();
        let count = |name| {
            let number = found.get(name).and_then(|number| number.parse().ok());
            number.with_context(|| format!("the queue {url} does not say its {}", name.as_str()))
        };
        let [waiting, in_flight, delayed] = &wanted;
        Ok(Self { waiting: count(waiting)?, in_flight: count(in_flight)?, delayed: count(delayed)? })
    }

    /// All of them.
    #[must_use]
    pub fn all(&self) -> usize {
        self.waiting + self.in_flight + self.delayed
    }
}
