//! Any number of senders, and a queue that fails entries and calls, loses answers and takes its time: what was
//! accepted is on the queue once, in order, and no limit is exceeded.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use futures::future::join_all;
use proptest::prelude::*;
use streamer_message::OutboundMessage;
use streamer_producer::{Message, Producer, SendError};
use streamer_tests::{
    cases,
    doubles::{Answer, Call, CallsDouble, Entry, Told},
};
use tokio::{
    runtime::Builder,
    time::{Instant, sleep, timeout},
};

use crate::sending::{URL, id};

/// A message, and how it is sent.
#[derive(Debug, Clone)]
struct Send {
    /// For one of these connections, and of one of as many requests, or of none.
    connection: u8,
    of_request: bool,
    /// Bytes of the payload.
    bytes: usize,
    /// Milliseconds after the one before.
    after: u64,
    /// How many milliseconds its sender waits before it drops the future.
    patience: Option<u64>,
}

#[derive(Debug, Clone)]
struct Case {
    fifo: bool,
    sends: Vec<Send>,
    answers: Vec<Answer>,
}

fn case() -> impl Strategy<Value = Case> {
    let bytes = prop_oneof![3 => 2_usize..300, 2 => 100_000..131_000_usize];
    let after = prop_oneof![4 => Just(0), 2 => 1_u64..60, 1 => 100_u64..3000];
    let patience = prop_oneof![6 => Just(None), 1 => (0_u64..8000).prop_map(Some)];
    let send = (0_u8..4, any::<bool>(), bytes, after, patience).prop_map(
        |(connection, of_request, bytes, after, patience)| Send {
            connection,
            of_request,
            bytes,
            after,
            patience,
        },
    );
    let entry = prop_oneof![
        4 => Just(Entry::Taken),
        2 => Just(Entry::NotTaken),
        1 => Just(Entry::Unmentioned),
        1 => Just(Entry::Refused),
    ];
    let told = prop_oneof![
        4 => Just(Told::Entries(Vec::new())),
        3 => prop::collection::vec(entry, 1..=10).prop_map(Told::Entries),
        1 => Just(Told::Fails("RequestThrottled")),
        1 => Just(Told::Fails("InternalFailure")),
        2 => any::<bool>().prop_map(|taken| Told::Nothing { taken }),
    ];
    let after = prop_oneof![3 => 1_u64..30, 1 => 30_u64..5500];
    let answer = (after, told).prop_map(|(after, what)| Answer { after: Duration::from_millis(after), what });
    let (sends, answers) = (prop::collection::vec(send, 1..40), prop::collection::vec(answer, 1..12));
    (any::<bool>(), sends, answers).prop_map(|(fifo, sends, answers)| Case { fifo, sends, answers })
}

/// What became of each message: its outcome, or nothing where its sender lost patience.
type Outcomes = Vec<Option<Result<(), SendError>>>;

const TIME: Duration = Duration::from_secs(20);

/// Plays a case until everybody has an answer, and returns what the queue saw.
fn play(case: &Case) -> (Outcomes, Vec<Call>) {
    let runtime = Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        // The script is gone through once; after it, the queue works.
        let answers = case.answers.clone();
        let queue = CallsDouble::new(move |call, _| {
            let working = Answer { after: Duration::from_millis(5), what: Told::Entries(Vec::new()) };
            answers.get(call).cloned().unwrap_or(working)
        });
        let url = if case.fifo { format!("{URL}.fifo") } else { URL.to_owned() };
        let producer = Producer::new(&queue.client(), url).time(TIME);
        let mut at = Duration::ZERO;
        let sends = case.sends.iter().enumerate().map(|(number, send)| {
            at += Duration::from_millis(send.after);
            let (producer, at) = (&producer, at);
            async move {
                sleep(at).await;
                let message = Message::connection(format!("c{}", send.connection)).id(number.to_string());
                let message =
                    if send.of_request { message.request(format!("r{}", send.connection)) } else { message };
                let message = message.payload(&"x".repeat(send.bytes - 2)).unwrap();
                match send.patience {
                    None => Some(producer.send(message).await),
                    Some(millis) => timeout(Duration::from_millis(millis), producer.send(message)).await.ok(),
                }
            }
        });
        let outcomes = join_all(sends).await;
        producer.close().await;
        (outcomes, queue.calls())
    })
}

/// What keeps its order: a group, or a request for an audience.
fn key(case: &Case, number: usize) -> Option<u8> {
    let Send { connection, of_request, .. } = case.sends[number];
    (case.fifo || of_request).then_some(connection)
}

fn numbers(call: &Call) -> Vec<usize> {
    call.entries.iter().map(|entry| id(&entry.body).parse().unwrap()).collect()
}

