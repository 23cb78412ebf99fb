//! What the control group of this process tells (cgroups(7)).
#![forbid(unsafe_code)]

/// How many processes of our control group the kernel has killed for want of memory, ever. `None` where it does not tell:
/// version 1, the root group, no memory controller.
pub(crate) fn oom_kills() -> Option<u64> {
    let groups = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    let path = groups.lines().find_map(|line| line.strip_prefix("0::"))?;
    parse(&std::fs::read_to_string(format!("/sys/fs/cgroup{path}/memory.events")).ok()?)
}

/// Whether the nearest unit of our control group is a service. When its main process ends, systemd kills what is left in the
/// group (systemd.kill(5), `KillMode=`); it does not in a scope, which is what a terminal or a login session is.
pub(crate) fn is_service() -> bool {
    std::fs::read_to_string("/proc/self/cgroup").is_ok_and(|groups| in_service(&groups))
}

/// The unit in the lines of version 2 and of systemd's own hierarchy: the last part of the path that is named like one, since
/// a service may have groups of its own below.
fn in_service(groups: &str) -> bool {
    let paths = groups.lines().filter_map(|line| {
        let (_, rest) = line.split_once(':')?;
        let (controllers, path) = rest.split_once(':')?;
        matches!(controllers, "" | "name=systemd").then_some(path)
    });
    paths.into_iter().any(|path| {
        let is_unit = |part: &&str| [".service", ".scope", ".slice"].iter().any(|kind| part.ends_with(kind));
        path.rsplit('/').find(is_unit).is_some_and(|unit| unit.ends_with(".service"))
    })
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

    #[test]
    fn knows_services() {
        for (groups, expected) in [
            ("0::/system.slice/game-server.service\n", true),
            ("0::/system.slice/game-server.service/workers/3\n", true),
            ("0::/user.slice/user-1000.slice/user@1000.service/app.slice/app-gnome-game-7.scope\n", false),
            ("0::/user.slice/user-1000.slice/user@1000.service/app.slice/app-game@2.service\n", true),
            ("0::/user.slice/user-1000.slice/session-2.scope\n", false),
            ("0::/user.slice/user-1000.slice/user@1000.service/app.slice/game\n", false),
            ("0::/\n", false),
            ("", false),
            ("4:memory:/a.service\n1:name=systemd:/system.slice/game.service\n0::/\n", true),
            ("4:memory:/system.slice/game.service\n1:name=systemd:/\n", false),
            ("a.service", false),
        ] {
            assert_eq!(in_service(groups), expected, "{groups:?}");
        }
    }
}
