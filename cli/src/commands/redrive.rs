//! `streamer redrive`: dead letters, and the way back to the queue.

use std::{
    io::IsTerminal as _,
    time::{Duration, SystemTime},
};

use anyhow::{bail, ensure};
use clap::Args;
use futures::FutureExt as _;
use indicatif::{ProgressBar, ProgressStyle};
use streamer_message::{TenantId, dead_letter::Reason};

use super::target::Target;
use crate::{
    dead_letters::{DeadLetterQueue, Meant, SentBack, Tally},
    interrupt::interrupted,
    screen::Screen,
};

/// Shows the dead letters, by reason and cause; with --send, sends them back to the outbound queue.
///
/// A letter goes back as a new message of the same id, for the connections that it was not delivered to, and with
/// its time to be tried beginning anew. It is on the outbound queue before it leaves the dead-letter queue: to
/// interrupt this, or to run it twice, loses nothing, and at most sends a message twice, with the same id.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  streamer redrive                                    what there is; sends nothing
  streamer redrive --reason exhausted                 what would be sent
  streamer redrive --reason exhausted --send
  streamer redrive --tenant acme --newer-than 2h --send
  streamer redrive --aws --queue-url \"$QUEUE_URL\"

Reasons: exhausted, rejected and poison, from the worker; crashed_or_throttled, what SQS moved after too many receives.

To look at a letter is to take it: while this runs, and for up to 10 minutes where it is killed, nobody else sees the
letters. Of each message group of a FIFO queue, only the first letters are seen until they leave.

On AWS it needs sqs:GetQueueAttributes and sqs:SendMessage on the outbound queue, and sqs:GetQueueUrl,
sqs:GetQueueAttributes, sqs:ReceiveMessage, sqs:ChangeMessageVisibility and sqs:DeleteMessage on the dead-letter queue;
where they have a key of yours, also kms:Decrypt and kms:GenerateDataKey.")]
pub struct Redrive {
    /// Only those here for this reason.
    #[arg(long, value_name = "REASON", value_parser = Reason::ALL.map(Reason::as_str))]
    reason: Option<String>,
    /// Only those of this tenant. A message for connections has its tenant only where the producer said it.
    #[arg(long, value_name = "ID", value_parser = |text: &str| TenantId::new(text))]
    tenant: Option<TenantId>,
    /// Only those that a worker had first longer ago than this, such as 30m or 2days.
    #[arg(long, value_name = "TIME")]
    older_than: Option<humantime::Duration>,
    /// Only those that a worker had first within this time.
    #[arg(long, value_name = "TIME")]
    newer_than: Option<humantime::Duration>,
    /// Only those with this id: a message's own, or what the example shows where the body is no message.
    #[arg(long, value_name = "ID")]
    id: Option<String>,
    /// Sends them back. Without it, nothing is sent.
    #[arg(long)]
    send: bool,
    #[command(flatten)]
    target: Target,
}

/// How long a letter that was taken is hidden, where it is not let go of.
const HIDDEN: Duration = Duration::from_secs(600);

/// Letters that are looked at at least, where there are so many. Beyond it, those that come while this runs are not.
const LOOK: usize = 100;

impl Redrive {
    /// Runs the command.
    ///
    /// # Errors
    /// When the queues do not do what they are asked, or somebody interrupts it.
    pub async fn run(self) -> anyhow::Result<()> {
        let (client, outbound) = self.target.outbound().await?;
        let mut queue = DeadLetterQueue::of(client, outbound, HIDDEN).await?;
        let mut run = Run { send: self.send, meant: self.meant(SystemTime::now()), ..Run::default() };
        let ran = run.go(&mut queue).await;
        let rest = queue.counts().await;
        let rest = rest.map(|counts| counts.waiting + counts.in_flight.saturating_sub(queue.held()));
        let overdue = queue.is_overdue();
        let failed = tokio::select! {
            () = interrupted() => bail!("interrupted: letters that it still held are hidden for up to 10 min"),
            failed = queue.let_go() => failed,
        };
        run.bar.iter().for_each(ProgressBar::finish_and_clear);
        run.tell(rest?);
        ran?;
        ensure!(!overdue, "this has taken longer than 10 min, and not all letters were seen: run it again");
        ensure!(
            failed == 0,
            "{failed} letters are hidden for up to 10 min: the queue did not let go of them"
        );
        let SentBack { still_here, refused, causes, .. } = &run.back;
        ensure!(
            causes.is_empty(),
            "{refused} were not sent, and {still_here} are still in the dead-letter queue although they were: {}. Run it \
             again",
            causes.iter().cloned().collect::<Vec<_>>().join(", ")
        );
        Ok(())
    }

