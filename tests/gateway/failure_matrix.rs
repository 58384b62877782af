//! Every answer that API Gateway may give, over the network, and its outcome.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::bail;
use futures::{StreamExt, stream};
use streamer_tests::{
    doubles::{LONG_AGO, QueueDouble, TableDouble},
    event::{batch, epoch, message},
    wire::{Reply, WireGateway},
    worker::Rig,
};

use crate::client::api;

/// Bodies of errors: documented ones, and others that may arrive.
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

/// Bodies of a 400 that blame the connection id.
const INVALID_ID: [&str; 2] =
    [r#"{"message":"Invalid connectionId: c","connectionId":"c","requestId":"r"}"#, "Invalid connection ID"];

/// The outcome of a message, as the queues and the table show it.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Outcome {
    Delivered,
    Gone,
    Rejected,
    HandedBack(String),
}

/// Returns the outcome of a status, whatever its body is.
fn expected(status: u16) -> Outcome {
    match status {
        200 | 201 | 202 | 204 | 226 => Outcome::Delivered,
        410 => Outcome::Gone,
        400 | 413 => Outcome::Rejected,
        other => Outcome::HandedBack(other.to_string()),
    }
}

fn cases() -> BTreeMap<String, (Reply, Outcome)> {
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
    for (name, body) in INVALID_ID.into_iter().enumerate() {
        cases.insert(format!("400-invalid-{name}"), (Reply::Answer(400, body.to_owned()), Outcome::Gone));
        // The body refines no other status.
        cases.insert(format!("403-invalid-{name}"), (Reply::Answer(403, body.to_owned()), expected(403)));
        cases
            .insert(format!("200-invalid-{name}"), (Reply::Answer(200, body.to_owned()), Outcome::Delivered));
    }
    for (name, reply) in
        [("reset", Reply::Reset), ("half", Reply::Half), ("noise", Reply::Raw(b"noise\r\n\r\n".to_vec()))]
    {
        cases.insert(name.to_owned(), (reply, Outcome::HandedBack("connection".to_owned())));
    }
    cases
}

#[tokio::test]
async fn every_answer_has_its_documented_outcome() -> anyhow::Result<()> {
    let cases = cases();
    let replies: BTreeMap<_, _> = cases.iter().map(|(id, (reply, _))| (id.clone(), reply.clone())).collect();
    let gateway = WireGateway::answering(move |_, request| replies[request.connection()].clone()).await?;
    let outcomes = stream::iter(&cases).map(|(id, (_, expected))| {
        let gateway = &gateway;
        async move { (id, outcome_of(gateway, id).await, expected) }
    });
    let outcomes: Vec<_> = outcomes.buffer_unordered(64).collect().await;
    let requests = gateway.requests();
    for (id, outcome, expected) in outcomes {
        assert_eq!(&outcome?, expected, "{id}");
        let expected_posts = match expected {
            Outcome::HandedBack(cause) if cause == "connection" || cause.starts_with('5') => 3,
            _ => 1,
        };
        let posts = requests.iter().filter(|request| request.connection() == id).count();
        assert_eq!(posts, expected_posts, "posts of {id}");
    }
    Ok(())
}

/// Delivers a message to one connection with an old row, and returns the outcome. Each message has its own worker,
/// because a shared circuit would open.
async fn outcome_of(gateway: &WireGateway, id: &str) -> anyhow::Result<Outcome> {
    let table = TableDouble::of_user([(id, epoch() - LONG_AGO)], || true);
    let api = api(&gateway.endpoint()).await;
    let rig = Rig::on(api, table, QueueDouble::taking(), QueueDouble::taking());
    let reported = rig.invoke(batch([message(id, &[id]).to_string()])).await?;
    let causes: Vec<_> =
        rig.handed_back().iter().map(|sent| sent.json()["retry"]["cause"].to_string()).collect();
    let reasons: Vec<_> =
        rig.dead().iter().map(|sent| sent.attribute("streamer.reason").to_owned()).collect();
    let has_row = !rig.table.connections().is_empty();
    Ok(match (causes.as_slice(), reasons.as_slice(), has_row, reported.len()) {
        ([cause], [], true, 0) if cause.starts_with("\"connection: ") => {
            Outcome::HandedBack("connection".to_owned())
        }
        ([cause], [], true, 0) => Outcome::HandedBack(cause.replace('"', "")),
        ([], [reason], true, 0) if reason == "rejected" => Outcome::Rejected,
        ([], [], false, 0) => Outcome::Gone,
        ([], [], true, 0) => Outcome::Delivered,
        other => bail!("{id} does not have exactly one outcome: {other:?}"),
    })
}

/// Each post waits for 5 s.
#[tokio::test]
async fn silent_gateway_gets_three_posts() -> anyhow::Result<()> {
    let gateway = WireGateway::start(|_| Reply::Silent).await?;
    let rig = Rig::new(api(&gateway.endpoint()).await);
    assert_eq!(rig.invoke(batch([message("m", &["a"]).to_string()])).await?, BTreeSet::new());
    assert_eq!(rig.handed_back()[0].json()["retry"]["cause"], "timeout");
    assert_eq!(gateway.requests().len(), 3);
    Ok(())
}
