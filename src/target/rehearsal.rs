//! A look at the calling process itself, for doing once what is done with a stopped one.
#![forbid(unsafe_code)]

use crash_context::CrashContext;

use super::memory::Live;
use super::{AT_ENTRY, AT_SYSINFO_EHDR, Registers, Target, Thread, auxv, file, maps, modules};

impl Target {
    /// The caller, with one thread whose registers are made up. Nothing is stopped, and nothing waits for it: the worker
    /// uses it to have its code and its heap in memory before a process waits for them.
    pub(crate) fn rehearsal() -> Option<Self> {
        let pid = std::process::id().cast_signed();
        let mut notes = Vec::new();
        let mut context = CrashContext::from_bytes(&vec![0; size_of::<CrashContext>()])?.clone();
        let here = (&raw const notes).addr() as i64;
        context.context.uc_mcontext.gregs[libc::REG_RSP as usize] = here;
        context.context.uc_mcontext.gregs[libc::REG_RIP as usize] =
            (Self::rehearsal as fn() -> Option<Self>) as usize as i64;
        (context.pid, context.tid) = (pid, pid);
        let memory = Live::new(pid);
        let maps_text = file(pid, "maps", &mut notes);
        let maps = maps::parse(&maps_text);
        let auxv_bytes = file(pid, "auxv", &mut notes);
        let modules =
            modules::read(&memory, &maps, auxv(&auxv_bytes, AT_ENTRY), auxv(&auxv_bytes, AT_SYSINFO_EHDR));
        let registers = Some(Registers::from_crash(&context));
        let thread = Thread { id: pid, name: None, registers, signal: None, control_block: None };
        Some(Self {
            pid,
            tid: pid,
            crash: Some(context),
            threads: vec![thread],
            maps,
            modules,
            maps_text,
            auxv: auxv_bytes,
            status: file(pid, "status", &mut notes),
            start_up: None,
            notes,
            memory: Box::new(memory),
            symbols: Default::default(),
            stopped: None,
        })
    }
}
