//! Random cases.

use proptest::{prelude::*, sample::select};

/// What happens to one stream.
#[derive(Debug, Clone)]
pub(crate) struct Case {
    /// The seed of all random decisions, such as which task runs next.
    pub(crate) seed: u64,
    /// Messages that are stored before anything else happens.
    pub(crate) prefilled: usize,
    /// Maximum number of messages of the stream. Streams overflow when they have 25 more.
    pub(crate) max_messages: u64,
    /// The messages, in the order of their arrival on the queue.
    pub(crate) messages: Vec<Sent>,
    /// The number of devices.
    pub(crate) devices: usize,
    /// Steps after which nothing fails any more.
    pub(crate) chaos: u64,
    /// How often something happens, in steps out of 1000.
    pub(crate) rates: Rates,
    /// Steps after which time no longer leaps.
    pub(crate) leaps_end: u64,
    /// Whether the stream is erased once.
    pub(crate) erased: bool,
}

/// A message on the queue.
#[derive(Debug, Clone)]
pub(crate) struct Sent {
    /// The step at which it arrives, in bursts.
    pub(crate) step: u64,
    /// Seconds for which it is kept.
    pub(crate) keep: u64,
    /// Whether the producer sent it twice, so that the queue has two copies with one id.
    pub(crate) twice: bool,
}

/// Steps out of 1000 at which something happens.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rates {
    /// A worker or a handler is killed.
    pub(crate) kill: u32,
    /// A call to the table fails or loses its answer. Out of 1000 calls.
    pub(crate) fault: u32,
    /// A socket is lost.
    pub(crate) cut: u32,
    /// A device crashes or reloads.
    pub(crate) reload: u32,
    /// A device opens another socket before it closes the old one.
    pub(crate) rotate: u32,
    /// Time leaps by minutes or hours.
    pub(crate) leap: u32,
    /// TTL removes expired items.
    pub(crate) ttl: u32,
}

fn sent() -> impl Strategy<Value = Sent> {
    let keep = prop_oneof![3 => Just(7 * 24 * 3600_u64), 2 => 60..7200_u64];
    (0..5_u64, keep, prop::bool::weighted(0.15)).prop_map(|(burst, keep, twice)| Sent {
        step: burst * 30,
        keep,
        twice,
    })
}

fn rates() -> impl Strategy<Value = Rates> {
    let rate = |rates: [u32; 3]| select(rates.to_vec());
    (
        rate([0, 10, 50]),
        rate([0, 10, 50]),
        rate([0, 5, 20]),
        rate([0, 5, 20]),
        rate([0, 5, 10]),
        rate([0, 0, 10]),
        rate([0, 20, 200]),
    )
        .prop_map(|(kill, fault, cut, reload, rotate, leap, ttl)| Rates {
            kill,
            fault,
            cut,
            reload,
            rotate,
            leap,
            ttl,
        })
}

pub(crate) fn case() -> impl Strategy<Value = Case> {
    let stream = prop_oneof![
        3 => (0..4_usize, Just(100_u64)),
        1 => (22..28_usize, 1..4_u64),
    ];
    let messages = prop::collection::vec(sent(), 1..12);
    let erased = prop::bool::weighted(0.04);
    (any::<u64>(), stream, messages, 1..4_usize, 60..200_u64, rates(), 0..200_u64, erased).prop_map(
        |(seed, (prefilled, max_messages), messages, devices, chaos, rates, leaps_end, erased)| Case {
            seed,
            prefilled,
            max_messages,
            messages,
            devices,
            chaos,
            rates,
            leaps_end,
            erased,
        },
    )
}
