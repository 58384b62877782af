//! Listing and awaiting receipts, on a queue in memory that gives out its messages in order.

use std::{
    io,
    sync::{Arc, Mutex},
    time::Duration,
};

use aws_sdk_sqs::{
    Client,
    operation::{
        change_message_visibility_batch::ChangeMessageVisibilityBatchOutput,
        delete_message_batch::DeleteMessageBatchOutput, get_queue_attributes::GetQueueAttributesOutput,
        receive_message::ReceiveMessageOutput,
    },
    types::{
        ChangeMessageVisibilityBatchResultEntry, DeleteMessageBatchResultEntry, Message, QueueAttributeName,
    },
};
use aws_smithy_mocks::{RuleMode, mock, mock_client};
use futures::FutureExt as _;
use serde_json::{Value, json};
use streamer_cli::{
    queue::HeldQueue,
    receipts::{self, End, Listing, Options, Wait},
};
use streamer_message::{MessageId, ReceiptOutcome};
use tokio::time::Instant;

const VISIBILITY: Duration = Duration::from_secs(60);

/// A message of the queue.
#[derive(Debug, Clone)]
struct Queued {
    id: String,
    body: String,
    visible_at: Instant,
    receives: usize,
    deleted: bool,
}

/// A queue in memory. All clones are the same queue.
#[derive(Debug, Clone, Default)]
struct Queue(Arc<Mutex<Vec<Queued>>>);

impl Queue {
    fn of(bodies: impl IntoIterator<Item = String>) -> Self {
        let queue = Self::default();
        bodies.into_iter().for_each(|body| queue.send(body));
        queue
    }

    fn send(&self, body: String) {
        let mut messages = self.0.lock().unwrap();
        let id = format!("sqs-{}", messages.len());
        messages.push(Queued { id, body, visible_at: Instant::now(), receives: 0, deleted: false });
    }

    /// Returns the messages that are not deleted: SQS's id, whether it is visible, and the number of receives.
    fn rest(&self) -> Vec<(String, bool, usize)> {
        let (messages, now) = (self.0.lock().unwrap(), Instant::now());
        let rest = messages.iter().filter(|message| !message.deleted);
        rest.map(|message| (message.id.clone(), message.visible_at <= now, message.receives)).collect()
    }

    fn receive(&self) -> Vec<Message> {
        let (mut messages, now) = (self.0.lock().unwrap(), Instant::now());
        let visible = messages.iter_mut().filter(|message| !message.deleted && message.visible_at <= now);
        let received = visible.take(10).map(|message| {
            message.receives += 1;
            message.visible_at = now + VISIBILITY;
            let handle = format!("{} {}", message.id, message.receives);
            Message::builder().message_id(&message.id).receipt_handle(handle).body(&message.body).build()
        });
        received.collect()
    }

    /// Changes the message with this receipt handle.
    fn change(&self, handle: &str, change: impl Fn(&mut Queued)) {
        let (id, _) = handle.split_once(' ').unwrap();
        let mut messages = self.0.lock().unwrap();
        change(messages.iter_mut().find(|message| message.id == id).unwrap());
    }

    fn client(&self) -> Client {
        let waiting = self.clone();
        let attributes = mock!(Client::get_queue_attributes).then_output(move || {
            let waiting = waiting.rest().iter().filter(|(_, visible, _)| *visible).count();
            GetQueueAttributesOutput::builder()
                .attributes(QueueAttributeName::ApproximateNumberOfMessages, waiting.to_string())
                .attributes(QueueAttributeName::ApproximateNumberOfMessagesNotVisible, "0")
                .attributes(QueueAttributeName::ApproximateNumberOfMessagesDelayed, "0")
                .build()
        });
        let queue = self.clone();
        let receive = mock!(Client::receive_message)
            .then_output(move || ReceiveMessageOutput::builder().set_messages(Some(queue.receive())).build());
        let queue = self.clone();
        let delete = mock!(Client::delete_message_batch).then_compute_output(move |input| {
            let deleted = input.entries().iter().map(|entry| {
                queue.change(entry.receipt_handle(), |message| message.deleted = true);
                DeleteMessageBatchResultEntry::builder().id(entry.id()).build().unwrap()
            });
            let output = DeleteMessageBatchOutput::builder().set_successful(Some(deleted.collect()));
            output.set_failed(Some(vec![])).build().unwrap()
        });
        let queue = self.clone();
        let release = mock!(Client::change_message_visibility_batch).then_compute_output(move |input| {
            let released = input.entries().iter().map(|entry| {
                assert_eq!(entry.visibility_timeout(), Some(0));
                queue.change(entry.receipt_handle(), |message| message.visible_at = Instant::now());
                ChangeMessageVisibilityBatchResultEntry::builder().id(entry.id()).build().unwrap()
            });
            let output =
                ChangeMessageVisibilityBatchOutput::builder().set_successful(Some(released.collect()));
            output.set_failed(Some(vec![])).build().unwrap()
        });
        mock_client!(aws_sdk_sqs, RuleMode::MatchAny, [&attributes, &receive, &delete, &release])
    }

