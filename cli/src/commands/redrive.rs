//! `streamer redrive`: lists dead letters and sends them back to the outbound queue.

use std::time::{Duration, SystemTime};

use anyhow::ensure;
use clap::Args;
use futures::FutureExt as _;
use indicatif::ProgressBar;
use streamer_message::{TenantId, dead_letter::Reason};

use super::target::Target;
use crate::{
    dead_letters::{DeadLetter, DeadLetterQueue, Filter, Redriven, Tally},
    screen::{Screen, counter},
    shutdown,
};

/// List dead letters and send them back
///
/// Lists dead letters by reason and cause. With --send, sends them back to the outbound queue: each as a new message
/// with the same id, for the connections that have not received it, with its age starting at zero.
///
/// A dead letter is on the outbound queue before it is deleted from the dead-letter queue. Interrupting this command or
/// running it twice loses no message; at worst, a message is sent twice with the same id.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  streamer redrive                                    list all dead letters; sends nothing
  streamer redrive --reason exhausted                 list the matching dead letters
  streamer redrive --reason exhausted --send
  streamer redrive --tenant acme --newer-than 2h --send
  streamer redrive --aws --queue-url \"$QUEUE_URL\"

Reasons:
  exhausted, rejected, poison  set by the worker
  crashed_or_throttled         moved by SQS after too many receives

Inspected messages are hidden from other consumers while this command runs, and for up to 10 min if it is killed.
On a FIFO queue, it sees only the first messages of each message group until these are deleted.

Permissions on AWS:
  outbound queue     sqs:GetQueueAttributes, sqs:SendMessage
  dead-letter queue  sqs:GetQueueUrl, sqs:GetQueueAttributes, sqs:ReceiveMessage, sqs:ChangeMessageVisibility,
                     sqs:DeleteMessage
  with your own key  kms:Decrypt, kms:GenerateDataKey")]
pub struct Redrive {
    /// Only with this reason
    #[arg(long, value_name = "REASON", value_parser = Reason::ALL.map(Reason::as_str))]
    reason: Option<String>,
    /// Only of this tenant; a message for connections has a tenant only if its producer set one
    #[arg(long, value_name = "ID", value_parser = |text: &str| TenantId::new(text))]
    tenant: Option<TenantId>,
    /// Only if a worker first received it longer ago than this, such as 30m or 2days
    #[arg(long, value_name = "TIME")]
    older_than: Option<humantime::Duration>,
    /// Only if a worker first received it within this time
    #[arg(long, value_name = "TIME")]
    newer_than: Option<humantime::Duration>,
    /// Only with this id: the message's own, or SQS's id if the body is not a message
    #[arg(long, value_name = "ID")]
    id: Option<String>,
    /// Send them back; without this option, nothing is sent
    #[arg(long)]
    send: bool,
    #[command(flatten)]
    target: Target,
}

/// How long received dead letters stay hidden if they are not released.
const VISIBILITY_TIMEOUT: Duration = Duration::from_secs(600);

/// Minimum number of dead letters to inspect, if there are so many. The maximum is the queue's count at the start, so
/// that dead letters that arrive meanwhile cannot keep the command running.
const MIN_INSPECTED: usize = 100;

impl Redrive {
    /// Runs the command.
    ///
    /// # Errors
    /// When SQS does not answer, some dead letters were not sent back, or the command was interrupted.
    pub async fn run(self) -> anyhow::Result<()> {
        let (client, outbound) = self.target.outbound_queue().await?;
        let mut queue = DeadLetterQueue::of(client, outbound, VISIBILITY_TIMEOUT).await?;
        let mut run = Run { send: self.send, filter: self.filter(SystemTime::now()), ..Run::default() };
        let result = run.process(&mut queue).await;
        let counts = queue.counts().await;
        let rest = counts.map(|counts| counts.waiting + counts.in_flight.saturating_sub(queue.held()));
        let overdue = queue.is_overdue();
        let not_released = tokio::select! {
            signal = shutdown::requested() => {
                return Err(signal.interrupted("dead letters that were not released are hidden for up to 10 min"));
            }
            not_released = queue.release() => not_released,
        };
        run.bar.iter().for_each(ProgressBar::finish_and_clear);
        run.print_summary(rest?);
        result?;
        ensure!(
            !overdue,
            "the command took longer than 10 min and may have missed dead letters: run it again"
        );
        ensure!(
            not_released == 0,
            "{not_released} dead letters could not be released and are hidden for up to 10 min"
        );
        let Redriven { not_deleted, refused, causes, .. } = &run.redriven;
        ensure!(
            causes.is_empty(),
            "{refused} dead letters were not sent, and {not_deleted} were sent but not deleted: {}. Run the command again",
            causes.iter().cloned().collect::<Vec<_>>().join(", ")
        );
        Ok(())
    }