fn check(case: &Case) -> Result<(), TestCaseError> {
    let (outcomes, calls) = play(case);
    // In the order in which they were answered: the call's place, the message, whether it was confirmed, and taken.
    let mut answered: Vec<(Instant, usize, usize, bool, bool)> = Vec::new();
    for (place, call) in calls.iter().enumerate() {
        let (at, confirmed) = call.ended.clone().unwrap();
        let numbers = numbers(call);
        prop_assert!((1..=10).contains(&numbers.len()));
        prop_assert!(call.entries.iter().map(|entry| entry.body.len()).sum::<usize>() <= 1024 * 1024);
        prop_assert!(at <= call.at + Duration::from_millis(5000), "a call has 5 s");
        let fates = confirmed.into_iter().zip(call.taken.clone());
        answered.extend(
            numbers
                .iter()
                .zip(fates)
                .map(|(number, (confirmed, taken))| (at, place, *number, confirmed, taken)),
        );

        let keys: Vec<_> = numbers.iter().filter_map(|number| key(case, *number)).collect();
        prop_assert!(
            !case.fifo || keys.iter().collect::<BTreeSet<_>>().len() == keys.len(),
            "one of a group"
        );
        let under_way = |other: &&Call| other.ended.as_ref().is_some_and(|(end, _)| *end > call.at);
        let beside: Vec<_> = calls[..place].iter().filter(under_way).collect();
        prop_assert!(beside.len() < 8, "{} calls side by side", beside.len() + 1);
        for other in beside.into_iter().flat_map(self::numbers) {
            prop_assert!(
                key(case, other).is_none_or(|other| !keys.contains(&other)),
                "{other} beside {numbers:?}"
            );
        }
    }
    answered.sort_by_key(|(at, place, ..)| (*at, *place));

    for (number, outcome) in outcomes.iter().enumerate() {
        let of_it = || answered.iter().filter(|(_, _, of, ..)| *of == number);
        let confirmed = of_it().filter(|(.., confirmed, _)| *confirmed).count();
        match outcome {
            Some(Ok(())) => {
                prop_assert_eq!(confirmed, 1, "{} was accepted", number);
                prop_assert!(of_it().any(|(.., taken)| *taken));
            }
            Some(Err(SendError::Refused { .. } | SendError::OutOfTime { .. })) => {
                prop_assert_eq!(confirmed, 0)
            }
            Some(Err(error)) => return Err(TestCaseError::fail(format!("{number}: {error}"))),
            None => prop_assert!(confirmed <= 1),
        }
    }
    // In order: on a FIFO queue, which drops what it has already, as they were taken; else as they first left.
    let first_left = calls.iter().flat_map(numbers);
    let first_taken = answered.iter().filter(|(.., taken)| *taken).map(|(_, _, number, ..)| *number);
    let order: Vec<usize> = if case.fifo { first_taken.collect() } else { first_left.collect() };
    let (mut seen, mut last) = (BTreeSet::new(), BTreeMap::new());
    for number in order.into_iter().filter(|number| seen.insert(*number)) {
        let Some(key) = key(case, number) else { continue };
        let before: Option<usize> = last.insert(key, number);
        prop_assert!(before.is_none_or(|before| before < number), "{number} after {before:?}");
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { max_shrink_iters: 2000, ..ProptestConfig::with_cases(cases() / 10) })]

    #[test]
    fn what_was_accepted_is_confirmed_once_and_in_order(case in case()) {
        check(&case)?;
    }
}

/// The property looks at what it is meant to look at: the script's faults happen.
#[test]
fn the_queue_of_the_property_fails_in_every_way() {
    let send = Send { connection: 0, of_request: true, bytes: 10, after: 0, patience: None };
    let answer = |what| Answer { after: Duration::from_millis(10), what };
    let answers = vec![
        answer(Told::Entries(vec![Entry::NotTaken])),
        answer(Told::Fails("RequestThrottled")),
        answer(Told::Nothing { taken: true }),
        answer(Told::Entries(vec![Entry::Unmentioned])),
        answer(Told::Entries(vec![Entry::Refused])),
    ];
    let case = Case { fifo: true, sends: vec![send; 2], answers };
    let (outcomes, calls) = play(&case);
    assert!(matches!(&outcomes[..], [Some(Err(SendError::Refused { .. })), Some(Ok(()))]), "{outcomes:?}");
    assert_eq!(calls.iter().map(numbers).collect::<Vec<_>>(), [[0], [0], [0], [0], [0], [1]]);
    assert!(calls.iter().all(|call| OutboundMessage::decode(&call.entries[0].body).is_ok()));
    check(&case).unwrap();
}
