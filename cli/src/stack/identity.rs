//! A process, distinguished from later ones with the same id.

use std::fmt;

use anyhow::Context as _;
use sysinfo::{Pid, ProcessRefreshKind, ProcessStatus, ProcessesToUpdate, Signal, System};

/// A process. Its start time distinguishes it from a later process with the same id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Identity {
    /// The process id.
    pub(super) pid: u32,
    /// Start time in seconds: since boot on Linux, where only that does not change with the clock, else since the
    /// epoch.
    started: u64,
}

impl Identity {
    pub(super) fn current() -> anyhow::Result<Self> {
        Self::of(std::process::id())?.context("cannot read the start time of this process")
    }

    fn of(pid: u32) -> anyhow::Result<Option<Self>> {
        let (system, id) = (snapshot(pid)?, Pid::from_u32(pid));
        let Some(process) = system.process(id) else { return Ok(None) };
        // The parent of a zombie has not yet asked for its exit code.
        if matches!(process.status(), ProcessStatus::Zombie | ProcessStatus::Dead) {
            return Ok(None);
        }
        let boot = if cfg!(target_os = "linux") { System::boot_time()? } else { 0 };
        Ok(Some(Self { pid, started: process.start_time().saturating_sub(boot) }))
    }

    /// Returns whether the process runs.
    pub(super) fn is_running(self) -> anyhow::Result<bool> {
        // The kernel counts ticks, so that rounding may differ by a second.
        let same = |found: Self| found.started.abs_diff(self.started) <= 1;
        Ok(Self::of(self.pid)?.is_some_and(same))
    }

    /// Sends a signal if the process runs.
    pub(super) fn signal(self, signal: Signal) -> anyhow::Result<()> {
        if self.is_running()?
            && let Some(process) = snapshot(self.pid)?.process(Pid::from_u32(self.pid))
        {
            // A process that has ended meanwhile needs no signal.
            _ = process.kill_with(signal);
        }
        Ok(())
    }

    /// Parses the output of [`Display`](fmt::Display).
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (pid, started) = text.strip_prefix("owner: process ")?.split_once(", started ")?;
        Some(Self { pid: pid.parse().ok()?, started: started.parse().ok()? })
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "owner: process {}, started {}", self.pid, self.started)
    }
}

fn snapshot(pid: u32) -> anyhow::Result<System> {
    let mut system = System::new()?;
    let pids = [Pid::from_u32(pid)];
    system.refresh_processes_specifics(ProcessesToUpdate::Some(&pids), true, ProcessRefreshKind::nothing());
    Ok(system)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn later_process_with_same_id_differs() {
        let current = Identity::current().unwrap();
        assert_eq!(Identity::parse(&current.to_string()), Some(current));
        assert!(current.is_running().unwrap());
        let earlier = Identity { started: current.started.saturating_sub(60), ..current };
        assert!(!earlier.is_running().unwrap());
    }
}
