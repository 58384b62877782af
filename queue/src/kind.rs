//! Standard and FIFO queues.

use streamer_message::sqs::is_fifo;

/// The kind of an SQS queue, which decides the order that deliveries keep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QueueKind {
    /// Keeps no order. Within a batch, the messages for one connection keep theirs.
    Standard,
    /// Keeps the order of each message group.
    Fifo,
}

impl QueueKind {
    /// Returns the kind of the queue at `url`.
    #[must_use]
    pub fn of_url(url: &str) -> Self {
        if is_fifo(url) { Self::Fifo } else { Self::Standard }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fifo_queues_are_recognised_by_name() {
        assert_eq!(QueueKind::of_url("https://sqs.example.com/1/outbound.fifo"), QueueKind::Fifo);
        assert_eq!(QueueKind::of_url("https://sqs.example.com/1/outbound"), QueueKind::Standard);
    }
}
