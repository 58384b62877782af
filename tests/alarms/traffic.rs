//! The messages that producers send, and an hour of normal answers.

use std::time::Duration;

use delivery_worker::classify::PostResult;
use serde_json::{Value as Json, json};
use streamer_tests::{event::EPOCH_MILLIS, gateway::status};

use crate::world::{MINUTE, QUICK, USERS};

/// The body of a message for one connection.
pub(crate) fn to_connection(number: usize) -> Json {
    let to = json!({ "connection": format!("c{}", number % USERS) });
    json!({ "version": 1, "id": format!("m{number}"), "to": to, "payload": number })
}

/// The body of a message for one user.
pub(crate) fn to_user(number: usize) -> String {
    let user = number % USERS;
    let to = json!({ "user": { "tenant": format!("t{user}"), "user": format!("u{user}") } });
    json!({ "version": 1, "id": format!("m{number}"), "to": to, "payload": number }).to_string()
}

/// The body of a message for one of 30 connections, enough for the circuit breaker to judge by.
pub(crate) fn to_many(number: usize) -> String {
    let mut message = to_connection(number);
    message["to"] = json!({ "connection": format!("c{}", number % 30) });
    message.to_string()
}

/// The body of a message that expires 30 s after it was sent, in a run with one message a minute.
pub(crate) fn expiring(number: usize) -> String {
    let mut message = to_connection(number);
    let sent = EPOCH_MILLIS + number as u64 * 60_000;
    message["expires_at"] = json!(sent + 30_000);
    message.to_string()
}

/// The body of a message of which every third is not valid.
pub(crate) fn poisonous(number: usize) -> String {
    if number.is_multiple_of(3) { "{}".to_owned() } else { to_connection(number).to_string() }
}

/// An hour with a slow client, a connection that breaks, one that is young, and short faults.
pub(crate) fn normal_life(connection: &str, posts: usize, since: Duration) -> (Duration, PostResult) {
    let within = |from: u32, seconds: u64| {
        let from = MINUTE * from;
        (from..from + Duration::from_secs(seconds)).contains(&since)
    };
    let answer = match connection {
        "c0" if within(20, 150) || within(40, 90) => 429,
        "c1" if within(16, 10) || within(31, 10) || within(46, 10) => 410,
        "c2" if posts.is_multiple_of(3) => 503,
        "c3" if within(28, 8) => 504,
        _ => 200,
    };
    (QUICK, status(answer))
}
