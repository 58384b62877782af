//! Processes: the core that they run on, their CPU time and memory.

use std::{
    ffi::OsStr,
    fs, io,
    process::{Command, Stdio},
    time::Duration,
};

/// The servers' core.
pub(crate) const SERVER: usize = 0;
/// The measured processes' core.
pub(crate) const CLIENT: usize = 1;

/// Builds a command that runs on one core, if `taskset` is available.
pub(crate) fn pinned(core: usize, program: impl AsRef<OsStr>) -> Command {
    let pin = Command::new("taskset").args(["-c", "0", "true"]).status();
    if !pin.is_ok_and(|status| status.success()) {
        return clean(program);
    }
    let mut command = clean("taskset");
    command.arg("-c").arg(core.to_string()).arg(program);
    command
}

/// Bytes of the session token of a role, as its credentials have. AWS names no limit:
/// <https://docs.aws.amazon.com/STS/latest/APIReference/API_Credentials.html>.
const SESSION_TOKEN: usize = 900;

/// Builds a command with a role's credentials and without an endpoint in its environment.
pub(crate) fn clean(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command.stdin(Stdio::null());
    command.env("AWS_SESSION_TOKEN", "t".repeat(SESSION_TOKEN));
    for (name, value) in [
        ("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE"),
        ("AWS_SECRET_ACCESS_KEY", "secret"),
        ("AWS_REGION", "eu-central-1"),
        ("AWS_DEFAULT_REGION", "eu-central-1"),
        ("AWS_EC2_METADATA_DISABLED", "true"),
    ] {
        command.env(name, value);
    }
    for name in ["AWS_ENDPOINT_URL", "AWS_PROFILE", "SSL_CERT_FILE", "SSL_CERT_DIR"] {
        command.env_remove(name);
    }
    command
}

/// Returns the CPU time of all of a process's threads.
pub(crate) fn cpu(pid: u32) -> io::Result<Duration> {
    let mut nanoseconds = 0;
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        let statistics = fs::read_to_string(task?.path().join("schedstat"))?;
        nanoseconds += statistics.split(' ').next().and_then(|field| field.parse().ok()).unwrap_or(0);
    }
    Ok(Duration::from_nanos(nanoseconds))
}

/// Returns a process's resident memory in KiB.
pub(crate) fn resident(pid: u32) -> io::Result<u64> {
    memory(pid, "VmRSS:")
}

/// Returns the peak of a process's resident memory in KiB.
pub(crate) fn peak(pid: u32) -> io::Result<u64> {
    memory(pid, "VmHWM:")
}

fn memory(pid: u32, field: &str) -> io::Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap_or_default();
    Ok(line.trim().trim_end_matches(" kB").parse().unwrap_or(0))
}
