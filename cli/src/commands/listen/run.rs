//! Connects, prints frames, and connects again.

use std::{
    io::{Write as _, stdout},
    num::NonZeroUsize,
    pin::Pin,
    time::{Duration, SystemTime},
};

use anyhow::bail;
use futures::FutureExt as _;
use streamer_connections::ConnectionTable;
use tokio::{
    pin, select,
    time::{Instant, MissedTickBehavior, interval_at, sleep},
};

use super::{
    Stop,
    connection::{Connection, NotConnected, Received},
    frame::{Frames, Line},
    lookup::{find, user_agent},
    mailbox::Mailbox,
    outgoing::Outgoing,
    source::Source,
};
use crate::screen::{elapsed, print_error, sanitize};

/// Time between two pings. API Gateway ends a connection after 10 minutes without traffic.
const PING_INTERVAL: Duration = Duration::from_secs(240);

/// Longest delay before the first try to connect again. It doubles with each further try.
const FIRST_DELAY: Duration = Duration::from_millis(500);

/// Maximum delay before a try to connect again.
const MAX_DELAY: Duration = Duration::from_secs(30);

/// Age at which a lost connection counts as one that worked, so that delays start over.
const STABLE_AGE: Duration = Duration::from_secs(10);

/// The end of a connection.
enum Ended {
    Stopped(Stop),
    /// The connection ended. The text says why.
    Closed(String),
}

/// A run of the command.
pub(super) struct Run {
    source: Source,
    frames: Frames,
    outgoing: Outgoing,
    /// With `--mailbox`.
    mailbox: Option<Mailbox>,
    count: Option<NonZeroUsize>,
    received: usize,
    has_connected: bool,
}

impl Run {
    pub(super) fn new(
        source: Source,
        frames: Frames,
        outgoing: Outgoing,
        mailbox: Option<Mailbox>,
        count: Option<NonZeroUsize>,
    ) -> Self {
        Self { source, frames, outgoing, mailbox, count, received: 0, has_connected: false }
    }

    /// Returns the number of frames that arrived, without duplicates.
    pub(super) fn received(&self) -> usize {
        self.received
    }

    /// Connects again and again, until there is a reason to end.
    pub(super) async fn listen(
        &mut self,
        mut stop: Pin<&mut impl Future<Output = Stop>>,
    ) -> anyhow::Result<Stop> {
        let mut tries = 0;
        loop {
            let agent = user_agent();
            let opened = select! {
                biased;
                stopped = &mut stop => return Ok(stopped),
                opened = self.open(&agent) => opened?,
            };
            let cause = match opened {
                Ok((connection, table)) => {
                    let started = Instant::now();
                    match self.follow(connection, table, &agent, stop.as_mut()).await? {
                        Ended::Stopped(stopped) => return Ok(stopped),
                        Ended::Closed(cause) => {
                            tries = if started.elapsed() < STABLE_AGE { tries } else { 0 };
                            cause
                        }
                    }
                }
                Err(error) => error.to_string(),
            };
            let pause = delay(tries, fastrand::f64());
            tries += 1;
            print_error(&format!("{}; connecting again in {}", sanitize(&cause), elapsed(pause)), None);
            select! {
                stopped = &mut stop => return Ok(stopped),
                () = sleep(pause) => {}
            }
        }
    }

    /// Connects. The outer error ends the command.
    async fn open(
        &self,
        agent: &str,
    ) -> anyhow::Result<Result<(Connection, Option<ConnectionTable>), NotConnected>> {
        let access = match self.source.access().await {
            // The stack may be started again, with another URL.
            Err(error) if self.has_connected => return Ok(Err(NotConnected::Unreachable(error))),
            access => access?,
        };
        match Connection::open(&access.url, &access.token, agent).await {
            Ok(connection) => Ok(Ok((connection, access.table))),
            Err(error) if error.is_final() => {
                let hint = match (&error, &self.source) {
                    (NotConnected::Refused { reason: None, .. }, Source::Local { .. }) => {
                        "; the reason is in `streamer logs connect`"
                    }
                    (NotConnected::Refused { reason: None, .. }, Source::Url { .. }) => {
                        "; the reason is in the log of the API's `$connect`"
                    }
                    _ => "",
                };
                bail!("{error}{hint}")
            }
            Err(error) => Ok(Err(error)),
        }
    }

    /// Prints the frames of a connection until it ends.
    async fn follow(
        &mut self,
        mut connection: Connection,
        table: Option<ConnectionTable>,
        agent: &str,
        mut stop: Pin<&mut impl Future<Output = Stop>>,
    ) -> anyhow::Result<Ended> {
        self.has_connected = true;
        print_error(&format!("connected: {}", sanitize(&self.source.describe())), None);
        let lookup = async {
            match (table, &self.source) {
                (Some(table), Source::Local { tenant, user }) => find(&table, tenant, user, agent).await,
                _ => None,
            }
        };
        let lookup = lookup.fuse();
        pin!(lookup);
        let mut pings = interval_at(Instant::now() + PING_INTERVAL, PING_INTERVAL);
        pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut sync = self.mailbox.as_mut().map(Mailbox::hello).transpose()?;
        loop {
            if let Some(sync) = sync.take()
                && let Err(error) = connection.send(sync).await
            {
                return Ok(Ended::Closed(error.to_string()));
            }
            let failed = select! {
                stopped = &mut stop => {
                    connection.close().await;
                    return Ok(Ended::Stopped(stopped));
                }
                Some(id) = &mut lookup => {
                    print_error(&format!("connection: {id}"), None);
                    continue;
                }
                received = connection.next() => {
                    let now = SystemTime::now();
                    let line = match received {
                        Received::Text(text) => {
                            let mailbox = self.mailbox.as_mut();
                            sync = mailbox.map(|mailbox| mailbox.receive(&text)).transpose()?.flatten();
                            self.frames.text(&text, now)
                        }
                        Received::Binary(bytes) => self.frames.binary(bytes, now),
                        Received::Closed(cause) => return Ok(Ended::Closed(cause)),
                    };
                    if print(&line, &mut self.received, self.count)? {
                        connection.close().await;
                        return Ok(Ended::Stopped(Stop::Complete));
                    }
                    continue;
                }
                frame = self.outgoing.next() => {
                    let sent = connection.send(frame).await;
                    if sent.is_ok() {
                        self.outgoing.sent();
                    }
                    sent.err()
                }
                _ = pings.tick() => connection.ping().await.err(),
            };
            if let Some(error) = failed {
                return Ok(Ended::Closed(error.to_string()));
            }
        }
    }
}

/// Prints a frame, and returns whether it was the last one wanted.
fn print(line: &Line, received: &mut usize, count: Option<NonZeroUsize>) -> anyhow::Result<bool> {
    writeln!(stdout(), "{}", line.text)?;
    *received += usize::from(!line.duplicate);
    Ok(count.is_some_and(|count| *received >= count.get()))
}

/// Returns the delay before a try to connect again. `random` is from 0 to 1.
fn delay(tries: u32, random: f64) -> Duration {
    let longest = FIRST_DELAY.saturating_mul(2_u32.saturating_pow(tries)).min(MAX_DELAY);
    longest.mul_f64(0.5 + random / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delay_doubles_up_to_its_maximum() {
        let longest = [0, 1, 2, 6, 40].map(|tries| delay(tries, 1.0).as_millis());
        assert_eq!(longest, [500, 1_000, 2_000, 30_000, 30_000]);
        assert_eq!([0, 40].map(|tries| delay(tries, 0.0).as_millis()), [250, 15_000]);
    }
}
