//! Delivers messages through the outbound queue.

use std::time::{Duration, Instant, SystemTime};

use serde_json::json;
use streamer_connections::TableError;
use streamer_message::sqs::is_fifo;
use streamer_producer::Message;

use super::{
    cause::Cause,
    expected::expected,
    probe::Probe,
    run::{Run, Session, ms, shown, table_failure},
    socket::{Arrival, Ended, Socket},
};
use crate::doctor::Check;

/// Names of the checks.
pub(super) const NAMES: [&str; 5] =
    ["delivery.first", "delivery.queue", "delivery.parts", "delivery.user", "delivery.tenant"];

/// Messages whose times are measured.
pub(super) const MESSAGES: usize = 50;

/// Posts whose times are measured.
const POSTS: usize = 10;

/// Time for the first message: a cold start, and one retry.
const FIRST_LIMIT: Duration = Duration::from_secs(30);

/// Time for another message.
const LIMIT: Duration = Duration::from_secs(15);

/// Time between two looks at the worker's log while a message is missing.
const LOOK: Duration = Duration::from_secs(2);

/// A sent message.
struct Sent {
    id: String,
    began: Instant,
    call: Duration,
}

/// Waits for a message, and while it is missing, for the cause.
pub(super) async fn arrival(
    run: &Run<'_>,
    socket: &mut Socket,
    id: &str,
    limit: Duration,
) -> Result<Arrival, Cause> {
    let (began, quoted) = (Instant::now(), format!("\"{id}\""));
    while began.elapsed() < limit {
        match socket.next(LOOK.min(limit)).await {
            Ok(arrival) if arrival.text.contains(&quoted) => {
                run.arrived(id);
                return Ok(arrival);
            }
            Ok(_) => {}
            Err(ended @ Ended::Closed(_)) => {
                return Err(Cause::new(ended.describe(), "run the command again"));
            }
            Err(Ended::Late) => {
                if let Some(cause) = run.logged_cause(id).await {
                    return Err(cause);
                }
                if let Some(cause) = run.standstill().await {
                    return Err(cause);
                }
            }
        }
    }
    Err(run.backlog().await)
}

/// Delivers messages to the client. Returns whether they arrive.
pub(super) async fn through_queue(
    run: &Run<'_>,
    probe: Option<&Probe>,
    session: &mut Session,
    done: &mut dyn FnMut(Check),
) -> bool {
    let [first, queue, parts, user, tenant] = NAMES;
    let expected = expected(first);
    let to = Message::connection(&session.row.connection_id);
    match deliver(run, &mut session.socket, first, "first", to, FIRST_LIMIT, expected).await {
        Ok(check) => done(check),
        Err(check) => {
            done(check);
            return false;
        }
    }
    let (sent, arrived, duplicates) = measure(run, session).await;
    let times: Vec<_> = sent
        .iter()
        .filter_map(|sent| {
            let (_, at) = arrived.iter().find(|(id, _)| *id == sent.id)?;
            Some(at.saturating_duration_since(sent.began))
        })
        .collect();
    let times = Times::new(times);
    done(whole(run, queue, &sent, &times, duplicates).await);
    let direct = match probe {
        Some(probe) => direct(run, probe, session).await,
        None => Times::default(),
    };
    done(breakdown(parts, &sent, &times, &direct));
    done(to_user(run, user, session).await);
    done(to_tenant(run, tenant, session).await);
    true
}

/// Sends a message and waits for it. `Err` has the check of a failure.
async fn deliver(
    run: &Run<'_>,
    socket: &mut Socket,
    name: &'static str,
    part: &str,
    to: streamer_producer::MessageBuilder,
    limit: Duration,
    expected: &str,
) -> Result<Check, Check> {
    let began = Instant::now();
    let result = async {
        let (id, message) = run
            .message(part, to)
            .map_err(|error| Cause::new(error, "pass a user and a tenant that are valid"))?;
        run.send(&id, message).await?;
        arrival(run, socket, &id, limit).await
    };
    match result.await {
        Ok(arrival) => {
            let time = arrival.at.saturating_duration_since(began);
            Ok(Check::ok(name, expected, format!("after {}", shown(time)))
                .with_values(json!({ "time_ms": ms(time) })))
        }
        Err(cause) => Err(failed(name, expected, cause)),
    }
}

