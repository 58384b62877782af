//! What becomes of a message, and what its sender is told.

use std::{
    future::Future,
    task::{Context, Poll, Waker},
    time::Duration,
};

use futures::future::{join, join_all};
use streamer_message::{Audience, OutboundMessage};
use streamer_producer::{Message, MessageId, Producer, SendAllError, SendError};
use streamer_tests::doubles::{Answer, CallsDouble, Entry, Told};
use tokio::time::{Instant, sleep, timeout};

pub const URL: &str = "https://sqs.example.com/outbound";

/// What a call takes, where that matters.
pub const CALL: Duration = Duration::from_millis(10);

pub fn producer(queue: &CallsDouble) -> Producer {
    Producer::new(&queue.client(), URL)
}

pub fn message(id: impl ToString) -> Message {
    Message::connection("c").id(id.to_string()).payload(&1).unwrap()
}

fn messages(number: usize) -> Vec<Message> {
    (0..number).map(message).collect()
}

/// A queue that does this with the entries of each call, and then takes everything.
fn scripted(calls: Vec<Told>) -> CallsDouble {
    CallsDouble::new(move |call, _| {
        let what = calls.get(call).cloned().unwrap_or(Told::Entries(Vec::new()));
        Answer { after: CALL, what }
    })
}

pub fn id(body: &str) -> String {
    OutboundMessage::decode(body).unwrap().id.into()
}

fn ids(bodies: &[String]) -> Vec<String> {
    bodies.iter().map(|body| id(body)).collect()
}

fn sizes(queue: &CallsDouble) -> Vec<usize> {
    queue.calls().iter().map(|call| call.entries.len()).collect()
}

#[tokio::test(start_paused = true)]
async fn a_message_that_is_alone_leaves_at_once() {
    let (queue, started) = (CallsDouble::taking(CALL), Instant::now());
    producer(&queue).send(message("m")).await.unwrap();
    assert_eq!((started.elapsed(), sizes(&queue)), (CALL, vec![1]));
}

#[tokio::test(start_paused = true)]
async fn many_messages_leave_in_batches_of_ten() {
    let queue = CallsDouble::taking(CALL);
    producer(&queue).send_all(messages(25)).await.unwrap();
    assert_eq!(sizes(&queue), [10, 10, 5]);
    assert!(ids(&queue.taken()).into_iter().eq((0..25).map(|id| id.to_string())));
}

#[tokio::test(start_paused = true)]
async fn a_thousand_sends_at_the_same_time_need_few_calls() {
    let (queue, started) = (CallsDouble::taking(CALL), Instant::now());
    let producer = producer(&queue);
    let sends = messages(1000).into_iter().map(|message| producer.send(message));
    assert!(join_all(sends).await.iter().all(Result::is_ok));
    let calls = queue.calls().len();
    println!("1000 concurrent sends: {calls} calls, {:?}", started.elapsed());
    assert!(calls <= 150, "{calls} calls");
}

