//! Random batches, beside a model of what is promised: the outcome table, in a few lines and without a clock.
//!
//! The model sees what arrived at the gateway and what was answered, and says from that alone what the queues
//! must have been told.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use delivery_worker::{classify::PostResult, queue_kind::QueueKind};
use proptest::prelude::*;
use serde_json::{Value, json};
use streamer_tests::{
    cases,
    doubles::{Entry, QueueDouble, TableDouble},
    event::{EPOCH_MILLIS, batch, epoch},
    gateway::{MemoryGateway, Post, status},
    worker::{Rig, Sent as Letter},
};
use tokio::time::Instant;

const CONNECTIONS: [&str; 4] = ["a", "b", "c", "d"];
const HOUR: Duration = Duration::from_secs(3600);

#[derive(Debug, Clone)]
enum To {
    Connections(Vec<usize>),
    User,
    Nobody,
    Poison,
}

#[derive(Debug, Clone)]
struct Sent {
    to: To,
    too_large: bool,
    expires_in: Option<i64>,
    age: u64,
    retried: Option<(u32, u32)>,
    receives: u32,
    group: bool,
    /// Its place in the one request, and whether it is supersedable.
    request: Option<(u64, bool)>,
    back_is_taken: bool,
    letter_is_taken: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Status(u16),
    NoSuchConnection,
    Broken,
    Timeout,
    Panic,
}

/// Whether there is a row, and whether it is young, which it stays.
type Rows = [Option<bool>; 4];

#[derive(Debug, Clone)]
struct Case {
    fifo: bool,
    messages: Vec<Sent>,
    answers: Vec<(u64, Kind)>,
    rows: Rows,
    table_fails: bool,
    lambda_millis: u64,
    seed: u64,
}

fn to() -> impl Strategy<Value = To> {
    prop_oneof![
        8 => prop::collection::vec(0..4_usize, 1..5).prop_map(To::Connections),
        2 => Just(To::User),
        1 => Just(To::Nobody),
        1 => Just(To::Poison),
    ]
}

fn sent() -> impl Strategy<Value = Sent> {
    let fate = (
        prop::option::weighted(0.2, -10..8000_i64),
        prop_oneof![6 => Just(0_u64), 1 => Just(60_000), 1 => Just(9_000_000)],
        prop::option::weighted(0.3, (0..70_u32, 0..10_u32)),
        prop_oneof![5 => Just(1_u32), 1 => 1..12_u32],
    );
    let request = prop::option::weighted(0.4, (0..6_u64, any::<bool>()));
    let queues = ((any::<bool>(), request), prop::bool::weighted(0.85), prop::bool::weighted(0.85));
    (to(), prop::bool::weighted(0.05), fate, queues).prop_map(|(to, too_large, fate, queues)| {
        let (expires_in, age, retried, receives) = fate;
        let ((group, request), back_is_taken, letter_is_taken) = queues;
        Sent {
            to,
            too_large,
            expires_in,
            age,
            retried,
            receives,
            group,
            request,
            back_is_taken,
            letter_is_taken,
        }
    })
}

fn answer() -> impl Strategy<Value = (u64, Kind)> {
    let kind = prop_oneof![
        8 => Just(Kind::Status(200)),
        2 => prop::sample::select(vec![500, 502, 503, 504]).prop_map(Kind::Status),
        2 => prop::sample::select(vec![302, 403, 404, 429]).prop_map(Kind::Status),
        2 => Just(Kind::Status(410)),
        1 => prop::sample::select(vec![400, 413]).prop_map(Kind::Status),
        1 => Just(Kind::NoSuchConnection),
        1 => Just(Kind::Broken),
        1 => Just(Kind::Timeout),
    ];
    let kind = prop_oneof![60 => kind, 1 => Just(Kind::Panic)];
    (prop_oneof![4 => Just(0_u64), 2 => 1..50_u64, 1 => 50..6000_u64], kind)
}

