//! The reference model: the outcome of each pair, derived from the batch, the posts and their answers.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use proptest::prelude::*;
use streamer_gateway::PostResult;
use streamer_tests::gateway::Post;
use tokio::time::Instant;

use super::case::{CONNECTIONS, Case, Message, To};

/// The away grace in milliseconds.
const AWAY_GRACE: u64 = 30_000;

/// Outcome of a pair, or of a message that has no pairs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Delivered, expired or without a recipient.
    Settled,
    /// Stored, and for no device.
    Kept,
    Gone,
    Superseded,
    Rejected,
    Exhausted,
    Poison,
    HandedBack,
    /// A post of the lane panicked: the record is reported.
    Panicked,
}

/// The outcomes of each message, by its index in the batch; without a connection for a message that has no pairs.
pub(super) type Outcomes = BTreeMap<usize, Vec<(Option<&'static str>, Outcome)>>;

/// The part of a message that a lane posts at once.
#[derive(Clone)]
struct Step {
    message: usize,
    connections: Vec<&'static str>,
}

type Lanes = BTreeMap<String, Vec<Step>>;

pub(super) struct Model<'a> {
    pub(super) case: &'a Case,
    pub(super) posts: &'a [Post],
    pub(super) started: Instant,
    /// When the last post may begin.
    pub(super) deadline: Instant,
    /// When the last post is given up.
    pub(super) cutoff: Instant,
}

