//! `streamer redrive`: lists dead letters, sends them back to the outbound queue, or drops them.

mod report;

use std::{
    ops::ControlFlow,
    time::{Duration, SystemTime},
};

use anyhow::{anyhow, ensure};
use clap::Args;
use indicatif::ProgressBar;
use streamer_message::{TenantId, dead_letter::Reason};

use self::report::dead_letters;
use super::target::Target;
use crate::{
    dead_letters::{Action, DeadLetter, DeadLetterQueue, Filter, Outcome, Run, Totals},
    screen::counter,
    shutdown,
};

/// List dead letters, send them back or drop them
///
/// Lists dead letters by reason and cause. With --send, sends them back to the outbound queue: each as a new message
/// with the same id, for the connections that have not received it, with its age starting at zero. With --drop --yes,
/// deletes them for good.
///
/// A dead letter is on the outbound queue before it is deleted from the dead-letter queue. Interrupting this command or
/// running it twice loses no message; at worst, a message is sent twice with the same id.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  streamer redrive                                    list all dead letters; sends nothing
  streamer redrive --reason exhausted                 list the matching dead letters
  streamer redrive --reason exhausted --send
  streamer redrive --tenant acme --newer-than 2h --send
  streamer redrive --reason poison --json | jq -r 'select(.id).id'
  streamer redrive --show order-17 > body.json
  streamer redrive --id order-17 --drop               list the dead letters that --yes would drop
  streamer redrive --id order-17 --drop --yes
  streamer redrive --aws --queue-url \"$QUEUE_URL\"

Reasons:
  exhausted, rejected, poison  set by the worker
  crashed_or_throttled         moved by SQS after too many receives

Inspected messages are hidden from other consumers while this command runs, and for up to 10 min if it is killed.
On a FIFO queue, it sees only the first messages of each message group until these are deleted.

Permissions on AWS:
  outbound queue     sqs:GetQueueAttributes
  dead-letter queue  sqs:GetQueueUrl, sqs:GetQueueAttributes, sqs:ReceiveMessage, sqs:ChangeMessageVisibility
  with --send        sqs:SendMessage on the outbound queue
  --send or --drop   sqs:DeleteMessage on the dead-letter queue
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
    /// Only with this id: the message's own, or SQS's
    #[arg(long, value_name = "ID")]
    id: Option<String>,
    /// Send them back; without this option, nothing is sent
    #[arg(long)]
    send: bool,
    /// List the ones that --yes would drop
    #[arg(long, conflicts_with = "send")]
    drop: bool,
    /// With --drop: delete them for good
    #[arg(long, requires = "drop")]
    yes: bool,
    /// Show one dead letter with its body: the message's own id, or SQS's
    #[arg(
        long,
        value_name = "ID",
        conflicts_with_all = ["reason", "tenant", "older_than", "newer_than", "id", "send", "drop"]
    )]
    show: Option<String>,
    /// Print a JSON object for each dead letter, and one with the totals
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

/// How long received dead letters stay hidden if they are not released.
const VISIBILITY_TIMEOUT: Duration = Duration::from_secs(600);

impl Redrive {
    /// Runs the command.
    ///
    /// # Errors
    /// When SQS does not answer, some dead letters were not sent back or dropped, or the command was interrupted.
    pub async fn run(self) -> anyhow::Result<()> {
        let (client, outbound) = self.target.outbound_queue().await?;
        let mut queue = DeadLetterQueue::of(client, outbound, VISIBILITY_TIMEOUT).await?;
        let mut run = Run::new(self.action(), self.filter(SystemTime::now()));
        let (result, shown) = self.process(&mut run, &mut queue).await;
        let counts = queue.counts().await;
        let rest = counts.map(|counts| counts.waiting + counts.in_flight.saturating_sub(queue.held()));
        let overdue = queue.is_overdue();
        let not_released = tokio::select! {
            signal = shutdown::requested() => {
                return Err(signal.interrupted("dead letters that were not released are hidden for up to 10 min"));
            }
            not_released = queue.release() => not_released,
        };
        match (&self.show, shown) {
            (Some(_), Some(letter)) => report::print_letter(&letter, self.json),
            (Some(_), None) => {}
            (None, _) if self.json => report::print_totals(&run, rest?),
            (None, _) => report::print_summary(&run, self.action(), self.drop, rest?),
        }
        result?;
        ensure!(
            !overdue,
            "the command took longer than 10 min and may have missed dead letters: run it again"
        );
        ensure!(
            not_released == 0,
            "{not_released} dead letters could not be released and are hidden for up to 10 min"
        );
        check(&run)
    }

    fn action(&self) -> Action {
        match self {
            Self { send: true, .. } => Action::Send,
            Self { drop: true, yes: true, .. } => Action::Drop,
            _ => Action::List,
        }
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
            id: self.show.clone().or_else(|| self.id.clone()),
        }
    }

    /// Goes through the queue. Also returns the dead letter to show.
    async fn process(
        &self,
        run: &mut Run,
        queue: &mut DeadLetterQueue,
    ) -> (anyhow::Result<()>, Option<DeadLetter>) {
        let bar = counter(" {spinner} {pos} dead letters inspected{msg}");
        let mut shown = None;
        let observe = |totals: &Totals, letters: Vec<(DeadLetter, Outcome)>| {
            if let Some(bar) = &bar {
                bar.set_position(totals.inspected as u64);
                bar.set_message(match self.action() {
                    Action::List => String::new(),
                    Action::Send => format!(", {} sent back", totals.sent),
                    Action::Drop => format!(", {} dropped", totals.dropped),
                });
            }
            if self.show.is_some() {
                shown = letters.into_iter().next().map(|(letter, _)| letter);
                return if shown.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) };
            }
            if self.json {
                letters.iter().for_each(|(letter, outcome)| report::print_object(letter, *outcome));
            }
            ControlFlow::Continue(())
        };
        let result = run.process(queue, shutdown::requested(), observe).await;
        bar.iter().for_each(ProgressBar::finish_and_clear);
        let result = match (result, &self.show) {
            (Err(error), _) => Err(error),
            (Ok(Some(signal)), _) => Err(signal
                .interrupted("the remaining dead letters are unchanged, run the command again to continue")),
            (Ok(None), Some(id)) if shown.is_none() => Err(anyhow!(
                "none of {} has the id {id}: `streamer redrive` lists their ids; another consumer may hold one for \
                 some minutes",
                dead_letters(run.totals.inspected)
            )),
            (Ok(None), _) => Ok(()),
        };
        (result, shown)
    }
}

/// Returns an error if a dead letter was not sent back or dropped.
fn check(run: &Run) -> anyhow::Result<()> {
    let totals = &run.totals;
    let counts = [
        (totals.refused, "not sent"),
        (totals.not_deleted, "sent but not deleted"),
        (totals.not_dropped, "not dropped"),
    ];
    let counts = counts.into_iter().filter(|(count, _)| *count > 0);
    let failed: Vec<_> = counts.map(|(count, failure)| format!("{count} {failure}")).collect();
    let causes = run.causes.iter().cloned().collect::<Vec<_>>().join("; ");
    ensure!(failed.is_empty(), "dead letters that are still on their queue: {}: {causes}", failed.join(", "));
    Ok(())
}
