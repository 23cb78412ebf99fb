//! Starting victims, and looking at one that has stopped at its fatal signal.
#![allow(dead_code, reason = "each test program uses a part of this")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

pub(crate) mod ending;

use std::fs::{self, File};
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::{io, mem};

/// The program under test.
pub(crate) fn crasher() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_crasher"))
}

/// Copies a program that is to be run. In a process of its own: a descriptor that writes to it here could be inherited by
/// what another test forks meanwhile, and the program would be "busy" (ETXTBSY, execve(2)).
#[allow(dead_code, reason = "not every test copies programs")]
pub(crate) fn copy_program(from: &Path, to: &Path) {
    assert!(Command::new("cp").arg(from).arg(to).status().unwrap().success(), "{}", to.display());
}

/// A victim without Cenotaph, in an environment of its own, that leaves no core file.
pub(crate) fn victim(program: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.arg("--no-sdk").args(arguments).env_clear().current_dir("/").stdin(Stdio::null());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    // SAFETY: setrlimit(2) is async-signal-safe and reads a value on the stack.
    unsafe {
        command.pre_exec(|| {
            let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
            check(libc::setrlimit(libc::RLIMIT_CORE, &raw const none).into())
        });
    }
    command
}

/// A process that this thread traces, one of its threads stopped at a signal that would kill it. One at a time in
/// each test.
pub(crate) struct Stopped {
    child: Child,
    thread: libc::pid_t,
    /// The signal.
    pub(crate) signal: i32,
}

impl Stopped {
    /// Starts `command` and lets it run until one of its threads meets one of the signals in `fatal`.
    pub(crate) fn at(mut command: Command, fatal: &[i32]) -> Self {
        // SAFETY: ptrace(2) with TRACEME takes no pointers and is a plain system call.
        unsafe {
            command.pre_exec(|| check(libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0)));
        }
        let child = command.spawn().unwrap();
        let main = libc::pid_t::try_from(child.id()).unwrap();
        let mut stopped = Self { child, thread: main, signal: 0 };
        assert_eq!(stopped.wait(), libc::SIGTRAP, "the stop at exec");
        let options = libc::PTRACE_O_EXITKILL | libc::PTRACE_O_TRACEEXEC | libc::PTRACE_O_TRACECLONE;
        stopped.ptrace(libc::PTRACE_SETOPTIONS, options as usize);
        let mut pass_on = 0;
        loop {
            stopped.ptrace(libc::PTRACE_CONT, pass_on);
            let status = stopped.wait();
            if fatal.contains(&status) {
                stopped.signal = status;
                return stopped;
            }
            // Events (exec, clone) are reported above the low byte and are no signals; a new thread starts with a
            // stop that is none either.
            let is_signal = status <= 0xff && status != libc::SIGSTOP;
            pass_on = if is_signal { usize::try_from(status).unwrap() } else { 0 };
        }
    }

    /// The signal's description.
    pub(crate) fn siginfo(&self) -> libc::siginfo_t {
        // SAFETY: all bytes zero is a siginfo_t.
        let mut info: libc::siginfo_t = unsafe { mem::zeroed() };
        self.ptrace(libc::PTRACE_GETSIGINFO, (&raw mut info) as usize);
        info
    }

    /// The general registers of the stopped thread.
    pub(crate) fn registers(&self) -> libc::user_regs_struct {
        // SAFETY: all bytes zero is a user_regs_struct.
        let mut registers: libc::user_regs_struct = unsafe { mem::zeroed() };
        self.ptrace(libc::PTRACE_GETREGS, (&raw mut registers) as usize);
        registers
    }

    /// xmm0 to xmm15 of the stopped thread, one after the other.
    pub(crate) fn vector_registers(&self) -> Vec<u8> {
        // SAFETY: all bytes zero is a user_fpregs_struct.
        let mut registers: libc::user_fpregs_struct = unsafe { mem::zeroed() };
        self.ptrace(libc::PTRACE_GETFPREGS, (&raw mut registers) as usize);
        registers.xmm_space.iter().flat_map(|word| word.to_le_bytes()).collect()
    }

    /// Its memory.
    pub(crate) fn memory(&self) -> Memory {
        Memory::of(self.child.id())
    }

    /// What it printed on standard error, after killing it.
    pub(crate) fn end(mut self) -> String {
        self.child.kill().unwrap();
        io::read_to_string(self.child.stderr.take().unwrap()).unwrap()
    }

    /// The next stop of any thread, which becomes the one looked at.
    fn wait(&mut self) -> i32 {
        loop {
            let mut status = 0;
            // SAFETY: `status` lives through the call. Only children of this test's thread are waited for.
            let thread = unsafe { libc::waitpid(-1, &raw mut status, libc::__WALL | libc::__WNOTHREAD) };
            assert!(thread > 0, "{}", io::Error::last_os_error());
            if libc::WIFSTOPPED(status) {
                self.thread = thread;
                return status >> 8;
            }
            if self.child.id() == thread.unsigned_abs() {
                let said = io::read_to_string(self.child.stderr.take().unwrap()).unwrap();
                panic!("the victim ended (status {status:#x}) before the expected signal; it said: {said}");
            }
        }
    }

    fn ptrace(&self, request: libc::c_uint, data: usize) {
        // SAFETY: the child is stopped and ours; `data` is an integer or the address of a live value of the
        // type that the request fills.
        let result = unsafe { libc::ptrace(request, self.thread, 0, data) };
        check(result).unwrap();
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        let _ = self.child.kill();
        loop {
            let mut status = 0;
            // SAFETY: as in `wait`. The main thread can only be waited for when all others have been.
            let thread = unsafe { libc::waitpid(-1, &raw mut status, libc::__WALL | libc::__WNOTHREAD) };
            if thread <= 0 || (thread.unsigned_abs() == self.child.id() && !libc::WIFSTOPPED(status)) {
                break;
            }
        }
    }
}

