//! The producer against a scripted queue.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use streamer_message::OutboundMessage;
use streamer_producer::{Message, MessageId, Producer, SendAllError, SendError};
use streamer_tests::doubles::{Entry, QueueDouble};

fn producer(queue: &QueueDouble) -> Producer {
    Producer::new(queue.client(), "https://sqs.example.com/outbound")
}

fn messages(number: usize) -> Vec<Message> {
    (0..number).map(|id| Message::connection("c").id(id.to_string()).payload(&id).unwrap()).collect()
}

#[tokio::test]
async fn many_messages_leave_in_batches_of_ten() {
    let queue = QueueDouble::taking();
    producer(&queue).send_all(messages(25)).await.unwrap();
    let mut sizes: Vec<_> = queue.batches().iter().map(Vec::len).collect();
    sizes.sort_unstable();
    assert_eq!(sizes, [5, 10, 10]);
    let mut ids: Vec<_> = queue
        .entries()
        .iter()
        .map(|entry| {
            OutboundMessage::decode(entry.message_body()).unwrap().id.as_str().parse::<usize>().unwrap()
        })
        .collect();
    ids.sort_unstable();
    assert_eq!(ids, (0..25).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_broadcast_is_split_by_100_connections() {
    let queue = QueueDouble::taking();
    let ids: Vec<_> = (0..1001).map(|number| format!("c{number}")).collect();
    producer(&queue).broadcast(Message::connections(&ids).id("m").payload(&1).unwrap()).await.unwrap();
    let entries = queue.entries();
    assert_eq!((entries.len(), queue.batches().len()), (11, 2));
    assert!(
        entries.iter().all(|entry| OutboundMessage::decode(entry.message_body()).unwrap().id.as_str() == "m")
    );
}

#[tokio::test]
async fn what_the_queue_does_not_confirm_is_named_with_its_reason() {
    let queue =
        QueueDouble::new(|entry| match OutboundMessage::decode(entry.message_body()).unwrap().id.as_str() {
            "1" => Entry::Refused,
            "2" => Entry::NotTaken,
            "3" => Entry::Unmentioned,
            _ => Entry::Taken,
        });
    let SendAllError { total, unsent } = producer(&queue).send_all(messages(12)).await.unwrap_err();
    assert_eq!(total, 12);
    let named: Vec<_> = unsent.iter().map(|unsent| unsent.id.as_str()).collect();
    assert_eq!(named, ["1", "2", "3"]);
    assert!(
        matches!(&unsent[0].error, SendError::Refused(cause) if cause == "InvalidMessageContents: scripted")
    );
    assert!(matches!(&unsent[1].error, SendError::NotTaken(cause) if cause == "InternalError: scripted"));
    assert!(matches!(&unsent[2].error, SendError::NotTaken(_)));
}

#[tokio::test]
async fn a_message_for_too_many_is_refused_and_the_others_are_sent() {
    let queue = QueueDouble::taking();
    let ids: Vec<_> = (0..101).map(|number| format!("c{number}")).collect();
    let many = Message::connections(&ids).id("many").payload(&1).unwrap();
    assert!(matches!(producer(&queue).send(many.clone()).await, Err(SendError::TooManyRecipients(_))));

    let error = producer(&queue).send_all(messages(2).into_iter().chain([many])).await.unwrap_err();
    assert_eq!(error.unsent.len(), 1);
    assert_eq!(error.unsent[0].id, MessageId::new("many").unwrap());
    assert!(error.to_string().contains("1 of 3 messages are not on the queue; the first: many: "), "{error}");
    assert_eq!(queue.entries().len(), 2);
}

#[tokio::test]
async fn what_the_queue_would_refuse_again_is_told_from_what_may_be_sent_again() {
    let send =
        async |code| producer(&QueueDouble::failing(code)).send(messages(1).remove(0)).await.unwrap_err();
    for code in
        ["InvalidMessageContents", "InvalidParameterValue", "AWS.SimpleQueueService.UnsupportedOperation"]
    {
        assert!(
            matches!(send(code).await, SendError::Refused(cause) if cause == format!("{code}: scripted"))
        );
    }
    for code in ["RequestThrottled", "ExpiredToken", "InternalFailure"] {
        assert!(
            matches!(send(code).await, SendError::NotTaken(cause) if cause == format!("{code}: scripted"))
        );
    }
    assert_eq!(producer(&QueueDouble::taking()).send(messages(1).remove(0)).await, Ok(()));
}

#[tokio::test]
async fn when_whole_batches_fail_every_message_is_named() {
    let error = producer(&QueueDouble::failing("InternalFailure")).send_all(messages(12)).await.unwrap_err();
    assert_eq!((error.total, error.unsent.len()), (12, 12));
}
