//! Sending messages: batches, retries, errors and order.

use std::{
    future::Future,
    task::{Context, Waker},
    time::Duration,
};

use futures::{
    StreamExt as _,
    future::{join, join_all},
    stream,
};
use streamer_message::{Audience, OutboundMessage};
use streamer_producer::{Message, MessageId, Producer, SendAllError, SendError};
use streamer_tests::doubles::{Answer, CallsDouble, Entry, Told};
use tokio::time::{Instant, sleep, timeout};

pub(crate) const URL: &str = "https://sqs.example.com/outbound";

/// Duration of a call to the queue.
pub(crate) const CALL: Duration = Duration::from_millis(10);

pub(crate) fn producer(queue: &CallsDouble) -> Producer {
    Producer::new(&queue.client(), URL)
}

pub(crate) fn message(id: impl ToString) -> Message {
    Message::connection("c").id(id.to_string()).payload(&1).unwrap()
}

fn messages(number: usize) -> Vec<Message> {
    (0..number).map(message).collect()
}

/// A queue that answers its first calls by a script, and takes all entries of later calls.
fn scripted(calls: Vec<Told>) -> CallsDouble {
    CallsDouble::new(move |call, _| {
        let what = calls.get(call).cloned().unwrap_or(Told::Entries(Vec::new()));
        Answer { after: CALL, what }
    })
}

pub(crate) fn id(body: &str) -> String {
    OutboundMessage::decode(body).unwrap().id.into()
}

fn ids(bodies: &[String]) -> Vec<String> {
    bodies.iter().map(|body| id(body)).collect()
}

fn sizes(queue: &CallsDouble) -> Vec<usize> {
    queue.calls().iter().map(|call| call.entries.len()).collect()
}

#[tokio::test(start_paused = true)]
async fn single_message_leaves_at_once() {
    let (queue, started) = (CallsDouble::taking(CALL), Instant::now());
    producer(&queue).send(message("m")).await.unwrap();
    assert_eq!((started.elapsed(), sizes(&queue)), (CALL, vec![1]));
}

#[tokio::test(start_paused = true)]
async fn messages_leave_in_batches_of_ten() {
    let queue = CallsDouble::taking(CALL);
    producer(&queue).send_all(messages(25)).await.unwrap();
    assert_eq!(sizes(&queue), [10, 10, 5]);
    assert!(ids(&queue.taken()).into_iter().eq((0..25).map(|id| id.to_string())));
}

#[tokio::test(start_paused = true)]
async fn thousand_concurrent_sends_need_few_calls() {
    let (queue, started) = (CallsDouble::taking(CALL), Instant::now());
    let producer = producer(&queue);
    let sends = messages(1000).into_iter().map(|message| producer.send(message));
    assert!(join_all(sends).await.iter().all(Result::is_ok));
    let calls = queue.calls().len();
    println!("1000 concurrent sends: {calls} calls, {:?}", started.elapsed());
    assert!(calls <= 150, "{calls} calls");
}

/// Messages that arrive during a slow call wait for 20 ms at most.
#[tokio::test(start_paused = true)]
async fn messages_wait_20_ms_behind_slow_call() {
    let queue = CallsDouble::new(|call, _| {
        let after = if call == 0 { Duration::from_secs(4) } else { CALL };
        Answer { after, what: Told::Entries(Vec::new()) }
    });
    let producer = producer(&queue);
    let slow = producer.send(message("slow"));
    let others = async {
        sleep(Duration::from_millis(1)).await;
        let started = Instant::now();
        let sends = messages(3).into_iter().map(|message| producer.send(message));
        assert!(join_all(sends).await.iter().all(Result::is_ok));
        assert_eq!(started.elapsed(), Duration::from_millis(20) + CALL);
    };
    join(slow, others).await.0.unwrap();
    assert_eq!(sizes(&queue), [1, 3]);
}

/// A message with little time left does not wait for its batch to fill.
#[tokio::test(start_paused = true)]
async fn short_time_limit_has_an_attempt() {
    let queue = CallsDouble::new(|call, _| {
        let after = if call == 0 { Duration::from_secs(4) } else { Duration::from_millis(5) };
        Answer { after, what: Told::Entries(Vec::new()) }
    });
    let producer = producer(&queue);
    let hasty = producer.clone().timeout(Duration::from_millis(16));
    let (slow, sent) = join(producer.send(message("slow")), hasty.send(message("hasty"))).await;
    assert!(slow.is_ok() && sent.is_ok(), "{sent:?}");
}