/// A process's readable memory, as it was when it was read.
pub(crate) struct Memory {
    /// Address range, name, bytes.
    pub(crate) regions: Vec<(Range<usize>, String, Vec<u8>)>,
    /// The blocks of the initial arguments and environment.
    pub(crate) arguments: Range<usize>,
    pub(crate) environment: Range<usize>,
}

impl Memory {
    /// Reads it all.
    pub(crate) fn of(pid: u32) -> Self {
        let file = File::open(format!("/proc/{pid}/mem")).unwrap();
        let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
        let regions = maps.lines().filter_map(|line| {
            let mut fields = line.split_whitespace();
            let (start, end) = fields.next()?.split_once('-')?;
            let range = usize::from_str_radix(start, 16).ok()?..usize::from_str_radix(end, 16).ok()?;
            let readable = fields.next()?.starts_with('r');
            let name = fields.nth(3).unwrap_or_default().to_owned();
            if !readable || name.starts_with("[v") {
                return None;
            }
            let mut bytes = vec![0; range.len()];
            file.read_exact_at(&mut bytes, range.start as u64).ok()?;
            Some((range, name, bytes))
        });
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        // Fields 48 to 51 (proc_pid_stat(5)), counted behind the name, which may hold anything.
        let fields: Vec<usize> = stat
            .rsplit_once(") ")
            .unwrap()
            .1
            .split(' ')
            .map(|field| field.trim().parse().unwrap_or(0))
            .collect();
        Self {
            regions: regions.collect(),
            arguments: fields[45]..fields[46],
            environment: fields[47]..fields[48],
        }
    }

    /// Every address of `needle`, in address order.
    pub(crate) fn find(&self, needle: &[u8]) -> Vec<usize> {
        let mut found = Vec::new();
        for (range, _, bytes) in &self.regions {
            found.extend(occurrences(bytes, needle).into_iter().map(|offset| range.start + offset));
        }
        found
    }

    /// The name of the mapping that holds `address`.
    pub(crate) fn mapping(&self, address: usize) -> &str {
        self.regions
            .iter()
            .find(|(range, ..)| range.contains(&address))
            .map_or("unmapped", |(_, name, _)| name)
    }

    /// A 32-bit word.
    pub(crate) fn word(&self, address: usize) -> Option<u32> {
        let (range, _, bytes) = self.regions.iter().find(|(range, ..)| range.contains(&address))?;
        let offset = address - range.start;
        Some(u32::from_le_bytes(bytes.get(offset..offset + 4)?.try_into().ok()?))
    }
}

/// Every offset of `needle`. Skips quickly to its first byte, as these tests run unoptimised over megabytes.
pub(crate) fn occurrences(bytes: &[u8], needle: &[u8]) -> Vec<usize> {
    let (mut found, mut from) = (Vec::new(), 0);
    while let Some(rest) = bytes.get(from..).filter(|rest| rest.len() >= needle.len()) {
        // SAFETY: both pointers are valid for reads of the lengths given.
        let hit =
            unsafe { libc::memmem(rest.as_ptr().cast(), rest.len(), needle.as_ptr().cast(), needle.len()) };
        if hit.is_null() {
            break;
        }
        let offset = hit as usize - bytes.as_ptr() as usize;
        found.push(offset);
        from = offset + 1;
    }
    found
}

fn check(result: libc::c_long) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
