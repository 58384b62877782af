//! Properties of batching: many senders, and a queue that fails entries and calls, loses answers and is slow. Every
//! accepted message is on the queue once and in order, and no limit is exceeded.

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

/// A message, and the way in which it is sent.
#[derive(Debug, Clone)]
struct Send {
    /// The message is for one of 4 connections, and may belong to that connection's request.
    connection: u8,
    has_request: bool,
    /// Size of the payload in bytes.
    bytes: usize,
    /// Milliseconds since the previous message.
    after: u64,
    /// Milliseconds after which the sender drops the future.
    drop_after: Option<u64>,
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
    let drop_after = prop_oneof![6 => Just(None), 1 => (0_u64..8000).prop_map(Some)];
    let send = (0_u8..4, any::<bool>(), bytes, after, drop_after).prop_map(
        |(connection, has_request, bytes, after, drop_after)| Send {
            connection,
            has_request,
            bytes,
            after,
            drop_after,
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

/// The outcome of each message, or `None` if its sender gave up.
type Outcomes = Vec<Option<Result<(), SendError>>>;

const TIMEOUT: Duration = Duration::from_secs(20);

/// Runs a case until every send has completed, and returns the outcomes and the calls to the queue.
fn run(case: &Case) -> (Outcomes, Vec<Call>) {
    let runtime = Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        // After the script, the queue takes everything.
        let answers = case.answers.clone();
        let queue = CallsDouble::new(move |call, _| {
            let working = Answer { after: Duration::from_millis(5), what: Told::Entries(Vec::new()) };
            answers.get(call).cloned().unwrap_or(working)
        });
        let url = if case.fifo { format!("{URL}.fifo") } else { URL.to_owned() };
        let producer = Producer::new(&queue.client(), url).timeout(TIMEOUT);
        let mut at = Duration::ZERO;
        let sends = case.sends.iter().enumerate().map(|(number, send)| {
            at += Duration::from_millis(send.after);
            let (producer, at) = (&producer, at);
            async move {
                sleep(at).await;
                let message = Message::connection(format!("c{}", send.connection)).id(number.to_string());
                let message =
                    if send.has_request { message.request(format!("r{}", send.connection)) } else { message };
                let message = message.payload(&"x".repeat(send.bytes - 2)).unwrap();
                match send.drop_after {
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

/// The ordering key: a message group, or a request for an audience.
fn key(case: &Case, number: usize) -> Option<u8> {
    let Send { connection, has_request, .. } = case.sends[number];
    (case.fifo || has_request).then_some(connection)
}

fn numbers(call: &Call) -> Vec<usize> {
    call.entries.iter().map(|entry| id(&entry.body).parse().unwrap()).collect()
}

fn check(case: &Case) -> Result<(), TestCaseError> {
    let (outcomes, calls) = run(case);
    // In the order of the answers: time, index of the call, message, and whether it was confirmed and taken.
    let mut answered: Vec<(Instant, usize, usize, bool, bool)> = Vec::new();
    for (index, call) in calls.iter().enumerate() {
        let (at, confirmed) = call.ended.clone().unwrap();
        let numbers = numbers(call);
        prop_assert!((1..=10).contains(&numbers.len()));
        prop_assert!(call.entries.iter().map(|entry| entry.body.len()).sum::<usize>() <= 1024 * 1024);
        prop_assert!(at <= call.at + Duration::from_millis(5000), "a call takes at most 5 s");
        let fates = confirmed.into_iter().zip(call.taken.clone());
        answered.extend(
            numbers
                .iter()
                .zip(fates)
                .map(|(number, (confirmed, taken))| (at, index, *number, confirmed, taken)),
        );

        let keys: Vec<_> = numbers.iter().filter_map(|number| key(case, *number)).collect();
        prop_assert!(
            !case.fifo || keys.iter().collect::<BTreeSet<_>>().len() == keys.len(),
            "a call holds one message of a group"
        );
        let in_flight = |other: &&Call| other.ended.as_ref().is_some_and(|(end, _)| *end > call.at);
        let concurrent: Vec<_> = calls[..index].iter().filter(in_flight).collect();
        prop_assert!(concurrent.len() < 8, "{} calls in flight", concurrent.len() + 1);
        for other in concurrent.into_iter().flat_map(self::numbers) {
            prop_assert!(
                key(case, other).is_none_or(|other| !keys.contains(&other)),
                "{other} in flight with {numbers:?}"
            );
        }
    }
    answered.sort_by_key(|(at, index, ..)| (*at, *index));

    for (number, outcome) in outcomes.iter().enumerate() {
        let of_it = || answered.iter().filter(|(_, _, of, ..)| *of == number);
        let confirmed = of_it().filter(|(.., confirmed, _)| *confirmed).count();
        match outcome {
            Some(Ok(())) => {
                prop_assert_eq!(confirmed, 1, "{} was accepted", number);
                prop_assert!(of_it().any(|(.., taken)| *taken));
            }
            Some(Err(SendError::Refused { .. } | SendError::TimedOut { .. })) => {
                prop_assert_eq!(confirmed, 0)
            }
            Some(Err(error)) => return Err(TestCaseError::fail(format!("{number}: {error}"))),
            None => prop_assert!(confirmed <= 1),
        }
    }
    // A FIFO queue drops duplicates, so the order of the first taken copies counts; else that of the first attempts.
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
    fn accepted_messages_are_confirmed_once_in_order(case in case()) {
        check(&case)?;
    }
}

/// The faults of the script above really happen.
#[test]
fn scripted_queue_fails_in_every_way() {
    let send = Send { connection: 0, has_request: true, bytes: 10, after: 0, drop_after: None };
    let answer = |what| Answer { after: Duration::from_millis(10), what };
    let answers = vec![
        answer(Told::Entries(vec![Entry::NotTaken])),
        answer(Told::Fails("RequestThrottled")),
        answer(Told::Nothing { taken: true }),
        answer(Told::Entries(vec![Entry::Unmentioned])),
        answer(Told::Entries(vec![Entry::Refused])),
    ];
    let case = Case { fifo: true, sends: vec![send; 2], answers };
    let (outcomes, calls) = run(&case);
    assert!(matches!(&outcomes[..], [Some(Err(SendError::Refused { .. })), Some(Ok(()))]), "{outcomes:?}");
    assert_eq!(calls.iter().map(numbers).collect::<Vec<_>>(), [[0], [0], [0], [0], [0], [1]]);
    assert!(calls.iter().all(|call| OutboundMessage::decode(&call.entries[0].body).is_ok()));
    check(&case).unwrap();
}
