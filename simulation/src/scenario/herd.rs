//! All clients reconnect after a restart of API Gateway, by the browser client's delays (`client/schedule.js`).
//!
//! Clients with the same number of attempts are alike, so the herd is counted by second instead of held.

use std::{
    collections::BTreeMap,
    io::{self, Write},
};

use crate::{
    cost::{UNITS_OF_A_WRITE, price},
    model::{KEY_WRITES, NEW_CONNECTIONS},
    random::Random,
    table::{Table, count, time},
};

/// Number of attempts from which the delay no longer grows.
const ATTEMPTS: usize = 17;

/// Factor by which the longest delay grows, and the longest of all, in seconds (`client/limits.js`).
const GROWTH: f64 = 1.3;
const LONGEST: f64 = 60.0;

/// Clients by the number of their attempts.
type Clients = [u64; ATTEMPTS];

/// The result of a reconnection.
#[derive(Debug, Clone, PartialEq)]
pub struct Herd {
    /// Seconds until half of the clients, 99 % and all are connected.
    pub seconds: [u64; 3],
    /// Attempts that API Gateway refused.
    pub refused: u64,
    /// Attempts that failed since a key of the table was throttled.
    pub throttled: u64,
    /// Dollars for `$connect`: messages, and writes of rows.
    pub cost: f64,
}

/// Simulates clients of one tenant whose rows lie under so many shards, and a quota of new connections a second.
#[must_use]
pub fn run(clients: u64, quota: u64, shards: u64) -> Herd {
    let mut random = Random::of(super::loads::SEED);
    let mut due: BTreeMap<u64, Clients> = BTreeMap::new();
    due.entry(0).or_default()[0] = clients;
    let mut herd = Herd { seconds: [0; 3], refused: 0, throttled: 0, cost: 0.0 };
    let marks = [clients.div_ceil(2), (clients * 99).div_ceil(100), clients];
    let (mut connected, mut admitted) = (0, 0);
    while let Some((second, arrivals)) = due.pop_first() {
        let all: u64 = arrivals.iter().sum();
        let accepted = all.min(quota);
        let written = accepted.min(shards * KEY_WRITES);
        herd.refused += all - accepted;
        herd.throttled += accepted - written;
        admitted += accepted;
        connected += written;
        for (mark, at) in marks.iter().zip(&mut herd.seconds) {
            if connected >= *mark && *at == 0 {
                *at = second + 1;
            }
        }
        let mut left = written;
        for (attempt, number) in arrivals.into_iter().enumerate() {
            let share = (u128::from(number) * u128::from(written)).div_ceil(u128::from(all.max(1))) as u64;
            let lucky = share.min(left).min(number);
            left -= lucky;
            spread(&mut due, second, attempt, number - lucky, &mut random);
        }
    }
    herd.cost =
        admitted as f64 / 1e6 * price::MESSAGES + connected as f64 / 1e6 * UNITS_OF_A_WRITE * price::WRITES;
    herd
}

/// Spreads clients over the seconds in which their next attempts may fall.
fn spread(due: &mut BTreeMap<u64, Clients>, now: u64, attempt: usize, number: u64, random: &mut Random) {
    let longest = LONGEST.min(GROWTH.powi(attempt as i32 + 1));
    let pieces = number.min(60);
    for piece in 0..pieces {
        let share = number / pieces + u64::from(piece < number % pieces);
        let part = (piece as f64 + random.unit()) / pieces as f64;
        let delay = (longest * (1.0 - part / 2.0)).ceil() as u64;
        due.entry(now + delay.max(1)).or_default()[(attempt + 1).min(ATTEMPTS - 1)] += share;
    }
}

/// Simulates all sizes, and writes the table.
///
/// # Errors
/// When the output cannot be written.
pub fn table(out: &mut dyn Write, sizes: &[usize]) -> io::Result<()> {
    let head = ["connections", "quota", "shards", "half", "99 %", "all", "refused", "throttled", "$"];
    let mut table = Table::begin(out, "All clients of a tenant reconnect", 0, &head)?;
    for size in sizes {
        for (quota, shards) in [(NEW_CONNECTIONS, 8), (20_000, 8), (20_000, 32)] {
            let herd = run(*size as u64, quota, shards);
            let [half, most, all] = herd.seconds.map(|seconds| time(seconds as f64 * 1000.0));
            let (refused, throttled) = (count(herd.refused), count(herd.throttled));
            let number = count(*size as u64);
            let cost = format!("{:.4}", herd.cost);
            table.row(&[number, count(quota), count(shards), half, most, all, refused, throttled, cost])?;
        }
    }
    table.end()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_client_reconnects_within_the_quota() {
        let herd = run(10_000, 500, 8);
        assert!(herd.seconds[2] >= 20, "{herd:?}");
        assert_eq!((herd.throttled, run(10_000, 500, 8)), (0, herd));
    }

    #[test]
    fn hot_keys_throttle_a_raised_quota() {
        let (few, many) = (run(100_000, 20_000, 8), run(100_000, 20_000, 32));
        assert!(few.throttled > 0 && many.throttled == 0);
        assert!(many.seconds[2] <= few.seconds[2]);
    }
}
