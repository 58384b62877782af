//! Receipts: one for each message that asks for it, which counts every connection once.

mod away;
mod parts;

use std::time::Duration;

use serde_json::{Value, json};
use streamer_message::{OutcomeCounts, Receipt, ReceiptOutcome};
use streamer_tests::{
    doubles::{QueueDouble, TableDouble, connection},
    event::{EPOCH_MILLIS, batch, epoch, message, record},
    gateway::{MemoryGateway, status},
    worker::Rig,
};

use crate::{answering, connect, ids, long_ago, message_to_anna};

/// Builds a message that asks for a receipt.
fn asking(mut body: Value) -> String {
    body["receipt"] = true.into();
    body.to_string()
}

/// Answers each connection with the status in its name, such as `429-a`.
fn by_name() -> MemoryGateway {
    answering(|connection| status(connection[..3].parse().unwrap()))
}

/// Returns the outcome and the counts of the only receipt.
fn only(rig: &Rig) -> (ReceiptOutcome, OutcomeCounts) {
    let [receipt] = &rig.receipts()[..] else { panic!("{:?}", rig.receipts()) };
    (receipt.outcome, receipt.connections.clone())
}

fn counts<const N: usize>(counts: [(ReceiptOutcome, u64); N]) -> OutcomeCounts {
    counts.into()
}

mod outcomes {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn delivered_message_has_one() -> anyhow::Result<()> {
        let rig = Rig::new(MemoryGateway::always(status(200)));
        let mut body = message("order-7", &["a", "b"]);
        body["request"] = json!({ "id": "r", "seq": 9 });
        body["payload"] = "s3cret".into();
        rig.invoke(batch([asking(body)])).await?;
        let entry = rig.receipts.taken().remove(0);
        let event: Value = serde_json::from_str(entry.message_body())?;
        assert_eq!(
            (&event["type"], &event["source"], &event["subject"]),
            (&json!("streamer.receipt"), &json!("/streamer/test"), &json!("order-7"))
        );
        let expected = json!({
            "version": 1, "id": "order-7", "at": EPOCH_MILLIS, "outcome": "delivered",
            "to": { "connections": ["a", "b"] }, "connections": { "delivered": 2 }, "attempts": 1,
            "request": { "id": "r", "seq": 9 },
        });
        assert_eq!(event["data"], expected);
        assert!(!entry.message_body().contains("s3cret"));
        Ok(())
    }

    #[tokio::test(start_paused = true)]
    async fn message_without_request_has_none() -> anyhow::Result<()> {
        let rig = Rig::new(by_name());
        let mut declined = message("2", &["410-a"]);
        declined["receipt"] = false.into();
        rig.invoke(batch([message("1", &["200-a"]).to_string(), declined.to_string()])).await?;
        assert_eq!(rig.receipts.calls(), 0);
        Ok(())
    }

    /// A user with two devices, one of them gone, has the message.
    #[tokio::test(start_paused = true)]
    async fn best_outcome_names_the_message() -> anyhow::Result<()> {
        let rig = Rig::new(by_name());
        connect(&rig, &["200-a", "410-b"]).await;
        rig.invoke(batch([asking(message_to_anna("m"))])).await?;
        let (outcome, connections) = only(&rig);
        assert_eq!(outcome, ReceiptOutcome::Delivered);
        assert_eq!(connections, counts([(ReceiptOutcome::Delivered, 1), (ReceiptOutcome::Gone, 1)]));
        Ok(())
    }

    #[tokio::test(start_paused = true)]
    async fn gone_connection_is_reported() -> anyhow::Result<()> {
        let rig = Rig::new(by_name());
        rig.invoke(batch([asking(message("m", &["410-a"]))])).await?;
        assert_eq!(only(&rig), (ReceiptOutcome::Gone, counts([(ReceiptOutcome::Gone, 1)])));
        Ok(())
    }

    #[tokio::test(start_paused = true)]
    async fn expired_message_is_reported() -> anyhow::Result<()> {
        let rig = Rig::new(by_name());
        let mut body = message("m", &["200-a"]);
        body["expires_at"] = (EPOCH_MILLIS - 1).into();
        rig.invoke(batch([asking(body)])).await?;
        assert_eq!(only(&rig), (ReceiptOutcome::Expired, counts([(ReceiptOutcome::Expired, 1)])));
        Ok(())
    }