/// Returns the check of something that failed for a cause.
pub(super) fn failed(name: &'static str, expected: &str, cause: Cause) -> Check {
    match cause.is_denied {
        true => Check::skipped(name, expected, format!("{}: {}", cause.seen, cause.remedy)),
        false => Check::failed(name, expected, cause.seen, cause.remedy),
    }
}

/// Sends messages one after another while the client receives. Returns the sent ones, the time of each arrival, and the
/// number of frames that came twice.
async fn measure(run: &Run<'_>, session: &mut Session) -> (Vec<Sent>, Vec<(String, Instant)>, usize) {
    let id = session.row.connection_id.clone();
    let sending = async {
        let mut sent = Vec::new();
        for number in 0..MESSAGES {
            let Ok((id, message)) = run.message(&number.to_string(), Message::connection(&id)) else {
                continue;
            };
            let began = Instant::now();
            if run.send(&id, message).await.is_ok() {
                sent.push(Sent { id, began, call: began.elapsed() });
            }
        }
        sent
    };
    let receiving = async {
        let (mut arrived, mut duplicates) = (Vec::<(String, Instant)>::new(), 0);
        while arrived.len() < MESSAGES {
            let Ok(arrival) = session.socket.next(LIMIT).await else { break };
            let frame = serde_json::from_str::<serde_json::Value>(&arrival.text).unwrap_or_default();
            let Some(id) = frame["id"].as_str().filter(|id| id.starts_with(&run.id)) else { continue };
            match arrived.iter().any(|(seen, _)| seen == id) {
                true => duplicates += 1,
                false => {
                    run.arrived(id);
                    arrived.push((id.to_owned(), arrival.at));
                }
            }
        }
        (arrived, duplicates)
    };
    let (sent, (arrived, duplicates)) = tokio::join!(sending, receiving);
    (sent, arrived, duplicates)
}

/// Checks that all messages arrived.
async fn whole(run: &Run<'_>, name: &'static str, sent: &[Sent], times: &Times, duplicates: usize) -> Check {
    let expected = expected(name);
    let (arrived, [p50, p99]) = (times.0.len(), [0.5, 0.99].map(|part| times.percentile(part)));
    let seen = format!("{arrived} of {MESSAGES}; p50 {}, p99 {}", shown(p50), shown(p99));
    let values = json!({
        "sent": sent.len(), "arrived": arrived, "duplicates": duplicates,
        "p50_ms": ms(p50), "p99_ms": ms(p99), "max_ms": ms(times.percentile(1.0)),
    });
    let check = if arrived == MESSAGES {
        Check::ok(name, expected, seen)
    } else {
        let missing = run.made.messages.borrow().iter().next().cloned();
        let cause = match missing {
            Some(id) => run.logged_cause(&id).await,
            None => None,
        };
        let cause = match cause {
            Some(cause) => cause,
            None => run.backlog().await,
        };
        Check::failed(name, expected, format!("{seen}; {}", cause.seen), cause.remedy)
    };
    check.with_values(values)
}

/// Measures the time from a post to its frame.
async fn direct(run: &Run<'_>, probe: &Probe, session: &mut Session) -> Times {
    let (id, mut times) = (session.row.connection_id.to_string(), Vec::new());
    let Ok(mut wire) = probe.open().await else { return Times::default() };
    for number in 0..POSTS {
        let text = format!("{}-direct-{number}", run.id);
        let payload = json!({ "id": text }).to_string();
        let began = Instant::now();
        let receiving = async {
            loop {
                match session.socket.next(LIMIT).await {
                    Ok(arrival) if arrival.text.contains(&text) => return Some(arrival.at),
                    Ok(_) => {}
                    Err(_) => return None,
                }
            }
        };
        let (posted, arrived) = tokio::join!(probe.post(&mut wire, &id, payload), receiving);
        match (posted, arrived) {
            (Ok((answer, _)), Some(at)) => {
                times.push(at.saturating_duration_since(began));
                if answer.closes {
                    let Ok(next) = probe.open().await else { break };
                    wire = next;
                }
            }
            _ => break,
        }
    }
    Times::new(times)
}

