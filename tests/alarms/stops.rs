//! Every way in which delivery can stop, and hours without a stop.

mod connections;
mod mailbox;
mod normal;
mod receipts;

use std::{collections::BTreeMap, sync::LazyLock, thread};

use streamer_gateway::PostResult;
use streamer_queue::QueueKind;
use streamer_tests::gateway::status;
use tokio::runtime::Builder;

use crate::{
    cloudwatch::{Metric, Values},
    connects::Clients,
    traffic::{expiring, expiring_of_many, poisonous, to_many, to_user},
    world::{Answer, Lambda, MINUTE, QUICK, STOP, World},
};

/// How much stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Extent {
    /// Everything.
    Total,
    /// Half of everything, or less.
    Part,
    /// Nothing, but messages are late.
    Delay,
    /// Nothing, or nothing that an alarm can see.
    Nothing,
}

impl Extent {
    /// Returns the minutes within which an alarm notifies people.
    pub(crate) fn limit(self) -> usize {
        match self {
            Self::Total => 10,
            Self::Part => 15,
            Self::Delay | Self::Nothing => 20,
        }
    }
}

/// A way in which delivery stops.
pub(crate) struct Stop {
    /// Its text in the page.
    pub(crate) name: &'static str,
    pub(crate) extent: Extent,
    play: Play,
}

enum Play {
    Delivery(World),
    Connects(Clients),
    /// A metric of AWS is 1 each minute.
    Aws(Metric),
    /// Clients send this number of syncs in a minute, and receive this number of pages.
    Syncs(fn(usize) -> [u32; 2]),
    /// The oldest receipt on the queue has this age in seconds, and the worker hands this number of receipts back in a
    /// minute.
    Receipts(fn(usize) -> [u32; 2]),
    /// The dead-letter queue has these numbers of visible and of received messages in a minute.
    DeadLetters(fn(usize) -> [Option<f64>; 2]),
}

/// A stop, and everything that was written during it.
pub(crate) struct Played {
    pub(crate) stop: Stop,
    pub(crate) values: Values,
}

/// All stops, played once.
pub(crate) static PLAYED: LazyLock<Vec<Played>> = LazyLock::new(|| {
    let (first, second): (Vec<_>, Vec<_>) =
        stops().into_iter().enumerate().partition(|(index, _)| index % 2 == 0);
    let mut played: Vec<(usize, Played)> = thread::scope(|scope| {
        let halves = [first, second].map(|half| {
            scope
                .spawn(move || half.into_iter().map(|(index, stop)| (index, stop.play())).collect::<Vec<_>>())
        });
        halves.into_iter().flat_map(|half| half.join().unwrap()).collect()
    });
    played.sort_by_key(|(index, _)| *index);
    played.into_iter().map(|(_, played)| played).collect()
});

impl Stop {
    fn play(self) -> Played {
        let in_virtual_time = matches!(self.play, Play::Delivery(_));
        let runtime =
            Builder::new_current_thread().enable_all().start_paused(in_virtual_time).build().unwrap();
        let values = runtime.block_on(async {
            match &self.play {
                Play::Delivery(world) => world.play().await,
                Play::Connects(clients) => clients.play().await,
                Play::Aws(metric) => Ok(connections::aws_values(metric)),
                Play::Syncs(counts) => Ok(mailbox::sync_values(*counts)),
                Play::Receipts(counts) => Ok(receipts::receipt_values(*counts)),
                Play::DeadLetters(depths) => Ok(normal::dead_letter_values(*depths)),
            }
        });
        let values = values.unwrap_or_else(|error| panic!("{}: {error:?}", self.name));
        Played { stop: self, values }
    }
}

/// Answers with a status.
macro_rules! answers {
    ($status:literal) => {
        |_, _, _| (QUICK, status($status))
    };
    ($status:literal to $($connection:literal),+) => {
        |connection, _, _| (QUICK, status(if [$($connection),+].contains(&connection) { $status } else { 200 }))
    };
}

fn delivery(name: &'static str, extent: Extent, world: World) -> Stop {
    Stop { name, extent, play: Play::Delivery(world) }
}

fn answered(name: &'static str, extent: Extent, answer: Answer) -> Stop {
    delivery(name, extent, World { answer, ..World::WORKING })
}

fn connects(name: &'static str, extent: Extent, clients: Clients) -> Stop {
    Stop { name, extent, play: Play::Connects(clients) }
}

fn stops() -> Vec<Stop> {
    let delivery = posts().into_iter().chain(worker()).chain(parts()).chain(delays());
    let stops = delivery.chain(connections::connections()).chain(mailbox::mailbox());
    let normal = normal::normal().into_iter().chain(mailbox::normal()).chain(receipts::normal());
    stops.chain(receipts::receipts()).chain(normal::unseen()).chain(normal).collect()
}