impl Model<'_> {
    /// Returns the outcomes of every message.
    ///
    /// # Errors
    /// When a post was made that must not be made, or was not made that had to be.
    pub(super) fn outcomes(&self) -> Result<Outcomes, TestCaseError> {
        let (mut lanes, mut outcomes) = self.lanes();
        self.supersede(&mut lanes, &mut outcomes);
        for lane in lanes.values() {
            self.run(lane, &mut outcomes)?;
        }
        if !self.case.fifo {
            for (index, outcomes) in &mut outcomes {
                outcomes.extend(self.if_all_gone(*index, outcomes).map(|outcome| (None, outcome)));
            }
        }
        for (index, outcomes) in &mut outcomes {
            let unfinished = |outcome: Outcome| matches!(outcome, Outcome::HandedBack | Outcome::Panicked);
            if self.case.is_kept(&self.case.messages[*index]) {
                let ended = outcomes.iter_mut().filter(|(_, outcome)| unfinished(*outcome));
                ended.for_each(|(_, outcome)| *outcome = Outcome::Kept);
            }
        }
        if self.case.fifo {
            self.hand_back_rest_of_groups(&mut outcomes);
        }
        Ok(outcomes)
    }

    /// Puts messages into lanes, one for each connection or, on a FIFO queue, for each message group. Also returns the
    /// outcomes of messages that no lane gets.
    fn lanes(&self) -> (Lanes, Outcomes) {
        let (mut lanes, mut outcomes) = (Lanes::new(), Outcomes::new());
        let mut blocked_groups = BTreeSet::new();
        for (index, message) in self.case.messages.iter().enumerate() {
            match self.recipients(message) {
                Ok(_) if self.case.fifo && blocked_groups.contains(&message.group) => {
                    outcomes.insert(index, vec![(None, Outcome::HandedBack)]);
                }
                Ok(connections) if self.case.fifo => {
                    let lane = lanes.entry(message.group.to_string()).or_default();
                    lane.push(Step { message: index, connections });
                }
                Ok(connections) => {
                    for connection in connections {
                        let lane = lanes.entry(connection.to_owned()).or_default();
                        lane.push(Step { message: index, connections: vec![connection] });
                    }
                }
                Err(outcome) => {
                    if !matches!(outcome, Outcome::Settled | Outcome::Kept) {
                        blocked_groups.insert(message.group);
                    }
                    outcomes.insert(index, vec![(None, outcome)]);
                }
            }
        }
        (lanes, outcomes)
    }

    /// Returns the connections that the message is posted to, or its outcome without a post.
    fn recipients(&self, message: &Message) -> Result<Vec<&'static str>, Outcome> {
        let expired = message.is_expired();
        if message.keep && !expired {
            return self.devices(message);
        }
        match &message.to {
            To::Poison => return Err(Outcome::Poison),
            _ if message.oversized && !expired => return Err(Outcome::Rejected),
            _ if self.case.fifo && message.is_past_max_age() && !expired => return Err(Outcome::Exhausted),
            To::Connections(connections) => {
                let mut seen = BTreeSet::new();
                let distinct = connections.iter().filter(|index| seen.insert(**index));
                return Ok(distinct.map(|index| CONNECTIONS[*index]).collect());
            }
            To::User | To::AbsentUser if expired => return Err(Outcome::Settled),
            To::User | To::AbsentUser if self.case.table_fails || self.deadline <= self.started => {
                return Err(Outcome::HandedBack);
            }
            To::User | To::AbsentUser => {}
        }
        let is_connected = |index: &usize| matches!(message.to, To::User) && self.case.rows[*index].is_some();
        let connected: Vec<_> = (0..4).filter(is_connected).map(|index| CONNECTIONS[index]).collect();
        match connected.is_empty() {
            true if message.age >= AWAY_GRACE => Err(Outcome::Settled),
            true => Err(Outcome::HandedBack),
            false => Ok(connected),
        }
    }

    /// Returns the devices that a message is posted to which is to be kept, or its outcome without a post. The devices of
    /// a user are the connections with a row.
    fn devices(&self, message: &Message) -> Result<Vec<&'static str>, Outcome> {
        match message.to {
            _ if message.oversized => Err(Outcome::Rejected),
            _ if !self.case.is_stored(message) && self.case.fifo && message.is_past_max_age() => {
                Err(Outcome::Exhausted)
            }
            _ if !self.case.is_stored(message) => Err(Outcome::HandedBack),
            To::User if self.case.rows.iter().any(Option::is_some) => {
                let rows = CONNECTIONS.into_iter().zip(self.case.rows);
                Ok(rows.filter_map(|(connection, row)| row.map(|_| connection)).collect())
            }
            _ => Err(Outcome::Kept),
        }
    }

    /// Takes superseded pairs out of the lanes. On a standard queue, sorts the messages of the request by `seq`, within
    /// the positions that they have.
    fn supersede(&self, lanes: &mut Lanes, outcomes: &mut Outcomes) {
        let pairs: Vec<_> = lanes
            .values()
            .flatten()
            .flat_map(|step| step.connections.iter().map(|connection| (step.message, *connection)))
            .collect();
        for lane in lanes.values_mut() {
            for step in lane.iter_mut() {
                let is_superseded = |connection: &&'static str| {
                    let mut same_connection = pairs.iter().filter(|(_, other)| other == connection);
                    same_connection.any(|(later, _)| self.supersedes(*later, step.message))
                };
                let (superseded, kept): (Vec<_>, Vec<_>) =
                    step.connections.iter().copied().partition(is_superseded);
                let superseded = superseded.into_iter().map(|to| (Some(to), Outcome::Superseded));
                outcomes.entry(step.message).or_default().extend(superseded);
                step.connections = kept;
            }
            lane.retain(|step| !step.connections.is_empty());
            if !self.case.fifo {
                let seq = |step: &Step| self.case.messages[step.message].request.map(|(seq, _)| seq);
                let positions: Vec<_> =
                    (0..lane.len()).filter(|position| seq(&lane[*position]).is_some()).collect();
                let mut of_request: Vec<_> =
                    positions.iter().map(|position| lane[*position].clone()).collect();
                of_request.sort_by_key(seq);
                positions.into_iter().zip(of_request).for_each(|(position, step)| lane[position] = step);
            }
        }
    }

    /// Whether `later` makes `message` worthless for a connection of both: it has a higher `seq`, outlives the
    /// invocation, and waits for an absent user if `message` does. A message that is not supersedable must also come
    /// later in the batch.
    fn supersedes(&self, later: usize, message: usize) -> bool {
        let (one, other) = (&self.case.messages[message], &self.case.messages[later]);
        let (Some((seq, true)), Some((later_seq, supersedable))) = (one.request, other.request) else {
            return false;
        };
        let millis = i64::try_from((self.deadline - self.started).as_millis()).unwrap();
        let outlives_invocation = other.expires_in.is_none_or(|expires_in| expires_in > millis);
        let waits_as_long = !matches!(one.to, To::User) || matches!(other.to, To::User);
        !one.keep
            && later_seq > seq
            && (later > message || supersedable)
            && outlives_invocation
            && waits_as_long
    }

    /// Returns the outcome of a message for a user whose connections are all gone: the user may yet reconnect.
    fn if_all_gone(&self, message: usize, outcomes: &[(Option<&'static str>, Outcome)]) -> Option<Outcome> {
        let message = &self.case.messages[message];
        let gone = !outcomes.is_empty() && outcomes.iter().all(|(_, outcome)| *outcome == Outcome::Gone);
        match message.to {
            To::User if gone && message.keep => Some(Outcome::Kept),
            To::User if gone && message.age < AWAY_GRACE => Some(Outcome::HandedBack),
            _ => None,
        }
    }

    /// Runs a lane: it posts message after message, until one is handed back or, on a FIFO queue, rejected.
    fn run(&self, lane: &[Step], outcomes: &mut Outcomes) -> Result<(), TestCaseError> {
        let mut turn = self.started;
        let mut gone: BTreeSet<&str> = BTreeSet::new();
        let mut blocked = false;
        let mut pairs = Vec::new();
        for Step { message, connections } in lane {
            let mut step_end = turn;
            let panics =
                |connection: &&str| self.posts_of(*message, connection).iter().any(|post| post.panicked);
            let panicked = connections.iter().any(panics);
            let mut blocks = panicked;
            let mut step = Vec::new();
            for connection in connections {
                let posts = self.posts_of(*message, connection);
                let is_gone = gone.contains(connection);
                if blocked || is_gone {
                    prop_assert!(posts.is_empty(), "{} to {} must not be posted", message, connection);
                }
                let outcome = match (blocked, is_gone) {
                    (true, _) => Outcome::HandedBack,
                    (false, true) => Outcome::Gone,
                    (false, false) if panicked => Outcome::Panicked,
                    (false, false) => self.outcome(*message, connection, &posts, turn)?,
                };
                step_end = posts.iter().filter_map(|post| post.ended_at).fold(step_end, Instant::max);
                if outcome == Outcome::Gone {
                    gone.insert(connection);
                }
                blocks |= outcome == Outcome::HandedBack || (self.case.fifo && outcome == Outcome::Rejected);
                step.push((Some(*connection), outcome));
            }
            let partly_superseded = outcomes.get(message).is_some_and(|outcomes| !outcomes.is_empty());
            if self.case.fifo && !panicked && !partly_superseded {
                let all_gone = self.if_all_gone(*message, &step);
                blocks |= all_gone == Some(Outcome::HandedBack);
                step.extend(all_gone.map(|outcome| (None, outcome)));
            }
            pairs.extend(step.into_iter().map(|(connection, outcome)| (*message, connection, outcome)));
            (turn, blocked) = (step_end, blocked || blocks);
        }
        let panicked = pairs.iter().any(|(_, _, outcome)| *outcome == Outcome::Panicked);
        for (message, connection, outcome) in pairs {
            let outcome = if panicked { Outcome::Panicked } else { outcome };
            outcomes.entry(message).or_default().push((connection, outcome));
        }
        Ok(())
    }

    fn posts_of(&self, message: usize, connection: &str) -> Vec<&Post> {
        let payload = format!("\"{message}\"");
        let end = format!(",\"payload\":{payload}}}");
        let of_pair = |post: &&Post| {
            let is_payload = match self.case.messages[message].keep {
                true => post.payload.ends_with(end.as_bytes()),
                false => post.payload == payload,
            };
            post.connection == connection && is_payload
        };
        self.posts.iter().filter(of_pair).collect()
    }

    /// Returns the outcome of a pair that its lane reached at `turn`, from its posts.
    fn outcome(
        &self,
        message: usize,
        connection: &str,
        posts: &[&Post],
        turn: Instant,
    ) -> Result<Outcome, TestCaseError> {
        let is_expired = |at: Instant| {
            let elapsed = i64::try_from((at - self.started).as_millis()).unwrap();
            self.case.messages[message].expires_in.is_some_and(|millis| millis <= elapsed)
        };
        let Some((last, earlier)) = posts.split_last() else {
            // Four connections are too few to open the circuit, so only the deadline stops a post.
            let stopped = turn >= self.deadline;
            prop_assert!(is_expired(turn) || stopped, "{} to {} has no post", message, connection);
            return Ok(if is_expired(turn) { Outcome::Settled } else { Outcome::HandedBack });
        };
        let in_vain = posts.iter().any(|post| is_expired(post.at) || post.at >= self.deadline);
        prop_assert!(!in_vain, "{} to {} was posted expired or too late", message, connection);
        prop_assert_eq!(posts[0].at, turn, "{} to {} was delayed", message, connection);
        prop_assert!(posts.len() <= 3 && earlier.iter().all(|post| self.is_transient(post)));
        for (index, pair) in posts.windows(2).enumerate() {
            let pause = pair[1].at - pair[0].ended_at.unwrap();
            prop_assert!(pause.as_millis() <= 50 * (index as u128 + 1) + 1, "{:?}", pause);
        }
        if self.is_transient(last) && posts.len() < 3 {
            let ended = last.ended_at.unwrap();
            let longest_pause = Duration::from_millis(50 * posts.len() as u64 + 1);
            if is_expired(ended + longest_pause) {
                return Err(TestCaseError::reject("the random pause decides whether the message expires"));
            }
            let no_time = self.deadline.saturating_duration_since(ended) <= longest_pause;
            prop_assert!(no_time, "{} to {} lacks a retry", message, connection);
        }
        self.outcome_of_answer(message, connection, last)
    }

    fn outcome_of_answer(
        &self,
        message: usize,
        connection: &str,
        post: &Post,
    ) -> Result<Outcome, TestCaseError> {
        let row = self.case.rows[CONNECTIONS.iter().position(|known| *known == connection).unwrap()];
        // A device has sent a sync, so its connection is established.
        let is_young = row == Some(true) && !self.case.messages[message].keep;
        let within_grace = is_young && is_gone(post) && !self.has_lost_row(connection, post)?;
        let gone = if self.case.table_fails || within_grace { Outcome::HandedBack } else { Outcome::Gone };
        Ok(match &post.answer {
            None => Outcome::HandedBack,
            Some(PostResult::Status { status: 200, .. }) => Outcome::Settled,
            Some(_) if is_gone(post) => gone,
            Some(PostResult::Status { status: 400 | 413, .. }) => Outcome::Rejected,
            Some(_) => Outcome::HandedBack,
        })
    }

    /// Whether a kept message found the connection gone, and removed its row, before this post ended.
    fn has_lost_row(&self, connection: &str, post: &Post) -> Result<bool, TestCaseError> {
        let frames = self.posts.iter().filter(|other| {
            other.connection == connection
                && other.payload.starts_with(br#"{"type":"streamer.message""#)
                && is_gone(other)
        });
        let removals: Vec<_> = frames.map(|frame| frame.ended_at).collect();
        match removals.contains(&post.ended_at) {
            true => Err(TestCaseError::reject("two posts find the connection gone at the same time")),
            false => Ok(removals.iter().any(|removal| *removal < post.ended_at)),
        }
    }

    /// Whether the worker retries the post within the invocation. A post without an answer timed out, unless the worker
    /// gave it up at the cutoff.
    fn is_transient(&self, post: &Post) -> bool {
        match &post.answer {
            None => post.ended_at.is_some_and(|ended| ended < self.cutoff),
            Some(PostResult::Status { status, .. }) => *status >= 500,
            Some(PostResult::Timeout | PostResult::Broken(_) | PostResult::ConnectionLost(_)) => true,
        }
    }

    /// Hands back every message of a group behind its first one that did not settle. A message that is superseded for
    /// all its connections stays superseded.
    fn hand_back_rest_of_groups(&self, outcomes: &mut Outcomes) {
        for group in [false, true] {
            let mut blocked = false;
            let of_group =
                outcomes.iter_mut().filter(|(index, _)| self.case.messages[**index].group == group);
            for (_, outcomes) in of_group {
                if blocked && outcomes.iter().any(|(_, outcome)| *outcome != Outcome::Superseded) {
                    *outcomes = vec![(None, Outcome::HandedBack)];
                }
                blocked |= outcomes.iter().any(|(_, outcome)| {
                    !matches!(outcome, Outcome::Settled | Outcome::Kept | Outcome::Gone | Outcome::Superseded)
                });
            }
        }
    }
}

/// Whether the answer says that the connection does not exist.
fn is_gone(post: &Post) -> bool {
    match &post.answer {
        Some(PostResult::Status { status: 410, .. }) => true,
        Some(PostResult::Status { status: 400, message }) => !message.is_empty(),
        _ => false,
    }
}