    fn meant(&self, now: SystemTime) -> Meant {
        let ago = |time: Option<humantime::Duration>| {
            time.map(|time| now.checked_sub(time.into()).unwrap_or(SystemTime::UNIX_EPOCH))
        };
        Meant {
            reason: self.reason.clone(),
            tenant: self.tenant.clone(),
            before: ago(self.older_than),
            after: ago(self.newer_than),
            id: self.id.clone(),
        }
    }
}

/// One run, and what has come of it so far.
#[derive(Default)]
struct Run {
    send: bool,
    meant: Meant,
    all: usize,
    tally: Tally,
    back: SentBack,
    again: usize,
    bar: Option<ProgressBar>,
}

impl Run {
    async fn go(&mut self, queue: &mut DeadLetterQueue) -> anyhow::Result<()> {
        self.bar = std::io::stderr().is_terminal().then(|| {
            let style = ProgressStyle::with_template(" {spinner} {pos} letters seen, {msg} sent back");
            let bar = ProgressBar::no_length().with_message("0");
            bar.enable_steady_tick(Duration::from_millis(100));
            bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()))
        });
        let interrupted = interrupted();
        tokio::pin!(interrupted);
        let most = queue.counts().await?.waiting.max(LOOK);
        while self.all < most {
            if interrupted.as_mut().now_or_never().is_some() {
                bail!("interrupted: what was not sent back is where it was; run it again for the rest");
            }
            let letters = queue.take().await?;
            if letters.is_empty() {
                break;
            }
            self.all += letters.len();
            let mut sending = Vec::new();
            for letter in letters {
                if queue.was_sent(&letter) {
                    // It would go in circles.
                    self.again += 1;
                } else if self.meant.means(&letter) {
                    self.tally.add(&letter);
                    sending.push(letter);
                }
            }
            if self.send && !sending.is_empty() {
                let SentBack { sent, still_here, refused, causes } = queue.send_back(sending).await;
                self.back.sent += sent;
                self.back.still_here += still_here;
                self.back.refused += refused;
                self.back.causes.extend(causes);
            }
            if let Some(bar) = &self.bar {
                bar.set_position(self.all as u64);
                bar.set_message(self.back.sent.to_string());
            }
        }
        Ok(())
    }

    /// With the number of those that it has not seen.
    fn tell(&self, rest: usize) {
        let screen = Screen::new();
        let (all, meant) = (self.all, self.tally.letters());
        if meant > 0 {
            self.tally.lines(SystemTime::now()).iter().for_each(|line| screen.line(line));
        }
        screen.line(match (all, meant, self.send) {
            (0, ..) => "no dead letters".to_owned(),
            (_, 0, _) => format!("{}, none of them matches", letters(all)),
            (_, _, false) => format!("{}, matching: {meant}; nothing was sent, --send does it", letters(all)),
            (_, _, true) => format!("{}, matching: {meant}, sent back: {}", letters(all), self.back.sent),
        });
        if self.again > 0 {
            screen.line(format!(
                "{} stayed here: back again while this ran, or the same as one that was sent",
                letters(self.again)
            ));
        }
        if rest > 0 {
            screen.line(format!(
                "about {rest} more: somebody else holds them, they have just come, or they wait behind others of their \
                 message group"
            ));
        }
    }
}

fn letters(number: usize) -> String {
    if number == 1 { "1 dead letter".to_owned() } else { format!("{number} dead letters") }
}
