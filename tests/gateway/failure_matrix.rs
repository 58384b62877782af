//! Every answer that API Gateway may give, over the wire, and the outcome that it has.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::SystemTime,
};

use aws_sdk_dynamodb::types::AttributeValue;
use streamer_tests::{
    doubles::{LONG_AGO, QueueDouble, Row, TableDouble},
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
    ("nothing", "\u{0}\u{7f}\u{fffd}"),
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
        case("cut", Reply::Raw(format!("HTTP/1.1 {status} Cut\r\nContent-Length: 100\r\n\r\n{{\"mess")));
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
        [("reset", Reply::Reset), ("half", Reply::Half), ("noise", Reply::Raw("noise\r\n\r\n".to_owned()))]
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
    let connected_at = (epoch() - LONG_AGO).duration_since(SystemTime::UNIX_EPOCH)?.as_millis();
    let row = Row::from([("connected_at".to_owned(), AttributeValue::N(connected_at.to_string()))]);
    let table = TableDouble::of(cases.keys().map(|id| (id.clone(), row.clone())), || true);
    let rig = Rig::on(api(&gateway.endpoint()).await, table, QueueDouble::taking(), QueueDouble::taking());

    let bodies = cases.keys().map(|id| message(id, &[id]).to_string());
    assert_eq!(rig.invoke(batch(bodies)).await?, BTreeSet::new());

    let id = |body: &serde_json::Value| body["id"].as_str().unwrap_or_default().to_owned();
    let back = rig.handed_back().into_iter().map(|sent| sent.json());
    let back: BTreeMap<_, _> = back
        .map(|body| (id(&body), body["retry"]["cause"].as_str().unwrap_or_default().to_owned()))
        .collect();
    let dead: BTreeMap<_, _> = rig
        .dead()
        .iter()
        .map(|letter| (id(&letter.json()), letter.attribute("streamer.reason").to_owned()))
        .collect();
    let rows: BTreeSet<_> = rig.table.connections().into_iter().collect();
    for (id, (_, expected)) in &cases {
        let end = match (back.get(id), dead.get(id).map(String::as_str), rows.contains(id)) {
            (Some(cause), None, true) if cause.starts_with("connection: ") => {
                End::HandedBack("connection".to_owned())
            }
            (Some(cause), None, true) => End::HandedBack(cause.clone()),
            (None, Some("rejected"), true) => End::Rejected,
            (None, None, false) => End::Gone,
            (None, None, true) => End::Delivered,
            other => panic!("{id} ended in more than one way: {other:?}"),
        };
        assert_eq!(&end, expected, "{id}");
    }
    Ok(())
}