fn case() -> impl Strategy<Value = Case> {
    let row = prop_oneof![1 => Just(None), 3 => Just(Some(false)), 1 => Just(Some(true))];
    let around = (
        prop::array::uniform4(row),
        prop::bool::weighted(0.1),
        prop_oneof![3 => Just(30_000_u64), 1 => (0..500_u64).prop_map(|sixteenth| 16 * sixteenth)],
        any::<u64>(),
    );
    let traffic = (prop::collection::vec(sent(), 1..11), prop::collection::vec(answer(), 40));
    (prop::bool::weighted(0.3), traffic, around).prop_map(|(fifo, (messages, answers), around)| {
        let (rows, table_fails, lambda_millis, seed) = around;
        Case { fifo, messages, answers, rows, table_fails, lambda_millis, seed }
    })
}

impl Sent {
    fn body(&self, place: usize) -> Value {
        let to = match &self.to {
            To::Connections(places) => {
                json!({ "connections": places.iter().map(|place| CONNECTIONS[*place]).collect::<Vec<_>>() })
            }
            To::User => json!({ "user": { "tenant": "acme", "user": "anna" } }),
            To::Nobody => json!({ "user": { "tenant": "acme", "user": "nobody" } }),
            To::Poison => json!("nobody"),
        };
        let payload = if self.too_large { "x".repeat(128 * 1024) } else { place.to_string() };
        let mut body =
            json!({ "version": 1, "id": place.to_string(), "to": to, "payload": payload, "note": [1.0] });
        if let Some(expires_in) = self.expires_in {
            body["expires_at"] = json!(EPOCH_MILLIS as i64 + expires_in);
        }
        if let Some((seq, supersedable)) = self.request {
            body["request"] = json!({ "id": "r", "seq": seq });
            body.as_object_mut()
                .unwrap()
                .extend(supersedable.then(|| ("supersedable".to_owned(), json!(true))));
        }
        if let Some((count, receives)) = self.retried {
            let since = EPOCH_MILLIS - self.age;
            body["retry"] =
                json!({ "count": count, "receives": receives, "since": since, "cause": "before" });
        }
        body
    }

    fn too_old(&self) -> bool {
        self.age >= 7_800_000
    }

    fn given_up(&self) -> bool {
        self.too_old() || self.retried.map_or(0, |(_, receives)| receives) + self.receives >= 10
    }
}

fn scripted((millis, kind): (u64, Kind)) -> (Duration, PostResult) {
    let answer = match kind {
        Kind::Status(code) => status(code),
        Kind::NoSuchConnection => {
            PostResult::Status { status: 400, message: "Invalid connectionId: x".to_owned() }
        }
        Kind::Broken => PostResult::Broken("reset".to_owned()),
        Kind::Timeout => PostResult::Timeout,
        Kind::Panic => panic!("the gateway in memory panics as it is told"),
    };
    (Duration::from_millis(millis), answer)
}

/// How a pair, or a message that came to no connection, must have ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Settled,
    Gone,
    Superseded,
    Rejected,
    Exhausted,
    Poison,
    Back,
    Panicked,
}

type Ends = BTreeMap<usize, Vec<(Option<&'static str>, End)>>;

struct Model<'a> {
    case: &'a Case,
    posts: &'a [Post],
    started: Instant,
    deadline: Instant,
    cutoff: Instant,
}

