//! Tenants on the emulator: each gets its own and nobody else's, however workers are killed.

use std::{collections::HashMap, time::Duration};

use futures::{StreamExt, TryStreamExt, stream};
use serde_json::json;
use streamer_producer::Message;
use streamer_tests::emulator::stack;
use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{sleep, timeout},
};

use crate::LIMIT;

/// Sockets of each tenant, all of one user. The first's are more than one message names.
const TENANTS: [(&str, usize); 3] = [("many", 420), ("some", 79), ("one", 1)];

#[tokio::test]
async fn tenants_of_500_sockets_each_get_their_own_and_nobody_elses_through_kills() -> anyhow::Result<()> {
    const MESSAGES: usize = 3;
    let stack = stack().await?;
    let all = TENANTS.iter().flat_map(|(tenant, number)| (0..*number).map(move |_| *tenant));
    let stack_of = &stack;
    let connect = |tenant: &'static str| async move {
        let socket = stack_of.connect(tenant, "somebody").await?;
        anyhow::Ok((tenant, socket))
    };
    let sockets: Vec<_> = stream::iter(all).map(connect).buffer_unordered(25).try_collect().await?;

    let (arrive, mut arrivals) = mpsc::unbounded_channel();
    let mut listening = JoinSet::new();
    for (index, (tenant, mut socket)) in sockets.into_iter().enumerate() {
        let arrive = arrive.clone();
        listening.spawn(async move {
            while let Ok(frame) = socket.next(LIMIT * 3).await {
                if arrive.send((index, tenant, frame.text)).is_err() {
                    break;
                }
            }
        });
    }
    let producer = stack.producer();
    let messages = TENANTS.iter().flat_map(|(tenant, _)| {
        (0..MESSAGES).map(move |number| {
            let id = format!("{tenant}-{number}");
            Message::tenant(*tenant).id(&id).payload(&json!({ "for": tenant, "id": id }))
        })
    });
    let to_user = TENANTS.iter().map(|(tenant, _)| {
        let id = format!("{tenant}-user");
        Message::user(*tenant, "somebody").id(&id).payload(&json!({ "for": tenant, "id": id }))
    });
    producer.send_all(messages.chain(to_user).collect::<Result<Vec<_>, _>>()?).await?;

    let total: usize = TENANTS.iter().map(|(_, number)| number * (MESSAGES + 1)).sum();
    let (mut seen, mut kills) = (HashMap::<(usize, String), usize>::new(), 0);
    while seen.len() < total {
        let (index, tenant, text) = timeout(LIMIT * 2, arrivals.recv()).await?.unwrap();
        assert!(text.contains(&format!(r#""for":"{tenant}""#)), "{tenant} got {text}");
        *seen.entry((index, text)).or_default() += 1;
        if [1, total / 3, total / 2].contains(&seen.len()) {
            kills += stack.processes("delivery")?.kill();
        }
    }
    assert!(kills > 0);
    // Nobody else's comes late.
    sleep(Duration::from_millis(500)).await;
    while let Ok((index, tenant, text)) = arrivals.try_recv() {
        assert!(text.contains(&format!(r#""for":"{tenant}""#)), "{tenant} got {text}");
        *seen.entry((index, text)).or_default() += 1;
    }
    let twice = seen.values().filter(|times| **times > 1).count();
    println!(
        "500 sockets of 3 tenants: {total} arrived, {twice} of them more than once, {kills} workers killed"
    );
    assert_eq!(seen.len(), total);
    Ok(())
}
