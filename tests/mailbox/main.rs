//! The mailbox: streams of kept messages, the rules for clients, and a simulation of both.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod client;
mod dynamo;
mod simulation;
mod streams;
mod tasks;

use std::time::{Duration, SystemTime};

use streamer_mailbox::{Appended, Device, Mailbox, NewMessage, Page, PageLimits, Settings, Stream, Table};
use streamer_message::{ConnectionId, MessageId, frame::Start};
use streamer_tests::mailbox::MemoryTable;

const LIMITS: PageLimits = PageLimits { bytes: 30 * 1024, payload_bytes: 127 * 1024, reads: 4 };

/// Returns a time so many seconds after the tests begin.
fn at(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_764_000_000 + seconds)
}

fn stream() -> Stream {
    Stream { tenant: "acme".try_into().unwrap(), user: "anna".try_into().unwrap() }
}

fn id(text: &str) -> MessageId {
    MessageId::new(text).unwrap()
}

fn device(connection: &str) -> Device {
    let connection = ConnectionId::new(connection).unwrap();
    Device { connection, endpoint: "https://ws.example.com/live".to_owned(), expires_at: at(7800) }
}

/// Returns a mailbox with a maximum of `max_messages`.
fn mailbox<T: Table>(table: T, max_messages: u64) -> Mailbox<T> {
    Mailbox::new(table, Settings { max_messages, ..Settings::default() })
}

/// A message that is kept for 600 s from the beginning.
fn message<'a>(id: &'a MessageId, body: &'a str) -> NewMessage<'a> {
    NewMessage { id, body, until: at(600), ack: false, tried_since: None }
}

/// Appends messages with these ids at the beginning.
async fn append<T: Table>(mailbox: &Mailbox<T>, ids: &[&str]) -> Appended {
    let ids: Vec<_> = ids.iter().map(|text| id(text)).collect();
    let messages: Vec<_> = ids.iter().map(|id| message(id, "1")).collect();
    mailbox.append(&stream(), &messages, at(0)).await
}

/// Appends a message that an earlier attempt at the beginning may have stored.
async fn append_again(mailbox: &Mailbox<MemoryTable>, text: &str) -> Appended {
    let id = id(text);
    let message = NewMessage { tried_since: Some(at(0)), ..message(&id, "1") };
    mailbox.append(&stream(), &[message], at(30)).await
}

/// Returns the numbers of appended messages.
fn seqs(appended: &Appended) -> Vec<u64> {
    appended.positions.iter().map(|position| position.seq).collect()
}

/// Reads the page after `start` at the beginning.
async fn page<T: Table>(mailbox: &Mailbox<T>, start: Start) -> Page {
    page_at(mailbox, start, LIMITS, 0).await
}

async fn page_at<T: Table>(mailbox: &Mailbox<T>, start: Start, limits: PageLimits, seconds: u64) -> Page {
    mailbox.page(&stream(), &start, limits, at(seconds)).await.unwrap()
}

/// Returns the ids on a page.
fn ids(page: &Page) -> Vec<&str> {
    page.messages.iter().map(|(_, message)| message.id.as_str()).collect()
}

/// Returns the ids of all messages of a stream.
async fn all_ids(mailbox: &Mailbox<MemoryTable>) -> Vec<String> {
    let listing = mailbox.list(&stream(), at(0)).await.unwrap().unwrap();
    listing.messages.into_iter().map(|message| message.id.as_str().to_owned()).collect()
}