impl Model<'_> {
    /// How each message must have ended, for each of its connections.
    fn ends(&self) -> Result<Ends, TestCaseError> {
        let mut ends = Ends::new();
        let mut lanes: BTreeMap<String, Vec<(usize, Vec<&'static str>)>> = BTreeMap::new();
        let mut stuck: BTreeMap<bool, usize> = BTreeMap::new();
        for (place, sent) in self.case.messages.iter().enumerate() {
            match self.connections(sent) {
                Ok(_) if self.case.fifo && stuck.contains_key(&sent.group) => {
                    ends.insert(place, vec![(None, End::Back)]);
                }
                Ok(connections) if self.case.fifo => {
                    lanes.entry(sent.group.to_string()).or_default().push((place, connections));
                }
                Ok(connections) => {
                    for connection in connections {
                        lanes.entry(connection.to_owned()).or_default().push((place, vec![connection]));
                    }
                }
                Err(end) => {
                    if end != End::Settled {
                        stuck.entry(sent.group).or_insert(place);
                    }
                    ends.insert(place, vec![(None, end)]);
                }
            }
        }
        self.supersede(&mut lanes, &mut ends);
        for lane in lanes.values() {
            self.run(lane, &mut ends)?;
        }
        for (place, ends) in &mut ends {
            if !self.case.fifo && self.is_away(*place, ends) {
                ends.push((None, End::Back));
            }
        }
        if self.case.fifo {
            self.keep_order(&mut ends);
        }
        Ok(ends)
    }

    /// Leaves out what a later message for the same connection makes worthless, and sorts what is left by `seq`,
    /// but for a FIFO queue.
    fn supersede(&self, lanes: &mut BTreeMap<String, Vec<(usize, Vec<&'static str>)>>, ends: &mut Ends) {
        let all: Vec<(usize, &str)> =
            lanes.values().flatten().flat_map(|(place, to)| to.iter().map(|to| (*place, *to))).collect();
        let lasts = |place: usize| {
            let millis = i64::try_from((self.deadline - self.started).as_millis()).unwrap();
            self.case.messages[place].expires_in.is_none_or(|expires| expires > millis)
        };
        let is_user = |place: usize| matches!(self.case.messages[place].to, To::User);
        let superseded = |place: usize, connection: &str| {
            let Some((seq, true)) = self.case.messages[place].request else { return false };
            let later =
                |other: usize| self.case.messages[other].request.is_some_and(|(other, _)| other > seq);
            let newer = |other: usize| {
                other > place
                    || self.case.messages[other].request.is_some_and(|(_, supersedable)| supersedable)
            };
            let reaches = |other: usize| !is_user(place) || is_user(other);
            let worthy = |other: usize| later(other) && newer(other) && lasts(other) && reaches(other);
            all.iter().any(|(other, to)| *to == connection && worthy(*other))
        };
        for lane in lanes.values_mut() {
            for (place, connections) in lane.iter_mut() {
                let (gone, kept): (Vec<&'static str>, Vec<&'static str>) =
                    connections.iter().copied().partition(|to| superseded(*place, to));
                ends.entry(*place)
                    .or_default()
                    .extend(gone.into_iter().map(|to| (Some(to), End::Superseded)));
                *connections = kept;
            }
            lane.retain(|(_, connections)| !connections.is_empty());
            if !self.case.fifo {
                let places: Vec<_> = (0..lane.len()).filter(|at| self.seq(lane[*at].0).is_some()).collect();
                let mut sorted: Vec<_> = places.iter().map(|at| lane[*at].clone()).collect();
                sorted.sort_by_key(|(place, _)| self.seq(*place));
                places.into_iter().zip(sorted).for_each(|(at, step)| lane[at] = step);
            }
        }
    }

    fn seq(&self, place: usize) -> Option<u64> {
        self.case.messages[place].request.map(|(seq, _)| seq)
    }

    /// The connections that the message comes to, or how it ends before.
    fn connections(&self, sent: &Sent) -> Result<Vec<&'static str>, End> {
        let worthless = sent.expires_in.is_some_and(|millis| millis <= 0);
        match &sent.to {
            To::Poison => return Err(End::Poison),
            _ if sent.too_large && !worthless => return Err(End::Rejected),
            _ if self.case.fifo && sent.too_old() && !worthless => return Err(End::Exhausted),
            To::Connections(places) => {
                let mut seen = BTreeSet::new();
                let first = places.iter().filter(|place| seen.insert(**place));
                return Ok(first.map(|place| CONNECTIONS[*place]).collect());
            }
            To::User | To::Nobody if worthless => return Err(End::Settled),
            To::User | To::Nobody if self.case.table_fails || self.deadline <= self.started => {
                return Err(End::Back);
            }
            To::User | To::Nobody => {}
        }
        let here = |place: &usize| matches!(sent.to, To::User) && self.case.rows[*place].is_some();
        let live: Vec<_> = (0..4).filter(here).map(|place| CONNECTIONS[place]).collect();
        match live.is_empty() {
            true if sent.age >= 30_000 => Err(End::Settled),
            true => Err(End::Back),
            false => Ok(live),
        }
    }

    /// Whether the message is for a user of whom every connection is gone, who may yet come back.
    fn is_away(&self, place: usize, ends: &[(Option<&'static str>, End)]) -> bool {
        let sent = &self.case.messages[place];
        let gone = !ends.is_empty() && ends.iter().all(|(_, end)| *end == End::Gone);
        matches!(sent.to, To::User) && sent.age < 30_000 && gone
    }

    /// A lane goes on until it meets what must not be overtaken.
    fn run(&self, lane: &[(usize, Vec<&'static str>)], ends: &mut Ends) -> Result<(), TestCaseError> {
        let mut turn = self.started;
        let mut gone: BTreeSet<&str> = BTreeSet::new();
        let mut held = false;
        let mut of_lane = Vec::new();
        for (place, connections) in lane {
            let mut over = turn;
            let panics =
                |connection: &&str| self.posts_of(*place, connection).iter().any(|post| post.panicked);
            let panicked = connections.iter().any(panics);
            let mut holds = panicked;
            for connection in connections {
                let posts = self.posts_of(*place, connection);
                let end = match (held, gone.contains(connection)) {
                    (true, _) => End::Back,
                    (false, true) => End::Gone,
                    (false, false) if panicked => End::Panicked,
                    (false, false) => self.end(*place, connection, &posts, turn)?,
                };
                if held || gone.contains(connection) {
                    prop_assert!(posts.is_empty(), "{} to {} overtakes or is in vain", place, connection);
                }
                over = posts.iter().filter_map(|post| post.ended_at).fold(over, Instant::max);
                if end == End::Gone {
                    gone.insert(connection);
                }
                holds |= end == End::Back || (self.case.fifo && end == End::Rejected);
                of_lane.push((*place, Some(*connection), end));
            }
            let before = ends.get(place).is_some_and(|ends| !ends.is_empty());
            let step: Vec<_> =
                of_lane.iter().filter(|(of, ..)| of == place).map(|(_, to, end)| (*to, *end)).collect();
            if self.case.fifo && !panicked && !before && self.is_away(*place, &step) {
                of_lane.push((*place, None, End::Back));
                holds = true;
            }
            (turn, held) = (over, held || holds);
        }
        let panicked = of_lane.iter().any(|(_, _, end)| *end == End::Panicked);
        for (place, connection, end) in of_lane {
            let end = if panicked { End::Panicked } else { end };
            ends.entry(place).or_default().push((connection, end));
        }
        Ok(())
    }

    fn posts_of(&self, place: usize, connection: &str) -> Vec<&Post> {
        let payload = format!("\"{place}\"");
        let of_pair = |post: &&Post| post.connection == connection && post.payload == payload;
        self.posts.iter().filter(of_pair).collect()
    }

    /// How a pair ended whose turn came at `turn`, by the posts that were made of it.
    fn end(
        &self,
        place: usize,
        connection: &str,
        posts: &[&Post],
        turn: Instant,
    ) -> Result<End, TestCaseError> {
        let worthless = |at: Instant| {
            let age = i64::try_from((at - self.started).as_millis()).unwrap();
            self.case.messages[place].expires_in.is_some_and(|millis| millis <= age)
        };
        let Some((last, earlier)) = posts.split_last() else {
            // Four connections never open the circuit.
            let held = turn >= self.deadline;
            prop_assert!(worthless(turn) || held, "{} to {} was not tried", place, connection);
            return Ok(if worthless(turn) { End::Settled } else { End::Back });
        };
        let in_vain = posts.iter().any(|post| worthless(post.at) || post.at >= self.deadline);
        prop_assert!(!in_vain, "{} to {} was posted in vain", place, connection);
        prop_assert_eq!(posts[0].at, turn, "{} to {} waited in vain", place, connection);
        prop_assert!(posts.len() <= 3 && earlier.iter().all(|post| self.is_transient(post)));
        for (index, pair) in posts.windows(2).enumerate() {
            let pause = pair[1].at - pair[0].ended_at.unwrap();
            prop_assert!(pause.as_millis() <= 50 * (index as u128 + 1) + 1, "{:?}", pause);
        }
        if self.is_transient(last) && posts.len() < 3 {
            let (ended, pause) = (last.ended_at.unwrap(), Duration::from_millis(50 * posts.len() as u64 + 1));
            let late = self.deadline.saturating_duration_since(ended) <= pause;
            if worthless(ended + pause) {
                return Err(TestCaseError::reject(
                    "the pause is not known, nor whether it was worthless after it",
                ));
            }
            prop_assert!(late, "{} to {} was given up early", place, connection);
        }
        let row = self.case.rows[CONNECTIONS.iter().position(|known| *known == connection).unwrap()];
        let absent = if self.case.table_fails || row == Some(true) { End::Back } else { End::Gone };
        Ok(match &last.answer {
            None => End::Back,
            Some(PostResult::Status { status: 200, .. }) => End::Settled,
            Some(PostResult::Status { status: 410, .. }) => absent,
            Some(PostResult::Status { status: 400, message }) if !message.is_empty() => absent,
            Some(PostResult::Status { status: 400 | 413, .. }) => End::Rejected,
            Some(_) => End::Back,
        })
    }

    fn is_transient(&self, post: &Post) -> bool {
        match &post.answer {
            None => post.ended_at.is_some_and(|ended| ended < self.cutoff),
            Some(PostResult::Status { status, .. }) => *status >= 500,
            Some(PostResult::Timeout | PostResult::Broken(_) | PostResult::ConnectionLost(_)) => true,
        }
    }

    /// Behind the first message of a group that did not settle, everything goes back.
    fn keep_order(&self, ends: &mut Ends) {
        for group in [false, true] {
            let mut stuck = false;
            let of_group = ends.iter_mut().filter(|(place, _)| self.case.messages[**place].group == group);
            for (_, ends) in of_group {
                // What is superseded stays so.
                if stuck && ends.iter().any(|(_, end)| *end != End::Superseded) {
                    *ends = vec![(None, End::Back)];
                }
                stuck |=
                    ends.iter().any(|(_, end)| !matches!(end, End::Settled | End::Gone | End::Superseded));
            }
        }
    }
}

/// What was sent of each message, by its id: the connections that it is for.
fn told(entries: &[Letter], reason: &str) -> BTreeMap<usize, Value> {
    let of_reason = entries.iter().filter(|sent| sent.attribute("streamer.reason") == reason);
    of_reason.map(|sent| (sent.json()["id"].as_str().unwrap().parse().unwrap(), sent.json())).collect()
}

fn audience(sent: &Sent, place: usize, of: &[&'static str]) -> Value {
    match (&sent.to, of) {
        (To::Connections(_), [one]) => json!({ "connection": one }),
        (To::Connections(_), [_, ..]) => json!({ "connections": of }),
        _ => sent.body(place)["to"].clone(),
    }
}

fn sorted(mut to: Value) -> Value {
    if let Some(ids) = to.get_mut("connections").and_then(Value::as_array_mut) {
        ids.sort_by_key(|id| id.as_str().map(str::to_owned));
    }
    to
}

/// Compares what the queues were told with what the model says.
fn check(case: &Case, rig: &Rig, report: &BTreeSet<String>, ends: &Ends) -> Result<(), TestCaseError> {
    let back = told(&rig.handed_back(), "");
    let dead = ["rejected", "poison", "exhausted"].map(|reason| (reason, told(&rig.dead(), reason)));
    let (mut expected_report, mut waiting) = (BTreeSet::new(), BTreeSet::new());
    for (place, sent) in case.messages.iter().enumerate() {
        let mut needs: BTreeMap<&str, Vec<&'static str>> = BTreeMap::new();
        let mut panicked = false;
        for (connection, end) in &ends[&place] {
            let given_up = !case.fifo && sent.given_up();
            let need = match end {
                End::Settled | End::Gone | End::Superseded => continue,
                End::Rejected => "rejected",
                End::Poison => "poison",
                End::Exhausted => "exhausted",
                End::Back | End::Panicked if given_up => "exhausted",
                End::Back => "back",
                End::Panicked => {
                    panicked = true;
                    "back"
                }
            };
            needs.entry(need).or_default().extend(connection);
        }
        let stays = panicked || (case.fifo && needs.contains_key("back"));
        if stays {
            needs.clear();
            waiting.extend(case.fifo.then(|| format!("receipt-{place}")));
        }
        let letters: Vec<_> = dead.iter().filter(|(_, letters)| letters.contains_key(&place)).collect();
        prop_assert_eq!(back.contains_key(&place), needs.contains_key("back"), "{} back", place);
        for (need, connections) in &needs {
            let body = match *need {
                "back" => &back[&place],
                reason => {
                    let found = letters.iter().find(|(known, _)| *known == reason);
                    let Some((_, letters)) = found else {
                        return Err(TestCaseError::fail(format!("{place} has no letter: {reason}")));
                    };
                    &letters[&place]
                }
            };
            let mut wanted = sent.body(place);
            wanted["to"] = sorted(audience(sent, place, connections));
            let mut found = body.clone();
            found["to"] = sorted(found["to"].clone());
            let retry = found.as_object_mut().unwrap().remove("retry").filter(|_| *need != "poison");
            wanted.as_object_mut().unwrap().remove("retry").filter(|_| *need != "poison");
            prop_assert_eq!(found, wanted);
            if *need == "back" {
                let (count, receives) = sent.retried.unwrap_or_default();
                let retry = retry.unwrap();
                prop_assert_eq!(&retry["count"], &json!(count + 1));
                prop_assert_eq!(&retry["receives"], &json!(receives + sent.receives - 1));
                prop_assert_eq!(&retry["since"], &json!(EPOCH_MILLIS - sent.age));
                prop_assert!(retry["cause"].as_str().is_some_and(|cause| !cause.is_empty()));
                let of_user = ends[&place]
                    .iter()
                    .filter(|(_, end)| !matches!(end, End::Back | End::Gone) && matches!(sent.to, To::User));
                let done: BTreeSet<_> = of_user.filter_map(|(connection, _)| *connection).collect();
                let found = retry["done"].as_array().into_iter().flatten().filter_map(Value::as_str);
                prop_assert_eq!(found.collect::<BTreeSet<_>>(), done);
            }
        }
        let wanted_letters = needs.keys().filter(|need| **need != "back").count();
        prop_assert_eq!(letters.len(), wanted_letters, "letters of {}", place);
        let unconfirmed = (needs.contains_key("back") && !sent.back_is_taken)
            || (wanted_letters > 0 && !sent.letter_is_taken);
        if stays || unconfirmed {
            expected_report.insert(format!("record-{place}"));
        }
    }
    let waits = rig.outbound.waits();
    let receipts: Vec<_> = waits.iter().map(|(receipt, _)| receipt.clone()).collect();
    prop_assert_eq!(receipts.len(), waiting.len());
    prop_assert_eq!(receipts.into_iter().collect::<BTreeSet<_>>(), waiting);
    for group in [false, true] {
        let of_group = |receipt: &str| {
            let place: usize = receipt.rsplit('-').next().unwrap().parse().unwrap();
            case.messages[place].group == group
        };
        let seconds: BTreeSet<_> =
            waits.iter().filter(|(receipt, _)| of_group(receipt)).map(|(_, seconds)| *seconds).collect();
        prop_assert!(seconds.len() <= 1 && seconds.iter().all(|seconds| (0..=120).contains(seconds)));
    }
    for sent in rig.handed_back() {
        prop_assert!(sent.delay.is_some_and(|delay| (0..=120).contains(&delay)), "{:?}", sent.delay);
    }
    prop_assert_eq!(report, &expected_report, "what is acknowledged is confirmed, and nothing else");
    Ok(())
}

/// A queue that takes of each message what it is said to.
fn taking(messages: &[Sent], taken: fn(&Sent) -> bool) -> QueueDouble {
    let taken: Vec<_> = messages.iter().map(taken).collect();
    QueueDouble::new(move |entry| {
        let body: Value = serde_json::from_str(entry.message_body()).unwrap();
        let place: usize = body["id"].as_str().unwrap().parse().unwrap();
        if taken[place] { Entry::Taken } else { Entry::NotTaken }
    })
}

async fn run(case: &Case) -> Result<(), TestCaseError> {
    fastrand::seed(case.seed);
    let answers = case.answers.clone();
    let next = std::sync::atomic::AtomicUsize::new(0);
    let gateway = MemoryGateway::scripted(move |_, _| {
        let next = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        scripted(answers[next % answers.len()])
    });
    // A young connection stays so.
    let made = |young: bool| if young { epoch() + HOUR } else { epoch() - HOUR };
    let rows = CONNECTIONS.into_iter().zip(case.rows).filter_map(|(id, young)| Some((id, made(young?))));
    let works = !case.table_fails;
    let table = TableDouble::of_user(rows, move || works);
    let outbound = taking(&case.messages, |sent| sent.back_is_taken);
    let dead_letters = taking(&case.messages, |sent| sent.letter_is_taken);
    let order = if case.fifo { QueueKind::Fifo } else { QueueKind::Standard };
    let rig = Rig::of(order, gateway, table, outbound, dead_letters);

    let mut event = batch(case.messages.iter().enumerate().map(|(place, sent)| sent.body(place).to_string()));
    for (record, sent) in event.records.iter_mut().zip(&case.messages) {
        let first = (EPOCH_MILLIS - sent.age).to_string();
        let attributes = [
            ("MessageGroupId", sent.group.to_string()),
            ("ApproximateReceiveCount", sent.receives.to_string()),
            ("ApproximateFirstReceiveTimestamp", first),
        ];
        record.attributes.extend(attributes.map(|(name, value)| (name.to_owned(), value)));
    }
    let started = Instant::now();
    let whole = Duration::from_millis(case.lambda_millis);
    let last = Duration::from_secs(3).min(whole * 3 / 8);
    let (deadline, cutoff) = (started + whole - last, started + whole - last / 2);
    let report = rig.invoke_within(epoch(), whole, event).await.unwrap();

    let posts = rig.worker.gateway.posts();
    for post in &posts {
        let took = post.ended_at.unwrap() - post.at;
        prop_assert!(post.at < deadline && post.ended_at.unwrap() <= cutoff, "a post after the deadline");
        prop_assert!(took <= Duration::from_secs(5), "a post of {:?}", took);
    }
    let ends = Model { case, posts: &posts, started, deadline, cutoff }.ends()?;
    check(case, &rig, &report, &ends)
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: cases(),
        max_global_rejects: cases(),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn every_pair_ends_in_one_outcome_and_the_queues_are_told_so(case in case()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(run(&case))?;
    }
}
