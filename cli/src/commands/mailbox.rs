//! `streamer mailbox`: lists the messages that are kept for a user.

use std::time::SystemTime;

use anyhow::Context as _;
use clap::Args;
use humantime::format_rfc3339_millis;
use serde_json::{Value, json};
use streamer_mailbox::{Device, KeptMessage, Listing, Stream};
use streamer_message::{TenantId, UserId};

use super::target::Target;
use crate::{
    aws::mailbox_failed,
    layout::{Column, Table},
    screen::{Screen, age, print_error, sanitize, width},
};

const MESSAGES: [Column; 5] = [
    Column::right("NUMBER", 7),
    Column::left("ID", 36),
    Column::left("STORED", 14),
    Column::left("EXPIRES", 14),
    Column::right("BYTES", 7),
];

const DEVICES: [Column; 3] =
    [Column::left("DEVICE", 17), Column::left("EXPIRES", 14), Column::left("ENDPOINT", 0)];

/// List the messages that are kept for a user
///
/// Lists each kept message with its number, which is its place in the user's mailbox, and the devices: connections that
/// have asked for kept messages and receive new ones live. With --show, prints a whole payload.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  streamer mailbox --tenant acme --user anna
  streamer mailbox --tenant acme --user anna --json | jq .messages[].id
  streamer mailbox --tenant acme --user anna --show order-17 > payload.json
  streamer mailbox --aws --mailbox-table streamer_mailbox --tenant acme --user anna

Permissions on AWS:
  mailbox table      dynamodb:GetItem, dynamodb:Query")]
pub struct Mailbox {
    /// Tenant of the user
    #[arg(long, value_name = "ID", value_parser = |text: &str| TenantId::new(text))]
    tenant: TenantId,
    /// User whose messages are listed
    #[arg(long, value_name = "ID", value_parser = |text: &str| UserId::new(text))]
    user: UserId,
    /// Show one message with its payload: the message's id, or its number
    #[arg(long, value_name = "ID")]
    show: Option<String>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

impl Mailbox {
    /// Runs the command.
    ///
    /// # Errors
    /// When the table cannot be read, or no message has the id of `--show`.
    pub async fn run(self) -> anyhow::Result<()> {
        let stream = Stream { tenant: self.tenant, user: self.user };
        let (mailbox, now) = (self.target.mailbox().await?, SystemTime::now());
        let listing = mailbox.list(&stream, now).await.map_err(|error| mailbox_failed(&error))?;
        let screen = Screen::new();
        match &self.show {
            Some(id) => {
                let messages = listing.as_ref().map(|listing| listing.messages.as_slice());
                let message = find(messages.unwrap_or_default(), id).with_context(|| {
                    format!("no message that is kept for this user has the id or the number {id}")
                })?;
                print_message(screen, message, self.json, now);
            }
            None if self.json => screen.verbatim(object(listing.as_ref()).to_string()),
            None => lines(listing.as_ref(), now, width()).iter().for_each(|line| screen.verbatim(line)),
        }
        Ok(())
    }
}

/// Returns the newest message with this id, or else the one with this number.
fn find<'a>(messages: &'a [KeptMessage], id: &str) -> Option<&'a KeptMessage> {
    let by_id = messages.iter().rfind(|message| message.id.as_str() == id);
    by_id.or_else(|| messages.iter().find(|message| message.seq.to_string() == id))
}

/// Prints a message: as one JSON object, or its payload to standard output and the rest to standard error.
fn print_message(screen: Screen, message: &KeptMessage, as_object: bool, now: SystemTime) {
    if as_object {
        let mut object = summary(message);
        object["payload"] = json!(message.body);
        return screen.verbatim(object.to_string());
    }
    let line = |name: &str, value: &str| print_error(&format!("{name:<15} {}", sanitize(value)), None);
    line("message", message.id.as_str());
    line("number", &message.seq.to_string());
    line("stored", &format!("{}, {}", format_rfc3339_millis(message.stored_at), ago(message.stored_at, now)));
    line("expires", &format!("{}, {}", format_rfc3339_millis(message.until), ahead(message.until, now)));
    line("bytes", &message.body.len().to_string());
    print_error("", None);
    screen.document(&message.body);
}

/// Returns a message without its payload, as JSON.
fn summary(message: &KeptMessage) -> Value {
    json!({
        "number": message.seq,
        "id": message.id,
        "stored_at": format_rfc3339_millis(message.stored_at).to_string(),
        "expires_at": format_rfc3339_millis(message.until).to_string(),
        "bytes": message.body.len(),
    })
}

fn object(listing: Option<&Listing>) -> Value {
    let device = |device: &Device| {
        json!({
            "connection": device.connection,
            "endpoint": device.endpoint,
            "expires_at": format_rfc3339_millis(device.expires_at).to_string(),
        })
    };
    let (messages, devices) = parts(listing);
    json!({
        "newest": listing.map_or(0, |listing| listing.top),
        "removed_through": listing.map_or(0, |listing| listing.floor),
        "messages": messages.iter().map(summary).collect::<Vec<_>>(),
        "devices": devices.iter().map(device).collect::<Vec<_>>(),
    })
}

