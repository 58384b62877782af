//! Connections of other cells in the same table: the worker leaves them to the other cells, whose workers have copies of
//! the message.

use std::{
    collections::BTreeSet,
    time::{Duration, SystemTime},
};

use serde_json::{Value, json};
use streamer_connections::{Connection, Endpoints, TenantShards};
use streamer_message::{ConnectionId, ReceiptOutcome};
use streamer_queue::QueueKind;
use streamer_tests::{
    doubles::{MailboxDouble, QueueDouble, TableDouble, connection},
    event::{batch, epoch, message},
    gateway::{MemoryGateway, status},
    worker::{ENDPOINT, Rig},
};

use crate::{causes, ids, long_ago};

const OTHER_CELL: &str = "https://b2c3d4e5f6.execute-api.eu-west-1.amazonaws.com/production";
const UNKNOWN: &str = "https://c3d4e5f6g7.execute-api.eu-west-1.amazonaws.com/production";
const GRACE: Duration = Duration::from_secs(30);

/// Builds a worker that knows the other cell, by an alias as well.
async fn rig(kind: QueueKind, answer: u16, rows: &[(&str, &str)]) -> anyhow::Result<Rig> {
    let (gateway, taking) = (MemoryGateway::always(status(answer)), QueueDouble::taking);
    let mut rig = Rig::of(kind, gateway, TableDouble::default(), taking(), taking());
    let cells = [ENDPOINT, OTHER_CELL, "https://alias.example.com"].map(str::to_owned);
    rig.worker.endpoints = Endpoints::from(ENDPOINT).with_cells(cells);
    for (id, endpoint) in rows {
        rig.table.client().put(&row(id, endpoint)).await?;
    }
    Ok(rig)
}

fn row(id: &str, endpoint: &str) -> Connection {
    Connection { endpoint: endpoint.to_owned(), ..connection(id, long_ago()) }
}

fn message_to(audience: Value) -> String {
    json!({ "version": 1, "id": "m", "to": audience, "payload": 1, "receipt": true }).to_string()
}

fn to_user() -> String {
    message_to(json!({ "user": { "tenant": "acme", "user": "anna" } }))
}

fn to_shard_of(id: &str) -> anyhow::Result<String> {
    let shard = TenantShards::DEFAULT.of(&ConnectionId::new(id)?);
    Ok(message_to(json!({ "tenant": "acme", "shard": shard })))
}

fn after(duration: Duration) -> SystemTime {
    epoch() + duration
}

/// Returns the outcomes of the receipts so far.
fn outcomes(rig: &Rig) -> Vec<ReceiptOutcome> {
    rig.receipts().into_iter().map(|receipt| receipt.outcome).collect()
}