    fn filter(&self, now: SystemTime) -> Filter {
        let ago = |time: Option<humantime::Duration>| {
            time.map(|time| now.checked_sub(time.into()).unwrap_or(SystemTime::UNIX_EPOCH))
        };
        Filter {
            reason: self.reason.clone(),
            tenant: self.tenant.clone(),
            before: ago(self.older_than),
            after: ago(self.newer_than),
            id: self.id.clone(),
        }
    }
}

/// A run of the command, with its results so far.
#[derive(Default)]
struct Run {
    send: bool,
    filter: Filter,
    inspected: usize,
    /// The dead letters that matched.
    tally: Tally,
    redriven: Redriven,
    /// Dead letters that were skipped because the same message was already sent back.
    skipped: usize,
    bar: Option<ProgressBar>,
}

impl Run {
    async fn process(&mut self, queue: &mut DeadLetterQueue) -> anyhow::Result<()> {
        self.bar = counter(" {spinner} {pos} dead letters inspected, {msg} sent back")
            .map(|bar| bar.with_message("0"));
        let shutdown = shutdown::requested();
        tokio::pin!(shutdown);
        let max_inspected = queue.counts().await?.waiting.max(MIN_INSPECTED);
        while self.inspected < max_inspected {
            if let Some(signal) = shutdown.as_mut().now_or_never() {
                return Err(signal.interrupted(
                    "the remaining dead letters are unchanged, run the command again to continue",
                ));
            }
            let letters = queue.receive().await?;
            if letters.is_empty() {
                break;
            }
            self.inspected += letters.len();
            let matching = self.select(letters, queue);
            if self.send && !matching.is_empty() {
                let Redriven { sent, not_deleted, refused, causes } = queue.send_back(matching).await;
                self.redriven.sent += sent;
                self.redriven.not_deleted += not_deleted;
                self.redriven.refused += refused;
                self.redriven.causes.extend(causes);
            }
            if let Some(bar) = &self.bar {
                bar.set_position(self.inspected as u64);
                bar.set_message(self.redriven.sent.to_string());
            }
        }
        Ok(())
    }

    /// Returns and counts the dead letters that match the filter.
    fn select(&mut self, letters: Vec<DeadLetter>, queue: &DeadLetterQueue) -> Vec<DeadLetter> {
        let mut matching = Vec::new();
        for letter in letters {
            if queue.was_sent(&letter) {
                // Sending it again could loop forever.
                self.skipped += 1;
            } else if self.filter.matches(&letter) {
                self.tally.add(&letter);
                matching.push(letter);
            }
        }
        matching
    }

    /// Prints the result. `rest` is the number of dead letters that this run did not inspect.
    fn print_summary(&self, rest: usize) {
        let screen = Screen::new();
        let (inspected, matching) = (self.inspected, self.tally.total());
        if matching > 0 {
            self.tally.lines(SystemTime::now()).iter().for_each(|line| screen.line(line));
        }
        let number = dead_letters(inspected);
        screen.line(match (inspected, matching, self.send) {
            (0, ..) => "no dead letters".to_owned(),
            (_, 0, _) => format!("{number}, none of them matches"),
            (_, _, false) => format!("{number}, matching: {matching}; nothing was sent, use --send to send"),
            (_, _, true) => format!("{number}, matching: {matching}, sent back: {}", self.redriven.sent),
        });
        if self.skipped > 0 {
            screen.line(format!(
                "{} not sent again: each failed again during this run, or is a copy of a message that was sent",
                dead_letters(self.skipped)
            ));
        }
        if rest > 0 {
            screen.line(format!(
                "about {rest} more not inspected: held by another consumer, new, or behind others of their message group"
            ));
        }
    }
}

fn dead_letters(number: usize) -> String {
    if number == 1 { "1 dead letter".to_owned() } else { format!("{number} dead letters") }
}