#[tokio::test(start_paused = true)]
async fn only_failed_entries_are_retried() {
    let queue = scripted(vec![
        Told::Entries(vec![Entry::Taken, Entry::NotTaken, Entry::Unmentioned]),
        Told::Fails("InternalFailure"),
        Told::Entries(vec![Entry::NotTaken]),
    ]);
    producer(&queue).send_all(messages(4)).await.unwrap();
    let mut taken = ids(&queue.taken());
    taken.sort_unstable();
    assert_eq!(taken, ["0", "1", "2", "3"]);
    let retried: Vec<_> = queue.calls()[1..].iter().flat_map(|call| call.entries.clone()).collect();
    assert!(retried.iter().all(|entry| ["1", "2"].contains(&id(&entry.body).as_str())), "{retried:?}");
}

/// An entry that the queue refuses is not retried, and the others of its call are sent.
#[tokio::test(start_paused = true)]
async fn refused_entries_are_not_retried() {
    let queue = scripted(vec![Told::Entries(vec![Entry::Taken, Entry::Refused])]);
    let SendAllError { total, unsent, .. } = producer(&queue).send_all(messages(12)).await.unwrap_err();
    assert_eq!((total, unsent.len(), &unsent[0].id), (12, 1, &MessageId::new("1").unwrap()));
    assert_eq!(
        unsent[0].error,
        SendError::Refused { code: "InvalidMessageContents".into(), message: "scripted".into() }
    );
    assert_eq!(queue.taken().len(), 11);
}

#[tokio::test(start_paused = true)]
async fn permanent_and_transient_errors_are_distinguished() {
    for code in [
        "InvalidMessageContents",
        "InvalidParameterValue",
        "AWS.SimpleQueueService.UnsupportedOperation",
        "AWS.SimpleQueueService.NonExistentQueue",
        "AccessDenied",
        "SignatureDoesNotMatch",
        "KMS.AccessDeniedException",
        "KMS.DisabledException",
        "KMS.NotFoundException",
    ] {
        let queue = scripted(vec![Told::Fails(code)]);
        let error = producer(&queue).send(message("m")).await.unwrap_err();
        assert_eq!(error, SendError::Refused { code: code.into(), message: "scripted".into() });
    }
    for code in [
        "RequestThrottled",
        "ThrottlingException",
        "ExpiredToken",
        "InternalFailure",
        "KMS.ThrottlingException",
    ] {
        let queue = scripted(vec![Told::Fails(code), Told::Fails(code)]);
        producer(&queue).send(message("m")).await.unwrap();
        assert_eq!(queue.calls().len(), 3, "{code}");
    }
}

#[tokio::test(start_paused = true)]
async fn faulty_message_does_not_fail_its_batch() {
    let queue = CallsDouble::new(|_, entries| {
        let at_fault = entries.iter().any(|entry| id(&entry.body) == "2");
        let what = if at_fault { Told::Fails("InvalidParameterValue") } else { Told::Entries(Vec::new()) };
        Answer { after: CALL, what }
    });
    let error = producer(&queue).send_all(messages(5)).await.unwrap_err();
    assert_eq!((error.unsent.len(), error.unsent[0].id.as_str()), (1, "2"));
    assert_eq!((sizes(&queue), ids(&queue.taken()).len()), (vec![5, 1, 1, 1, 1, 1], 4));
}

#[tokio::test(start_paused = true)]
async fn timeout_error_names_the_last_cause() {
    let limit = Duration::from_secs(3);
    let queue = CallsDouble::new(|_, _| Answer { after: CALL, what: Told::Fails("RequestThrottled") });
    let started = Instant::now();
    let error = producer(&queue).timeout(limit).send(message("m")).await.unwrap_err();
    assert!((limit - CALL * 2..=limit).contains(&started.elapsed()), "{:?}", started.elapsed());
    assert_eq!(error, SendError::TimedOut { timeout: limit, cause: "RequestThrottled: scripted".into() });
    assert!(
        error.to_string().contains("RequestThrottled: scripted; send it again with the same id"),
        "{error}"
    );
    // Attempts become rarer.
    assert!((5..40).contains(&queue.calls().len()), "{} calls", queue.calls().len());
}

