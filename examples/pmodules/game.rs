//! The game of game.c in Rust: the same globals (game.h), the same threads of somebody else's library, the same crash.
//!
//! The globals are exported, so that a pmodule finds them by name: `#[no_mangle]`, and build.rs tells the linker
//! (`cargo::rustc-link-arg-bins=-Wl,--export-dynamic-symbol=NAME` for a program of your own).

use std::ffi::CString;
use std::hint::black_box;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Who plays: `struct account`.
#[repr(C)]
pub(crate) struct Account {
    /// Terminated by a zero byte.
    pub(crate) name: [u8; 32],
    /// Terminated by a zero byte.
    pub(crate) password: [u8; 64],
    /// Whether they pay.
    pub(crate) premium: u32,
}

/// What goes on: `struct game_state`.
#[repr(C)]
pub(crate) struct GameState {
    /// Changes with the layout.
    pub(crate) version: AtomicU32,
    /// Where the player is.
    pub(crate) level: AtomicU32,
    /// Frames drawn.
    pub(crate) frame: AtomicU64,
    /// Allocations made.
    pub(crate) allocations: AtomicU64,
    /// Bytes of them.
    pub(crate) bytes_in_use: AtomicU64,
    /// The most that there were.
    pub(crate) bytes_at_most: AtomicU64,
}

/// Of this layout.
pub(crate) const GAME_STATE_VERSION: u32 = 3;

#[unsafe(no_mangle)]
#[allow(non_upper_case_globals, reason = "the name that pmodules look for")]
static player_account: Account =
    Account { name: padded(b"Robin"), password: padded(b"tangerine lighthouse"), premium: 1 };

#[unsafe(no_mangle)]
#[allow(non_upper_case_globals, reason = "the name that pmodules look for")]
static current_game_state: GameState = GameState {
    version: AtomicU32::new(GAME_STATE_VERSION),
    level: AtomicU32::new(12),
    frame: AtomicU64::new(0),
    allocations: AtomicU64::new(0),
    bytes_in_use: AtomicU64::new(0),
    bytes_at_most: AtomicU64::new(0),
};

const fn padded<const N: usize>(text: &[u8]) -> [u8; N] {
    let mut all = [0; N];
    let mut at = 0;
    while at < text.len() {
        all[at] = text[at];
        at += 1;
    }
    all
}

/// Plays until the crash in the 4711th frame. `telemetry` is libtelemetry.so, built from telemetry.c.
pub(crate) fn play(telemetry: Option<&Path>) {
    if let Some(library) = telemetry {
        start_telemetry(library);
    }
    let state = &current_game_state;
    let mut held = Vec::new();
    loop {
        let frame = state.frame.load(Ordering::Relaxed);
        let mut place =
            if frame == 4711 { std::ptr::without_provenance_mut(16) } else { allocate(&mut held) };
        log_in(&player_account, &mut place);
        state.frame.fetch_add(1, Ordering::Relaxed);
    }
}

fn allocate(held: &mut Vec<Box<[u8]>>) -> *mut u8 {
    let state = &current_game_state;
    state.allocations.fetch_add(1, Ordering::Relaxed);
    let used = state.bytes_in_use.fetch_add(1024, Ordering::Relaxed) + 1024;
    state.bytes_at_most.fetch_max(used, Ordering::Relaxed);
    held.push(vec![0; 1024].into_boxed_slice());
    held.last_mut().map_or(std::ptr::null_mut(), |memory| memory.as_mut_ptr())
}

/// Copies what the player typed onto the stack, as programs do, and looks into it.
#[inline(never)]
fn log_in(account: &Account, place: &mut *mut u8) {
    let typed = black_box(account.password);
    // SAFETY: memory of this program's; but in the 4711th frame it is none, which is what this game is for.
    unsafe { place.write_volatile(typed[0]) };
    black_box(&typed);
}

fn start_telemetry(library: &Path) {
    let Ok(path) = CString::new(library.as_os_str().as_bytes()) else { return };
    // SAFETY: a library that does nothing when it is loaded, and its function with the type that telemetry.c has.
    unsafe {
        let handle = libc::dlopen(path.as_ptr(), libc::RTLD_NOW);
        assert!(!handle.is_null(), "{} cannot be loaded", library.display());
        let start = libc::dlsym(handle, c"telemetry_start".as_ptr());
        assert!(!start.is_null(), "{} has no telemetry_start", library.display());
        std::mem::transmute::<*mut libc::c_void, extern "C" fn(libc::c_int)>(start)(3);
    }
}
