//! Hours without a stop, and stops without an alarm.

use streamer_queue::QueueKind;
use streamer_tests::gateway::status;

use super::{Extent::Nothing, Play, Stop, connects, delivery};
use crate::{
    cloudwatch::Values,
    connects::Clients,
    definitions::DEAD_LETTERS,
    traffic::{bursts, normal_life, stalls, to_absent, to_user},
    world::{END, QUICK, STOP, World},
    written::of_queue,
};

/// Stops that no metric tells from a time in which all clients are away.
pub(super) fn unseen() -> Vec<Stop> {
    let works = World { end: END, ..World::WORKING };
    vec![
        delivery(
            "every post is answered with 410",
            Nothing,
            World { answer: |_, _, _| (QUICK, status(410)), ..works.clone() },
        ),
        delivery("no look-up finds a connection", Nothing, World { body: to_absent, ..works }),
    ]
}

pub(super) fn normal() -> Vec<Stop> {
    let life = World { answer: normal_life, body: to_user, end: END, is_lively: true, ..World::WORKING };
    let stalls = World { answer: stalls, more: bursts, end: END, ..World::WORKING };
    let on_fifo = |world: &World| World { kind: QueueKind::Fifo, ..world.clone() };
    vec![
        delivery("an hour of normal life on a FIFO queue", Nothing, on_fifo(&life)),
        delivery("an hour of normal life", Nothing, life),
        delivery("an hour with a client that stalls on a FIFO queue", Nothing, on_fifo(&stalls)),
        delivery("an hour with a client that stalls", Nothing, stalls),
        delivery(
            "an hour in which one of six messages is late",
            Nothing,
            World {
                answer: |connection, posts, _| {
                    (QUICK, status(if connection == "c0" && posts % 7 != 6 { 429 } else { 200 }))
                },
                end: END,
                ..World::WORKING
            },
        ),
        connects("an hour of clients that connect", Nothing, Clients::Accepted),
        connects("an hour with one client, whose token has expired", Nothing, Clients::LoneExpired),
        dead_letters("an hour with an old dead letter that is listed", |minute| match minute {
            // The counts are not sampled together.
            30 => [Some(1.0), Some(1.0)],
            31..33 => [Some(0.0), Some(1.0)],
            33 => [Some(0.0), Some(0.0)],
            _ => [Some(1.0), Some(0.0)],
        }),
        dead_letters("an hour with old dead letters that a killed listing hides", |minute| match minute {
            30..40 => [Some(1.0), Some(2.0)],
            _ => [Some(3.0), Some(0.0)],
        }),
        dead_letters("an hour with old dead letters and missing datapoints", |minute| match minute {
            25 => [None, Some(0.0)],
            35 => [Some(2.0), None],
            45..47 => [None, None],
            _ => [Some(2.0), Some(0.0)],
        }),
        dead_letters("an hour in which dead letters are sent again", |minute| match minute {
            0..30 => [Some(5.0), Some(0.0)],
            30 => [Some(3.0), Some(5.0)],
            31 => [Some(0.0), Some(2.0)],
            _ => [Some(2.0), Some(0.0)],
        }),
    ]
}

fn dead_letters(name: &'static str, depths: fn(usize) -> [Option<f64>; 2]) -> Stop {
    Stop { name, extent: Nothing, play: Play::DeadLetters(depths) }
}

/// The first dead letters arrived before the run, so they are hidden until the alarm would have ended.
pub(super) fn dead_letter_values(depths: fn(usize) -> [Option<f64>; 2]) -> Values {
    let mut values = Values::default();
    for minute in 0..END {
        let names = ["ApproximateNumberOfMessagesVisible", "ApproximateNumberOfMessagesNotVisible"];
        let [visible, received] = depths(minute);
        let depths = if minute <= STOP { [received, visible] } else { [visible, received] };
        for (name, depth) in names.into_iter().zip(depths) {
            depth.into_iter().for_each(|depth| values.add(of_queue(DEAD_LETTERS, name), minute, depth));
        }
    }
    values
}
