//! What proc(5) tells about a process, parsed.
#![forbid(unsafe_code)]

use std::fs::File;
use std::io::Read;
use std::ops::Range;

/// The addresses of the argument and environment strings: `arg_start` to `env_end`, fields 48 to 51 of
/// `/proc/PID/stat` (proc(5)). `None` when the kernel hides them (they read as 0).
pub(crate) fn arguments(pid: libc::pid_t) -> Option<Range<u64>> {
    let (arguments, environment) =
        parse_strings(&std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)?;
    (arguments.start < environment.end).then_some(arguments.start..environment.end)
}

/// The addresses of the argument strings and of the environment strings, from the text of `/proc/PID/stat`. `None` when
/// the kernel hides them.
pub(crate) fn parse_strings(stat: &str) -> Option<(Range<u64>, Range<u64>)> {
    // The second field is the program's name in parentheses and may itself hold spaces and parentheses.
    let fields: Vec<&str> = stat.get(stat.rfind(')')? + 1..)?.split_ascii_whitespace().collect();
    // `fields[0]` is field 3, the state.
    let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
    let (arguments, environment) = (field(48)?..field(49)?, field(50)?..field(51)?);
    (arguments.start != 0).then_some((arguments, environment))
}

/// One line of `/proc/PID/maps`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mapping {
    /// Addresses.
    pub(crate) range: Range<u64>,
    /// May be read.
    pub(crate) readable: bool,
    /// Whether it is a device other than shared or anonymous memory: reading may have effects.
    pub(crate) device: bool,
}

/// The mappings of a process, ascending.
pub(crate) fn mappings(pid: libc::pid_t) -> Vec<Mapping> {
    std::fs::read(format!("/proc/{pid}/maps"))
        .map(|bytes| String::from_utf8_lossy(&bytes).lines().filter_map(parse_mapping).collect())
        .unwrap_or_default()
}

fn parse_mapping(line: &str) -> Option<Mapping> {
    let mut fields = line.splitn(6, ' ');
    let (start, end) = fields.next()?.split_once('-')?;
    let range = u64::from_str_radix(start, 16).ok()?..u64::from_str_radix(end, 16).ok()?;
    let readable = fields.next()?.starts_with('r');
    let path = fields.nth(3).unwrap_or_default().trim_start();
    let device =
        path.starts_with("/dev/") && !path.starts_with("/dev/shm/") && !path.starts_with("/dev/zero");
    Some(Mapping { range, readable, device })
}

/// The thread of process `pid` (as we see it) that calls itself `tid`: the same number, unless it lives in
/// another pid namespace, where `NSpid` of its status tells (pid_namespaces(7)).
pub(crate) fn thread_id(pid: libc::pid_t, tid: libc::pid_t) -> Option<libc::pid_t> {
    let status = |id: libc::pid_t| std::fs::read_to_string(format!("/proc/{pid}/task/{id}/status")).ok();
    if status(tid).is_some_and(|text| innermost_pid(&text) == Some(tid)) {
        return Some(tid);
    }
    std::fs::read_dir(format!("/proc/{pid}/task")).ok()?.flatten().find_map(|entry| {
        let id: libc::pid_t = entry.file_name().to_str()?.parse().ok()?;
        (innermost_pid(&status(id)?)? == tid).then_some(id)
    })
}

fn innermost_pid(status: &str) -> Option<libc::pid_t> {
    let line = status.lines().find_map(|line| line.strip_prefix("NSpid:"))?;
    line.split_ascii_whitespace().last()?.parse().ok()
}

/// When a process began, in clock ticks since boot (field 22 of `/proc/PID/stat`). `None` if there is none of that number,
/// or only its entry is left.
pub(crate) fn began(pid: libc::pid_t) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields: Vec<&str> = stat.get(stat.rfind(')')? + 1..)?.split_ascii_whitespace().collect();
    let ended = matches!(*fields.first()?, "Z" | "X");
    if ended { None } else { fields.get(22 - 3)?.parse().ok() }
}

/// The processor that a thread runs on, waits for, or ran on last (field 39 of `/proc/PID/task/TID/stat`).
pub(crate) fn processor(pid: libc::pid_t, tid: libc::pid_t) -> Option<i32> {
    // Some 300 bytes, in one call.
    let mut stat = [0; 1024];
    let length = File::open(format!("/proc/{pid}/task/{tid}/stat")).ok()?.read(&mut stat).ok()?;
    let stat = String::from_utf8_lossy(stat.get(..length)?);
    stat.get(stat.rfind(')')? + 1..)?.split_ascii_whitespace().nth(39 - 3)?.parse().ok()
}

