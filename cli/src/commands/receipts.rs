//! `streamer receipts`: lists the receipts queue.

use std::{
    io::{self, Write as _, stdout},
    num::NonZeroUsize,
    time::{Duration, SystemTime},
};

use anyhow::ensure;
use clap::Args;
use streamer_message::{MessageId, ReceiptEvent};

use super::target::Target;
use crate::{
    layout::fit,
    paint::Paint,
    queue::HeldQueue,
    receipts::{End, Listing, Options, Others, ReceiptLines, queue},
    screen::{Screen, print_error, sanitize, single_line_json, width},
    shutdown::{self, Signal},
};

/// List the outcomes of messages
///
/// Prints a line for each receipt on the receipts queue: the time of the outcome in UTC, the outcome, the id and the
/// recipients of the message, its part, the number of connections for each outcome, and the cause. A worker sends a
/// receipt for each message whose producer asked for one.
///
/// Receipts stay on the queue, unless --consume deletes them.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  streamer receipts
  streamer receipts --follow
  streamer receipts --id order-17
  streamer receipts --json | jq -r 'select(.data.outcome == \"gone\").data.id'
  streamer receipts --aws --receipts-queue-url \"$RECEIPTS_QUEUE_URL\" --limit 20

Inspected receipts are hidden from other consumers while this command runs, and for up to 10 min if it is killed.
Each inspection counts as a receive.

Permissions on AWS, on the receipts queue:
  sqs:GetQueueAttributes, sqs:ReceiveMessage, sqs:ChangeMessageVisibility; with --consume sqs:DeleteMessage;
  with your own key kms:Decrypt")]
pub struct Receipts {
    /// Keep printing new receipts until Ctrl-C
    #[arg(long, short)]
    follow: bool,
    /// Print only receipts of the message with this id
    #[arg(long, value_name = "ID", value_parser = |text: &str| MessageId::new(text))]
    id: Option<MessageId>,
    /// Print at most this number of receipts
    #[arg(long, value_name = "NUMBER")]
    limit: Option<NonZeroUsize>,
    /// Delete each receipt after it is printed
    #[arg(long)]
    consume: bool,
    /// Print each receipt as a JSON object, the CloudEvents event
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

/// How long received receipts stay hidden if they are not released.
const VISIBILITY_TIMEOUT: Duration = Duration::from_secs(600);

impl Receipts {
    /// Runs the command.
    ///
    /// # Errors
    /// When SQS does not answer, receipts could not be deleted, or the command was interrupted.
    pub async fn run(self) -> anyhow::Result<()> {
        let (client, url) = self.target.receipts_queue().await?;
        let mut queue = queue(client, url, VISIBILITY_TIMEOUT);
        let mut listing = Listing::new(self.options());
        let result = self.list(&mut listing, &mut queue).await;
        let rest = match self.is_quiet() {
            true => Ok(0),
            false => queue.counts().await.map(|counts| {
                counts.waiting + counts.delayed + counts.in_flight.saturating_sub(queue.held())
            }),
        };
        let overdue = queue.is_overdue() && !self.follow;
        let not_released = tokio::select! {
            signal = shutdown::requested() => {
                return Err(signal.interrupted("receipts that were not released are hidden for up to 10 min"));
            }
            not_released = queue.release() => not_released,
        };
        self.report(&listing);
        let end = result?;
        if !self.is_quiet() {
            summary(&listing, self.id.as_ref(), self.consume, end == End::Limit, rest?)
                .iter()
                .for_each(|line| Screen::new().line(line));
        }
        ensure!(!overdue, "the command took longer than 10 min and may have missed receipts: run it again");
        ensure!(
            not_released == 0,
            "{not_released} receipts could not be released and are hidden for up to 10 min"
        );
        let causes = listing.causes.iter().cloned().collect::<Vec<_>>().join("; ");
        ensure!(causes.is_empty(), "receipts that were printed are still on their queue: {causes}");
        self.ended(end)
    }

    fn options(&self) -> Options {
        Options {
            id: self.id.clone(),
            limit: self.limit.map(NonZeroUsize::get),
            follow: self.follow,
            consume: self.consume,
        }
    }

    /// Returns whether standard output has receipts only.
    fn is_quiet(&self) -> bool {
        self.json || self.follow
    }

    async fn list(&self, listing: &mut Listing, queue: &mut HeldQueue) -> anyhow::Result<End<Signal>> {
        if self.follow && !self.json {
            print_error("waiting for receipts, until Ctrl-C: `streamer send --receipt` asks for one", None);
        }
        let mut lines = ReceiptLines::new(Paint::stdout());
        let show = |body: &str, event: &ReceiptEvent| -> io::Result<()> {
            let line = match self.json {
                true => single_line_json(body.trim()),
                false => fit(&lines.line(&event.receipt, SystemTime::now()), width()),
            };
            // An error ends the listing before it deletes a receipt that was not printed.
            writeln!(stdout(), "{line}")
        };
        listing.run(queue, shutdown::requested(), show).await
    }