/// The user may be on the way to this cell.
#[tokio::test(start_paused = true)]
async fn user_of_other_cell_is_away() -> anyhow::Result<()> {
    for endpoint in [OTHER_CELL, "HTTPS://Alias.Example.com:443/"] {
        let rig = rig(QueueKind::Standard, 200, &[("x", endpoint)]).await?;
        assert_eq!(rig.invoke(batch([to_user()])).await?, ids([]));
        assert_eq!(causes(&rig), [("m".to_owned(), "user away".to_owned())], "{endpoint}");
        let back = rig.handed_back().remove(0).body;
        assert_eq!(rig.invoke_at(after(GRACE), batch([back])).await?, ids([]));
        assert_eq!((rig.handed_back().len(), outcomes(&rig)), (1, vec![ReceiptOutcome::NoRecipient]));
        assert!(rig.dead().is_empty() && rig.worker.gateway.posts().is_empty());
        assert_eq!(rig.table.connections(), ["x"], "the row belongs to the other cell");
    }
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn fifo_user_of_other_cell_is_away() -> anyhow::Result<()> {
    let rig = rig(QueueKind::Fifo, 200, &[("x", OTHER_CELL)]).await?;
    let event = || {
        let mut event = batch([to_user()]);
        event.records[0].attributes.insert("MessageGroupId".to_owned(), "g".to_owned());
        event
    };
    assert_eq!(rig.invoke(event()).await?, ids(["record-0"]));
    assert_eq!(rig.invoke_at(after(GRACE), event()).await?, ids([]));
    assert_eq!(outcomes(&rig), [ReceiptOutcome::NoRecipient]);
    assert!(rig.dead().is_empty());
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn user_who_moves_here_gets_message() -> anyhow::Result<()> {
    let rig = rig(QueueKind::Standard, 200, &[("x", OTHER_CELL)]).await?;
    rig.invoke(batch([to_user()])).await?;
    rig.table.client().put(&row("here", ENDPOINT)).await?;
    let back = rig.handed_back().remove(0).body;
    rig.invoke_at(after(Duration::from_secs(10)), batch([back])).await?;
    assert_eq!(rig.worker.gateway.texts("here").len(), 1);
    assert_eq!(outcomes(&rig), [ReceiptOutcome::Delivered]);
    Ok(())
}

/// A page with connections here, in the other cell and at an endpoint that is not listed.
#[tokio::test(start_paused = true)]
async fn mixed_page_reaches_connections_here() -> anyhow::Result<()> {
    let rows = [("a", OTHER_CELL), ("b", ENDPOINT), ("c", UNKNOWN), ("d", ENDPOINT)];
    let rig = rig(QueueKind::Standard, 200, &rows).await?;
    assert_eq!(rig.invoke(batch([to_user()])).await?, ids([]));
    let posted: BTreeSet<_> = rig.worker.gateway.posts().into_iter().map(|post| post.connection).collect();
    assert_eq!(posted, ["b", "d"].map(str::to_owned).into());
    assert_eq!(rig.receipts()[0].connections, [(ReceiptOutcome::Delivered, 2)].into());
    assert!(rig.handed_back().is_empty());
    Ok(())
}

/// No worker is known to have a copy for it.
#[tokio::test(start_paused = true)]
async fn unlisted_endpoint_is_still_handed_back() -> anyhow::Result<()> {
    let rig = rig(QueueKind::Standard, 200, &[("x", OTHER_CELL), ("y", UNKNOWN)]).await?;
    rig.invoke_at(after(GRACE), batch([to_user(), to_shard_of("y")?])).await?;
    let causes = causes(&rig);
    assert_eq!(causes.len(), 2);
    assert!(causes.iter().all(|(_, cause)| cause.contains(UNKNOWN)), "{causes:?}");
    assert!(outcomes(&rig).is_empty());
    Ok(())
}

/// It came before the cells were listed, so the other cell may have no copy.
#[tokio::test(start_paused = true)]
async fn earlier_hand_back_stays_a_dead_letter() -> anyhow::Result<()> {
    let mut rig = rig(QueueKind::Standard, 200, &[("x", OTHER_CELL)]).await?;
    let with_cells = std::mem::replace(&mut rig.worker.endpoints, ENDPOINT.into());
    rig.invoke(batch([to_user()])).await?;
    rig.worker.endpoints = with_cells;
    let back = rig.handed_back().remove(0).body;
    rig.invoke_at(after(GRACE), batch([back])).await?;
    assert!(rig.dead()[0].attribute("streamer.detail").contains(OTHER_CELL));
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn shard_of_other_cell_ends_at_once() -> anyhow::Result<()> {
    let rig = rig(QueueKind::Standard, 200, &[("x", OTHER_CELL)]).await?;
    assert_eq!(rig.invoke(batch([to_shard_of("x")?])).await?, ids([]));
    assert_eq!(outcomes(&rig), [ReceiptOutcome::NoRecipient]);
    assert!(rig.handed_back().is_empty() && rig.dead().is_empty());
    Ok(())
}

/// Every shard is fanned out: each has more connections here than one message names.
#[tokio::test(start_paused = true)]
async fn parts_name_only_connections_here() -> anyhow::Result<()> {
    let mut rig = rig(QueueKind::Standard, 200, &[]).await?;
    let mut here = BTreeSet::new();
    for number in 0..2400 {
        let (id, endpoint) = (format!("c{number:04}"), [ENDPOINT, OTHER_CELL, ENDPOINT, UNKNOWN][number % 4]);
        rig.table.client().put(&row(&id, endpoint)).await?;
        if endpoint == ENDPOINT {
            here.insert(id);
        }
    }
    rig.table = rig.table.with_pages_of(100);
    rig.worker.table = Some(rig.table.client());
    let mut unread = vec![message_to(json!({ "tenant": "acme" }))];
    let mut named = Vec::new();
    while let Some(body) = unread.pop() {
        let sent = rig.handed_back().len();
        assert_eq!(rig.invoke(batch([body])).await?, ids([]));
        for part in rig.handed_back().into_iter().skip(sent) {
            match part.json()["to"]["connections"].as_array() {
                Some(connections) => {
                    named.extend(connections.iter().map(|id| id.as_str().unwrap().to_owned()))
                }
                None => unread.push(part.body),
            }
        }
    }
    named.extend(rig.worker.gateway.posts().into_iter().map(|post| post.connection));
    assert_eq!((named.len(), named.into_iter().collect::<BTreeSet<_>>()), (here.len(), here));
    Ok(())
}

/// The worker reads more than the first pages before it knows that no connection is here.
#[tokio::test(start_paused = true)]
async fn large_user_of_other_cell_is_away() -> anyhow::Result<()> {
    let mut rig = rig(QueueKind::Standard, 200, &[]).await?;
    for number in 0..250 {
        rig.table.client().put(&row(&format!("c{number}"), OTHER_CELL)).await?;
    }
    rig.table = rig.table.with_pages_of(100);
    rig.worker.table = Some(rig.table.client());
    rig.invoke(batch([to_user()])).await?;
    assert_eq!(causes(&rig), [("m".to_owned(), "user away".to_owned())]);
    let back = rig.handed_back().remove(0).body;
    rig.invoke_at(after(GRACE), batch([back])).await?;
    assert_eq!((rig.handed_back().len(), outcomes(&rig)), (1, vec![ReceiptOutcome::NoRecipient]));
    Ok(())
}

/// It was sent to one queue only, and that is the wrong one.
#[tokio::test(start_paused = true)]
async fn named_connection_of_other_cell_is_handed_back() -> anyhow::Result<()> {
    let rig = rig(QueueKind::Standard, 410, &[("x", OTHER_CELL)]).await?;
    assert_eq!(rig.invoke(batch([message("m", &["x"]).to_string()])).await?, ids([]));
    assert_eq!(rig.table.connections(), ["x"]);
    assert!(causes(&rig)[0].1.contains(OTHER_CELL));
    Ok(())
}

/// The device reads it with its next sync.
#[tokio::test(start_paused = true)]
async fn kept_message_ignores_devices_of_other_cell() -> anyhow::Result<()> {
    let mut rig = rig(QueueKind::Standard, 200, &[]).await?;
    let mailbox = MailboxDouble::default();
    rig.worker.mailbox = Some(mailbox.mailbox());
    mailbox.register("anna", "x", OTHER_CELL, after(Duration::from_secs(3600)));
    let mut body: Value = serde_json::from_str(&to_user())?;
    body["keep"] = 3600.into();
    assert_eq!(rig.invoke(batch([body.to_string()])).await?, ids([]));
    assert_eq!((outcomes(&rig), mailbox.top("anna")), (vec![ReceiptOutcome::Kept], 1));

    mailbox.register("anna", "y", UNKNOWN, after(Duration::from_secs(3600)));
    body["id"] = "n".into();
    assert_eq!(rig.invoke(batch([body.to_string()])).await?, ids([]));
    assert!(causes(&rig)[0].1.contains(UNKNOWN), "{:?}", causes(&rig));
    Ok(())
}
