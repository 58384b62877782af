//! Wrong variants of the mailbox, its callers and the client.

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

    /// Whether holes do not matter to the client.
    pub(crate) fn jumps(self) -> bool {
        matches!(self, Self::OrderById | Self::LiveMovesPosition)
    }
}