fn parts(listing: Option<&Listing>) -> (&[KeptMessage], &[Device]) {
    listing.map_or((&[], &[]), |listing| (&listing.messages, &listing.devices))
}

/// Returns tables of the messages and the devices, and their numbers.
fn lines(listing: Option<&Listing>, now: SystemTime, width: Option<usize>) -> Vec<String> {
    let (messages, devices) = parts(listing);
    let mut lines = Vec::new();
    if !messages.is_empty() {
        let mut table = Table::new(&MESSAGES);
        for message in messages {
            table.row([
                message.seq.to_string(),
                sanitize(message.id.as_str()),
                ago(message.stored_at, now),
                ahead(message.until, now),
                message.body.len().to_string(),
            ]);
        }
        lines.extend(table.lines(0, width));
    }
    if !devices.is_empty() {
        let mut table = Table::new(&DEVICES);
        for Device { connection, endpoint, expires_at } in devices {
            table.row([connection.to_string(), ahead(*expires_at, now), sanitize(endpoint)]);
        }
        lines.extend(table.lines(0, width));
    }
    let bytes = messages.iter().map(|message| message.body.len()).sum::<usize>();
    let (messages, devices) = (counted(messages.len(), "message"), counted(devices.len(), "device"));
    lines.push(format!("{messages} of {bytes} bytes, {devices}"));
    if let Some(floor) = listing.map(|listing| listing.floor).filter(|floor| *floor > 0) {
        lines.push(format!("removed up to number {floor}, because the user had too many"));
    }
    lines
}

/// Returns a number with its noun.
pub(super) fn counted(number: usize, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

fn ago(at: SystemTime, now: SystemTime) -> String {
    format!("{} ago", age(now.duration_since(at).unwrap_or_default()))
}

fn ahead(at: SystemTime, now: SystemTime) -> String {
    format!("in {}", age(at.duration_since(now).unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use std::time::Duration;

    use streamer_message::{ConnectionId, Epoch, MessageId};

    use super::*;

    const NOW: SystemTime = SystemTime::UNIX_EPOCH;

    fn message(seq: u64, id: &str, body: &str) -> KeptMessage {
        let until = NOW + Duration::from_secs(7 * 24 * 3600);
        KeptMessage { seq, id: MessageId::new(id).unwrap(), stored_at: NOW, until, body: body.to_owned() }
    }

    fn listing(messages: Vec<KeptMessage>) -> Listing {
        let connection = ConnectionId::new("L0SM9cOFvHcCIhw=").unwrap();
        let expires_at = NOW + Duration::from_secs(3600);
        let device = Device { connection, endpoint: "https://a.example/s".to_owned(), expires_at };
        Listing { epoch: Epoch::new("e.0").unwrap(), top: 9, floor: 6, messages, devices: vec![device] }
    }

    #[test]
    fn lines_name_every_message_and_device() {
        let listing = listing(vec![message(7, "order-1", "1"), message(9, "order-2", "\"é\"")]);
        let expected = [
            " NUMBER  ID                                    STORED          EXPIRES           BYTES",
            "      7  order-1                               0s ago          in 7days              1",
            "      9  order-2                               0s ago          in 7days              4",
            "DEVICE             EXPIRES         ENDPOINT",
            "L0SM9cOFvHcCIhw=   in 1h           https://a.example/s",
            "2 messages of 5 bytes, 1 device",
            "removed up to number 6, because the user had too many",
        ];
        assert_eq!(lines(Some(&listing), NOW, None), expected);
        assert_eq!(lines(None, NOW, None), ["0 messages of 0 bytes, 0 devices"]);
    }

    #[test]
    fn id_is_found_before_number() {
        let messages = [message(1, "2", "a"), message(2, "a", "b"), message(3, "2", "c")];
        let found = |id| find(&messages, id).map(|message| message.seq);
        assert_eq!([found("2"), found("a"), found("1"), found("b")], [Some(3), Some(2), Some(1), None]);
    }

    #[test]
    fn object_has_no_payload() {
        let object = object(Some(&listing(vec![message(9, "order-2", "\"s3cret\"")])));
        assert_eq!((&object["newest"], &object["removed_through"]), (&json!(9), &json!(6)));
        let expected = json!({
            "number": 9, "id": "order-2", "bytes": 8,
            "stored_at": "1970-01-01T00:00:00.000Z", "expires_at": "1970-01-08T00:00:00.000Z",
        });
        assert_eq!(object["messages"], json!([expected]));
        assert_eq!(object["devices"][0]["connection"], "L0SM9cOFvHcCIhw=");
        assert_eq!(super::object(None)["messages"], json!([]));
    }
}
