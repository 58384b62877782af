//! Every way in which delivery can stop, and hours without a stop.

use std::{collections::BTreeMap, sync::LazyLock, thread};

use delivery_worker::{classify::PostResult, queue_kind::QueueKind};
use streamer_tests::gateway::status;
use tokio::runtime::Builder;

use crate::{
    cloudwatch::{Metric, Values},
    connects::Clients,
    definitions::DEAD_LETTERS,
    traffic::{expiring, normal_life, poisonous, to_many, to_user},
    world::{Answer, END, Lambda, MINUTE, QUICK, STOP, World},
    written::{of_function, of_queue},
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
    /// Nothing.
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
    /// A function's invocations add to this metric of Lambda.
    Function(&'static str, &'static str),
    /// Dead letters lie on their queue, and an operator lists them.
    OldDeadLetters,
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
                Play::Function(function, metric) => Ok(function_values(of_function(function, metric))),
                Play::OldDeadLetters => Ok(old_dead_letters()),
            }
        });
        let values = values.unwrap_or_else(|error| panic!("{}: {error:?}", self.name));
        Played { stop: self, values }
    }
}

fn function_values(metric: Metric) -> Values {
    let mut values = Values::default();
    (0..END).for_each(|minute| values.add(metric.clone(), minute, f64::from(u8::from(minute >= STOP))));
    values
}

/// A letter arrives before the stop's time, stays, and is received once, as `streamer redrive` does to list it.
fn old_dead_letters() -> Values {
    let mut values = Values::default();
    for minute in 0..END {
        let received = f64::from(u8::from((30..33).contains(&minute)));
        values.add(of_queue(DEAD_LETTERS, "ApproximateNumberOfMessagesVisible"), minute, 1.0 - received);
        values.add(of_queue(DEAD_LETTERS, "ApproximateNumberOfMessagesNotVisible"), minute, received);
    }
    values
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

fn function(name: &'static str, extent: Extent, function: &'static str, metric: &'static str) -> Stop {
    Stop { name, extent, play: Play::Function(function, metric) }
}

#[expect(clippy::too_many_lines, reason = "a list")]
fn stops() -> Vec<Stop> {
    use Extent::{Delay, Nothing, Part, Total};
    let works = World::WORKING;
    vec![
        answered("every post is answered with 429", Total, answers!(429)),
        answered("every post is answered with 403", Total, answers!(403)),
        answered("every post is answered with 404", Total, answers!(404)),
        answered("every post is answered with 503", Total, answers!(503)),
        delivery(
            "every post is answered with 503, 30 messages a minute",
            Total,
            World {
                messages_per_minute: 30,
                answer: answers!(503),
                body: to_many,
                end: STOP + 8,
                ..works.clone()
            },
        ),
        delivery(
            "every post is answered with 429, on a FIFO queue",
            Total,
            World { kind: QueueKind::Fifo, answer: answers!(429), ..works.clone() },
        ),
        delivery(
            "every post is answered with 429, and messages expire after 30 s",
            Total,
            World { answer: answers!(429), body: expiring, ..works.clone() },
        ),
        answered("no post is answered", Total, |_, _, _| (MINUTE, status(200))),
        answered("every connection to API Gateway breaks", Total, |_, _, _| {
            (QUICK, PostResult::Broken("reset by peer".to_owned()))
        }),
        delivery(
            "the table denies every call",
            Total,
            World { table: Some("AccessDeniedException"), body: to_user, ..works.clone() },
        ),
        delivery(
            "the table throttles every call",
            Total,
            World { table: Some("ProvisionedThroughputExceededException"), body: to_user, ..works.clone() },
        ),
        delivery(
            "an index of the table is missing",
            Total,
            World { table: Some("ValidationException"), body: to_user, ..works.clone() },
        ),
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
            World { lambda: Lambda::IsNotInvoked, ..works.clone() },
        ),
        delivery(
            "all clients are connected at another endpoint",
            Total,
            World { endpoint: "https://ws.example.com/production", body: to_user, ..works.clone() },
        ),
        answered("half of the posts are answered with 503", Part, answers!(503 to "c0", "c2", "c4")),
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
            World { body: poisonous, dead_letters_accept: false, ..works.clone() },
        ),
        answered("each message is delivered at its seventh try only", Delay, |_, posts, _| {
            (QUICK, status(if posts % 7 == 6 { 200 } else { 429 }))
        }),
        connects("the issuer's keys cannot be fetched", Total, Clients::WithoutKeys),
        connects("the table takes no connections", Total, Clients::WithoutTable),
        connects("`$connect` has no authorizer", Total, Clients::WithoutAuthorizer),
        connects("every token names another issuer", Total, Clients::OfOtherIssuer),
        connects(
            "three of ten tokens name another issuer, 20 clients a minute",
            Part,
            Clients::OfOtherIssuerInPart,
        ),
        function("`connect` crashes", Total, "connect", "Errors"),
        function("Lambda throttles `connect`", Total, "connect", "Throttles"),
        function("`disconnect` crashes", Part, "disconnect", "Errors"),
        function("Lambda throttles `disconnect`", Part, "disconnect", "Throttles"),
        delivery(
            "an hour of normal life",
            Nothing,
            World { answer: normal_life, body: to_user, end: END, reconnects: true, ..works.clone() },
        ),
        delivery(
            "an hour of normal life on a FIFO queue",
            Nothing,
            World {
                kind: QueueKind::Fifo,
                answer: normal_life,
                body: to_user,
                end: END,
                reconnects: true,
                ..works
            },
        ),
        connects("an hour of clients that connect", Nothing, Clients::Accepted),
        Stop { name: "an hour with an old dead letter", extent: Nothing, play: Play::OldDeadLetters },
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