    #[tokio::test(start_paused = true)]
    async fn superseded_message_is_reported() -> anyhow::Result<()> {
        let rig = Rig::new(by_name());
        let progress = |id: &str, seq: u64| {
            let mut body = message(id, &["200-a"]);
            body["request"] = json!({ "id": "r", "seq": seq });
            body["supersedable"] = true.into();
            asking(body)
        };
        rig.invoke(batch([progress("1", 1), progress("2", 2)])).await?;
        let outcomes = rig.receipts().into_iter().map(|receipt| (receipt.id.to_string(), receipt.outcome));
        let expected = [("1", ReceiptOutcome::Superseded), ("2", ReceiptOutcome::Delivered)];
        assert!(outcomes.eq(expected.map(|(id, outcome)| (id.to_owned(), outcome))));
        Ok(())
    }

    /// Only after the away grace.
    #[tokio::test(start_paused = true)]
    async fn absent_user_is_reported_once() -> anyhow::Result<()> {
        let rig = Rig::new(by_name());
        let event = || batch([asking(message_to_anna("m"))]);
        rig.invoke(event()).await?;
        assert_eq!((rig.receipts.calls(), rig.handed_back().len()), (0, 1));
        rig.invoke_at(epoch() + Duration::from_secs(30), event()).await?;
        assert_eq!(only(&rig), (ReceiptOutcome::NoRecipient, counts([])));
        Ok(())
    }

    /// The dead letter has API Gateway's answer, the receipt only its status.
    #[tokio::test(start_paused = true)]
    async fn rejected_message_is_reported_with_cause() -> anyhow::Result<()> {
        let answer = streamer_gateway::PostResult::Status { status: 413, message: "s3cret".into() };
        let rig = Rig::new(MemoryGateway::always(answer));
        rig.invoke(batch([asking(message("m", &["a"]))])).await?;
        assert_eq!(only(&rig), (ReceiptOutcome::Rejected, counts([(ReceiptOutcome::Rejected, 1)])));
        assert_eq!(rig.receipts()[0].cause.as_deref(), Some("413"));
        assert_eq!(rig.dead().len(), 1);
        Ok(())
    }

    #[tokio::test(start_paused = true)]
    async fn exhausted_message_is_reported_with_cause() -> anyhow::Result<()> {
        let rig = Rig::new(by_name());
        let mut body = message("m", &["429-a"]);
        body["retry"] = json!({ "count": 9, "receives": 0, "since": 0, "cause": "429" });
        rig.invoke(batch([asking(body)])).await?;
        assert_eq!(only(&rig), (ReceiptOutcome::Exhausted, counts([(ReceiptOutcome::Exhausted, 1)])));
        let receipt = rig.receipts().remove(0);
        assert_eq!((receipt.cause.as_deref(), receipt.attempts), (Some("429"), Some(10)));
        Ok(())
    }

    /// As far as its id and its request for a receipt can be read.
    #[tokio::test(start_paused = true)]
    async fn poison_is_reported_if_it_has_an_id() -> anyhow::Result<()> {
        let rig = Rig::new(by_name());
        let mut seconds = message("m", &["200-a"]);
        seconds["expires_at"] = 1_764_000_000.into();
        let mut nowhere = message("n", &[]);
        nowhere["receipt"] = json!({ "part": "2/3" });
        let bodies = [asking(seconds.clone()), nowhere.to_string(), seconds.to_string(), "{".to_owned()];
        rig.invoke(batch(bodies)).await?;
        let [first, second] = &rig.receipts()[..] else { panic!("{:?}", rig.receipts()) };
        assert_eq!((first.id.as_str(), first.outcome), ("m", ReceiptOutcome::Poison));
        assert!(first.cause.as_ref().unwrap().contains("looks like seconds"), "{first:?}");
        assert!(first.to.is_some() && second.to.is_none());
        assert_eq!(second.part.as_deref(), Some("2/3"));
        assert_eq!(rig.dead().len(), 4);
        Ok(())
    }
}

mod attempts {
    use super::*;

