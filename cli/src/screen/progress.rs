//! The progress of a step that takes a while: a spinner on a terminal, a line from time to time elsewhere.

use std::{cell::RefCell, time::Duration};

use indicatif::{ProgressBar, ProgressStyle};
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use super::{Screen, elapsed};

/// Time between two lines about a step, where there is no spinner.
const LINE_INTERVAL: Duration = Duration::from_secs(10);

/// A running step.
#[derive(Debug)]
pub struct Progress {
    activity: String,
    spinner: Option<ProgressBar>,
    /// The present part of the activity.
    part: RefCell<String>,
}

impl Progress {
    /// Shows a part of the activity, such as the crates that are compiling.
    pub fn show(&self, part: &str) {
        part.clone_into(&mut self.part.borrow_mut());
        if let Some(spinner) = &self.spinner {
            spinner.set_message(self.text());
        }
    }

    fn text(&self) -> String {
        format!("{} {}", self.activity, self.part.borrow()).trim_end().to_owned()
    }
}

impl Screen {
    /// Runs `work` and returns its result with the time it took. Shows a spinner on a terminal, and elsewhere a line at
    /// once and one every 10 s.
    ///
    /// # Errors
    /// When `work` fails.
    pub async fn step<T>(
        self,
        name: &str,
        activity: &str,
        work: impl Future<Output = anyhow::Result<T>>,
    ) -> anyhow::Result<(T, Duration)> {
        self.step_with(name, activity, async |_| work.await).await
    }

    /// Like [`step`](Self::step), with work that shows its progress.
    ///
    /// # Errors
    /// When `work` fails.
    pub async fn step_with<T>(
        self,
        name: &str,
        activity: &str,
        work: impl AsyncFnOnce(&Progress) -> anyhow::Result<T>,
    ) -> anyhow::Result<(T, Duration)> {
        let started = Instant::now();
        let spinner = self.terminal.then(|| {
            let style = ProgressStyle::with_template(" {prefix:<11} {spinner} {elapsed} {wide_msg}");
            let spinner =
                ProgressBar::new_spinner().with_prefix(name.to_owned()).with_message(activity.to_owned());
            spinner.enable_steady_tick(Duration::from_millis(100));
            spinner.with_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()))
        });
        if !self.terminal {
            self.line(format!(" {name:<11} {activity} …"));
        }
        let progress = Progress { activity: activity.to_owned(), spinner, part: RefCell::default() };
        let result = with_ticks(work(&progress), |after| {
            if !self.terminal {
                self.progress_line(&format!(" {name:<11} {:<39} {}", progress.text(), elapsed(after)));
            }
        });
        let result = result.await;
        progress.spinner.inspect(ProgressBar::finish_and_clear);
        Ok((result?, started.elapsed()))
    }
}

/// Runs `work`, and calls `tick` every 10 s with the time since the start.
async fn with_ticks<T>(work: impl Future<Output = T>, mut tick: impl FnMut(Duration)) -> T {
    let started = Instant::now();
    let mut interval = interval_at(started + LINE_INTERVAL, LINE_INTERVAL);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    tokio::pin!(work);
    loop {
        tokio::select! {
            result = &mut work => return result,
            _ = interval.tick() => tick(started.elapsed()),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::sleep;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn long_work_is_reported_every_interval() {
        let mut ticks = Vec::new();
        let result = with_ticks(
            async {
                sleep(Duration::from_secs(25)).await;
                "built"
            },
            |after| ticks.push(after.as_secs()),
        );
        assert_eq!(result.await, "built");
        assert_eq!(ticks, [10, 20]);
    }

    #[test]
    fn progress_shows_latest_part() {
        let progress = Progress { activity: "compiling".into(), spinner: None, part: RefCell::default() };
        assert_eq!(progress.text(), "compiling");
        ["1 of 9: serde", "2 of 9: tokio"].iter().for_each(|part| progress.show(part));
        assert_eq!(progress.text(), "compiling 2 of 9: tokio");
    }
}
