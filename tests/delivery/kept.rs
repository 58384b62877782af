//! Messages that are to be kept: the worker stores them, and posts them to the user's devices after that.

mod fifo;
mod hot_user;
mod outcomes;
mod storing;

use std::time::Duration;

use serde_json::{Value, json};
use streamer_tests::{
    doubles::MailboxDouble,
    event::epoch,
    gateway::MemoryGateway,
    worker::{ENDPOINT, Rig},
};

use crate::message_to_anna;

const HOUR: Duration = Duration::from_secs(3600);

/// Builds a message for the user `anna` that is kept for an hour.
fn kept(id: &str) -> Value {
    kept_for("anna", id)
}

/// Builds a message for this user of the tenant `acme`.
fn kept_for(user: &str, id: &str) -> Value {
    let mut message = message_to_anna(id);
    message["to"]["user"]["user"] = user.into();
    message["keep"] = 3600.into();
    message
}

/// Builds a worker with this mailbox.
fn rig(gateway: MemoryGateway, mailbox: &MailboxDouble) -> Rig {
    let mut rig = Rig::new(gateway);
    rig.worker.mailbox = Some(mailbox.mailbox());
    rig
}

/// Creates a mailbox in which `anna` has these devices.
fn with_devices(connections: &[&str]) -> MailboxDouble {
    let mailbox = MailboxDouble::default();
    register(&mailbox, connections);
    mailbox
}

/// Registers devices of `anna` at the worker's endpoint.
fn register(mailbox: &MailboxDouble, connections: &[&str]) {
    connections.iter().for_each(|id| mailbox.register("anna", id, ENDPOINT, epoch() + HOUR));
}

/// Returns the numbers of the frames that were posted to a connection, with their ids.
fn frames(rig: &Rig, connection: &str) -> Vec<(u64, String)> {
    let frames = rig.worker.gateway.texts(connection).into_iter();
    frames
        .map(|text| {
            let frame: Value = serde_json::from_str(&text).unwrap();
            assert_eq!((&frame["type"], &frame["stream"]), (&json!("streamer.message"), &json!("user")));
            assert_eq!(frame["payload"], frame["id"]);
            (frame["seq"].as_u64().unwrap(), frame["id"].as_str().unwrap().to_owned())
        })
        .collect()
}

/// Returns messages with their numbers.
fn numbered<const N: usize>(messages: [(u64, &str); N]) -> Vec<(u64, String)> {
    messages.map(|(seq, id)| (seq, id.to_owned())).into()
}
