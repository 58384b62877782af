//! Processes of Lambdas, which an emulator runs on this machine.

use std::ffi::OsString;

use sysinfo::{Pid, ProcessRefreshKind, ProcessesToUpdate, System, UpdateKind};

/// Some processes, as they were when they were listed.
#[derive(Debug)]
pub struct Processes {
    system: System,
    pids: Vec<Pid>,
}

impl Processes {
    /// The processes that have all these variables, each as `NAME=value`.
    ///
    /// # Errors
    /// When processes cannot be listed.
    pub fn with_environment(wanted: &[String]) -> anyhow::Result<Self> {
        let mut system = System::new()?;
        let environment = ProcessRefreshKind::nothing().with_environ(UpdateKind::Always);
        system.refresh_processes_specifics(ProcessesToUpdate::All, true, environment);
        let has = |variables: &[OsString], variable: &str| variables.iter().any(|found| found == variable);
        let matching = system.processes().values().filter(|process| {
            // A thread is listed beside its process.
            process.thread_kind().is_none() && wanted.iter().all(|variable| has(process.environ(), variable))
        });
        let pids = matching.map(sysinfo::Process::pid).collect();
        Ok(Self { system, pids })
    }

    /// The processes of the function `name` of an emulator at `endpoint_url`.
    ///
    /// # Errors
    /// When processes cannot be listed.
    pub fn of_function(name: &str, endpoint_url: &str) -> anyhow::Result<Self> {
        Self::with_environment(&[
            format!("AWS_LAMBDA_FUNCTION_NAME={name}"),
            format!("AWS_ENDPOINT_URL={endpoint_url}"),
        ])
    }

    /// Whether there was none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.pids.is_empty()
    }

    /// Kills one of them with SIGKILL, chosen by chance, and returns whether there was one to kill.
    #[must_use]
    pub fn kill_one(&self, random: &mut fastrand::Rng) -> bool {
        let pid = random.choice(&self.pids);
        pid.and_then(|pid| self.system.process(*pid)).is_some_and(sysinfo::Process::kill)
    }

    /// Kills them with SIGKILL, as a crash would end them, and returns how many there were to kill.
    #[must_use]
    pub fn kill(&self) -> usize {
        self.pids.iter().filter_map(|pid| self.system.process(*pid)).filter(|process| process.kill()).count()
    }
}
