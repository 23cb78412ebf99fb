//! A target is as it was once it is let go, and one that dies, moves or belongs to someone else costs no more than a note.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

use std::io::{Read, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use cenotaph::dump::binaries::FileBinaries;
use cenotaph::dump::layout::utf16;
use cenotaph::dump::linux_writer::{self, END, EXTRA, Limits, Taking};
use cenotaph::dump::{Layout, unwind, writer};
use cenotaph::target::{Request, Target};

mod subject;

use subject::{Subject, until};

/// Not a test of its own: what a subject runs.
#[test]
fn run() {
    let Some(role) = subject::role() else { return };
    match &role[..] {
        "threads" => {
            for i in 0..7 {
                let body = || loop {
                    std::thread::park()
                };
                std::thread::Builder::new().name(format!("parked {i}")).spawn(body).unwrap();
            }
        }
        "churn" => {
            fn heir() {
                std::thread::spawn(heir);
            }
            for _ in 0..4 {
                std::thread::spawn(heir);
            }
        }
        "deep" => {
            let (ready, there) = std::sync::mpsc::channel();
            let body = move || {
                let here = 0u8;
                descend(&raw const here as usize - (5 << 20), &ready)
            };
            std::thread::Builder::new().name("deep".into()).stack_size(8 << 20).spawn(body).unwrap();
            there.recv().unwrap();
        }
        "libraries" => libraries(),
        other => panic!("{other}"),
    }
    subject::serve()
}

/// Frames of more than 512 bytes each down to the address `floor`, then waits.
#[inline(never)]
fn descend(floor: usize, ready: &std::sync::mpsc::Sender<()>) {
    let room = std::hint::black_box([floor as u8; 512]);
    if room.as_ptr() as usize > floor {
        descend(floor, ready);
    } else {
        ready.send(()).unwrap();
        loop {
            std::thread::park();
        }
    }
    std::hint::black_box(room);
}

/// Loads one library three times: from a file that is deleted then, from a file without a name, and with a header that is
/// overwritten then.
fn libraries() {
    let own = std::fs::read_to_string("/proc/self/maps").unwrap();
    let libm = own.lines().find_map(|line| line.split_whitespace().nth(5).filter(|p| p.contains("libc.so")));
    let libm = std::fs::read(libm.unwrap().replace("libc.so", "libm.so")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let load = |path: &std::path::Path| {
        let path = std::ffi::CString::new(path.to_str().unwrap()).unwrap();
        // SAFETY: a string; the library's constructors are those of the C library's own.
        let handle = unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_NOW) };
        assert!(!handle.is_null());
        // SAFETY: a library that is loaded and a name.
        unsafe { libc::dlsym(handle, c"cos".as_ptr()) }
    };
    for name in ["deleted.so", "broken.so"] {
        let path = folder.path().join(name);
        std::fs::write(&path, &libm).unwrap();
        let function = load(&path);
        if name == "broken.so" {
            // SAFETY: all-zero is a value of this structure of pointers.
            let mut found: libc::Dl_info = unsafe { std::mem::zeroed() };
            // SAFETY: an address and a place for the answer.
            assert_ne!(unsafe { libc::dladdr(function, &mut found) }, 0);
            let base = found.dli_fbase;
            // SAFETY: the first page of a library of which nobody reads the header any more.
            unsafe {
                assert_eq!(libc::mprotect(base, 4096, libc::PROT_READ | libc::PROT_WRITE), 0);
                // Behind the magic number: sizes, counts and offsets.
                base.cast::<u8>().add(16).write_bytes(0xff, 4000);
            }
        }
    }
    // SAFETY: a string and no flags.
    let memory = unsafe { libc::memfd_create(c"nameless".as_ptr(), 0) };
    let path = format!("/proc/self/fd/{memory}");
    std::fs::write(&path, &libm).unwrap();
    load(path.as_ref());
}