    fn held(&self) -> HeldQueue {
        receipts::queue(self.client(), "https://sqs.example.com/receipts".to_owned(), VISIBILITY)
    }
}

/// Returns the event of a receipt of message `id`, with further fields.
fn event(event: &str, id: &str, outcome: &str, more: &Value) -> String {
    let mut data = json!({"version": 1, "id": id, "at": 1, "outcome": outcome});
    data.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let source = "/streamer/test";
    json!({"specversion": "1.0", "id": event, "source": source, "type": "streamer.receipt", "data": data})
        .to_string()
}

/// Returns receipts of messages with these ids.
fn delivered(ids: impl IntoIterator<Item = String>) -> impl Iterator<Item = String> {
    ids.into_iter().map(|id| event(&id, &id, "delivered", &json!({"connections": {"delivered": 1}})))
}

fn numbers(number: usize) -> impl Iterator<Item = String> {
    delivered((0..number).map(|id| id.to_string()))
}

/// Lists receipts, and returns how the listing ended, the listing, and the ids of the messages in order.
async fn list(queue: &Queue, options: Options) -> anyhow::Result<(End<()>, Listing, Vec<String>)> {
    let (mut held, mut listing, mut ids) = (queue.held(), Listing::new(options), Vec::new());
    let show = |_: &str, event: &streamer_message::ReceiptEvent| {
        ids.push(event.receipt.id.to_string());
        Ok(())
    };
    let end = listing.run(&mut held, std::future::pending(), show).await?;
    assert_eq!(held.release().await, 0);
    Ok((end, listing, ids))
}

mod listing {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn leaves_receipts_visible() -> anyhow::Result<()> {
        let queue = Queue::of(numbers(25));
        for run in 1..=2 {
            let (end, listing, ids) = list(&queue, Options::default()).await?;
            assert_eq!((end, listing.totals.shown, ids.len()), (End::OfQueue, 25, 25));
            assert!(queue.rest().iter().all(|(_, visible, receives)| *visible && *receives == run));
        }
        assert_eq!(queue.rest().len(), 25);
        Ok(())
    }

    #[tokio::test(start_paused = true)]
    async fn selects_by_id_up_to_the_limit() -> anyhow::Result<()> {
        let bodies = (0..30).map(|number| (number, if number % 2 == 0 { "even" } else { "odd" }));
        let bodies = bodies.map(|(number, id)| event(&number.to_string(), id, "gone", &json!({})));
        let queue = Queue::of(bodies);
        let id = Some(MessageId::new("odd")?);
        let (end, listing, ids) =
            list(&queue, Options { id, limit: Some(7), consume: true, ..Options::default() }).await?;
        assert_eq!((end, listing.totals.shown, ids), (End::Limit, 7, vec!["odd".to_owned(); 7]));
        assert_eq!(queue.rest().len(), 23, "only receipts that were shown are deleted");
        assert!(queue.rest().iter().all(|(_, visible, _)| *visible));
        Ok(())
    }

    #[tokio::test(start_paused = true)]
    async fn other_messages_are_named_and_stay() -> anyhow::Result<()> {
        let others = ["s3cret", "{}", "[1]", "4"].map(str::to_owned);
        let queue = Queue::of(others.into_iter().chain(numbers(2)));
        let (_, listing, ids) = list(&queue, Options { consume: true, ..Options::default() }).await?;
        assert_eq!((ids.len(), listing.others.number, listing.totals.receipts), (2, 4, 2));
        assert_eq!(listing.others.ids, ["sqs-0", "sqs-1", "sqs-2"]);
        assert!(listing.others.cause.is_some_and(|cause| !cause.contains("s3cret")));
        assert_eq!(queue.rest().len(), 4);
        Ok(())
    }

    #[tokio::test(start_paused = true)]
    async fn event_that_arrives_twice_is_shown_once() -> anyhow::Result<()> {
        let queue = Queue::of(numbers(3).chain(numbers(3)));
        let (_, listing, ids) = list(&queue, Options { consume: true, ..Options::default() }).await?;
        assert_eq!((ids.len(), listing.totals.duplicates, queue.rest().len()), (3, 3, 0));
        Ok(())
    }

    /// A receipt that was not printed, because the reader has closed the pipe, is not deleted.
    #[tokio::test(start_paused = true)]
    async fn unprinted_receipt_is_not_deleted() -> anyhow::Result<()> {
        let queue = Queue::of(numbers(1));
        let mut held = queue.held();
        let mut listing = Listing::new(Options { consume: true, ..Options::default() });
        let show = |_: &str, _: &_| Err(io::ErrorKind::BrokenPipe.into());
        assert!(listing.run(&mut held, std::future::pending::<()>(), show).await.is_err());
        held.release().await;
        assert_eq!(queue.rest(), [("sqs-0".to_owned(), true, 1)]);
        Ok(())
    }

