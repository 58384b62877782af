//! The worker's outcomes, in virtual time.

use std::time::{Duration, SystemTime};

use delivery_worker::{Worker, time::Time};
use serde_json::json;
use streamer_tests::{
    doubles::{Entry, LONG_AGO, QueueDouble, TableDouble},
    event::{EPOCH_MILLIS, batch, epoch, message},
    gateway::{MemoryGateway, status},
    worker::{CONNECT_GRACE, TIMEOUT, invoke, reported, unanswered, worker},
};
use tokio::time::Instant;

fn old() -> SystemTime {
    epoch() - LONG_AGO
}

fn ids<const N: usize>(ids: [&str; N]) -> std::collections::BTreeSet<String> {
    ids.map(str::to_owned).into()
}

fn quiet(gateway: MemoryGateway) -> Worker<MemoryGateway> {
    worker(gateway, &TableDouble::default(), &QueueDouble::taking())
}

mod delivered {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_message_that_api_gateway_accepts_is_acknowledged() -> anyhow::Result<()> {
        let worker = quiet(MemoryGateway::always(status(200)));
        assert_eq!(invoke(&worker, batch([message("m", &["a", "b"]).to_string()])).await?, ids([]));
        assert_eq!(
            (worker.gateway.texts("a"), worker.gateway.texts("b")),
            (vec!["\"m\"".into()], vec!["\"m\"".into()])
        );
        Ok(())
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_is_named_twice_gets_the_message_once() -> anyhow::Result<()> {
        let worker = quiet(MemoryGateway::always(status(200)));
        invoke(&worker, batch([message("m", &["a", "b", "a"]).to_string()])).await?;
        assert_eq!(worker.gateway.texts("a").len(), 1);
        Ok(())
    }

    #[tokio::test(start_paused = true)]
    async fn one_connection_gets_its_messages_one_at_a_time_in_order_of_arrival() -> anyhow::Result<()> {
        let gateway =
            MemoryGateway::scripted(|_, place| (Duration::from_millis(100 - 30 * place as u64), status(200)));
        let worker = quiet(gateway);
        let bodies = ["1", "2", "3"].map(|id| message(id, &["a"]).to_string());
        invoke(&worker, batch(bodies)).await?;
        assert_eq!(worker.gateway.texts("a"), ["\"1\"", "\"2\"", "\"3\""]);
        assert_eq!(worker.gateway.most_in_flight(), 1);
        Ok(())
    }

    #[tokio::test(start_paused = true)]
    async fn connections_are_served_side_by_side_up_to_the_limit() -> anyhow::Result<()> {
        let worker = quiet(MemoryGateway::scripted(|_, _| (Duration::from_millis(20), status(200))));
        let names: Vec<Vec<String>> =
            (0..3).map(|message| (0..100).map(|number| format!("{message}-{number}")).collect()).collect();
        let bodies = names.iter().enumerate().map(|(index, names)| {
            let names: Vec<_> = names.iter().map(String::as_str).collect();
            message(&index.to_string(), &names).to_string()
        });
        let started = Instant::now();
        assert_eq!(invoke(&worker, batch(bodies)).await?, ids([]));
        assert_eq!(worker.gateway.most_in_flight(), 128);
        assert_eq!(started.elapsed().as_millis(), 60, "300 posts in three waves");
        Ok(())
    }
}

mod gone {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_410_removes_the_row_and_the_message_is_acknowledged() -> anyhow::Result<()> {
        let table = TableDouble::with([("a", old()), ("b", old())]);
        let worker = worker(MemoryGateway::always(status(410)), &table, &QueueDouble::taking());
        assert_eq!(invoke(&worker, batch([message("m", &["a"]).to_string()])).await?, ids([]));
        assert_eq!(table.connections(), ["b"]);
        Ok(())
    }

    #[tokio::test(start_paused = true)]
    async fn a_410_without_a_row_is_gone_too() -> anyhow::Result<()> {
        let worker = quiet(MemoryGateway::always(status(410)));
        assert_eq!(invoke(&worker, batch([message("m", &["a"]).to_string()])).await?, ids([]));
        Ok(())
    }

