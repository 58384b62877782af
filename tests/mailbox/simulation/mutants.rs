//! Wrong variants of the mailbox, its callers and the client.

use super::case::{Case, Rates, Sent};

/// A wrong variant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mutant {
    /// A handler reads the head before it registers the device.
    RegisteredAfterHead,
    /// A handler reads the head from a replica that may be old.
    StaleHead,
    /// A handler reads `top` after the messages.
    TopReadAfterQuery,
    /// A handler leaves `missing` out of its pages.
    MissingLeftOut,
    /// A writer reserves its number with a counter and then stores its message.
    ReserveThenPut,
    /// A writer raises `top` and then stores its message.
    RaiseBeforePut,
    /// Messages are numbered by the time in their ids, and a client continues after the highest that it has.
    OrderById,
    /// A writer acknowledges its message without raising `top`.
    TopNotRaised,
    /// A writer does not compare its number with `floor` when `top` is already higher.
    FloorNotChecked,
    /// A writer does not hold old messages that it passes.
    NumberNotHeld,
    /// A redelivered message is appended without a search for its id.
    AppendsAgain,
    /// A worker reads the devices from an index that lags.
    LaggingDevices,
    /// A live message ahead of the client's position moves the position.
    LiveMovesPosition,
    /// A client stores its position without the ids.
    IdsNotStored,
    /// A client stores its position before the handler has resolved.
    StoredAtHandOver,
}

impl Mutant {
    pub(crate) const ALL: [Self; 15] = [
        Self::RegisteredAfterHead,
        Self::StaleHead,
        Self::TopReadAfterQuery,
        Self::MissingLeftOut,
        Self::ReserveThenPut,
        Self::RaiseBeforePut,
        Self::OrderById,
        Self::TopNotRaised,
        Self::FloorNotChecked,
        Self::NumberNotHeld,
        Self::AppendsAgain,
        Self::LaggingDevices,
        Self::LiveMovesPosition,
        Self::IdsNotStored,
        Self::StoredAtHandOver,
    ];

    /// Moves a case near to the fault, so that few cases are needed.
    pub(crate) fn focus(self, case: Case) -> Case {
        let calm = Rates { cut: 0, reload: 0, rotate: 0, ..case.rates };
        match self {
            Self::RegisteredAfterHead | Self::LaggingDevices => {
                Case { rates: Rates { cut: 20, ..case.rates }, devices: 3, ..case }
            }
            Self::FloorNotChecked => Case {
                prefilled: 26,
                max_messages: 1,
                rates: Rates { leap: 0, kill: 0, fault: 0, ..calm },
                ..case
            },
            // A killed writer leaves a message that expires before a burst of others.
            Self::NumberNotHeld => {
                let messages = case.messages.iter().cycle().take(12).enumerate();
                let sent = |(index, _)| match index {
                    0 => Sent { step: 0, keep: 60, twice: false },
                    _ => Sent { step: 50, keep: 7 * 24 * 3600, twice: false },
                };
                Case {
                    messages: messages.map(sent).collect(),
                    rates: Rates { kill: 40, fault: 10, leap: 60, ttl: 60, ..calm },
                    chaos: 150,
                    leaps_end: 45,
                    erased: false,
                    ..case
                }
            }
            Self::IdsNotStored | Self::StoredAtHandOver => {
                let messages = case.messages.into_iter().map(|sent| Sent { twice: true, ..sent });
                Case { messages: messages.collect(), rates: Rates { reload: 20, ..case.rates }, ..case }
            }
            _ => case,
        }
    }

    /// Whether holes do not matter to the client.
    pub(crate) fn jumps(self) -> bool {
        matches!(self, Self::OrderById | Self::LiveMovesPosition)
    }
}