    /// Runs one worker after another until nothing is left, with the answers that `answer` gives for each attempt, and
    /// returns the receipts and the dead letters.
    async fn run(first: String, answers: &[fn(&str) -> u16]) -> anyhow::Result<(Vec<Receipt>, Vec<String>)> {
        let (mut bodies, mut receipts, mut dead) = (vec![first], Vec::new(), Vec::new());
        for answer in answers {
            let answer = *answer;
            let rig = Rig::new(answering(move |connection| status(answer(connection))));
            assert_eq!(rig.invoke(batch(bodies.drain(..))).await?, ids([]));
            bodies.extend(rig.handed_back().into_iter().map(|sent| sent.body));
            receipts.extend(rig.receipts());
            dead.extend(rig.dead().into_iter().map(|sent| sent.body));
        }
        assert_eq!(bodies, Vec::<String>::new());
        Ok((receipts, dead))
    }

    #[tokio::test(start_paused = true)]
    async fn counts_span_all_attempts() -> anyhow::Result<()> {
        let first: fn(&str) -> u16 = |connection| match connection {
            "a" => 200,
            "b" => 410,
            "c" => 413,
            _ => 429,
        };
        let second: fn(&str) -> u16 = |connection| if connection == "d" { 200 } else { 429 };
        let third: fn(&str) -> u16 = |_| 410;
        let body = asking(message("m", &["a", "b", "c", "d", "e"]));
        let (receipts, dead) = run(body, &[first, second, third]).await?;
        let [receipt] = &receipts[..] else { panic!("{receipts:?}") };
        let expected =
            [(ReceiptOutcome::Delivered, 2), (ReceiptOutcome::Rejected, 1), (ReceiptOutcome::Gone, 2)];
        assert_eq!((receipt.outcome, &receipt.connections), (ReceiptOutcome::Delivered, &counts(expected)));
        assert_eq!((receipt.cause.as_deref(), receipt.attempts), (Some("413"), Some(3)));
        assert_eq!(dead.len(), 1);
        Ok(())
    }

    /// The receipt of the redriven message replaces the first one: it counts all connections again.
    #[tokio::test(start_paused = true)]
    async fn redriven_message_counts_all_connections() -> anyhow::Result<()> {
        let refused: fn(&str) -> u16 = |connection| if connection == "a" { 200 } else { 413 };
        let (receipts, dead) = run(asking(message("m", &["a", "b", "c"])), &[refused]).await?;
        let expected = counts([(ReceiptOutcome::Delivered, 1), (ReceiptOutcome::Rejected, 2)]);
        assert_eq!(receipts[0].connections, expected);
        let (receipts, _) = run(dead[0].clone(), &[|_| 200]).await?;
        assert_eq!(receipts[0].connections, counts([(ReceiptOutcome::Delivered, 3)]));
        Ok(())
    }

    /// A redrive posts to all connections of the user again.
    #[tokio::test(start_paused = true)]
    async fn redriven_user_is_counted_once() -> anyhow::Result<()> {
        let rig = Rig::new(by_name());
        connect(&rig, &["200-a", "413-b"]).await;
        rig.invoke(batch([asking(message_to_anna("m"))])).await?;
        let dead = rig.dead().remove(0).body;
        let rig = Rig::new(by_name());
        connect(&rig, &["200-a", "200-b"]).await;
        rig.invoke(batch([dead])).await?;
        assert_eq!(only(&rig), (ReceiptOutcome::Delivered, counts([(ReceiptOutcome::Delivered, 2)])));
        Ok(())
    }

    /// The outcome is final only when the dead-letter queue has the message.
    #[tokio::test(start_paused = true)]
    async fn dead_letter_is_confirmed_first() -> anyhow::Result<()> {
        let failing = QueueDouble::failing("InternalFailure");
        let rig = Rig::on(by_name(), TableDouble::default(), QueueDouble::taking(), failing);
        let event = batch([asking(message("m", &["413-a"])), asking(message("n", &["200-a"]))]);
        assert_eq!(rig.invoke(event).await?, ids(["record-0"]));
        let [receipt] = &rig.receipts()[..] else { panic!("{:?}", rig.receipts()) };
        assert_eq!(receipt.id.as_str(), "n");
        Ok(())
    }