fn posts() -> Vec<Stop> {
    use Extent::Total;
    let works = World::WORKING;
    let throttled = World { answer: answers!(429), ..works.clone() };
    let many = World { messages_per_minute: 30, body: to_many, end: STOP + 11, ..works.clone() };
    vec![
        answered("every post is answered with 429", Total, answers!(429)),
        answered("every post is answered with 403", Total, answers!(403)),
        answered("every post is answered with 404", Total, answers!(404)),
        answered("every post is answered with 503", Total, answers!(503)),
        delivery(
            "every post is answered with 503, 30 messages a minute",
            Total,
            World { answer: answers!(503), ..many.clone() },
        ),
        delivery(
            "every post is answered with 429, 30 messages a minute",
            Total,
            World { answer: answers!(429), ..many },
        ),
        delivery(
            "every post is answered with 429, on a FIFO queue",
            Total,
            World { kind: QueueKind::Fifo, ..throttled.clone() },
        ),
        delivery(
            "every post is answered with 429, and messages expire after 30 s",
            Total,
            World { body: expiring, ..throttled.clone() },
        ),
        delivery(
            "every post is answered with 429, and messages expire after 30 s, 30 messages a minute",
            Total,
            World { body: expiring_of_many, messages_per_minute: 30, ..throttled },
        ),
        answered("no post is answered", Total, |_, _, _| (MINUTE, status(200))),
        answered("every connection to API Gateway breaks", Total, |_, _, _| {
            (QUICK, PostResult::Broken("reset by peer".to_owned()))
        }),
        delivery(
            "all clients are connected at another endpoint",
            Total,
            World { endpoint: "https://ws.example.com/production", body: to_user, ..works },
        ),
    ]
}

fn worker() -> Vec<Stop> {
    use Extent::Total;
    let works = World::WORKING;
    let table = |error| World { table: Some(error), body: to_user, ..works.clone() };
    vec![
        delivery("the table denies every call", Total, table("AccessDeniedException")),
        delivery("the table throttles every call", Total, table("ProvisionedThroughputExceededException")),
        delivery("an index of the table is missing", Total, table("ValidationException")),
        delivery(
            "the worker's credentials are revoked",
            Total,
            World {
                answer: answers!(403),
                table: Some("UnrecognizedClientException"),
                outbound_accepts: false,
                dead_letters_accept: false,
                ..works.clone()
            },
        ),
        answered("the worker panics at each message", Total, |_, _, _| {
            // Unlike a panic, this prints nothing.
            std::panic::resume_unwind(Box::new("scripted"))
        }),
        delivery(
            "the worker crashes, such as when it is out of memory",
            Total,
            World { lambda: Lambda::Crashes, ..works.clone() },
        ),
        delivery("Lambda throttles the worker", Total, World { lambda: Lambda::Throttles, ..works.clone() }),
        delivery(
            "the event source mapping is disabled",
            Total,
            World { lambda: Lambda::IsNotInvoked, ..works },
        ),
    ]
}

fn parts() -> Vec<Stop> {
    use Extent::Part;
    let works = World::WORKING;
    vec![
        answered("half of the posts are answered with 503", Part, answers!(503 to "c0", "c2", "c4")),
        delivery(
            "half of the posts are answered with 429, and messages expire after 30 s",
            Part,
            World { answer: answers!(429 to "c0", "c2", "c4"), body: expiring, ..works.clone() },
        ),
        delivery(
            "half of the posts are answered with 429, and messages expire after 30 s, 30 messages a minute",
            Part,
            World {
                answer: answers!(429 to "c0", "c2", "c4"),
                body: expiring_of_many,
                messages_per_minute: 30,
                ..works.clone()
            },
        ),
        answered("one tenant's clients read nothing", Part, answers!(429 to "c0")),
        delivery(
            "the outbound queue takes no hand-backs, and one tenant's posts are answered with 503",
            Part,
            World { answer: answers!(503 to "c0"), outbound_accepts: false, ..works.clone() },
        ),
        delivery(
            "one producer sends messages that are not valid",
            Part,
            World { body: poisonous, ..works.clone() },
        ),
        delivery(
            "the dead-letter queue takes no messages, and one producer sends messages that are not valid",
            Part,
            World { body: poisonous, dead_letters_accept: false, ..works },
        ),
    ]
}

fn delays() -> Vec<Stop> {
    use Extent::Delay;
    let late: Answer = |_, posts, _| (QUICK, status(if posts % 7 == 6 { 200 } else { 429 }));
    vec![
        answered("each message is delivered at its seventh try only", Delay, late),
        delivery(
            "one of 30 messages is delivered at its seventh try only, 30 messages a minute",
            Delay,
            World {
                messages_per_minute: 30,
                body: to_many,
                answer: |connection, posts, _| {
                    let is_late = connection == "c7" && posts % 7 != 6;
                    (QUICK, status(if is_late { 429 } else { 200 }))
                },
                ..World::WORKING
            },
        ),
    ]
}

/// Returns the values of each metric that was written in any run.
pub(crate) fn written() -> BTreeMap<Metric, usize> {
    let mut written = BTreeMap::new();
    for metric in PLAYED.iter().flat_map(|played| played.values.metrics()) {
        *written.entry(metric.clone()).or_default() += 1;
    }
    written
}
