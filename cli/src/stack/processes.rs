//! Finds and ends the processes of emulators and of their Lambda functions.

use std::{ffi::OsString, fmt, path::Path};

use sysinfo::{Pid, Process, ProcessRefreshKind, ProcessesToUpdate, Signal, System, UpdateKind};

/// A snapshot of some processes.
#[derive(Debug)]
pub struct Processes {
    system: System,
    pids: Vec<Pid>,
}

impl Processes {
    /// Lists the processes that have all these environment variables, each as `NAME=value`.
    ///
    /// # Errors
    /// When the system's processes cannot be listed.
    pub fn with_environment(wanted: &[String]) -> anyhow::Result<Self> {
        let mut system = System::new()?;
        let environment = ProcessRefreshKind::nothing().with_environ(UpdateKind::Always);
        system.refresh_processes_specifics(ProcessesToUpdate::All, true, environment);
        let has = |variables: &[OsString], variable: &str| variables.iter().any(|found| found == variable);
        let matching = system.processes().values().filter(|process| {
            // The list has threads, too.
            process.thread_kind().is_none() && wanted.iter().all(|variable| has(process.environ(), variable))
        });
        let pids = matching.map(sysinfo::Process::pid).collect();
        Ok(Self { system, pids })
    }

    /// Lists the processes of the function `name` of an emulator at `endpoint_url`.
    ///
    /// # Errors
    /// When the system's processes cannot be listed.
    pub fn of_function(name: &str, endpoint_url: &str) -> anyhow::Result<Self> {
        Self::with_environment(&[
            format!("AWS_LAMBDA_FUNCTION_NAME={name}"),
            format!("AWS_ENDPOINT_URL={endpoint_url}"),
        ])
    }

    /// Lists the processes of the emulator with its files in `folder`: its supervisor, itself and its functions. Only
    /// they have that folder as their home.
    ///
    /// # Errors
    /// When the system's processes cannot be listed.
    pub fn in_folder(folder: &Path) -> anyhow::Result<Self> {
        Self::with_environment(&[format!("HOME={}", folder.display())])
    }

    /// Returns whether the list is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.pids.is_empty()
    }

    /// Kills a random process with SIGKILL, and returns whether a process was killed.
    #[must_use]
    pub fn kill_one(&self, random: &mut fastrand::Rng) -> bool {
        let pid = random.choice(&self.pids);
        pid.and_then(|pid| self.system.process(*pid)).is_some_and(sysinfo::Process::kill)
    }

    /// Kills all processes with SIGKILL, like a crash, and returns the number killed.
    #[must_use]
    pub fn kill(&self) -> usize {
        self.listed().filter(|process| process.kill()).count()
    }

    /// Asks all processes to end, with SIGTERM.
    pub fn terminate(&self) {
        self.listed().for_each(|process| _ = process.kill_with(Signal::Term));
    }

    fn listed(&self) -> impl Iterator<Item = &Process> {
        self.pids.iter().filter_map(|pid| self.system.process(*pid))
    }
}

impl fmt::Display for Processes {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pids: Vec<_> = self.pids.iter().map(ToString::to_string).collect();
        formatter.write_str(&pids.join(", "))
    }
}
