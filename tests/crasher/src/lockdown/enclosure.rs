//! Pid namespaces and control groups: the victim goes on in a child process, and the process that was started waits for
//! it and ends in the same way, as a container's or a service's manager passes the ending on.

use std::fs;
use std::io::{self, PipeReader, PipeWriter, Read as _, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use super::Lockdown;
use super::filter::checked;

/// Makes the enclosure. `None` in the process that is the victim; in the one outside, what to end with (it kills itself
/// if the victim was killed).
///
/// # Errors
/// If this machine refuses.
pub(super) fn enter(lockdown: Lockdown) -> Result<Option<ExitCode>, String> {
    match lockdown {
        Lockdown::Pid1 => {
            new_namespace()?;
            match fork()? {
                None => mount_proc().and_then(|()| be_ordinary()).map(|()| None),
                Some(victim) => Ok(Some(end_as(wait_for(victim)?))),
            }
        }
        Lockdown::Pidns => {
            new_namespace()?;
            let (said, say) = io::pipe().map_err(|e| format!("pipe: {e}"))?;
            match fork()? {
                None => init(said, say).map(|()| None),
                Some(_) => {
                    drop(say);
                    hear(said).map(|status| Some(end_as(status)))
                }
            }
        }
        Lockdown::CgroupKill => {
            let group = Group::make()?;
            match fork()? {
                None => group.enter().map(|()| None),
                Some(victim) => {
                    let status = wait_for(victim);
                    group.kill();
                    Ok(Some(end_as(status?)))
                }
            }
        }
        _ => Ok(None),
    }
}

/// Whether a pid namespace can be made, tried in a child.
pub(super) fn can_make_namespace() -> bool {
    let inner = || match fork()? {
        None => exit(i32::from(mount_proc().is_err())),
        Some(child) => wait_for(child),
    };
    let tried = fork().and_then(|child| match child {
        None => exit(i32::from(new_namespace().and_then(|()| inner()) != Ok(0))),
        Some(child) => wait_for(child),
    });
    tried == Ok(0)
}

/// Whether a control group can be made that can be killed (cgroups(7); kernel 5.14).
pub(super) fn can_make_group() -> bool {
    Group::make().is_ok_and(|group| {
        let can_kill = group.0.join("cgroup.kill").exists();
        group.kill();
        can_kill
    })
}

/// A new pid namespace for the children, with mounts of their own, and a user namespace where it takes one.
fn new_namespace() -> Result<(), String> {
    // SAFETY: always allowed.
    let (user, group) = unsafe { (libc::geteuid(), libc::getegid()) };
    let wanted = libc::CLONE_NEWPID | libc::CLONE_NEWNS;
    let flags = if user == 0 { wanted } else { wanted | libc::CLONE_NEWUSER };
    // SAFETY: takes an integer; this process has one thread.
    checked("unshare", unsafe { libc::unshare(flags) }.into())?;
    if user != 0 {
        let write = |file: &str, text: String| {
            fs::write(format!("/proc/self/{file}"), text).map_err(|e| format!("/proc/self/{file}: {e}"))
        };
        write("setgroups", "deny".to_owned())?;
        write("uid_map", format!("{user} {user} 1"))?;
        write("gid_map", format!("{group} {group} 1"))?;
    }
    Ok(())
}

/// /proc of the new namespace, seen by its processes alone.
fn mount_proc() -> Result<(), String> {
    let (no_text, no_data) = (std::ptr::null(), std::ptr::null());
    let (proc, private) = (c"proc".as_ptr(), libc::MS_REC | libc::MS_PRIVATE);
    let flags = libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC;
    // SAFETY: C strings, or null where mount(2) ignores the argument; the mounts are the new namespace's own.
    unsafe {
        checked("mount", libc::mount(no_text, c"/".as_ptr(), no_text, private, no_data).into())?;
        checked("mount", libc::mount(proc, c"/proc".as_ptr(), proc, flags, no_data).into()).map(drop)
    }
}

/// Gives up what a new user namespace gave, as executing a program in it would: the capabilities, and being undumpable
/// for having got them.
fn be_ordinary() -> Result<(), String> {
    // SAFETY: always allowed.
    if unsafe { libc::geteuid() } == 0 {
        return Ok(());
    }
    // capset(2), version 3: a header of version and process, then twice the three sets.
    let (header, nothing) = ([0x2008_0522u32, 0], [0u32; 6]);
    // SAFETY: both live through the call and have the kernel's layout; the other call takes integers only.
    unsafe {
        checked("capset", libc::syscall(libc::SYS_capset, header.as_ptr(), nothing.as_ptr()))?;
        checked("prctl(PR_SET_DUMPABLE)", libc::prctl(libc::PR_SET_DUMPABLE, 1, 0, 0, 0).into()).map(drop)
    }
}

/// The first process of a namespace: makes the victim, in which alone this returns, says how that ended, and stays
/// until the last orphan has ended, as a container's init does.
fn init(said: PipeReader, mut say: PipeWriter) -> Result<(), String> {
    drop(said);
    mount_proc()?;
    let Some(victim) = fork()? else { return be_ordinary() };
    loop {
        let mut status = 0;
        // SAFETY: `status` lives through the call.
        match unsafe { libc::waitpid(-1, &raw mut status, 0) } {
            -1 => exit(0),
            pid if pid == victim => drop(say.write_all(&status.to_ne_bytes())),
            _ => {}
        }
    }
}

fn hear(mut said: PipeReader) -> Result<libc::c_int, String> {
    let mut status = [0; 4];
    said.read_exact(&mut status).map_err(|e| format!("the namespace's init ended early: {e}"))?;
    Ok(libc::c_int::from_ne_bytes(status))
}

/// A control group of a service.
struct Group(PathBuf);

impl Group {
    /// Below this process's own.
    fn make() -> Result<Self, String> {
        let mounts =
            fs::read_to_string("/proc/self/mounts").map_err(|e| format!("/proc/self/mounts: {e}"))?;
        let mount = mounts.lines().find_map(|line| {
            let mut fields = line.split(' ');
            let place = fields.nth(1)?;
            (fields.next()? == "cgroup2").then_some(place)
        });
        let own = fs::read_to_string("/proc/self/cgroup").map_err(|e| format!("/proc/self/cgroup: {e}"))?;
        let own = own.lines().find_map(|line| line.strip_prefix("0::/"));
        let (Some(mount), Some(own)) = (mount, own) else { return Err("there is no cgroup2".to_owned()) };
        let name = format!("crasher-{}.service", std::process::id());
        let path = PathBuf::from(mount).join(own).join(name);
        fs::create_dir(&path).map_err(|e| format!("{}: {e}", path.display()))?;
        Ok(Self(path))
    }

    fn enter(&self) -> Result<(), String> {
        let file = self.0.join("cgroup.procs");
        fs::write(&file, "0").map_err(|e| format!("{}: {e}", file.display()))
    }

    /// Kills all that is in it, and removes it.
    fn kill(&self) {
        let _ = fs::write(self.0.join("cgroup.kill"), "1");
        for _ in 0..5000 {
            // Refused until the last process is gone.
            if fs::remove_dir(&self.0).is_ok() {
                break;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// `None` in the child. For a process with one thread.
fn fork() -> Result<Option<libc::pid_t>, String> {
    // SAFETY: with one thread the child is as whole as the parent.
    match unsafe { libc::fork() } {
        0 => Ok(None),
        child => checked("fork", child.into()).map(|_| Some(child)),
    }
}

fn wait_for(child: libc::pid_t) -> Result<libc::c_int, String> {
    let mut status = 0;
    // SAFETY: `status` lives through the call; the child is this process's own.
    while unsafe { libc::waitpid(child, &raw mut status, 0) } != child {
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(format!("waitpid: {error}"));
        }
    }
    Ok(status)
}

fn exit(code: libc::c_int) -> ! {
    // SAFETY: ends this process, a fork, without running what the parent registered.
    unsafe { libc::_exit(code) }
}

/// Ends as the victim did, without a core file of its own.
fn end_as(status: libc::c_int) -> ExitCode {
    if libc::WIFSIGNALED(status) {
        let signal = libc::WTERMSIG(status);
        let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: this process has nothing left to do.
        unsafe {
            libc::setrlimit(libc::RLIMIT_CORE, &raw const none);
            libc::signal(signal, libc::SIG_DFL);
            libc::kill(libc::getpid(), signal);
        }
    }
    ExitCode::from(u8::try_from(libc::WEXITSTATUS(status)).unwrap_or(1))
}