#[tokio::test(start_paused = true)]
async fn what_comes_while_a_call_is_slow_waits_for_20_ms_and_no_longer() {
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

#[tokio::test(start_paused = true)]
async fn only_what_failed_is_sent_again() {
    let queue = scripted(vec![
        Told::Entries(vec![Entry::Taken, Entry::NotTaken, Entry::Unmentioned]),
        Told::Fails("InternalFailure"),
        Told::Entries(vec![Entry::NotTaken]),
    ]);
    producer(&queue).send_all(messages(4)).await.unwrap();
    let mut taken = ids(&queue.taken());
    taken.sort_unstable();
    assert_eq!(taken, ["0", "1", "2", "3"]);
    let again: Vec<_> = queue.calls()[1..].iter().flat_map(|call| call.entries.clone()).collect();
    assert!(again.iter().all(|entry| ["1", "2"].contains(&id(&entry.body).as_str())), "{again:?}");
}

#[tokio::test(start_paused = true)]
async fn what_the_queue_refuses_is_not_sent_again_and_the_others_are_sent() {
    let queue = scripted(vec![Told::Entries(vec![Entry::Taken, Entry::Refused])]);
    let SendAllError { total, unsent } = producer(&queue).send_all(messages(12)).await.unwrap_err();
    assert_eq!((total, unsent.len(), &unsent[0].id), (12, 1, &MessageId::new("1").unwrap()));
    assert_eq!(unsent[0].error, SendError::Refused("InvalidMessageContents: scripted".into()));
    assert_eq!(queue.taken().len(), 11);
}

#[tokio::test(start_paused = true)]
async fn what_would_be_refused_again_is_told_from_what_may_pass() {
    for code in [
        "InvalidMessageContents",
        "InvalidParameterValue",
        "AWS.SimpleQueueService.UnsupportedOperation",
        "com.amazonaws.sqs#QueueDoesNotExist",
        "AWS.SimpleQueueService.NonExistentQueue",
        "AccessDenied",
        "KmsDisabled",
    ] {
        let queue = scripted(vec![Told::Fails(code)]);
        let error = producer(&queue).send(message("m")).await.unwrap_err();
        assert!(
            matches!(&error, SendError::Refused(cause) if cause.ends_with(": scripted")),
            "{code}: {error}"
        );
    }
    for code in ["RequestThrottled", "ThrottlingException", "ExpiredToken", "InternalFailure", "KmsThrottled"]
    {
        let queue = scripted(vec![Told::Fails(code), Told::Fails(code)]);
        producer(&queue).send(message("m")).await.unwrap();
        assert_eq!(queue.calls().len(), 3, "{code}");
    }
}

#[tokio::test(start_paused = true)]
async fn who_is_out_of_time_is_told_what_kept_the_message() {
    let time = Duration::from_secs(3);
    let queue = CallsDouble::new(|_, _| Answer { after: CALL, what: Told::Fails("RequestThrottled") });
    let started = Instant::now();
    let error = producer(&queue).time(time).send(message("m")).await.unwrap_err();
    assert!(started.elapsed() <= time && started.elapsed() > time / 3, "{:?}", started.elapsed());
    assert_eq!(error, SendError::OutOfTime { time, cause: "RequestThrottled: scripted".into() });
    assert!(
        error.to_string().contains("RequestThrottled: scripted; send it again with the same id"),
        "{error}"
    );
    // Tries become rarer.
    assert!((4..30).contains(&queue.calls().len()), "{} calls", queue.calls().len());
}

#[tokio::test(start_paused = true)]
async fn one_who_has_less_time_does_not_end_the_call_of_the_others() {
    let queue = CallsDouble::taking(Duration::from_secs(1));
    let producer = producer(&queue);
    let first = producer.send(message("first"));
    let hasty = producer.clone().time(Duration::from_millis(1500));
    let (hasty, patient) = (hasty.send(message("hasty")), producer.send(message("patient")));
    let (first, (hasty, patient)) = join(first, join(hasty, patient)).await;
    first.unwrap();
    patient.unwrap();
    hasty.unwrap();
    let hasty = producer.clone().time(Duration::from_millis(900));
    let (hasty, patient) = join(hasty.send(message("hasty")), producer.send(message("patient"))).await;
    assert!(matches!(hasty, Err(SendError::OutOfTime { .. })));
    patient.unwrap();
    assert_eq!(queue.calls().len(), 4);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_never_answered_is_made_again() {
    let queue = scripted(vec![Told::Nothing]);
    let started = Instant::now();
    producer(&queue).send(message("m")).await.unwrap();
    assert!(started.elapsed() >= Duration::from_secs(5), "{:?}", started.elapsed());
    assert_eq!(sizes(&queue), [1, 1]);
}

#[tokio::test(start_paused = true)]
async fn who_stops_waiting_takes_nothing_from_the_others_and_leaves_nothing_behind() {
    let queue = CallsDouble::taking(Duration::from_secs(1));
    let producer = producer(&queue);
    let waits_briefly = |number: usize| {
        let send = producer.send(message(number));
        timeout(Duration::from_millis(500 * (number as u64 % 2 + 1) + 1500), send)
    };
    let outcomes = join_all((0..100).map(waits_briefly)).await;
    let taken = ids(&queue.taken());
    for (number, outcome) in outcomes.into_iter().enumerate() {
        match outcome {
            Ok(sent) => sent.unwrap(),
            Err(_) => continue,
        }
        assert_eq!(taken.iter().filter(|id| **id == number.to_string()).count(), 1);
    }
    let calls = queue.calls();
    assert!(calls.iter().all(|call| call.ended.is_some()), "nothing is under way");
    // All the room is there again.
    producer.close().await;
}

#[tokio::test(start_paused = true)]
async fn nothing_goes_on_when_nobody_waits() {
    let queue = CallsDouble::new(|_, _| Answer { after: CALL, what: Told::Fails("InternalFailure") });
    let producer = producer(&queue);
    _ = timeout(Duration::from_secs(1), producer.send(message("m"))).await;
    let calls = queue.calls().len();
    sleep(Duration::from_secs(60)).await;
    assert_eq!(queue.calls().len(), calls);
}

#[tokio::test(start_paused = true)]
async fn a_closed_producer_ends_what_it_has_and_takes_nothing_new() {
    let queue = CallsDouble::taking(CALL);
    let producer = producer(&queue);
    let sends = join_all(messages(30).into_iter().map(|message| producer.send(message)));
    let (sent, late) = join(sends, async {
        producer.close().await;
        producer.clone().send(message("late")).await
    })
    .await;
    assert!(sent.iter().all(Result::is_ok));
    assert_eq!((late, queue.taken().len()), (Err(SendError::Closed), 30));
}

#[tokio::test(start_paused = true)]
async fn a_full_buffer_makes_senders_wait_and_then_says_so() {
    let queue = CallsDouble::new(|_, _| Answer { after: Duration::ZERO, what: Told::Nothing });
    let producer = producer(&queue);
    // 16 MiB hold 127 of these.
    let large = |number: usize| {
        let payload = "x".repeat(128 * 1024 - 2);
        Message::connection("c").id(number.to_string()).payload(&payload).unwrap()
    };
    let others = join_all((0..127).map(|number| producer.send(large(number))));
    let time = Duration::from_secs(1);
    let hasty = producer.clone().time(time);
    let (late, others) = join(hasty.send(large(127)), others).await;
    // It came first, so it had its room.
    assert!(matches!(late, Err(SendError::OutOfTime { cause, .. }) if cause == "the queue has not answered"));
    assert!(others.iter().all(Result::is_err));

    let others = join_all((0..127).map(|number| producer.send(large(number))));
    let late = async {
        sleep(Duration::from_millis(1)).await;
        hasty.send(large(127)).await
    };
    let (_, late) = join(others, late).await;
    assert_eq!(late, Err(SendError::OutOfTime { time, cause: "too much else is being sent".into() }));
}

#[tokio::test(start_paused = true)]
async fn a_message_for_many_is_split_by_100_connections() {
    let queue = CallsDouble::taking(CALL);
    let ids: Vec<_> = (0..1001).map(|number| format!("c{number}")).collect();
    producer(&queue).send(Message::connections(&ids).id("m").payload(&1).unwrap()).await.unwrap();
    assert_eq!(sizes(&queue), [10, 1]);
    let mut reached = Vec::new();
    for body in queue.taken() {
        let part = OutboundMessage::decode(&body).unwrap();
        assert_eq!(part.id.as_str(), "m");
        match part.to {
            Audience::Connection(id) => reached.push(id.to_string()),
            Audience::Connections(ids) => reached.extend(ids.as_slice().iter().map(ToString::to_string)),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(reached, ids);
}

#[tokio::test(start_paused = true)]
async fn a_message_of_which_a_part_is_refused_is_an_error_once() {
    let queue = scripted(vec![Told::Entries(vec![Entry::Refused, Entry::Refused])]);
    let ids: Vec<_> = (0..300).map(|number| format!("c{number}")).collect();
    let all = [Message::connections(&ids).id("m").payload(&1).unwrap(), message("n")];
    let error = producer(&queue).send_all(all).await.unwrap_err();
    assert_eq!((error.total, error.unsent.len(), error.unsent[0].id.as_str()), (2, 1, "m"));
}

#[tokio::test(start_paused = true)]
async fn a_fifo_queue_gets_group_and_deduplication_and_no_message_for_a_tenant() {
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
async fn the_trace_header_travels_with_its_message() {
    let queue = CallsDouble::taking(CALL);
    let header = "Root=1-5759e988-bd862e3fe1be46a994272793;Sampled=1";
    producer(&queue).send(Message::connection("c").trace(header).payload(&1).unwrap()).await.unwrap();
    assert_eq!(queue.calls()[0].entries[0].trace.as_deref(), Some(header));
}

#[tokio::test(start_paused = true)]
async fn what_a_producer_does_can_be_done_in_a_task() {
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

/// A send that was polled once and then forgotten, as in a Lambda that is frozen and never thawed, neither blocks
/// those after it nor loses what was accepted.
#[tokio::test(start_paused = true)]
async fn a_send_that_nobody_drives_blocks_no_other() {
    let queue = CallsDouble::taking(CALL);
    let producer = producer(&queue);
    let mut frozen = Box::pin(producer.send(message("frozen")));
    assert_eq!(frozen.as_mut().poll(&mut Context::from_waker(Waker::noop())), Poll::Pending);
    let started = Instant::now();
    producer.send(message("m")).await.unwrap();
    assert_eq!(started.elapsed(), Duration::from_millis(20) + CALL);
    drop(frozen);
    producer.send(message("n")).await.unwrap();
    assert_eq!(ids(&queue.taken())[..2], ["m", "n"]);
}
