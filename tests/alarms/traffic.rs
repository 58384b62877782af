//! The messages that producers send, and an hour of normal answers.

use std::time::Duration;

use serde_json::{Value as Json, json};
use streamer_gateway::PostResult;
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
    of_user(number, &format!("t{user}"), &format!("u{user}"))
}

/// The body of a message for a user without a connection.
pub(crate) fn to_absent(number: usize) -> String {
    of_user(number, "t0", "absent")
}

fn of_user(number: usize, tenant: &str, user: &str) -> String {
    let to = json!({ "user": { "tenant": tenant, "user": user } });
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
    expiring_at(number, number)
}

/// The body of a message that expires 30 s after it was sent, in a run with 30 messages a minute.
pub(crate) fn expiring_of_many(number: usize) -> String {
    expiring_at(number, number / 30)
}

fn expiring_at(number: usize, minute: usize) -> String {
    let mut message = to_connection(number);
    message["expires_at"] = json!(EPOCH_MILLIS + minute as u64 * 60_000 + 30_000);
    message.to_string()
}

/// The bodies of messages that are sent together, in the minutes in which a client [stalls](stalls).
pub(crate) fn bursts(minute: usize) -> Vec<String> {
    let burst = (0..3).map(|index| {
        let to = json!({ "connection": "c0" });
        json!({ "version": 1, "id": format!("b{minute}-{index}"), "to": to, "payload": index }).to_string()
    });
    if STALLS.iter().any(|(from, _)| *from == minute) { burst.collect() } else { Vec::new() }
}

/// Minutes from which on a client reads nothing, and for how many seconds.
const STALLS: [(usize, u64); 2] = [(20, 60), (40, 360)];

/// An hour with a client whose buffer is full for 1 min and for 6 min.
pub(crate) fn stalls(connection: &str, _: usize, since: Duration) -> (Duration, PostResult) {
    let is_stalled = STALLS.iter().any(|(from, seconds)| within(*from as u32, *seconds, since));
    (QUICK, status(if connection == "c0" && is_stalled { 429 } else { 200 }))
}

fn within(from: u32, seconds: u64, since: Duration) -> bool {
    let from = MINUTE * from;
    (from..from + Duration::from_secs(seconds)).contains(&since)
}

/// The body of a message of which every third is not valid.
pub(crate) fn poisonous(number: usize) -> String {
    if number.is_multiple_of(3) { "{}".to_owned() } else { to_connection(number).to_string() }
}

/// An hour with a slow client, connections that break, and short faults. At minute 35, a deployment makes new
/// environments, whose first posts are slow.
pub(crate) fn normal_life(connection: &str, posts: usize, since: Duration) -> (Duration, PostResult) {
    let within = |from, seconds| within(from, seconds, since);
    let answer = match connection {
        "c0" if within(20, 150) || within(40, 90) => 429,
        "c1" if within(16, 10) || within(31, 10) || within(46, 10) => 410,
        "c2" if posts.is_multiple_of(3) => 503,
        "c3" if within(28, 8) => 504,
        _ => 200,
    };
    (if within(DEPLOYMENT, 20) { Duration::from_secs(3) } else { QUICK }, status(answer))
}

/// The minute of a deployment in normal life.
pub(crate) const DEPLOYMENT: u32 = 35;