/// Shows of which parts the time of a message consists.
fn breakdown(name: &'static str, sent: &[Sent], times: &Times, direct: &Times) -> Check {
    let expected = expected(name);
    let calls = Times::new(sent.iter().map(|sent| sent.call).collect());
    if times.0.is_empty() {
        return Check::skipped(name, expected, "no message arrived");
    }
    let [call, call_p99] = [0.5, 0.99].map(|part| calls.percentile(part));
    let [post, post_p99] = [0.5, 0.99].map(|part| direct.percentile(part));
    let rest = times.percentile(0.5).saturating_sub(call).saturating_sub(post);
    let (post_text, rest_text) = match direct.0.is_empty() {
        true => ("unknown".to_owned(), "unknown".to_owned()),
        false => (shown(post), shown(rest)),
    };
    let seen = format!("p50: call {}, queue {rest_text}, post {post_text}", shown(call));
    let mut values = json!({ "send_p50_ms": ms(call), "send_p99_ms": ms(call_p99) });
    if !direct.0.is_empty() {
        values["queue_and_worker_p50_ms"] = ms(rest);
        values["post_p50_ms"] = ms(post);
        values["post_p99_ms"] = ms(post_p99);
    }
    Check::ok(name, expected, seen).with_values(values)
}

/// Checks a message for the user, unless another client would receive it.
async fn to_user(run: &Run<'_>, name: &'static str, session: &mut Session) -> Check {
    let expected = expected(name);
    let Some(table) = &run.table else { return Check::skipped(name, expected, "the worker has no table") };
    let (tenant, user) = (&run.client.tenant, &run.client.user);
    let page = match table.by_user(tenant, user, None, SystemTime::now()).await {
        Ok(page) => page,
        Err(error) => return table_failure(name, expected, &error),
    };
    if page.connections.iter().any(|row| row.connection_id != session.row.connection_id) {
        return Check::skipped(
            name,
            expected,
            format!("user {user} has other connections: leave out --user"),
        );
    }
    let to = Message::user(tenant.as_str(), user.as_str());
    deliver(run, &mut session.socket, name, "user", to, LIMIT, expected).await.unwrap_or_else(|check| check)
}

/// Checks a message for the tenant, unless another client would receive it.
async fn to_tenant(run: &Run<'_>, name: &'static str, session: &mut Session) -> Check {
    let expected = expected(name);
    let tenant = &run.client.tenant;
    if run.subject.variable("QUEUE_URL").is_some_and(is_fifo) {
        return Check::skipped(name, expected, "a FIFO queue takes no message for a tenant");
    }
    match others_of_tenant(run, session).await {
        Ok(false) => {}
        Ok(true) => {
            let seen = format!("tenant {tenant} has other connections, which would receive the message");
            return Check::skipped(name, expected, seen);
        }
        Err(error) => return table_failure(name, expected, &error),
    }
    let to = Message::tenant(tenant.as_str());
    deliver(run, &mut session.socket, name, "tenant", to, LIMIT, expected).await.unwrap_or_else(|check| check)
}

/// Returns whether the tenant has another live connection.
async fn others_of_tenant(run: &Run<'_>, session: &Session) -> Result<bool, TableError> {
    let Some(table) = &run.table else { return Ok(true) };
    for shard in table.shards().all() {
        let page = table.by_tenant(&run.client.tenant, shard, None, SystemTime::now()).await?;
        let is_other = page.connections.iter().any(|row| row.connection_id != session.row.connection_id);
        if is_other || page.next.is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Times, in order.
#[derive(Debug, Default)]
struct Times(Vec<Duration>);

impl Times {
    fn new(mut times: Vec<Duration>) -> Self {
        times.sort_unstable();
        Self(times)
    }

    /// Returns the time that a part of all times does not exceed; zero without times.
    fn percentile(&self, part: f64) -> Duration {
        let rank = (part * self.0.len() as f64).ceil() as usize;
        self.0.get(rank.saturating_sub(1)).copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_by_nearest_rank() {
        let times = Times::new((1..=50).rev().map(Duration::from_millis).collect());
        assert_eq!([0.5, 0.99, 1.0].map(|part| times.percentile(part).as_millis()), [25, 50, 50]);
        assert_eq!(Times::default().percentile(0.5), Duration::ZERO);
    }
}