#[tokio::test(start_paused = true)]
async fn last_attempt_is_near_the_deadline() {
    let limit = Duration::from_secs(3);
    for seed in 0..30 {
        fastrand::seed(seed);
        let queue = CallsDouble::new(|_, _| Answer { after: CALL, what: Told::Fails("RequestThrottled") });
        let deadline = Instant::now() + limit;
        assert!(producer(&queue).timeout(limit).send(message("m")).await.is_err());
        let last = queue.calls().last().map(|call| call.at).unwrap();
        let left = deadline - last;
        assert!(left <= CALL * 2 + Duration::from_millis(2), "the last call had {left:?}, with seed {seed}");
    }
}

/// A send that drives the calls of others still holds them when the others are dropped.
#[tokio::test(start_paused = true)]
async fn abandoned_call_lets_the_next_begin() {
    let queue = CallsDouble::new(|call, _| Answer {
        after: CALL,
        what: if call < 8 { Told::Nothing { taken: false } } else { Told::Entries(Vec::new()) },
    });
    let producer = producer(&queue);
    let abandoned = async {
        let ids = || (0..1000).map(|id| id.to_string());
        let sends = (0..8).map(|_| producer.send(Message::connections(ids()).payload(&1).unwrap()));
        assert!(timeout(Duration::from_secs(1), join_all(sends)).await.is_err());
    };
    let next = async {
        sleep(CALL).await;
        producer.send(message("m")).await.map(|()| Instant::now())
    };
    let started = Instant::now();
    let (_, sent) = join(abandoned, next).await;
    let took = sent.unwrap() - started;
    assert!(took < Duration::from_millis(1600), "{took:?}");
}

