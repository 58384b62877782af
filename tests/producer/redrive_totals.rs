//! The totals of a run through a dead-letter queue that delivers twice, refuses, and gets its letters back.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    ops::ControlFlow,
    sync::{Arc, Mutex},
    time::Duration,
};

use aws_sdk_sqs::{
    Client,
    operation::{
        delete_message_batch::DeleteMessageBatchOutput, get_queue_attributes::GetQueueAttributesOutput,
        get_queue_url::GetQueueUrlOutput, receive_message::ReceiveMessageOutput,
        send_message_batch::SendMessageBatchOutput,
    },
    types::{
        BatchResultErrorEntry, DeleteMessageBatchResultEntry, Message, MessageAttributeValue,
        QueueAttributeName, SendMessageBatchResultEntry,
    },
};
use aws_smithy_mocks::{RuleMode, mock, mock_client};
use proptest::prelude::*;
use streamer_cli::dead_letters::{Action, DeadLetterQueue, Filter, Outcome, Run};

use streamer_tests::cases;

/// A dead letter of the script, whose body is its position.
#[derive(Debug, Clone, Copy)]
struct Letter {
    exhausted: bool,
    /// The worker makes it a dead letter again as soon as it is sent back.
    fails_again: bool,
    refused: bool,
    /// It cannot be deleted.
    stuck: bool,
}

/// The queue's behaviour, in turn at each receive: the number of letters, and whether it repeats an earlier one.
type Receives = Vec<(usize, bool)>;

/// The dead-letter queue and the outbound queue.
#[derive(Debug, Default)]
struct Model {
    letters: Vec<Letter>,
    receives: VecDeque<(usize, bool)>,
    /// SQS's id and body of the letters that can be received.
    visible: VecDeque<(String, usize)>,
    delivered: Vec<(String, usize)>,
    sent: usize,
    deleted: BTreeSet<String>,
    returned: usize,
}

impl Model {
    fn receive(&mut self) -> Vec<Message> {
        let (number, repeats) = self.receives.pop_front().unwrap_or((10, false));
        let repeated = self.delivered.last().filter(|_| repeats).cloned();
        let number = number.min(self.visible.len());
        let new: Vec<_> = self.visible.drain(..number).collect();
        self.delivered.extend(new.iter().cloned());
        repeated.into_iter().chain(new).map(|(id, body)| self.message(&id, body)).collect()
    }

    fn message(&self, id: &str, body: usize) -> Message {
        let reason = if self.letters[body].exhausted { "exhausted" } else { "poison" };
        let reason = MessageAttributeValue::builder().data_type("String").string_value(reason).build();
        let message = Message::builder().message_id(id).receipt_handle(format!("{id} {body}"));
        message.body(body.to_string()).message_attributes("streamer.reason", reason.unwrap()).build()
    }

    /// Returns whether the outbound queue takes a message.
    fn send(&mut self, body: usize) -> bool {
        let letter = self.letters[body];
        if letter.refused {
            return false;
        }
        self.sent += 1;
        if letter.fails_again {
            self.returned += 1;
            self.visible.push_back((format!("again-{}", self.returned), body));
        }
        true
    }

    fn delete(&mut self, receipt_handle: &str) -> bool {
        let (id, body) = receipt_handle.split_once(' ').unwrap();
        let is_deleted = !self.letters[body.parse::<usize>().unwrap()].stuck;
        if is_deleted {
            self.deleted.insert(id.to_owned());
        }
        is_deleted
    }
}

fn double(model: &Arc<Mutex<Model>>) -> Client {
    let policy = r#"{"deadLetterTargetArn":"arn:aws:sqs:us-east-1:000000000000:dead","maxReceiveCount":10}"#;
    let waiting = model.lock().unwrap().visible.len().to_string();
    let attributes = mock!(Client::get_queue_attributes).then_output(move || {
        GetQueueAttributesOutput::builder()
            .attributes(QueueAttributeName::RedrivePolicy, policy)
            .attributes(QueueAttributeName::ApproximateNumberOfMessages, &waiting)
            .attributes(QueueAttributeName::ApproximateNumberOfMessagesNotVisible, "0")
            .attributes(QueueAttributeName::ApproximateNumberOfMessagesDelayed, "0")
            .build()
    });
    let url = mock!(Client::get_queue_url)
        .then_output(|| GetQueueUrlOutput::builder().queue_url("https://sqs.example.com/dead").build());
    let shared = Arc::clone(model);
    let receive = mock!(Client::receive_message).then_compute_output(move |_| {
        ReceiveMessageOutput::builder().set_messages(Some(shared.lock().unwrap().receive())).build()
    });
    let failed = |id: &str| {
        BatchResultErrorEntry::builder().id(id).code("InternalError").sender_fault(false).build().unwrap()
    };
    let shared = Arc::clone(model);
    let send = mock!(Client::send_message_batch).then_compute_output(move |input| {
        let output = SendMessageBatchOutput::builder().set_successful(Some(vec![])).set_failed(Some(vec![]));
        let output = input.entries().iter().fold(output, |output, entry| {
            match shared.lock().unwrap().send(entry.message_body().parse().unwrap()) {
                true => {
                    let sent = SendMessageBatchResultEntry::builder().id(entry.id()).message_id("m");
                    output.successful(sent.md5_of_message_body("").build().unwrap())
                }
                false => output.failed(failed(entry.id())),
            }
        });
        output.build().unwrap()
    });
    let shared = Arc::clone(model);
    let delete = mock!(Client::delete_message_batch).then_compute_output(move |input| {
        let output =
            DeleteMessageBatchOutput::builder().set_successful(Some(vec![])).set_failed(Some(vec![]));
        let output = input.entries().iter().fold(output, |output, entry| {
            match shared.lock().unwrap().delete(entry.receipt_handle()) {
                true => {
                    let deleted = DeleteMessageBatchResultEntry::builder().id(entry.id());
                    output.successful(deleted.build().unwrap())
                }
                false => output.failed(failed(entry.id())),
            }
        });
        output.build().unwrap()
    });
    mock_client!(aws_sdk_sqs, RuleMode::MatchAny, [&attributes, &url, &receive, &send, &delete])
}

