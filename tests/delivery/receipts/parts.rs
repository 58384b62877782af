//! Receipts of large audiences: each part has its own, and they add up.

use std::collections::{BTreeMap, BTreeSet};

use streamer_message::ReceiptTally;
use streamer_tests::{
    doubles::Crowd,
    event::{EPOCH_MILLIS, OUTBOUND_ARN, batch, batch_from},
    worker::{PARTS_ARN, Sent},
};

use super::*;

/// The receipts of a message, and how often each connection was posted to.
#[derive(Default)]
struct Delivered {
    receipts: Vec<Receipt>,
    posts: BTreeMap<String, usize>,
}

/// Invokes workers until no message is left on the outbound queue and, with `has_parts_queue`, the parts queue. Each batch for which `is_killed` returns true is delivered again, because
/// its worker is killed before it acknowledges the messages.
async fn drain(
    crowd: &Crowd,
    body: String,
    outbound: impl Fn() -> QueueDouble,
    has_parts_queue: bool,
    mut is_killed: impl FnMut() -> bool,
) -> anyhow::Result<Delivered> {
    let mut unread = vec![(OUTBOUND_ARN, body)];
    let (mut delivered, mut invocations) = (Delivered::default(), 0);
    while let Some((arn, body)) = unread.pop() {
        let gateway = MemoryGateway::always(status(200));
        let mut rig = Rig::on(gateway, TableDouble::default(), outbound(), QueueDouble::taking());
        rig.worker.table = Some(crowd.client());
        let parts = outbound();
        if has_parts_queue {
            rig.set_parts(&parts);
        }
        let reported = rig.invoke(batch_from(arn, [body.clone()])).await?;
        if !reported.is_empty() || is_killed() {
            unread.push((arn, body));
        }
        for (arn, queue) in [(OUTBOUND_ARN, &rig.outbound), (PARTS_ARN, &parts)] {
            unread.extend(queue.taken().into_iter().map(|entry| (arn, Sent::from(entry).body)));
        }
        delivered.receipts.extend(rig.receipts());
        for post in rig.worker.gateway.posts() {
            *delivered.posts.entry(post.connection).or_default() += 1;
        }
        invocations += 1;
        anyhow::ensure!(invocations < 10_000, "{} messages are left", unread.len());
    }
    Ok(delivered)
}

fn tally_of(receipts: &[Receipt]) -> ReceiptTally {
    let mut tally = ReceiptTally::default();
    receipts.iter().cloned().for_each(|receipt| tally.add(receipt));
    tally
}

fn to_tenant() -> String {
    asking(json!({ "version": 1, "id": "m", "to": { "tenant": "acme" }, "payload": 1 }))
}

#[tokio::test(start_paused = true)]
async fn parts_of_a_tenant_add_up() -> anyhow::Result<()> {
    let crowd = Crowd::new([("acme", 1234)]);
    let Delivered { receipts, posts } =
        drain(&crowd, to_tenant(), QueueDouble::taking, true, || false).await?;
    let tally = tally_of(&receipts);
    assert!(tally.is_complete(), "{receipts:?}");
    assert_eq!(tally.connections(), counts([(ReceiptOutcome::Delivered, posts.len() as u64)]));
    assert_eq!(tally.outcome(), Some(ReceiptOutcome::Delivered));
    let names: BTreeSet<_> = receipts.iter().map(|receipt| receipt.part.clone()).collect();
    assert_eq!(names.len(), receipts.len(), "each part has one receipt");
    for missing in 0..receipts.len() {
        let mut others = receipts.clone();
        others.remove(missing);
        assert!(!tally_of(&others).is_complete(), "without {:?}", receipts[missing]);
    }
    Ok(())
}

/// Fan-outs stop at their deadline and are continued, each time with a part for the rest.
#[tokio::test(start_paused = true)]
async fn parts_of_a_large_user_add_up() -> anyhow::Result<()> {
    let crowd = Crowd::new([("acme#anna", 5000)]).paged(50, Duration::from_millis(400));
    let body = asking(message_to_anna("m"));
    let Delivered { receipts, posts } = drain(&crowd, body, QueueDouble::taking, true, || false).await?;
    let tally = tally_of(&receipts);
    assert!(tally.is_complete(), "{receipts:?}");
    assert_eq!(posts.len(), 5000);
    assert_eq!(tally.connections(), counts([(ReceiptOutcome::Delivered, 5000)]));
    let expanded = receipts.iter().filter(|receipt| receipt.outcome == ReceiptOutcome::Expanded).count();
    assert!(expanded > 3, "{expanded}: the audience takes several invocations");
    Ok(())
}

/// A worker may be killed at any time, and the queue may not confirm every part: parts of an attempt that came to
/// nothing are not counted.
#[tokio::test(start_paused = true)]
async fn parts_add_up_whatever_fails() -> anyhow::Result<()> {
    for seed in 0..60 {
        let mut random = fastrand::Rng::with_seed(seed);
        // A user with so many connections needs several calls, so some parts are sent before others fail.
        let (audience, most, body) = match random.bool() {
            true => ("acme", 3000, to_tenant()),
            false => ("acme#anna", 2500, asking(message_to_anna("m"))),
        };
        let (page, has_parts_queue) = (random.usize(20..300), random.bool());
        let crowd = Crowd::new([(audience, random.usize(1..most))]).paged(page, Duration::ZERO);
        let failing = std::cell::RefCell::new(fastrand::Rng::with_seed(seed));
        let outbound = || {
            let random = std::sync::Mutex::new(failing.borrow_mut().fork());
            // Each call is repeated, so most entries must fail for a part to be missing.
            QueueDouble::new(move |_| match random.lock().unwrap().u8(..8) {
                0 => streamer_tests::doubles::Entry::NotTaken,
                _ => streamer_tests::doubles::Entry::Taken,
            })
        };
        let Delivered { receipts, posts } =
            drain(&crowd, body, outbound, has_parts_queue, || random.u8(..5) == 0).await?;
        let tally = tally_of(&receipts);
        assert!(tally.is_complete(), "seed {seed}: {receipts:?}");
        let expected = match posts.len() {
            0 => counts([]),
            number => counts([(ReceiptOutcome::Delivered, number as u64)]),
        };
        assert_eq!(tally.connections(), expected, "seed {seed}");
    }
    Ok(())
}

/// The rest of an audience ends with its message, as a part of its own.
#[tokio::test(start_paused = true)]
async fn rest_of_an_expired_message_is_a_part() -> anyhow::Result<()> {
    let crowd = Crowd::new([("acme#anna", 5000)]).paged(50, Duration::from_millis(300));
    let mut body = message_to_anna("m");
    body["expires_at"] = (EPOCH_MILLIS + 3700).into();
    let mut rig = Rig::new(MemoryGateway::always(status(200)));
    rig.worker.table = Some(crowd.client());
    rig.invoke(batch([asking(body)])).await?;
    let receipts = rig.receipts();
    let [whole, rest] = &receipts[..] else { panic!("{receipts:?}") };
    assert_eq!((whole.outcome, rest.outcome), (ReceiptOutcome::Expanded, ReceiptOutcome::Expired));
    let parts = whole.parts.clone().unwrap();
    assert!(parts.rest && rest.part == Some(parts.rest_name()), "{receipts:?}");
    Ok(())
}
