//! A share of a core, as a Lambda function gets by its memory.

use std::{fs, path::PathBuf};

/// Length of a period in which a control group gets its share, in microseconds.
const PERIOD: u32 = 20_000;

/// CPU time per period of a Lambda function with 512 MB, in microseconds: a third of a core.
pub(crate) const MB_512: u32 = 6667;

/// CPU time per period of a Lambda function with 128 MB, in microseconds: 128/1769 of a core.
///
/// Source: <https://docs.aws.amazon.com/lambda/latest/dg/configuration-memory.html>.
pub(crate) const MB_128: u32 = 1447;

/// A control group whose processes get a share of a core, until it is dropped.
pub(crate) struct Quota(PathBuf);

impl Quota {
    /// Creates a group that gets `time` in microseconds of each period of 20 ms, or returns `None` if this machine or
    /// user may not.
    pub(crate) fn new(time: u32) -> Option<Self> {
        let name = format!("streamer-bench-{time}");
        let roots = ["/sys/fs/cgroup/cpu", "/sys/fs/cgroup"];
        let mut groups = roots.iter().map(|root| PathBuf::from(root).join(&name));
        let group = Self(groups.find(|group| fs::create_dir(group).is_ok())?);
        let write = |file: &str, text: String| fs::write(group.0.join(file), text).is_ok();
        let is_limited = write("cpu.max", format!("{time} {PERIOD}"))
            || (write("cpu.cfs_period_us", PERIOD.to_string())
                && write("cpu.cfs_quota_us", time.to_string()));
        is_limited.then_some(group)
    }

    /// Returns the file that lists the group's processes.
    pub(crate) fn processes(&self) -> PathBuf {
        self.0.join("cgroup.procs")
    }
}

impl Drop for Quota {
    fn drop(&mut self) {
        _ = fs::remove_dir(&self.0);
    }
}
