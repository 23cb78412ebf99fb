//! What the control group of this process tells (cgroups(7), version 2).
#![forbid(unsafe_code)]

/// How many processes of our control group the kernel has killed for want of memory, ever. `None` where it does not tell:
/// version 1, the root group, no memory controller.
pub(crate) fn oom_kills() -> Option<u64> {
    let groups = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    let path = groups.lines().find_map(|line| line.strip_prefix("0::"))?;
    parse(&std::fs::read_to_string(format!("/sys/fs/cgroup{path}/memory.events")).ok()?)
}

fn parse(events: &str) -> Option<u64> {
    events.lines().find_map(|line| line.strip_prefix("oom_kill "))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_kernels_counters() {
        assert_eq!(parse("low 0\nhigh 0\nmax 9\noom 2\noom_kill 1\noom_group_kill 0\n"), Some(1));
        assert_eq!(parse("oom 2\n"), None);
        assert_eq!(parse("oom_kill x"), None);
    }
}