#[test]
fn all_threads_stand_still_and_then_go_on() {
    let mut subject = Subject::start("threads");
    let parked = |target: &Target| {
        target.threads.iter().filter(|thread| thread.name.as_deref().unwrap().starts_with("parked")).count()
    };
    // Threads name themselves.
    until("all have names", || parked(&subject.stop()) == 7);
    let mut target = subject.stop();
    assert_eq!(target.notes, [] as [String; 0]);
    assert!(subject.states().iter().all(|&state| state == 't'), "{:?}", subject.states());
    assert!(target.threads.len() >= 9, "main, test, seven more");
    assert!(target.threads.iter().all(|thread| thread.registers.is_some() && thread.signal.is_none()));
    assert_eq!(target.crashed().map(|thread| thread.id), Some(subject.pid()));
    let header = target.modules[0].range.start;
    assert_eq!(target.memory().read(header, 4), b"\x7fELF");
    let own = std::env::current_exe().unwrap();
    assert_eq!(target.modules[0].path, own.to_str().unwrap());
    target.release();
    assert!(subject.tracers().iter().all(|tracer| tracer == "0"));
    subject.lives();
    drop(target);
    subject.lives();
    // Dropping does it too.
    drop(subject.stop());
    assert!(subject.tracers().iter().all(|tracer| tracer == "0"));
    subject.lives();
}

#[test]
fn a_dump_between_its_halves_takes_and_loses_memory() {
    let subject = Subject::start("deep");
    let mut target = subject.stop();
    let tight = Limits { indirect: 0, total: 0 };
    let mut taking = Taking::read(&mut target, tight);
    let deep = target.threads.iter().find(|thread| thread.name.as_deref() == Some("deep")).unwrap().clone();
    let stack = |taking: &Taking, target: &Target| {
        let pieces = taking.pieces(target).into_iter();
        let own = pieces.filter(|piece| piece.stack_of == Some(deep.id));
        own.map(|piece| (piece.address, piece.bytes.to_vec())).collect::<Vec<_>>()
    };
    assert_eq!(stack(&taking, &target), [], "cut away for lack of room");
    let header = target.modules[0].range.start;
    let read = |target: &Target, address: u64, length: u64| target.memory().read(address, length as usize);

    // One range twice and one that overlaps it are one piece; the stack has its two ends again.
    let wanted = [header + 16..header + 64, header..header + 32, header..header + 32];
    taking.add(&mut target, &wanted, &[deep.id].into());
    let kept = stack(&taking, &target);
    assert_eq!(kept.len(), 1);
    assert_eq!(kept[0].1.len() as u64, END);
    assert_eq!(kept[0].1, read(&target, kept[0].0, END));
    let pieces = taking.pieces(&target).into_iter();
    let others: Vec<_> = pieces.filter(|piece| piece.stack_of.is_none()).collect();
    let added = others.iter().find(|piece| piece.address == header).unwrap();
    assert_eq!(added.bytes, read(&target, header, 64));
    let far = others.iter().find(|piece| piece.bytes.len() as u64 == END).unwrap();
    assert_eq!(far.bytes, read(&target, far.address, END));
    let dump = taking.dump(&target).unwrap();
    let layout = Layout::parse(&dump).unwrap();
    let here = layout.memory.iter().find(|entry| entry.address == header).unwrap();
    assert_eq!(dump[here.bytes.clone()], read(&target, header, 64));

    // What is asked for beyond all bounds is refused, and that is said.
    let heap = target.maps.iter().map(|map| map.range.clone()).max_by_key(|range| range.end - range.start);
    let huge = heap.unwrap();
    taking.add(&mut target, &[huge.start..huge.start + EXTRA], &[].into());
    assert!(target.notes.iter().any(|note| note.contains("did not fit")), "{:?}", target.notes);

    taking.drop_stacks(&target, &[deep.id].into());
    assert_eq!(stack(&taking, &target), []);
    let left: Vec<_> = taking.pieces(&target).into_iter().map(|piece| piece.address).collect();
    assert!(!left.contains(&far_of(&deep, &target)) && left.contains(&header), "{left:x?}");
}

/// Where the outer end of a deep stack begins.
fn far_of(thread: &cenotaph::target::Thread, target: &Target) -> u64 {
    let pointer = thread.registers.as_ref().unwrap().rsp;
    let mapping = target.maps.iter().find(|map| map.range.contains(&pointer)).unwrap();
    thread.control_block.filter(|block| mapping.range.contains(block)).unwrap_or(mapping.range.end) - END
}

#[test]
fn a_stop_by_job_control_stays_one() {
    let mut subject = Subject::start("threads");
    subject.signal(libc::SIGSTOP);
    until("stopped by the signal", || subject.states().iter().all(|&state| state == 'T'));
    let target = subject.stop();
    assert!(target.threads.iter().all(|thread| thread.registers.is_some()), "{:?}", target.notes);
    drop(target);
    until("still stopped", || subject.states().iter().all(|&state| state == 'T'));
    subject.signal(libc::SIGCONT);
    subject.lives();
}

