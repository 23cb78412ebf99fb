use std::io::{Read, Write};
use std::process::{Command, Stdio};

use crash_context::CrashContext;

use super::*;
use crate::config::Config;
use crate::dump::Layout;

/// Both writers, each as the worker calls it, over a process that waits: the fallback's path is taken in no other way
/// unless a worker dies.
#[test]
fn both_writers() {
    let config = Config::new("game", "1").validate().unwrap();
    let mut child = Command::new("/bin/cat").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    // When the line has come back it waits for the next one.
    child.stdin.as_mut().unwrap().write_all(b"x\n").unwrap();
    child.stdout.as_mut().unwrap().read_exact(&mut [0; 2]).unwrap();
    let pid = child.id().cast_signed();
    let registers = {
        let target = Target::stop(target::Request::new(pid, pid, None)).unwrap();
        target.crashed().unwrap().registers.clone().unwrap()
    };
    let mut context = CrashContext::from_bytes(&vec![0; size_of::<CrashContext>()]).unwrap();
    let words = &mut context.context.uc_mcontext.gregs;
    words[libc::REG_RIP as usize] = registers.rip.cast_signed();
    words[libc::REG_RSP as usize] = registers.rsp.cast_signed();
    (context.siginfo.ssi_signo, context.siginfo.ssi_addr) = (11, 0x1230);
    (context.pid, context.tid) = (pid, pid);

    for writer in [Writer::Ours, Writer::Patient, Writer::Fallback] {
        let fallback = matches!(writer, Writer::Fallback);
        let ours = |target, limits| {
            Ok(Inspected { taken: linux_writer::write(target, limits)?, ..Inspected::default() })
        };
        let request = target::Request::new(pid, pid, Some(context.clone()));
        let taken = take(request, writer, &config, &[], ours).unwrap().taken;
        let Taken { dump, start_up: strings, tables, notes } = taken;
        assert_eq!(notes.iter().any(|note| note.contains("minidump-writer")), fallback, "{notes:?}");
        // The fallback leaves the strings of the start in the dump, for the scrubber to find there.
        assert_eq!((strings.is_none(), tables.len()), (fallback, 0));
        let layout = Layout::parse(&dump).unwrap();
        let exception = layout.exception.as_ref().unwrap();
        assert_eq!((exception.code, exception.address, exception.thread_id), (11, 0x1230, pid as u32));
        let stack = &layout.threads[0].stack;
        assert!(stack.addresses().contains(&registers.rsp));
        assert!(layout.memory.len() > 2, "what the stack points to is in it");
        let captured = Captured { dump: dump.clone(), tables: tables.clone(), meta: meta() };
        let copy =
            crate::sys::memory::read_memfd(std::os::fd::AsFd::as_fd(&captured.bundle().unwrap()), 1 << 30);
        let copy = Captured::from_bundle(&copy.unwrap()).unwrap();
        assert!(copy.dump == dump && copy.tables == tables && copy.meta.id == captured.meta.id);
    }
    // It lives.
    child.stdin.as_mut().unwrap().write_all(b"y\n").unwrap();
    child.stdout.as_mut().unwrap().read_exact(&mut [0; 2]).unwrap();
    drop(child.stdin.take());
    assert!(child.wait().unwrap().success());
}

fn meta() -> Meta {
    Meta {
        id: ReportId([7; 16]),
        sequence: 1,
        time_ms: 2,
        monotonic_ns: 3,
        thread: 4,
        instruction: 5,
        reason: Reason::Requested { reason: String::new() },
        snapshot: Snapshot::default(),
        arguments: None,
        argument_strings: String::new(),
        environment_strings: String::new(),
        found: origin::Found::default(),
        ran: Vec::new(),
        version: None,
        trace: None,
        blanked: Vec::new(),
        secret: Vec::new(),
        tentative: false,
        notes: Vec::new(),
        stages_ms: BTreeMap::new(),
        stages_bytes: BTreeMap::new(),
    }
}

#[test]
fn bundles_that_are_cut_short() {
    let table = UnwindTables { module: 1, bias: 2, index: (3, vec![4; 5]), frames: (6, vec![7; 8]) };
    let whole = Captured { dump: vec![9; 10], tables: vec![table.clone()], meta: meta() };
    let bytes =
        crate::sys::memory::read_memfd(std::os::fd::AsFd::as_fd(&whole.bundle().unwrap()), 1 << 20).unwrap();
    let back = Captured::from_bundle(&bytes).unwrap();
    assert_eq!((&back.dump[..], &back.tables[..]), (&[9; 10][..], &[table][..]));
    // All but the dump has a length.
    for length in 0..bytes.len() - 10 {
        assert!(Captured::from_bundle(&bytes[..length]).is_err(), "{length}");
    }
}