    /// A message that stays on a FIFO queue carries no counts, and its connections are not posted to twice.
    #[tokio::test(start_paused = true)]
    async fn fifo_queue_counts_earlier_deliveries() -> anyhow::Result<()> {
        let mut rig = Rig::fifo(MemoryGateway::scripted(|connection, nth| {
            (Duration::ZERO, status(if connection == "b" && nth == 0 { 429 } else { 200 }))
        }));
        let event = |receives: u32| {
            let mut record = record(0, asking(message("m", &["a", "b"])));
            let attributes = &mut record.attributes;
            attributes.insert("MessageGroupId".to_owned(), "g".to_owned());
            attributes.insert("ApproximateReceiveCount".to_owned(), receives.to_string());
            streamer_events::SqsEvent { records: vec![record] }
        };
        assert_eq!(rig.invoke(event(1)).await?, ids(["record-0"]));
        assert_eq!(rig.receipts.calls(), 0);
        assert_eq!(rig.invoke(event(2)).await?, ids([]));
        assert_eq!(only(&rig), (ReceiptOutcome::Delivered, counts([(ReceiptOutcome::Delivered, 2)])));

        // All that is left has been served: the connection for which the message stayed has gone.
        rig = Rig::fifo(by_name());
        connect(&rig, &["200-a", "429-b"]).await;
        let event = |receives: u32| {
            let mut event = event(receives);
            event.records[0].body = streamer_events::Body::Text(asking(message_to_anna("m")));
            event
        };
        rig.invoke(event(1)).await?;
        rig.table
            .client()
            .delete_if_older(&"429-b".try_into()?, epoch(), &streamer_tests::worker::ENDPOINT.into())
            .await?;
        assert_eq!(rig.invoke(event(2)).await?, ids([]));
        assert_eq!(only(&rig), (ReceiptOutcome::Delivered, counts([(ReceiptOutcome::Delivered, 1)])));
        Ok(())
    }

    /// A connection of which a lane knows that it is gone keeps its device, and a later attempt posts to it again.
    #[tokio::test(start_paused = true)]
    async fn gone_connection_of_a_user_counts_once() -> anyhow::Result<()> {
        let rig = Rig::new(by_name());
        connect(&rig, &["410-a", "429-b"]).await;
        rig.invoke(batch([asking(message_to_anna("m"))])).await?;
        let back = rig.handed_back().remove(0).body;
        let later = Rig::new(answering(|connection| status(if connection == "410-a" { 410 } else { 200 })));
        connect(&later, &["410-a", "429-b"]).await;
        later.invoke(batch([back])).await?;
        let expected = counts([(ReceiptOutcome::Delivered, 1), (ReceiptOutcome::Gone, 1)]);
        assert_eq!(only(&later), (ReceiptOutcome::Delivered, expected));
        Ok(())
    }

    /// The last outcome of a connection counts.
    #[tokio::test(start_paused = true)]
    async fn connection_after_gone_counts_once() -> anyhow::Result<()> {
        for (later_status, outcome) in [(413, ReceiptOutcome::Rejected), (200, ReceiptOutcome::Delivered)] {
            let rig = Rig::new(by_name());
            connect(&rig, &["410-a", "429-b"]).await;
            rig.invoke(batch([asking(message_to_anna("m"))])).await?;
            let back = rig.handed_back().remove(0).body;
            let later =
                answering(move |connection| status(if connection == "410-a" { later_status } else { 200 }));
            let later = Rig::new(later);
            connect(&later, &["410-a", "429-b"]).await;
            later.invoke(batch([back])).await?;
            let mut expected = counts([(ReceiptOutcome::Delivered, 1)]);
            *expected.entry(outcome).or_default() += 1;
            assert_eq!(only(&later), (ReceiptOutcome::Delivered, expected), "{later_status}");
        }
        Ok(())
    }

    /// The counts of a user's message span its connections, also of a client that reconnects.
    #[tokio::test(start_paused = true)]
    async fn reconnected_user_is_counted() -> anyhow::Result<()> {
        let rig = Rig::new(by_name());
        connect(&rig, &["410-a"]).await;
        rig.invoke(batch([asking(message_to_anna("m"))])).await?;
        assert_eq!(rig.receipts.calls(), 0);
        rig.table.client().put(&connection("200-b", long_ago())).await?;
        rig.invoke(batch([rig.handed_back().remove(0).body])).await?;
        let expected = counts([(ReceiptOutcome::Delivered, 1), (ReceiptOutcome::Gone, 1)]);
        assert_eq!(only(&rig), (ReceiptOutcome::Delivered, expected));
        Ok(())
    }
}
