//! Every answer that API Gateway may give, over the wire, and the outcome that it has.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::bail;
use futures::{StreamExt, stream};
use streamer_tests::{
    doubles::{LONG_AGO, QueueDouble, TableDouble},
    event::{batch, epoch, message},
    wire::{Reply, WireGateway},
    worker::Rig,
};

use crate::api;

/// The bodies of errors: those that are documented, and whatever else may come.
const BODIES: [(&str, &str); 9] = [
    ("empty", ""),
    ("gone", r#"{"message":"GoneException"}"#),
    ("documented", r#"{"message":"Payload too large","connectionId":"c","requestId":"r"}"#),
    ("limit", r#"{"__type":"LimitExceededException","message":"Too many requests"}"#),
    (
        "forbidden",
        r#"{"Message":"User: arn:aws:iam::1:role/r is not authorized to perform: execute-api:ManageConnections"}"#,
    ),
    ("internal", r#"{"message": "Internal server error", "connectionId":"c", "requestId":"r"}"#),
    ("html", "<html><body>503 Service Unavailable</body></html>"),
    ("json", "{\"message\":"),
    ("controls", "\u{0}\u{7f}\u{fffd}"),
];

/// A 400 that blames the connection id.
const INVALID: [&str; 2] =
    [r#"{"message":"Invalid connectionId: c","connectionId":"c","requestId":"r"}"#, "Invalid connection ID"];

/// How a message ended, as the queues and the table tell.
#[derive(Debug, Clone, PartialEq, Eq)]
enum End {
    Delivered,
    Gone,
    Rejected,
    HandedBack(String),
}

/// The outcome table, by the status alone.
fn expected(status: u16) -> End {
    match status {
        200 | 201 | 202 | 204 | 226 => End::Delivered,
        410 => End::Gone,
        400 | 413 => End::Rejected,
        other => End::HandedBack(other.to_string()),
    }
}

fn cases() -> BTreeMap<String, (Reply, End)> {
    let statuses = [
        200, 201, 202, 204, 226, 300, 301, 302, 303, 307, 308, 400, 401, 402, 403, 404, 405, 406, 408, 409,
        410, 411, 412, 413, 414, 415, 417, 418, 421, 422, 424, 425, 426, 428, 429, 431, 451, 499, 500, 501,
        502, 503, 504, 505, 507, 508, 511, 529, 599,
    ];
    let mut cases = BTreeMap::new();
    for status in statuses {
        let mut case =
            |name: &str, reply| cases.insert(format!("{status}-{name}"), (reply, expected(status)));
        for (name, body) in BODIES {
            case(name, Reply::Answer(status, body.to_owned()));
        }
        let raw = |length: usize, body: &[u8]| {
            let head = format!("HTTP/1.1 {status} Raw\r\nContent-Length: {length}\r\n\r\n");
            Reply::Raw([head.as_bytes(), body].concat())
        };
        case("cut", raw(100, b"{\"mess"));
        case("binary", raw(4, b"\xff\xfe\x00\x80"));
        case("long", Reply::Answer(status, "x".repeat(64 * 1024)));
        case("endless", Reply::Endless(status));
        case("last", Reply::Last(status));
    }
    for (name, body) in INVALID.into_iter().enumerate() {
        cases.insert(format!("400-invalid-{name}"), (Reply::Answer(400, body.to_owned()), End::Gone));
        // No other status is refined by its body.
        cases.insert(format!("403-invalid-{name}"), (Reply::Answer(403, body.to_owned()), expected(403)));
        cases.insert(format!("200-invalid-{name}"), (Reply::Answer(200, body.to_owned()), End::Delivered));
    }
    for (name, reply) in
        [("reset", Reply::Reset), ("half", Reply::Half), ("noise", Reply::Raw(b"noise\r\n\r\n".to_vec()))]
    {
        cases.insert(name.to_owned(), (reply, End::HandedBack("connection".to_owned())));
    }
    cases
}

#[tokio::test]
async fn every_answer_has_the_outcome_of_the_table_whatever_its_body_is() -> anyhow::Result<()> {
    let cases = cases();
    let replies: BTreeMap<_, _> = cases.iter().map(|(id, (reply, _))| (id.clone(), reply.clone())).collect();
    let gateway = WireGateway::answering(move |_, request| replies[request.connection()].clone()).await?;
    let ends = stream::iter(&cases).map(|(id, (_, expected))| {
        let gateway = &gateway;
        async move { (id, end_of(gateway, id).await, expected) }
    });
    let ends: Vec<_> = ends.buffer_unordered(64).collect().await;
    let requests = gateway.requests();
    for (id, end, expected) in ends {
        assert_eq!(&end?, expected, "{id}");
        let tries = match expected {
            End::HandedBack(cause) if cause == "connection" || cause.starts_with('5') => 3,
            _ => 1,
        };
        let posts = requests.iter().filter(|request| request.connection() == id).count();
        assert_eq!(posts, tries, "posts of {id}");
    }
    Ok(())
}

/// How a message for one connection, whose row is old, ends with a worker of its own: a circuit would open.
async fn end_of(gateway: &WireGateway, id: &str) -> anyhow::Result<End> {
    let table = TableDouble::of_user([(id, epoch() - LONG_AGO)], || true);
    let api = api(&gateway.endpoint()).await;
    let rig = Rig::on(api, table, QueueDouble::taking(), QueueDouble::taking());
    let reported = rig.invoke(batch([message(id, &[id]).to_string()])).await?;
    let back: Vec<_> =
        rig.handed_back().iter().map(|sent| sent.json()["retry"]["cause"].to_string()).collect();
    let dead: Vec<_> = rig.dead().iter().map(|sent| sent.attribute("streamer.reason").to_owned()).collect();
    let has_row = !rig.table.connections().is_empty();
    Ok(match (back.as_slice(), dead.as_slice(), has_row, reported.len()) {
        ([cause], [], true, 0) if cause.starts_with("\"connection: ") => {
            End::HandedBack("connection".to_owned())
        }
        ([cause], [], true, 0) => End::HandedBack(cause.replace('"', "")),
        ([], [reason], true, 0) if reason == "rejected" => End::Rejected,
        ([], [], false, 0) => End::Gone,
        ([], [], true, 0) => End::Delivered,
        other => bail!("{id} ended in more than one way, or in none: {other:?}"),
    })
}

#[tokio::test]
async fn a_gateway_that_does_not_answer_is_asked_three_times_for_5_s() -> anyhow::Result<()> {
    let gateway = WireGateway::start(|_| Reply::Silent).await?;
    let rig = Rig::new(api(&gateway.endpoint()).await);
    assert_eq!(rig.invoke(batch([message("m", &["a"]).to_string()])).await?, BTreeSet::new());
    assert_eq!(rig.handed_back()[0].json()["retry"]["cause"], "timeout");
    assert_eq!(gateway.requests().len(), 3);
    Ok(())
}