    /// Prints notes to standard error: about messages that are no receipts, and with --json about an empty queue.
    fn report(&self, listing: &Listing) {
        if let Some(line) = others(&listing.others) {
            print_error(&line, None);
        }
        if self.json && !self.follow && listing.totals.receipts == 0 {
            print_error(NONE, None);
        }
    }

    /// Returns the error of a command that did not end by itself.
    fn ended(&self, end: End<Signal>) -> anyhow::Result<()> {
        match end {
            End::OfQueue | End::Limit => Ok(()),
            End::Stopped(signal) if self.follow => Err(signal.interrupted("")),
            End::Stopped(signal) => {
                Err(signal.interrupted("receipts that were not printed are unchanged, run the command again"))
            }
            End::Full => Err(anyhow::anyhow!(
                "100000 receipts are hidden, the maximum: --consume deletes each receipt that it prints"
            )),
        }
    }
}

/// The note about a queue without receipts.
const NONE: &str =
    "no receipts: `streamer send --receipt` asks for one, and so does a message with `\"receipt\": true`";

/// Returns the lines about a listing that has ended. `rest` is the number of messages that it did not inspect.
fn summary(
    listing: &Listing,
    id: Option<&MessageId>,
    consume: bool,
    is_limited: bool,
    rest: usize,
) -> Vec<String> {
    let totals = listing.totals;
    let mut line = match (totals.receipts, id) {
        (0, _) => NONE.to_owned(),
        (number, None) => receipts(number),
        (number, Some(id)) => {
            format!("{}, of message {}: {}", receipts(number), sanitize(id.as_str()), totals.shown)
        }
    };
    if totals.duplicates > 0 {
        line.push_str(&format!(", printed before: {}", totals.duplicates));
    }
    if totals.shown > 0 {
        let act =
            if consume { "; deleted after printing" } else { "; nothing was deleted, --consume deletes" };
        line.push_str(act);
    }
    let mut lines = vec![line];
    if rest > 0 {
        let cause = if is_limited { "--limit" } else { "held by another consumer, or new" };
        lines.push(format!("about {rest} more not inspected: {cause}"));
    }
    lines
}

/// Returns the line about messages that are no receipts, if there are some.
fn others(Others { number, ids, cause }: &Others) -> Option<String> {
    let cause = cause.as_ref()?;
    let messages = if *number == 1 { "message is no receipt" } else { "messages are no receipts" };
    let more = if *number > ids.len() { ", …" } else { "" };
    Some(format!("{number} {messages} (SQS's id {}{more}): {cause}", sanitize(&ids.join(", "))))
}

fn receipts(number: usize) -> String {
    if number == 1 { "1 receipt".to_owned() } else { format!("{number} receipts") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::receipts::Totals;

    fn first_line(totals: Totals, id: Option<&str>, consume: bool) -> String {
        let mut listing = Listing::new(Options::default());
        listing.totals = totals;
        let id = id.map(|id| MessageId::new(id).unwrap());
        summary(&listing, id.as_ref(), consume, false, 0).swap_remove(0)
    }

    #[test]
    fn summary_names_every_number() {
        let none = Totals::default();
        assert!(first_line(none, None, false).starts_with("no receipts: `streamer send --receipt` asks"));
        let some = Totals { receipts: 3, shown: 2, duplicates: 1 };
        assert_eq!(
            first_line(some, None, false),
            "3 receipts, printed before: 1; nothing was deleted, --consume deletes"
        );
        let all = Totals { receipts: 1, shown: 1, duplicates: 0 };
        assert_eq!(first_line(all, None, true), "1 receipt; deleted after printing");
        let other = Totals { receipts: 3, shown: 0, duplicates: 0 };
        assert_eq!(first_line(other, Some("m"), true), "3 receipts, of message m: 0");
    }

    #[test]
    fn messages_without_receipt_are_named() {
        let named = |number, ids: &[&str]| {
            let ids = ids.iter().map(|id| (*id).to_owned()).collect();
            others(&Others { number, ids, cause: Some("not JSON".to_owned()) }).unwrap()
        };
        assert_eq!(others(&Others::default()), None);
        assert_eq!(named(1, &["a"]), "1 message is no receipt (SQS's id a): not JSON");
        assert_eq!(named(9, &["a", "b", "c"]), "9 messages are no receipts (SQS's id a, b, c, …): not JSON");
    }
}
