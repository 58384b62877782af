//! `streamer redrive`: dead letters, and the way back to the queue.

use std::{
    collections::HashSet,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    io::IsTerminal as _,
    time::{Duration, SystemTime},
};

use anyhow::{bail, ensure};
use clap::Args;
use futures::FutureExt as _;
use indicatif::{ProgressBar, ProgressStyle};
use streamer_message::TenantId;

use super::target::Target;
use crate::{
    dead_letters::{DeadLetterQueue, HELD, Letter, Meant, SentBack, Tally},
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
sqs:ReceiveMessage, sqs:ChangeMessageVisibility and sqs:DeleteMessage on the dead-letter queue.")]
pub struct Redrive {
    /// Only those here for this reason.
    #[arg(long, value_name = "REASON")]
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
    /// Only those with this id.
    #[arg(long, value_name = "ID")]
    id: Option<String>,
    /// Sends them back. Without it, nothing is sent.
    #[arg(long)]
    send: bool,
    #[command(flatten)]
    target: Target,
}

impl Redrive {
    /// Runs the command.
    ///
    /// # Errors
    /// When the queues do not do what they are asked, or somebody interrupts it.
    pub async fn run(self) -> anyhow::Result<()> {
        let (client, outbound) = self.target.outbound().await?;
        let mut queue = DeadLetterQueue::of(client, outbound).await?;
        let meant = self.meant(SystemTime::now());
        let mut run = Run { send: self.send, meant, ..Run::default() };
        let ran = run.go(&mut queue).await;
        queue.let_go().await;
        run.bar.iter().for_each(ProgressBar::finish_and_clear);
        run.tell();
        ran?;
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
    /// What was sent, by hash: a letter that fails again at once comes back while this runs, and would go in circles.
    sent: HashSet<u64>,
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
        loop {
            if interrupted.as_mut().now_or_never().is_some() {
                bail!("interrupted: what was not sent back is where it was; run it again for the rest");
            }
            let letters = queue.take().await?;
            if letters.is_empty() {
                return Ok(());
            }
            let mut sending = Vec::new();
            for letter in letters {
                if self.send && self.sent.contains(&hash(&letter)) {
                    self.again += 1;
                    continue;
                }
                self.all += 1;
                if self.meant.means(&letter) {
                    self.tally.add(&letter);
                    self.sent.insert(hash(&letter));
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
    }

    fn tell(&self) {
        let screen = Screen::new();
        let (all, meant) = (self.all, self.tally.letters());
        if all == 0 {
            return screen.line("no dead letters");
        }
        if meant > 0 {
            self.tally.lines(SystemTime::now()).iter().for_each(|line| screen.line(line));
        }
        let more = if all >= HELD { ", and there may be more" } else { "" };
        screen.line(match (self.send, self.back.sent) {
            (false, _) => {
                format!("{all} dead letters{more}, {meant} of them meant; nothing was sent: --send does it")
            }
            (true, sent) => format!("{all} dead letters{more}, {meant} of them meant, {sent} sent back"),
        });
        if self.again > 0 {
            screen.line(format!(
                "{} are still there: they came back while this ran, or say the same as one that was sent",
                self.again
            ));
        }
    }
}

fn hash(letter: &Letter) -> u64 {
    let mut hasher = DefaultHasher::new();
    letter.revived().hash(&mut hasher);
    hasher.finish()
}
