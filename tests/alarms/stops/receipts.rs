//! Stops of receipts, and hours in which a consumer reads them.

use super::{
    Extent::{self, Delay, Nothing, Total},
    Play, Stop,
};
use crate::{
    cloudwatch::Values,
    definitions::RECEIPTS,
    world::{END, STOP},
    written::{of_queue, of_worker},
};

pub(super) fn receipts() -> Vec<Stop> {
    vec![
        played("the receipts queue takes no receipts", Total, |minute| [1, u32::from(minute >= STOP)]),
        played("receipts have not been read for 55 min", Delay, |minute| [seconds(45 + minute), 0]),
    ]
}

pub(super) fn normal() -> Vec<Stop> {
    vec![
        played("an hour in which receipts are read after 50 min", Nothing, |minute| {
            [seconds((45 + minute) % 50), 0]
        }),
        played("an hour in which the receipts queue fails for two minutes", Nothing, |minute| {
            [1, u32::from([30, 31, 40].contains(&minute))]
        }),
    ]
}

fn seconds(minutes: usize) -> u32 {
    u32::try_from(60 * minutes).unwrap_or(u32::MAX)
}

fn played(name: &'static str, extent: Extent, counts: fn(usize) -> [u32; 2]) -> Stop {
    Stop { name, extent, play: Play::Receipts(counts) }
}

/// The worker writes no zeros.
pub(super) fn receipt_values(counts: fn(usize) -> [u32; 2]) -> Values {
    let mut values = Values::default();
    for minute in 0..END {
        let [age, handed_back] = counts(minute);
        values.add(of_queue(RECEIPTS, "ApproximateAgeOfOldestMessage"), minute, f64::from(age));
        (0..handed_back).for_each(|_| values.add(of_worker("ReceiptsHandedBack"), minute, 1.0));
    }
    values
}