#[test]
fn a_signal_that_comes_meanwhile_is_not_lost() {
    let subject = Subject::start("threads");
    let target = subject.stop();
    subject.signal(libc::SIGTERM);
    assert!(subject.states().iter().all(|&state| state == 't'), "it waits");
    drop(target);
    let mut subject = subject;
    use std::os::unix::process::ExitStatusExt;
    assert_eq!(subject.0.wait().unwrap().signal(), Some(libc::SIGTERM));
}

#[test]
fn signals_under_way_arrive_once_each() {
    let mut subject = Subject::start("threads");
    let (pid, done) = (subject.pid(), AtomicBool::new(false));
    let (sent, met) = std::thread::scope(|scope| {
        let sender = scope.spawn(|| {
            let mut sent = 0u64;
            while !done.load(Ordering::Relaxed) {
                // SAFETY: two numbers. Real-time signals queue up; when the queue is full the call fails.
                sent += u64::from(unsafe { libc::kill(pid, libc::SIGRTMIN()) } == 0);
                std::thread::yield_now();
            }
            sent
        });
        let mut met = 0;
        let end = Instant::now() + Duration::from_secs(20);
        while met < 3 && Instant::now() < end {
            met += subject.stop().threads.iter().filter(|thread| thread.signal.is_some()).count();
        }
        done.store(true, Ordering::Relaxed);
        (sender.join().unwrap(), met)
    });
    println!("{sent} signals, {met} of them met by a stop");
    assert!(met > 0, "none was under way: this proves nothing");
    let mut arrived = 0;
    until("all arrive", || {
        subject.0.stdin.as_mut().unwrap().write_all(b"#").unwrap();
        let mut answer = [0; 8];
        subject.0.stdout.as_mut().unwrap().read_exact(&mut answer).unwrap();
        arrived = u64::from_le_bytes(answer);
        arrived >= sent
    });
    assert_eq!(arrived, sent, "no more than were sent");
}

#[test]
fn threads_that_come_and_go_are_all_caught_or_gone() {
    let mut subject = Subject::start("churn");
    for _ in 0..40 {
        let target = subject.stop();
        let states = subject.states();
        // A thread may end while it is being stopped, and be listed until its exit is done.
        assert!(states.iter().all(|state| matches!(state, 't' | 'X' | 'Z')), "{states:?} {:?}", target.notes);
        let taken = linux_writer::write(target, Limits::default()).unwrap();
        Layout::parse(&taken.dump).unwrap();
    }
    subject.lives();
}

#[test]
fn killed_in_the_middle() {
    for kill_before_reading in [true, false] {
        let mut subject = Subject::start("threads");
        let target = subject.stop();
        let threads = target.threads.len();
        if kill_before_reading {
            subject.0.kill().unwrap();
            until("its memory is gone", || target.memory().read(target.modules[0].range.start, 4).is_empty());
        }
        let taken = linux_writer::write(target, Limits::default()).unwrap();
        let layout = Layout::parse(&taken.dump).unwrap();
        assert_eq!(layout.threads.len(), threads, "registers and modules were read before");
        assert!(!layout.modules.is_empty());
        assert_eq!(layout.memory.is_empty(), kill_before_reading);
        // Whoever traces it as well as having started it collects it: the standard library may come too late.
        let _ = (subject.0.kill(), subject.0.wait());
    }
}

#[test]
fn nobody_and_oneself_are_errors() {
    let mut subject = Subject::start("threads");
    subject.0.kill().unwrap();
    subject.0.wait().unwrap();
    assert!(Target::stop(Request::new(subject.pid(), subject.pid(), None)).is_err());
    let own = std::process::id() as i32;
    assert!(Target::stop(Request::new(own, own, None)).is_err());
    assert!(Target::stop(Request::new(i32::MAX, i32::MAX, None)).is_err());
}

