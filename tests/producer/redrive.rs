//! Redriving dead letters to a queue that refuses some, on a double inside the SDK's HTTP client.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use aws_sdk_sqs::{
    Client,
    operation::{
        change_message_visibility_batch::ChangeMessageVisibilityBatchOutput,
        delete_message_batch::DeleteMessageBatchOutput, get_queue_attributes::GetQueueAttributesOutput,
        get_queue_url::GetQueueUrlOutput, receive_message::ReceiveMessageOutput,
        send_message_batch::SendMessageBatchOutput,
    },
    types::{
        BatchResultErrorEntry, DeleteMessageBatchResultEntry, Message, MessageSystemAttributeName,
        QueueAttributeName, SendMessageBatchResultEntry,
    },
};
use aws_smithy_mocks::{RuleMode, mock, mock_client};
use streamer_cli::dead_letters::{DeadLetterQueue, Outcome};

/// The bodies of each call.
type Calls = Arc<Mutex<Vec<Vec<String>>>>;

/// A dead-letter queue with these letters (body and message group), and an outbound FIFO queue that refuses the message
/// `refused`.
fn double(letters: &[(&str, &str)], refused: &'static str) -> (Client, Calls) {
    let policy =
        r#"{"deadLetterTargetArn":"arn:aws:sqs:us-east-1:000000000000:dead.fifo","maxReceiveCount":1000}"#;
    let attributes = mock!(Client::get_queue_attributes).then_output(move || {
        GetQueueAttributesOutput::builder().attributes(QueueAttributeName::RedrivePolicy, policy).build()
    });
    let url = mock!(Client::get_queue_url)
        .then_output(|| GetQueueUrlOutput::builder().queue_url("https://sqs.example.com/dead.fifo").build());
    let messages = letters.iter().map(|(body, group)| {
        let message = Message::builder().message_id(*body).receipt_handle(*body).body(*body);
        message.attributes(MessageSystemAttributeName::MessageGroupId, *group).build()
    });
    let messages: Vec<_> = messages.collect();
    let receive = mock!(Client::receive_message)
        .then_output(move || ReceiveMessageOutput::builder().set_messages(Some(messages.clone())).build());
    let calls = Calls::default();
    let seen = Arc::clone(&calls);
    let send = mock!(Client::send_message_batch).then_compute_output(move |input| {
        let bodies = input.entries().iter().map(|entry| entry.message_body().to_owned()).collect();
        seen.lock().unwrap().push(bodies);
        let mut output =
            SendMessageBatchOutput::builder().set_successful(Some(Vec::new())).set_failed(Some(Vec::new()));
        for entry in input.entries() {
            output = if entry.message_body() == refused {
                let failed =
                    BatchResultErrorEntry::builder().id(entry.id()).code("InternalError").sender_fault(false);
                output.failed(failed.build().unwrap())
            } else {
                let sent = SendMessageBatchResultEntry::builder().id(entry.id()).message_id("m");
                output.successful(sent.md5_of_message_body("").build().unwrap())
            };
        }
        output.build().unwrap()
    });
    let delete = mock!(Client::delete_message_batch).then_compute_output(|input| {
        let deleted = input
            .entries()
            .iter()
            .map(|entry| DeleteMessageBatchResultEntry::builder().id(entry.id()).build().unwrap());
        let output = DeleteMessageBatchOutput::builder().set_failed(Some(Vec::new()));
        output.set_successful(Some(deleted.collect())).build().unwrap()
    });
    let change = mock!(Client::change_message_visibility_batch).then_output(|| {
        let output = ChangeMessageVisibilityBatchOutput::builder().set_failed(Some(Vec::new()));
        output.set_successful(Some(Vec::new())).build().unwrap()
    });
    let rules = [&attributes, &url, &receive, &send, &delete, &change];
    (mock_client!(aws_sdk_sqs, RuleMode::MatchAny, rules), calls)
}

#[tokio::test]
async fn refused_letter_holds_back_its_group() -> anyhow::Result<()> {
    let letters = [("a1", "a"), ("a2", "a"), ("b1", "b"), ("a3", "a"), ("b2", "b")];
    let (client, calls) = double(&letters, "a2");
    let outbound = "https://sqs.example.com/outbound.fifo".to_owned();
    let mut queue = DeadLetterQueue::of(client, outbound, Duration::from_secs(60)).await?;
    let taken = queue.receive().await?;
    assert_eq!(taken.len(), 5);

    let back = queue.send_back(taken.clone()).await;
    // A call holds one message of each group, because the queue may refuse the first of two.
    assert_eq!(*calls.lock().unwrap(), [vec!["a1", "b1"], vec!["a2", "b2"]]);
    assert_eq!((back.count(Outcome::Sent), back.count(Outcome::Refused)), (3, 2));
    assert!(back.causes.contains("InternalError"), "{back:?}");
    assert_eq!(queue.held(), 2, "the refused letter and the next of its group");
    // A letter with the same message as one that was sent would circulate.
    let was_sent: Vec<_> = taken.iter().map(|letter| queue.was_sent(letter)).collect();
    assert_eq!(was_sent, [true, false, true, false, true]);
    Ok(())
}

/// A letter that was hidden for too long is received again, and no more letters are read.
#[tokio::test(start_paused = true)]
async fn overdue_letters_end_the_run() -> anyhow::Result<()> {
    let (client, _) = double(&[("a", "a"), ("b", "b")], "");
    let outbound = "https://sqs.example.com/outbound.fifo".to_owned();
    let mut queue = DeadLetterQueue::of(client, outbound, Duration::from_secs(60)).await?;
    assert_eq!((queue.receive().await?.len(), queue.is_overdue()), (2, false));
    tokio::time::advance(Duration::from_secs(60)).await;
    assert_eq!((queue.receive().await?.len(), queue.is_overdue()), (0, true));
    assert_eq!((queue.held(), queue.release().await, queue.held()), (2, 0, 0));
    Ok(())
}

/// SQS may deliver a hidden letter twice. It is not overdue, and counts once.
#[tokio::test(start_paused = true)]
async fn repeated_delivery_is_not_overdue() -> anyhow::Result<()> {
    let (client, _) = double(&[("a", "a"), ("b", "b")], "");
    let outbound = "https://sqs.example.com/outbound.fifo".to_owned();
    let mut queue = DeadLetterQueue::of(client, outbound, Duration::from_secs(60)).await?;
    assert_eq!(queue.receive().await?.len(), 2);
    assert_eq!((queue.receive().await?.len(), queue.is_overdue(), queue.held()), (0, false, 2));
    Ok(())
}