    /// A receipt that is hidden for longer than its visibility timeout is received again, and not shown again.
    #[tokio::test(start_paused = true)]
    async fn follows_until_stopped() -> anyhow::Result<()> {
        let queue = Queue::of(numbers(1));
        let (mut held, mut ids) = (queue.held(), Vec::new());
        let mut listing = Listing::new(Options { follow: true, ..Options::default() });
        let polls = Mutex::new(0);
        let stop = std::future::poll_fn(|_| {
            let mut polls = polls.lock().unwrap();
            *polls += 1;
            match *polls {
                2 => queue.send(numbers(2).nth(1).unwrap()),
                4 => queue.0.lock().unwrap().iter_mut().for_each(|queued| queued.visible_at = Instant::now()),
                _ => {}
            }
            if *polls > 6 { std::task::Poll::Ready("stopped") } else { std::task::Poll::Pending }
        });
        let show = |_: &str, event: &streamer_message::ReceiptEvent| {
            ids.push(event.receipt.id.to_string());
            Ok(())
        };
        let end = listing.run(&mut held, stop, show).await?;
        assert_eq!((end, ids), (End::Stopped("stopped"), vec!["0".to_owned(), "1".to_owned()]));
        assert!(queue.rest().iter().all(|(_, visible, receives)| !visible && *receives == 2));
        assert_eq!((held.held(), held.release().await), (2, 0));
        assert!(queue.rest().iter().all(|(_, visible, _)| *visible));
        Ok(())
    }
}

mod wait {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(10);

    /// The queue's first messages are always the same others, as a queue that is never read has them.
    #[tokio::test(start_paused = true)]
    async fn finds_receipt_behind_others() -> anyhow::Result<()> {
        let others = numbers(95).chain(["no receipt".to_owned()]);
        let queue = Queue::of(others.chain(delivered(["mine".to_owned()])));
        let (mut held, mut wait) = (queue.held(), Wait::new([MessageId::new("mine")?]));
        assert_eq!(wait.run(&mut held, LIMIT, std::future::pending::<()>()).await?, None);
        assert_eq!(wait.outcomes()[0].best, Some(ReceiptOutcome::Delivered));
        assert!(wait.outcomes()[0].is_complete && wait.causes.is_empty());
        held.release().await;
        let rest = queue.rest();
        assert_eq!(rest.len(), 96, "only the message's own receipt is deleted");
        assert!(rest.iter().all(|(_, visible, receives)| *visible && *receives == 1), "{rest:?}");
        Ok(())
    }

    /// While it waits, other consumers get the other receipts.
    #[tokio::test(start_paused = true)]
    async fn others_are_released_meanwhile() -> anyhow::Result<()> {
        let queue = Queue::of(numbers(3));
        let (mut held, mut wait) = (queue.held(), Wait::new([MessageId::new("mine")?]));
        let waiting = tokio::spawn(async move {
            let ended = wait.run(&mut held, LIMIT, std::future::pending::<()>()).await;
            (ended, wait, held)
        });
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert_eq!(queue.receive().len(), 3, "the wait has released them");
        queue.send(delivered(["mine".to_owned()]).next().unwrap());
        let (ended, wait, _) = waiting.await?;
        assert_eq!((ended?, wait.outcomes()[0].is_complete), (None, true));
        Ok(())
    }

    #[tokio::test(start_paused = true)]
    async fn parts_of_a_message_are_added_up() -> anyhow::Result<()> {
        let part = |name: &str, delivered: u64| {
            let counts = json!({"connections": {"delivered": delivered, "gone": 1}, "part": name});
            event(name, "mine", "delivered", &counts)
        };
        let expanded = json!({"parts": {"prefix": "a", "count": 2}});
        let queue = Queue::of([part("a.1", 5), part("a.1", 5), event("e", "mine", "expanded", &expanded)]);
        let (mut held, mut wait) = (queue.held(), Wait::new([MessageId::new("mine")?]));
        let began = Instant::now();
        wait.run(&mut held, LIMIT, std::future::pending::<()>()).await?;
        assert!(!wait.outcomes()[0].is_complete && began.elapsed() >= LIMIT, "a part is missing");
        queue.send(part("a.0", 90));
        wait.run(&mut held, LIMIT, std::future::pending::<()>()).await?;
        let outcome = wait.outcomes().remove(0);
        let counts = [(ReceiptOutcome::Delivered, 95), (ReceiptOutcome::Gone, 2)];
        assert_eq!((outcome.is_complete, outcome.counts), (true, counts.into()));
        assert!(queue.rest().is_empty());
        Ok(())
    }

    #[tokio::test(start_paused = true)]
    async fn signal_ends_the_wait() -> anyhow::Result<()> {
        let queue = Queue::of(numbers(1));
        let (mut held, mut wait) = (queue.held(), Wait::new([MessageId::new("mine")?]));
        let signal = tokio::time::sleep(Duration::from_secs(2)).map(|()| "interrupted");
        let began = Instant::now();
        assert_eq!(wait.run(&mut held, LIMIT, signal).await?, Some("interrupted"));
        assert!(began.elapsed() < Duration::from_secs(3) && !wait.outcomes()[0].is_complete);
        held.release().await;
        assert!(queue.rest()[0].1, "the other receipt is visible");
        Ok(())
    }
}