    #[tokio::test(start_paused = true)]
    async fn a_gone_connection_ends_its_lane_and_no_other() -> anyhow::Result<()> {
        let gateway = MemoryGateway::scripted(|connection, _| {
            (Duration::ZERO, status(if connection == "a" { 410 } else { 200 }))
        });
        let worker = quiet(gateway);
        let bodies = [message("1", &["a", "b"]), message("2", &["a", "b"])];
        assert_eq!(invoke(&worker, batch(bodies.map(|body| body.to_string()))).await?, ids([]));
        assert_eq!((worker.gateway.texts("a").len(), worker.gateway.texts("b").len()), (1, 2));
        Ok(())
    }

    #[tokio::test(start_paused = true)]
    async fn within_the_connect_grace_the_row_stays_and_the_message_is_handed_back() -> anyhow::Result<()> {
        let (young, past) = (epoch() - CONNECT_GRACE, epoch() - CONNECT_GRACE - Duration::from_millis(1));
        let table = TableDouble::with([("young", young), ("past", past)]);
        let worker = worker(MemoryGateway::always(status(410)), &table, &QueueDouble::taking());
        let bodies = [message("1", &["young"]), message("2", &["past"])];
        assert_eq!(invoke(&worker, batch(bodies.map(|body| body.to_string()))).await?, ids(["record-0"]));
        assert_eq!(table.connections(), ["young"]);
        Ok(())
    }

    #[tokio::test(start_paused = true)]
    async fn a_row_that_cannot_be_removed_hands_the_message_back() -> anyhow::Result<()> {
        let worker =
            worker(MemoryGateway::always(status(410)), &TableDouble::failing(), &QueueDouble::taking());
        assert_eq!(invoke(&worker, batch([message("m", &["a"]).to_string()])).await?, ids(["record-0"]));
        Ok(())
    }

    #[tokio::test(start_paused = true)]
    async fn a_table_that_does_not_answer_is_not_waited_for_in_the_last_2_s() -> anyhow::Result<()> {
        let gateway = MemoryGateway::scripted(|connection, _| {
            (Duration::ZERO, status(if connection == "a" { 410 } else { 200 }))
        });
        let worker = unanswered(gateway);
        let started = Instant::now();
        let bodies = [message("1", &["a"]), message("2", &["b"])].map(|body| body.to_string());
        assert_eq!(invoke(&worker, batch(bodies)).await?, ids(["record-0"]));
        assert_eq!(started.elapsed(), TIMEOUT - Duration::from_secs(2));
        Ok(())
    }
}

mod expired {
    use super::*;

    fn expiring(id: &str, at: u64) -> String {
        let mut body = message(id, &["a"]);
        body["expires_at"] = at.into();
        body.to_string()
    }

    #[tokio::test(start_paused = true)]
    async fn a_message_past_its_expiry_is_not_posted_and_acknowledged() -> anyhow::Result<()> {
        let worker = quiet(MemoryGateway::always(status(200)));
        let bodies =
            [expiring("now", EPOCH_MILLIS), expiring("soon", EPOCH_MILLIS + 1), expiring("never", u64::MAX)];
        assert_eq!(invoke(&worker, batch(bodies)).await?, ids([]));
        assert_eq!(worker.gateway.texts("a"), ["\"soon\"", "\"never\""]);
        Ok(())
    }

    #[tokio::test(start_paused = true)]
    async fn the_expiry_counts_when_its_turn_comes() -> anyhow::Result<()> {
        let worker = quiet(MemoryGateway::scripted(|_, _| (Duration::from_secs(1), status(200))));
        let bodies = [expiring("1", u64::MAX), expiring("2", EPOCH_MILLIS + 900), expiring("3", u64::MAX)];
        assert_eq!(invoke(&worker, batch(bodies)).await?, ids([]));
        assert_eq!(worker.gateway.texts("a"), ["\"1\"", "\"3\""]);
        Ok(())
    }
}

mod poison {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_body_that_is_no_message_goes_to_the_dead_letter_queue_untouched() -> anyhow::Result<()> {
        let dead_letters = QueueDouble::taking();
        let worker = worker(MemoryGateway::always(status(200)), &TableDouble::default(), &dead_letters);
        let body = "{ \"version\": 1,\t\"id\": \"é\" }";
        assert_eq!(
            invoke(&worker, batch([body.to_owned(), message("m", &["a"]).to_string()])).await?,
            ids([])
        );