/// A run over the letters, with the outcomes that it reported, by SQS's id.
async fn run(
    letters: &[Letter],
    receives: Receives,
    action: Action,
    filter: Filter,
) -> anyhow::Result<(Run, Model, BTreeMap<String, Outcome>)> {
    let visible = (0..letters.len()).map(|body| (format!("first-{body}"), body)).collect();
    let model = Model { letters: letters.to_vec(), receives: receives.into(), visible, ..Model::default() };
    let model = Arc::new(Mutex::new(model));
    let outbound = "https://sqs.example.com/outbound".to_owned();
    let mut queue = DeadLetterQueue::of(double(&model), outbound, Duration::from_secs(60)).await?;
    let (mut run, mut outcomes) = (Run::new(action, filter), BTreeMap::new());
    let never = std::future::pending::<()>();
    run.process(&mut queue, never, |_, letters| {
        for (letter, outcome) in letters {
            assert!(outcomes.insert(letter.message_id, outcome).is_none(), "a letter was reported twice");
        }
        ControlFlow::Continue(())
    })
    .await?;
    drop(queue);
    let model = std::mem::take(&mut *model.lock().unwrap());
    Ok((run, model, outcomes))
}

/// Five letters are five, although one of them fails again and returns while the others are sent.
#[tokio::test(start_paused = true)]
async fn returning_letter_is_not_counted_twice() -> anyhow::Result<()> {
    let letter = Letter { exhausted: true, fails_again: false, refused: false, stuck: false };
    let letters = [letter, Letter { fails_again: true, ..letter }, letter, letter, letter];
    let (run, ..) = run(&letters, vec![(2, false), (1, true)], Action::Send, Filter::default()).await?;
    let totals = run.totals;
    assert_eq!((totals.inspected, totals.matching, totals.sent, totals.returned), (5, 5, 5, 1));
    Ok(())
}

fn letter() -> impl Strategy<Value = Letter> {
    let rarely = || prop::bool::weighted(0.2);
    (any::<bool>(), any::<bool>(), rarely(), rarely()).prop_map(|(exhausted, fails_again, refused, stuck)| {
        Letter { exhausted, fails_again, refused, stuck }
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(cases() / 10))]

    /// Each letter is counted once, and the numbers add up to what the queues saw.
    #[test]
    fn totals_add_up_whatever_the_queue_does(
        letters in prop::collection::vec(letter(), 0..30),
        receives in prop::collection::vec((0..=10_usize, any::<bool>()), 0..20),
        action in prop::sample::select(vec![Action::List, Action::Send, Action::Drop]),
        filtered in any::<bool>(),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
        let filter = Filter { reason: filtered.then(|| "exhausted".to_owned()), ..Filter::default() };
        // Two receives without a letter end a run.
        let receives = receives.into_iter().map(|(number, repeats)| (number.max(1), repeats)).collect();
        let (run, model, outcomes) = runtime.unwrap().block_on(run(&letters, receives, action, filter)).unwrap();
        let totals = run.totals;
        prop_assert_eq!(totals.inspected, letters.len());
        prop_assert_eq!(totals.returned, model.returned);
        let matching = letters.iter().filter(|letter| !filtered || letter.exhausted).count();
        prop_assert_eq!((totals.matching, run.tally.total(), outcomes.len()), (matching, matching, matching));
        let (sent, dropped) = (totals.sent + totals.not_deleted, totals.dropped + totals.not_dropped);
        prop_assert_eq!(sent, model.sent);
        prop_assert_eq!(totals.sent + totals.dropped, model.deleted.len());
        let handled = match action {
            Action::List => totals.matching,
            Action::Send => sent + totals.refused,
            Action::Drop => dropped,
        };
        prop_assert_eq!(handled, matching);
        let reported = |outcome| outcomes.values().filter(|found| **found == outcome).count();
        prop_assert_eq!(reported(Outcome::Sent), totals.sent);
        prop_assert_eq!(reported(Outcome::Refused), totals.refused);
        prop_assert_eq!(reported(Outcome::Dropped), totals.dropped);
    }
}
