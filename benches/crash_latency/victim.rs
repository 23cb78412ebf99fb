//! The victim: threads, a heap, and a null pointer. The same code whichever SDK is installed.

use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::clock::{Clock, Stamp};
use crate::options::Sdk;
use crate::{Failure, modules, peer, subject};

/// Frames between a thread's start and where it waits or faults.
const DEPTH: u32 = 10;
const BLOCK: usize = 100 * 1024;
const PAGE: usize = 4096;

/// For the handler.
static CLOCK: OnceLock<Clock> = OnceLock::new();
static PARKED: AtomicUsize = AtomicUsize::new(0);

/// What a victim is told.
#[derive(Debug)]
pub(crate) struct Orders {
    pub(crate) sdk: Sdk,
    pub(crate) threads: usize,
    pub(crate) heap_mib: usize,
    pub(crate) modules: usize,
    /// Where the shared objects are.
    pub(crate) modules_dir: PathBuf,
    /// [`Clock::path`].
    pub(crate) clock: PathBuf,
    /// For what the SDK writes.
    pub(crate) dir: PathBuf,
    /// Minidumper's socket and monitor.
    pub(crate) server: peer::Address,
}

impl Orders {
    pub(crate) fn to_arguments(&self) -> Vec<String> {
        let path = |path: &Path| path.display().to_string();
        vec![
            self.sdk.name().to_owned(),
            self.threads.to_string(),
            self.heap_mib.to_string(),
            self.modules.to_string(),
            path(&self.modules_dir),
            path(&self.clock),
            path(&self.dir),
            self.server.socket.clone(),
            self.server.pid.to_string(),
        ]
    }

    pub(crate) fn from_arguments(arguments: &[String]) -> Option<Self> {
        let [sdk, threads, heap_mib, modules, modules_dir, clock, dir, socket, pid] = arguments else {
            return None;
        };
        Some(Self {
            sdk: Sdk::parse(sdk)?,
            threads: threads.parse().ok()?,
            heap_mib: heap_mib.parse().ok()?,
            modules: modules.parse().ok()?,
            modules_dir: modules_dir.into(),
            clock: clock.into(),
            dir: dir.into(),
            server: peer::Address { socket: socket.clone(), pid: pid.parse().ok()? },
        })
    }
}

/// Announces on standard output that it is ready, and crashes when standard input has a byte.
pub(crate) fn run(orders: &Orders) -> Result<(), Failure> {
    if CLOCK.set(Clock::open(&orders.clock)?).is_err() {
        return Err("a victim is one process".into());
    }
    // Before the SDK's handlers, so that it runs after them.
    stamp_on_fault()?;
    match orders.sdk {
        Sdk::Cenotaph | Sdk::WithPmodules => subject::install(&orders.dir)?,
        Sdk::Minidumper => peer::install(&orders.server)?,
    }
    let telemetry = modules::start_telemetry(&orders.modules_dir, orders.threads)?;
    modules::load(&orders.modules_dir, orders.modules)?;
    let heap = touched_heap(orders.heap_mib);
    let parked = orders.threads - 1 - telemetry;
    for _ in 0..parked {
        std::thread::Builder::new().stack_size(256 * 1024).spawn(|| descend(DEPTH, &park))?;
    }
    while PARKED.load(Ordering::Acquire) < parked {
        std::thread::sleep(Duration::from_millis(1));
    }
    io::stdout().write_all(b"ready\n")?;
    io::stdout().flush()?;
    io::stdin().read_exact(&mut [0])?;
    descend(DEPTH, &fault);
    std::hint::black_box(heap);
    Err("the fault did not end the victim".into())
}

/// A handler that notes when it is reached, and lets the fault end the process.
fn stamp_on_fault() -> io::Result<()> {
    extern "C" fn on_fault(signal: libc::c_int) {
        if let Some(clock) = CLOCK.get() {
            clock.stamp(Stamp::Released);
        }
        // SAFETY: signal-safe. The fault happens again when this returns, and now ends the process.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
    // SAFETY: an all-zero sigaction is valid; the handler has the one-argument form that these flags ask for.
    let failed = unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = on_fault as *const () as usize;
        action.sa_flags = libc::SA_ONSTACK;
        libc::sigaction(libc::SIGSEGV, &raw const action, std::ptr::null_mut()) != 0
    };
    if failed { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn touched_heap(mib: usize) -> Vec<Vec<u8>> {
    let blocks = (mib * 1024 * 1024).div_ceil(BLOCK);
    let block = || {
        let mut block = vec![0; BLOCK];
        block.iter_mut().step_by(PAGE).for_each(|byte| *byte = 1);
        block
    };
    std::iter::repeat_with(block).take(blocks).collect()
}

#[inline(never)]
fn descend(depth: u32, end: &dyn Fn()) {
    if depth == 0 {
        end()
    } else {
        descend(depth - 1, end)
    }
    // Keeps the call above from becoming a jump.
    std::hint::black_box(depth);
}

fn park() {
    PARKED.fetch_add(1, Ordering::Release);
    loop {
        // SAFETY: always allowed.
        unsafe { libc::pause() };
    }
}

fn fault() {
    // The second word behind a null pointer: the first is refused by debug builds before it can fault.
    let null = std::hint::black_box(std::ptr::null::<u64>()).wrapping_add(1);
    if let Some(clock) = CLOCK.get() {
        clock.stamp(Stamp::Crash);
    }
    // SAFETY: none; page 0 is never mapped, so that this faults, as it is meant to.
    std::hint::black_box(unsafe { null.read_volatile() });
}
