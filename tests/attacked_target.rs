//! A process that works against being looked at: memory that nobody brings, another program in the middle of the stop. Who
//! looks must come to an end, and so must the process.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

use std::io::{Read, Write};
use std::os::fd::RawFd;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::mpsc;
use std::time::Duration;

use cenotaph::dump::linux_writer::{self, Limits};
use cenotaph::target::{Request, Target};

mod subject;

use subject::Subject;

/// Where the subject has memory that never comes.
const AWAITED: u64 = 0x2000_0000_0000;
const LENGTH: usize = 1 << 20;
/// Long beyond all doubt on a busy machine: what fails here never ends.
const PATIENCE: Duration = Duration::from_secs(120);
/// Where a program's random bytes are (`<linux/auxvec.h>`).
const AT_RANDOM: u64 = 25;

/// Not a test of its own: what a subject runs.
#[test]
fn run() {
    let Some(role) = subject::role() else { return };
    let park = || loop {
        std::thread::park()
    };
    match &role[..] {
        "awaited" => println!("userfaultfd: {}", await_memory().is_some()),
        "awaited-from-another" => {
            if let Some(fd) = await_memory() {
                hand_over(fd);
            }
        }
        "other-program" => {
            for _ in 0..200 {
                std::thread::Builder::new().stack_size(64 << 10).spawn(park).unwrap();
            }
            std::thread::spawn(|| {
                let mut spin = [0_u8];
                // SAFETY: a buffer of one byte; what comes behind that is for the other program.
                assert_eq!(unsafe { libc::read(0, spin.as_mut_ptr().cast(), 1) }, 1);
                (0..u32::from(spin[0]) * 4000).for_each(|i| {
                    std::hint::black_box(i);
                });
                panic!("{}", Command::new("/bin/cat").exec());
            });
            println!("SUBJECT");
            park()
        }
        other => panic!("{other}"),
    }
    subject::serve()
}

/// Maps memory whose pages somebody is to bring (`UFFDIO_API`, `UFFDIO_REGISTER`, `<linux/userfaultfd.h>`).
fn await_memory() -> Option<RawFd> {
    const API: libc::c_ulong = 0xc018_aa3f;
    const REGISTER: libc::c_ulong = 0xc020_aa00;
    let prot = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED_NOREPLACE;
    // SAFETY: a fresh mapping where there is none, a descriptor that stays open, structures of the kernel's size.
    unsafe {
        let start = libc::mmap(AWAITED as *mut libc::c_void, LENGTH, prot, flags, -1, 0);
        assert_eq!(start as u64, AWAITED);
        let fd = libc::syscall(libc::SYS_userfaultfd, libc::O_CLOEXEC) as RawFd;
        let (mut api, mut register) = ([0xaa_u64, 0, 0], [AWAITED, LENGTH as u64, 1, 0]);
        let is_set = fd >= 0
            && libc::ioctl(fd, API, api.as_mut_ptr()) == 0
            && libc::ioctl(fd, REGISTER, register.as_mut_ptr()) == 0;
        is_set.then_some(fd)
    }
}

/// Leaves a descriptor to a child, which does nothing and ends with this process.
fn hand_over(fd: RawFd) {
    // SAFETY: the child makes system calls only.
    unsafe {
        if libc::fork() == 0 {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            libc::close(0);
            libc::close(1);
            loop {
                libc::pause();
            }
        }
        libc::close(fd);
    }
}

/// Runs `body` on a thread of its own and fails if it does not end: it would hang for ever.
fn ends<T: Send + 'static>(what: &str, body: impl FnOnce() -> T + Send + 'static) -> T {
    let (done, ended) = mpsc::channel();
    std::thread::spawn(move || done.send(body()).unwrap());
    ended.recv_timeout(PATIENCE).unwrap_or_else(|error| panic!("{what}: {error}"))
}

/// Of a user who may not have a userfaultfd the memory is there at once.
#[test]
fn memory_that_never_comes_is_left_out() {
    ends("a dump", || {
        let mut subject = Subject::start("awaited");
        let target = subject.stop();
        let is_awaited = std::fs::read_dir(format!("/proc/{}/fd", subject.pid())).unwrap().any(|entry| {
            let to = std::fs::read_link(entry.unwrap().path());
            to.is_ok_and(|to| to.as_os_str() == "anon_inode:[userfaultfd]")
        });
        assert_eq!(target.memory().read(AWAITED, 64).is_empty(), is_awaited);
        let stack = target.crashed().unwrap().registers.as_ref().unwrap().rsp;
        assert_eq!(target.memory().read(stack, 64).len(), 64, "the rest is read as ever");
        let taken = linux_writer::write(target, Limits::default()).unwrap();
        assert!(taken.dump.len() > 4096, "{:?}", taken.notes);
        subject.lives();
    });
}

/// The same where the descriptor is not seen, for who knows already that reading may never end.
#[test]
fn a_second_try_waits_for_nobody() {
    ends("a dump", || {
        let subject = Subject::start("awaited-from-another");
        let pid = subject.pid();
        let target = Target::stop(Request { never_wait: true, ..Request::new(pid, pid, None) }).unwrap();
        let _ = target.memory().read(AWAITED, 64);
        assert_eq!(target.memory().read(target.modules[0].range.start, 4), b"\x7fELF");
    });
}

fn image(pid: i32) -> u64 {
    let auxv = std::fs::read(format!("/proc/{pid}/auxv")).unwrap();
    let words: Vec<u64> = auxv.as_chunks().0.iter().map(|word| u64::from_le_bytes(*word)).collect();
    words.as_chunks().0.iter().find(|[key, _]| *key == AT_RANDOM).unwrap()[1]
}

/// The thread that executes it waits for the ends of the others, which the tracer must take notice of, and holds the lock
/// that the tracer wants. Some rounds hit that moment.
#[test]
fn another_program_in_the_middle_is_neither_held_nor_taken_for_the_first() {
    let (mut caught, mut gone) = (0, 0);
    for round in 0..40_u8 {
        let was_caught = ends("a stop", move || {
            let mut subject = Subject::start("other-program");
            let pid = subject.pid();
            let image = image(pid);
            let spin = round.wrapping_mul(37);
            subject.0.stdin.as_mut().unwrap().write_all(&[spin]).unwrap();
            let target = Target::stop(Request { image: Some(image), ..Request::new(pid, pid, None) });
            let was_caught = match &target {
                Ok(target) => {
                    assert_eq!(target.auxv(AT_RANDOM), Some(image));
                    assert!(target.threads.iter().any(|thread| thread.registers.is_some()));
                    true
                }
                Err(_) => false,
            };
            drop(target);
            // The other program runs: it says what it is told.
            subject.0.stdin.as_mut().unwrap().write_all(b"!\n").unwrap();
            let mut said = [0];
            while said != *b"!" {
                subject.0.stdout.as_mut().unwrap().read_exact(&mut said).unwrap();
            }
            was_caught
        });
        caught += u32::from(was_caught);
        gone += u32::from(!was_caught);
    }
    println!("{caught} before the other program, {gone} after");
}