        let entries = dead_letters.entries();
        let [entry] = entries.as_slice() else { panic!("{entries:?}") };
        assert_eq!(entry.message_body(), body);
        let attributes = entry.message_attributes().unwrap();
        let attribute = |name: &str| attributes[name].string_value().unwrap().to_owned();
        assert_eq!(attribute("streamer.reason"), "poison");
        assert!(attribute("streamer.detail").starts_with("`to` is missing; expected one of"));
        assert_eq!(attribute("streamer.attempts"), "1");
        assert_eq!(attribute("streamer.since"), EPOCH_MILLIS.to_string());
        assert_eq!(worker.gateway.texts("a").len(), 1, "the others are delivered");
        Ok(())
    }

    #[tokio::test(start_paused = true)]
    async fn what_the_dead_letter_queue_does_not_confirm_is_reported() -> anyhow::Result<()> {
        for fault in [Entry::Refused, Entry::NotTaken, Entry::Unmentioned] {
            let refuses_second =
                QueueDouble::new(move |entry| if entry.message_body() == "2" { fault } else { Entry::Taken });
            let worker = worker(MemoryGateway::always(status(200)), &TableDouble::default(), &refuses_second);
            assert_eq!(invoke(&worker, batch(["1", "2", "3"])).await?, ids(["record-1"]), "{fault:?}");
        }
        Ok(())
    }

    #[tokio::test(start_paused = true)]
    async fn a_dead_letter_queue_that_takes_nothing_has_it_reported() -> anyhow::Result<()> {
        let failing = QueueDouble::failing("AWS.SimpleQueueService.NonExistentQueue");
        let worker = worker(MemoryGateway::always(status(200)), &TableDouble::default(), &failing);
        let bodies = ["1".to_owned(), message("m", &["a"]).to_string(), "3".to_owned()];
        assert_eq!(invoke(&worker, batch(bodies)).await?, ids(["record-0", "record-2"]));
        Ok(())
    }

    #[tokio::test(start_paused = true)]
    async fn a_dead_letter_queue_that_does_not_answer_is_not_waited_for_in_the_last_300_ms()
    -> anyhow::Result<()> {
        let worker = unanswered(MemoryGateway::always(status(200)));
        let started = Instant::now();
        let bodies = ["1".to_owned(), message("m", &["a"]).to_string()];
        assert_eq!(invoke(&worker, batch(bodies)).await?, ids(["record-0"]));
        assert_eq!(started.elapsed(), TIMEOUT - Duration::from_millis(300));
        Ok(())
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_does_not_fit_beside_its_attributes_is_reported() -> anyhow::Result<()> {
        let dead_letters = QueueDouble::taking();
        let worker = worker(MemoryGateway::always(status(200)), &TableDouble::default(), &dead_letters);
        let bodies = ["x".repeat(1024 * 1024), "x".repeat(1023 * 1024), "y".repeat(1023 * 1024)];
        assert_eq!(invoke(&worker, batch(bodies)).await?, ids(["record-0"]));
        assert_eq!(dead_letters.batches().len(), 2, "two letters of nearly 1 MiB need two batches");
        Ok(())
    }
}

mod handed_back {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_says_nothing_about_the_connection_hands_the_message_back() -> anyhow::Result<()> {
        for code in [302, 400, 403, 404, 413, 429, 500, 503] {
            let worker = quiet(MemoryGateway::always(status(code)));
            let reported = invoke(&worker, batch([message("m", &["a"]).to_string()])).await?;
            assert_eq!(reported, ids(["record-0"]), "{code}");
        }
        Ok(())
    }

