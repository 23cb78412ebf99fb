//! A process to be dumped.
#![allow(dead_code, reason = "each test program uses its part")]

use std::ffi::c_void;
use std::io::{BufRead, BufReader, Read};
use std::ops::Range;
use std::process::{Child, Command, Stdio};

use cenotaph::dump::writer::{self, Request};
use crash_context::CrashContext;

/// In the environment of a victim: how many worker threads it has.
pub(crate) const ROLE: &str = "CENOTAPH_DUMP_VICTIM";
/// On its heap, with a pointer to it on the noted thread's stack.
pub(crate) const HEAP_TEXT: &[u8] = b"pointed to by the victim's stack";
/// The address that it is said to have faulted at.
pub(crate) const FAULT: u64 = 0x1234_5678;

/// This very program, run once more as a process to be dumped. Killed when dropped.
pub(crate) struct Victim {
    pub(crate) child: Child,
    pub(crate) tid: i32,
    pub(crate) heap: u64,
    /// What libgcc's unwinder found in the victim, innermost first.
    pub(crate) return_addresses: Vec<u64>,
    context: Vec<u8>,
}

impl Victim {
    pub(crate) fn start() -> Self {
        Self::with_workers(2)
    }

    pub(crate) fn with_workers(workers: usize) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "victim::run", "--nocapture", "--test-threads=1"])
            .env(ROLE, workers.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let line = lines.map(Result::unwrap).find_map(|line| Some(line.split_once("VICTIM ")?.1.to_owned()));
        let line = line.expect("the victim's announcement");
        let mut words = line.split(' ');
        let mut next = || words.next().unwrap();
        let (tid, heap, addresses, context) = (next(), next(), next(), next());
        let number = |text| u64::from_str_radix(text, 16).unwrap();
        let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
        Self {
            child,
            tid: tid.parse().unwrap(),
            heap: number(heap),
            return_addresses: addresses.split(',').map(number).filter(|&address| address != 0).collect(),
            context: context.as_bytes().chunks(2).map(byte).collect(),
        }
    }

    /// With `crash`, from the context that the victim noted, as if it had crashed there.
    pub(crate) fn dump(&self, crash: bool) -> Vec<u8> {
        let context = crash.then(|| self.context());
        writer::write(Request::new(self.child.id() as i32, self.tid, context)).unwrap()
    }

    pub(crate) fn context(&self) -> CrashContext {
        let mut context = CrashContext::from_bytes(&self.context).unwrap();
        context.siginfo.ssi_signo = libc::SIGSEGV as u32;
        context.siginfo.ssi_code = 1;
        context.siginfo.ssi_addr = FAULT;
        context
    }

    pub(crate) fn readable(&self) -> Vec<Range<u64>> {
        let maps = std::fs::read_to_string(format!("/proc/{}/maps", self.child.id())).unwrap();
        let range = |line: &str| {
            let (range, rest) = line.split_once(' ')?;
            let (start, end) = range.split_once('-')?;
            let number = |text| u64::from_str_radix(text, 16).unwrap();
            rest.starts_with('r').then(|| number(start)..number(end))
        };
        maps.lines().filter_map(range).collect()
    }

    pub(crate) fn memory(&self) -> std::fs::File {
        std::fs::File::open(format!("/proc/{}/mem", self.child.id())).unwrap()
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Not a test of its own: what a victim runs.
#[test]
fn run() {
    let Ok(workers) = std::env::var(ROLE) else { return };
    let workers: usize = workers.parse().unwrap();
    let barrier = std::sync::Arc::new(std::sync::Barrier::new(workers + 1));
    for i in 0..workers {
        let barrier = barrier.clone();
        let worker = move || {
            barrier.wait();
            loop {
                std::thread::park();
            }
        };
        std::thread::Builder::new().name(format!("worker {i}")).spawn(worker).unwrap();
    }
    barrier.wait();
    let heap: Box<[u8]> = HEAP_TEXT.into();
    outer(&heap);
}

#[inline(never)]
fn outer(heap: &[u8]) {
    middle(heap, 3);
    std::hint::black_box(heap);
}

#[inline(never)]
fn middle(heap: &[u8], depth: u32) {
    if depth > 0 {
        middle(heap, depth - 1)
    } else {
        announce(heap)
    }
    std::hint::black_box(heap);
}

#[inline(never)]
fn announce(heap: &[u8]) {
    let heap_pointer = std::hint::black_box(heap.as_ptr());
    let mut context = CrashContext::from_bytes(&vec![0; size_of::<CrashContext>()]).unwrap();
    let mut addresses: Vec<u64> = Vec::new();
    // SAFETY: the callback gets back the pointer to `addresses`, which outlives the call and is not used meanwhile.
    unsafe { _Unwind_Backtrace(note, (&raw mut addresses).cast()) };
    // SAFETY: the context is a valid place for one, and getcontext only writes there.
    unsafe { crash_context::crash_context_getcontext(&mut context.context) };
    let addresses: Vec<_> = addresses.iter().map(|address| format!("{address:x}")).collect();
    let context: String = context.as_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    // SAFETY: takes nothing and returns a number.
    let tid = unsafe { libc::gettid() };
    println!("VICTIM {tid} {:x} {} {context}", heap_pointer as usize, addresses.join(","));
    // Until it is killed, or its parent is gone.
    let _ = std::io::stdin().read(&mut [0]);
}

extern "C" fn note(context: *mut c_void, addresses: *mut c_void) -> i32 {
    // SAFETY: `announce` passed a pointer to its vector, and nobody else uses it during the call.
    let addresses = unsafe { &mut *addresses.cast::<Vec<u64>>() };
    // SAFETY: the unwinder passes its own context.
    addresses.push(unsafe { _Unwind_GetIP(context) } as u64);
    0
}

unsafe extern "C" {
    fn _Unwind_Backtrace(note: extern "C" fn(*mut c_void, *mut c_void) -> i32, argument: *mut c_void) -> i32;
    fn _Unwind_GetIP(context: *mut c_void) -> usize;
}