#[test]
fn another_tracer_leaves_what_can_be_read() {
    let subject = Subject::start("threads");
    let (pid, (ready, go)) = (subject.pid(), (std::sync::mpsc::channel(), std::sync::mpsc::channel::<()>()));
    // A tracer is a thread: this one is another.
    let other = std::thread::spawn(move || {
        let target = Target::stop(Request::new(pid, pid, None)).unwrap();
        ready.0.send(()).unwrap();
        let _ = go.1.recv();
        drop(target);
    });
    ready.1.recv().unwrap();
    let target = subject.stop();
    assert!(target.notes.iter().any(|note| note.contains("could not be traced")), "{:?}", target.notes);
    assert!(target.threads.len() >= 9 && target.threads.iter().all(|thread| thread.registers.is_none()));
    assert!(!target.modules.is_empty() && target.modules.iter().all(|module| !module.build_id.is_empty()));
    let taken = linux_writer::write(target, Limits::default()).unwrap();
    let layout = Layout::parse(&taken.dump).unwrap();
    assert!(layout.threads.iter().all(|thread| thread.context.is_empty()));
    go.0.send(()).unwrap();
    other.join().unwrap();
}

#[test]
fn a_long_stack_keeps_its_two_ends() {
    let subject = Subject::start("deep");
    let is_deep = |thread: &&cenotaph::target::Thread| thread.name.as_deref() == Some("deep");
    until("it has its name", || subject.stop().threads.iter().any(|thread| is_deep(&thread)));
    let pid = subject.pid();
    let tid = subject.stop().threads.iter().find(is_deep).unwrap().id;
    let target = Target::stop(Request::new(pid, tid, None)).unwrap();
    let pointer = target.crashed().unwrap().registers.as_ref().unwrap().rsp;
    let top = target.crashed().unwrap().control_block.unwrap();
    assert!(cenotaph::target::find(&target.maps, pointer).unwrap().range.contains(&top));
    assert!(top - pointer > 5 << 20);
    let dump = linux_writer::write(target, Limits::default()).unwrap().dump;
    assert!(dump.len() < 1 << 20, "{}", dump.len());
    let layout = Layout::parse(&dump).unwrap();
    let stack = &layout.threads.iter().find(|thread| thread.id == tid as u32).unwrap().stack;
    assert_eq!(stack.bytes.len() as u64, END);
    assert!(stack.addresses().contains(&pointer));
    assert!(layout.memory.iter().any(|memory| memory.addresses() == (top - END..top)), "the outer end");
    let trace = unwind::stack_trace(&dump, &layout, &FileBinaries::new()).unwrap();
    let frames = &trace.threads[0].frames;
    // The innermost frames are all there.
    assert!(trace.threads[0].id == tid as u32 && frames.len() > 20, "{}", frames.len());
    let same = |pair: &[cenotaph::report::Frame]| pair[0].instruction == pair[1].instruction;
    // Above them is what it waits in, or is about to.
    let first = frames.windows(2).position(same).expect("a function that calls itself");
    assert!(first < 20 && frames[first..first + 10].windows(2).all(same), "{frames:x?}");

    let theirs = writer::write(writer::Request::new(pid, tid, None)).unwrap();
    assert!(theirs.len() > 5 << 20, "it keeps all");
}

#[test]
fn libraries_without_a_file_and_with_a_broken_header() {
    let mut subject = Subject::start("libraries");
    let target = subject.stop();
    let find = |name: &str| target.modules.iter().find(|module| module.path.contains(name));
    let (deleted, nameless) = (find("/deleted.so").unwrap(), find("/memfd:nameless").unwrap());
    assert!(deleted.deleted && nameless.deleted);
    assert!(!deleted.build_id.is_empty() && deleted.build_id == nameless.build_id);
    assert!(deleted.name.ends_with("/libm.so.6") && nameless.name == "/libm.so.6");
    // What still looks like a binary is listed; what its header says is not believed.
    assert!(find("/broken.so").is_none_or(|module| module.build_id.is_empty()));
    let ours = linux_writer::write(target, Limits::default()).unwrap().dump;
    let theirs = writer::write(writer::Request::new(subject.pid(), subject.pid(), None)).unwrap();
    let modules = |dump: &[u8]| -> Vec<_> {
        let layout = Layout::parse(dump).unwrap();
        let all = layout.modules.into_iter().filter(|module| !module.build_id.is_empty());
        all.map(|m| (m.base, m.size, utf16(&dump[m.name]), dump[m.build_id].to_vec())).collect()
    };
    assert_eq!(modules(&ours), modules(&theirs));
    subject.lives();
}