    #[tokio::test(start_paused = true)]
    async fn a_message_is_reported_once_however_many_of_its_connections_failed() -> anyhow::Result<()> {
        let gateway = MemoryGateway::scripted(|connection, _| {
            (Duration::ZERO, status(if connection == "a" { 200 } else { 503 }))
        });
        let worker = quiet(gateway);
        assert_eq!(
            invoke(&worker, batch([message("m", &["a", "b", "c"]).to_string()])).await?,
            ids(["record-0"])
        );
        Ok(())
    }

    #[tokio::test(start_paused = true)]
    async fn what_comes_after_it_in_its_lane_is_not_tried() -> anyhow::Result<()> {
        let gateway =
            MemoryGateway::scripted(|_, place| (Duration::ZERO, status(if place == 1 { 503 } else { 200 })));
        let worker = quiet(gateway);
        let bodies = ["1", "2", "3"].map(|id| message(id, &["a"]).to_string());
        assert_eq!(invoke(&worker, batch(bodies)).await?, ids(["record-1", "record-2"]));
        assert_eq!(worker.gateway.texts("a"), ["\"1\"", "\"2\""]);
        Ok(())
    }

    #[tokio::test(start_paused = true)]
    async fn a_post_that_is_not_answered_within_5_s_is_given_up() -> anyhow::Result<()> {
        let worker = quiet(MemoryGateway::scripted(|_, _| (Duration::from_secs(60), status(200))));
        let started = Instant::now();
        assert_eq!(invoke(&worker, batch([message("m", &["a"]).to_string()])).await?, ids(["record-0"]));
        assert_eq!(started.elapsed(), Duration::from_secs(5));
        Ok(())
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_posted_or_waited_for_in_the_last_2_s() -> anyhow::Result<()> {
        let worker = quiet(MemoryGateway::scripted(|_, _| (Duration::from_millis(4500), status(200))));
        let bodies: Vec<_> = (0..9).map(|id| message(&id.to_string(), &["a"]).to_string()).collect();
        let started = Instant::now();
        // Of 28 s, 6 posts take 27; the seventh is given up, and no other begun.
        assert_eq!(invoke(&worker, batch(bodies)).await?, ids(["record-6", "record-7", "record-8"]));
        assert_eq!(started.elapsed(), TIMEOUT - Duration::from_secs(2));
        assert_eq!(worker.gateway.posts().len(), 7);
        Ok(())
    }

    #[tokio::test(start_paused = true)]
    async fn an_invocation_whose_time_is_up_posts_nothing() -> anyhow::Result<()> {
        let worker = quiet(MemoryGateway::always(status(200)));
        let event = batch([message("m", &["a"]).to_string()]);
        assert_eq!(reported(&worker.handle(event, Time::start(epoch(), epoch())).await?), ids(["record-0"]));
        assert!(worker.gateway.posts().is_empty());
        Ok(())
    }

    #[tokio::test(start_paused = true)]
    async fn an_audience_that_is_not_served_goes_back_to_the_queue() -> anyhow::Result<()> {
        let worker = quiet(MemoryGateway::always(status(200)));
        let to = [json!({"tenant": "acme"}), json!({"user": {"tenant": "acme", "user": "anna"}})];
        let bodies = to.map(|to| json!({"version": 1, "id": "m", "to": to, "payload": 1}).to_string());
        assert_eq!(invoke(&worker, batch(bodies)).await?, ids(["record-0", "record-1"]));
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn an_event_without_message_ids_is_refused_before_anything_is_posted() {
    let worker = quiet(MemoryGateway::always(status(200)));
    let mut event = batch([message("1", &["a"]).to_string(), message("2", &["a"]).to_string()]);
    event.records[1].message_id = None;
    assert!(worker.handle(event, Time::start(epoch(), epoch() + TIMEOUT)).await.is_err());
    assert!(worker.gateway.posts().is_empty());
}