/// The timeout covers the whole call of `send_all`, and `Duration::MAX` means no timeout.
#[tokio::test(start_paused = true)]
async fn timeout_covers_all_and_may_be_endless() {
    let queue = CallsDouble::taking(Duration::from_secs(1));
    let producer = producer(&queue);
    // In each second, 8 calls with 10 messages each complete.
    let error =
        producer.clone().timeout(Duration::from_millis(1500)).send_all(messages(100)).await.unwrap_err();
    assert_eq!(error.unsent.len(), 20);
    producer.timeout(Duration::MAX).send(message("m")).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn short_timeout_does_not_end_shared_call() {
    let queue = CallsDouble::taking(Duration::from_secs(1));
    let producer = producer(&queue);
    let first = producer.send(message("first"));
    let hasty = producer.clone().timeout(Duration::from_millis(500));
    let (first, (hasty, patient)) =
        join(first, join(hasty.send(message("hasty")), producer.send(message("patient")))).await;
    assert!(matches!(hasty, Err(SendError::TimedOut { .. })));
    assert!(first.is_ok() && patient.is_ok());
    assert_eq!(sizes(&queue), [1, 2]);
    // The hasty message is on the queue, although its sender timed out.
    assert_eq!(ids(&queue.taken()), ["first", "hasty", "patient"]);
}

#[tokio::test(start_paused = true)]
async fn unanswered_call_is_retried() {
    let queue = scripted(vec![Told::Nothing { taken: false }]);
    let started = Instant::now();
    producer(&queue).send(message("m")).await.unwrap();
    assert!(started.elapsed() >= Duration::from_secs(5), "{:?}", started.elapsed());
    assert_eq!(sizes(&queue), [1, 1]);
}

/// A dropped send leaves no call or capacity behind, and the others still complete.
#[tokio::test(start_paused = true)]
async fn dropped_sends_do_not_affect_others() {
    let queue = CallsDouble::taking(Duration::from_secs(1));
    let producer = producer(&queue);
    // In each batch, every second sender gives up early.
    let waits = |number: usize| {
        let patience = if number.is_multiple_of(2) { 1500 } else { 5000 };
        timeout(Duration::from_millis(patience), producer.send(message(number)))
    };
    let outcomes = join_all((0..200).map(waits)).await;
    let (taken, dropped) = (ids(&queue.taken()), outcomes.iter().filter(|outcome| outcome.is_err()).count());
    assert!((40..=100).contains(&dropped), "{dropped} sends were dropped");
    for (number, outcome) in outcomes.into_iter().enumerate() {
        if let Ok(sent) = outcome {
            sent.unwrap();
            assert_eq!(taken.iter().filter(|id| **id == number.to_string()).count(), 1);
        }
    }
    let calls = queue.calls();
    assert!(calls.iter().all(|call| call.ended.is_some()), "no call is in flight");
    // The whole capacity is free again.
    timeout(Duration::from_secs(1), producer.close()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn no_calls_begin_without_waiting_sends() {
    let queue = CallsDouble::new(|_, _| Answer { after: CALL, what: Told::Fails("InternalFailure") });
    let producer = producer(&queue);
    _ = timeout(Duration::from_secs(1), producer.send(message("m"))).await;
    let calls = queue.calls().len();
    sleep(Duration::from_secs(60)).await;
    assert_eq!(queue.calls().len(), calls);
}

#[tokio::test(start_paused = true)]
async fn close_completes_sends_and_refuses_new_ones() {
    let queue = CallsDouble::taking(CALL);
    let producer = producer(&queue);
    let many = Message::connections((0..20_000).map(|id| id.to_string())).payload(&1).unwrap();
    let sends = join(producer.send(many), producer.send_all(messages(200)));
    let (sent, (late, taken)) = join(sends, async {
        sleep(CALL / 2).await;
        producer.close().await;
        let taken = queue.taken().len();
        (producer.clone().send(message("late")).await, taken)
    })
    .await;
    assert!(sent.0.is_ok() && sent.1.is_ok(), "{sent:?}");
    assert_eq!((late, taken), (Err(SendError::Closed), 400));
}

#[tokio::test(start_paused = true)]
async fn full_buffer_delays_sends_until_timeout() {
    let queue =
        CallsDouble::new(|_, _| Answer { after: Duration::ZERO, what: Told::Nothing { taken: false } });
    let producer = producer(&queue);
    // 16 MiB hold 127 messages of this size.
    let large = |number: usize| {
        let payload = "x".repeat(128 * 1024 - 2);
        Message::connection("c").id(number.to_string()).payload(&payload).unwrap()
    };
    let others = join_all((0..127).map(|number| producer.send(large(number))));
    let limit = Duration::from_secs(1);
    let hasty = producer.clone().timeout(limit);
    let (late, others) = join(hasty.send(large(127)), others).await;
    // This send came first, so it had capacity.
    assert!(matches!(late, Err(SendError::TimedOut { cause, .. }) if cause == "the queue has not answered"));
    assert!(others.iter().all(Result::is_err));

    let others = join_all((0..127).map(|number| producer.send(large(number))));
    let late = async {
        sleep(Duration::from_millis(1)).await;
        hasty.send(large(127)).await
    };
    let (_, late) = join(others, late).await;
    assert_eq!(
        late,
        Err(SendError::TimedOut { timeout: limit, cause: "the producer's buffer is full".into() })
    );
}

#[tokio::test(start_paused = true)]
async fn large_audience_is_split_by_100_connections() {
    let queue = CallsDouble::taking(CALL);
    let ids: Vec<_> = (0..1001).map(|number| format!("c{number}")).collect();
    producer(&queue).send(Message::connections(&ids).id("m").payload(&1).unwrap()).await.unwrap();
    assert_eq!(sizes(&queue), [10, 1]);
    let mut recipients = Vec::new();
    for body in queue.taken() {
        let outbound = OutboundMessage::decode(&body).unwrap();
        assert_eq!(outbound.id.as_str(), "m");
        match outbound.to {
            Audience::Connection(id) => recipients.push(id.to_string()),
            Audience::Connections(ids) => recipients.extend(ids.as_slice().iter().map(ToString::to_string)),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(recipients, ids);
}

#[tokio::test(start_paused = true)]
async fn partly_refused_message_is_reported_once() {
    let queue = scripted(vec![Told::Entries(vec![Entry::Refused, Entry::Refused])]);
    let ids: Vec<_> = (0..300).map(|number| format!("c{number}")).collect();
    let all = [Message::connections(&ids).id("m").payload(&1).unwrap(), message("n")];
    let error = producer(&queue).send_all(all).await.unwrap_err();
    assert_eq!((error.total, error.unsent.len(), error.unsent[0].id.as_str()), (2, 1, "m"));
}

/// After a call that one message has failed, results are known one by one.
#[tokio::test(start_paused = true)]
async fn known_results_count_at_the_deadline() {
    let queue = scripted(vec![
        Told::Fails("InvalidMessageContents"),
        Told::Entries(vec![Entry::Taken]),
        Told::Entries(vec![Entry::Refused]),
        Told::Nothing { taken: false },
    ]);
    let producer = producer(&queue).timeout(Duration::from_secs(1));
    let error = producer.send_all(messages(3)).await.unwrap_err();
    let [refused, late] = &error.unsent[..] else { panic!("{error:?}") };
    assert!(matches!(refused.error, SendError::Refused { .. }) && refused.id.as_str() == "1", "{error:?}");
    assert!(matches!(late.error, SendError::TimedOut { .. }) && late.id.as_str() == "2", "{error:?}");
}

/// Of a message's errors, the one that concerns all other messages, too, is reported.
#[tokio::test(start_paused = true)]
async fn queue_fault_is_reported_before_others() {
    let queue = scripted(vec![Told::Fails("AccessDenied"), Told::Entries(vec![Entry::Refused])]);
    let ids: Vec<_> = (0..1001).map(|number| format!("c{number}")).collect();
    let error = producer(&queue).send(Message::connections(&ids).payload(&1).unwrap()).await.unwrap_err();
    assert!(error.is_queue_fault(), "{error}");
    assert_eq!(sizes(&queue), [10, 1]);
}

/// On a FIFO queue, each recipient has an entry, and a message for a tenant is an error.
#[tokio::test(start_paused = true)]
async fn fifo_entries_have_group_and_deduplication_id() {
    let queue = CallsDouble::taking(CALL);
    let producer = Producer::new(&queue.client(), format!("{URL}.fifo"));
    let tenant = Message::tenant("acme").id("t").payload(&1).unwrap();
    let user = Message::user("acme", "anna").id("u").payload(&1).unwrap();
    let two = Message::connections(["a=", "b="]).id("m").payload(&1).unwrap();
    assert_eq!(producer.send(tenant.clone()).await, Err(SendError::TenantOnFifo));
    let error = producer.send_all([user, tenant, two]).await.unwrap_err();
    assert!(
        error.to_string().starts_with("1 of 3 messages are not on the queue; the first: t: a FIFO"),
        "{error}"
    );
    let entries = queue.calls().into_iter().flat_map(|call| call.entries);
    let ids: Vec<_> = entries.map(|entry| (entry.group.unwrap(), entry.deduplication.unwrap())).collect();
    let expected = [("acme#anna", "u:acme#anna"), ("a=", "m:a="), ("b=", "m:b=")];
    assert!(ids.iter().map(|(group, id)| (group.as_str(), id.as_str())).eq(expected), "{ids:?}");
}

#[tokio::test(start_paused = true)]
async fn trace_header_travels_with_its_message() {
    let queue = CallsDouble::taking(CALL);
    let header = "Root=1-5759e988-bd862e3fe1be46a994272793;Sampled=1";
    producer(&queue).send(Message::connection("c").trace(header).payload(&1).unwrap()).await.unwrap();
    assert_eq!(queue.calls()[0].entries[0].trace.as_deref(), Some(header));
}

#[tokio::test(start_paused = true)]
async fn producer_futures_can_run_in_tasks() {
    let queue = CallsDouble::taking(CALL);
    let producer = producer(&queue);
    let mut progress = producer.progress(Message::connection("c").request("r")).unwrap();
    let task = tokio::spawn(async move {
        producer.send(message("m")).await.unwrap();
        producer.send_all(messages(2)).await.unwrap();
        progress.update(1, None).await.unwrap();
        progress.complete(&1).await.unwrap();
        producer.close().await;
    });
    task.await.unwrap();
    assert_eq!(queue.taken().len(), 5);
}

/// Polls a future once and never again, like a task that does other work or a Lambda that is frozen.
fn frozen<F: Future>(future: F) -> std::pin::Pin<Box<F>> {
    let mut future = Box::pin(future);
    assert!(future.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    future
}

#[tokio::test(start_paused = true)]
async fn undriven_sends_do_not_block_others() {
    for number in [1, 7, 8, 20] {
        let queue = CallsDouble::taking(CALL);
        let producer = producer(&queue);
        let sends: Vec<_> = (0..number)
            .map(|number| {
                // Each message fills a call.
                let ids = (0..1000).map(move |id| format!("{number}-{id}"));
                frozen(producer.send(Message::connections(ids).payload(&1).unwrap()))
            })
            .collect();
        let started = Instant::now();
        producer.send(message("m")).await.unwrap();
        assert!(started.elapsed() < Duration::from_millis(100), "{number}: {:?}", started.elapsed());
        drop(sends);
        timeout(Duration::from_secs(1), producer.close()).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn abandoned_calls_free_their_slots() {
    let queue = CallsDouble::new(|call, _| Answer {
        after: CALL,
        what: if call < 8 { Told::Nothing { taken: false } } else { Told::Entries(Vec::new()) },
    });
    let producer = producer(&queue);
    let ids = || (0..1000).map(|id| id.to_string());
    let sends = (0..8).map(|_| producer.send(Message::connections(ids()).payload(&1).unwrap()));
    assert!(timeout(Duration::from_secs(1), join_all(sends)).await.is_err());
    let started = Instant::now();
    producer.send(message("m")).await.unwrap();
    assert_eq!((started.elapsed(), sizes(&queue)[8..].to_vec()), (CALL, vec![1]));
}

/// A stream of sends whose consumer sends, too, does not deadlock.
#[tokio::test(start_paused = true)]
async fn sends_inside_a_send_stream_complete() {
    let queue = CallsDouble::taking(CALL);
    let producer = &producer(&queue);
    let sends = (0..50).map(|number| {
        let ids = (0..1000).map(move |id| format!("{number}-{id}"));
        producer.send(Message::connections(ids).payload(&1).unwrap())
    });
    let started = Instant::now();
    let sending = stream::iter(sends).buffer_unordered(20);
    sending
        .for_each(|sent| async move {
            sent.unwrap();
            producer.send(message("handled")).await.unwrap();
        })
        .await;
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
}

/// A task that has used up its tokio budget still sends in order.
#[tokio::test(start_paused = true)]
async fn order_does_not_depend_on_polling() {
    let queue = CallsDouble::taking(CALL);
    let producer = Producer::new(&queue.client(), format!("{URL}.fifo"));
    let task = tokio::spawn(async move {
        for used in [0, 60, 127, 128] {
            for _ in 0..used {
                tokio::task::consume_budget().await;
            }
            producer.send_all(messages(60)).await.unwrap();
            join_all(messages(60).into_iter().map(|message| producer.send(message))).await;
            tokio::task::yield_now().await;
        }
    });
    task.await.unwrap();
    let numbers: Vec<usize> = queue.taken().iter().map(|body| id(body).parse().unwrap()).collect();
    assert!(numbers.into_iter().eq((0..60).cycle().take(8 * 60)));
}

/// Many senders on several threads, some of which give up at any moment.
#[test]
fn concurrent_threads_lose_no_message() {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(4).enable_time().build().unwrap();
    runtime.block_on(async {
        let queue = CallsDouble::new(|call, entries| {
            let outcomes = entries.iter().enumerate().map(|(index, _)| match (call + index) % 7 {
                0 => Entry::NotTaken,
                _ => Entry::Taken,
            });
            Answer { after: Duration::from_millis(call as u64 % 3), what: Told::Entries(outcomes.collect()) }
        });
        let producer = producer(&queue);
        let tasks: Vec<_> = (0..2000)
            .map(|number| {
                let producer = producer.clone();
                tokio::spawn(async move {
                    let patience = Duration::from_millis(if number % 3 == 0 { number % 40 } else { 60_000 });
                    timeout(patience, producer.send(message(number))).await
                })
            })
            .collect();
        let mut sent = Vec::new();
        for (number, task) in tasks.into_iter().enumerate() {
            match task.await.unwrap() {
                Ok(outcome) => {
                    outcome.unwrap();
                    sent.push(number.to_string());
                }
                Err(_) => assert!(number % 3 == 0),
            }
        }
        timeout(Duration::from_secs(30), producer.close()).await.unwrap();
        let taken: std::collections::HashSet<_> = ids(&queue.taken()).into_iter().collect();
        assert!(sent.len() >= 1333 && sent.iter().all(|id| taken.contains(id)));
        assert!(queue.calls().iter().all(|call| call.ended.is_some()));
    });
}
