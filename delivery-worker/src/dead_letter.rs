//! The dead-letter queue: where messages go that no later try can deliver.

use std::collections::HashSet;

use aws_sdk_sqs::{
    Client,
    types::{MessageAttributeValue, SendMessageBatchRequestEntry},
};
use streamer_environment::aws::cause;
use streamer_message::{Limit, limits, pack};
use tokio::time::{Instant, timeout_at};

use crate::decode::Poison;

/// Bytes of an attribute's text, at most.
const DETAIL_BYTES: usize = 1024;

/// The dead-letter queue.
#[derive(Debug, Clone)]
pub struct DeadLetterQueue {
    client: Client,
    url: String,
}

/// A dead letter: the body as it came, and why it is here.
struct DeadLetter<'a> {
    index: usize,
    body: &'a str,
    attributes: [(&'static str, String); 4],
}

impl DeadLetter<'_> {
    fn poison(index: usize, poison: &Poison) -> DeadLetter<'_> {
        DeadLetter {
            index,
            body: &poison.body,
            attributes: [
                ("streamer.reason", "poison".to_owned()),
                ("streamer.detail", detail(&poison.error.to_string())),
                ("streamer.attempts", poison.attempts.clone()),
                ("streamer.since", poison.since.clone()),
            ],
        }
    }

    /// As SQS counts: the body, and each attribute's name, type and value.
    fn bytes(&self) -> usize {
        let attributes =
            self.attributes.iter().map(|(name, value)| name.len() + "String".len() + value.len());
        self.body.len() + attributes.sum::<usize>()
    }

    fn entry(&self) -> Option<SendMessageBatchRequestEntry> {
        let entry =
            SendMessageBatchRequestEntry::builder().id(self.index.to_string()).message_body(self.body);
        // SQS takes no empty attribute.
        let attributes = self.attributes.iter().filter(|(_, value)| !value.is_empty());
        let entry = attributes.into_iter().try_fold(entry, |entry, (name, value)| {
            let value =
                MessageAttributeValue::builder().data_type("String").string_value(value).build().ok()?;
            Some(entry.message_attributes(*name, value))
        });
        entry?.build().ok()
    }
}

impl DeadLetterQueue {
    /// The queue at `url`.
    #[must_use]
    pub fn new(client: Client, url: impl Into<String>) -> Self {
        Self { client, url: url.into() }
    }

    /// Sends poison, and returns the places of what the queue did not confirm until then, or cannot take since
    /// it is too large with its attributes: SQS moves that itself, in time.
    pub async fn send(&self, poison: &[Poison], until: Instant) -> HashSet<usize> {
        let letters = poison.iter().enumerate().map(|(index, poison)| DeadLetter::poison(index, poison));
        let fitting = letters.filter(|letter| letter.bytes() <= limits::QUEUE_MESSAGE_BYTES);
        let mut unsent: HashSet<usize> = (0..poison.len()).collect();
        for batch in pack(fitting, Limit::QUEUE_BATCH, DeadLetter::bytes) {
            let entries = batch.iter().filter_map(DeadLetter::entry).collect();
            let send = self.client.send_message_batch().queue_url(&self.url).set_entries(Some(entries));
            match timeout_at(until, send.send()).await {
                Ok(Ok(output)) => {
                    let confirmed = output.successful().iter().filter_map(|entry| entry.id().parse().ok());
                    confirmed.for_each(|index: usize| _ = unsent.remove(&index));
                }
                Ok(Err(error)) => {
                    tracing::error!(cause = cause(&error), "the dead-letter queue took nothing")
                }
                Err(_) => tracing::error!("the dead-letter queue did not answer in time"),
            }
        }
        unsent
    }
}

/// Cuts a text to what an attribute may hold: 1 KiB of the characters that SQS takes.
fn detail(text: &str) -> String {
    let taken = |character: &char| match character {
        '\t' | '\n' | '\r' => true,
        '\u{FFFE}' | '\u{FFFF}' => false,
        other => *other >= ' ',
    };
    let mut detail = String::new();
    for character in text.chars().filter(taken) {
        if detail.len() + character.len_utf8() > DETAIL_BYTES {
            break;
        }
        detail.push(character);
    }
    detail
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_detail_has_at_most_1_kib_of_characters_that_sqs_takes() {
        assert_eq!(detail("a\u{0}b\u{FFFE}c\u{1b}d\n"), "abcd\n");
        let long = detail(&"é".repeat(1000));
        assert_eq!((long.len(), long.chars().count()), (1024, 512));
        assert_eq!(detail(&format!("x{}", "é".repeat(1000))).len(), 1023);
    }
}