/// Whether a process stands still by job control or under a tracer (state `T` or `t` of `/proc/PID/stat`).
pub(crate) fn is_stopped(pid: libc::pid_t) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rfind(')').and_then(|end| stat.get(end + 1..)?.trim_start().chars().next());
    matches!(state, Some('T' | 't'))
}

/// How often a process was given a processor, if it [stands still](is_stopped): one that does so twice with the same number stood
/// still in between, too, while one that strace(1) looks at only happens to.
pub(crate) fn stood_at(pid: libc::pid_t) -> Option<u64> {
    if !is_stopped(pid) {
        return None;
    }
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let counts = status.lines().filter_map(|line| line.split_once("ctxt_switches:"));
    counts.map(|(_, count)| count.trim().parse::<u64>().ok()).sum()
}

/// The files that this process has mapped as code.
pub(crate) fn own_binaries() -> Vec<std::path::PathBuf> {
    use std::os::unix::ffi::OsStrExt;
    let text = std::fs::read("/proc/self/maps").unwrap_or_default();
    let executable = text.split(|&byte| byte == b'\n').filter_map(|line| {
        let mut fields = line.splitn(6, |&byte| byte == b' ');
        let (permissions, path) = (fields.nth(1)?, fields.nth(3)?.trim_ascii_start());
        (permissions.get(2) == Some(&b'x') && path.starts_with(b"/")).then_some(path)
    });
    executable.map(|path| std::path::PathBuf::from(std::ffi::OsStr::from_bytes(path))).collect()
}

/// How many threads this process has.
pub(crate) fn own_threads() -> usize {
    std::fs::read_dir("/proc/self/task").map_or(0, Iterator::count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_arguments_of_a_process_with_an_odd_name() {
        let numbers: Vec<String> = (3..=52).map(|n| n.to_string()).collect();
        let stat = format!("17 (a) (b c) {}\n", numbers.join(" "));
        assert_eq!(parse_strings(&stat), Some((48..49, 50..51)));
        assert_eq!(parse_strings("17 (x"), None);
        assert_eq!(parse_strings(&stat.replace(" 48 ", " 0 ")), None, "hidden");
        assert!(arguments(std::process::id() as libc::pid_t).is_some());
    }

    #[test]
    fn tells_the_processor() {
        let pid = std::process::id() as libc::pid_t;
        let count = std::thread::available_parallelism().unwrap().get() as i32;
        assert!(processor(pid, pid).is_some_and(|processor| (0..count.max(1024)).contains(&processor)));
        assert_eq!(processor(pid, 0), None);
    }

    #[test]
    fn tells_who_stands_still() {
        let mut child = std::process::Command::new("/bin/sleep").arg("60").spawn().unwrap();
        let pid = child.id() as libc::pid_t;
        assert!(began(pid).is_some() && began(libc::pid_t::MAX).is_none());
        assert!(!is_stopped(pid) && !is_stopped(libc::pid_t::MAX));

        std::process::Command::new("kill").args(["-STOP", &pid.to_string()]).status().unwrap();
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
        while !is_stopped(pid) {
            assert!(std::time::Instant::now() < deadline);
            std::thread::yield_now();
        }
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn reads_mappings() {
        let cases = [
            ("7f00-7f01 r--p 00000000 08:01 42                         /usr/lib/a b.so", true, false),
            ("7f00-7f01 ---p 00000000 00:00 0 ", false, false),
            ("7f00-7f01 rw-s 00000000 00:05 9 /dev/dri/card0", true, true),
            ("7f00-7f01 rw-s 00000000 00:05 9 /dev/shm/x", true, false),
        ];
        for (line, readable, device) in cases {
            assert_eq!(
                parse_mapping(line),
                Some(Mapping { range: 0x7f00..0x7f01, readable, device }),
                "{line}"
            );
        }
        assert_eq!(parse_mapping("nonsense"), None);
        assert!(!mappings(std::process::id() as libc::pid_t).is_empty());
    }

    #[test]
    fn lists_its_own_binaries() {
        let found = own_binaries();
        assert!(found.contains(&std::env::current_exe().unwrap()), "{found:?}");
        assert!(found.iter().any(|path| path.ends_with("libc.so.6")), "{found:?}");
    }

    #[test]
    fn maps_thread_ids() {
        let pid = std::process::id() as libc::pid_t;
        assert_eq!(thread_id(pid, pid), Some(pid));
        assert_eq!(thread_id(pid, 1 << 30), None);
        assert_eq!(innermost_pid("Name:\tx\nNSpid:\t812\t3\n"), Some(3));
    }
}
