//! A fault inside malloc, with the arena's lock held and this thread's cache empty.
//!
//! Why all three: a handler that calls malloc deadlocks on the lock, unless the per-thread cache (tcache) serves the
//! request without it; a victim with a filled cache lets such a handler pass by luck.
//!
//! How, on glibc 2.36 (malloc/malloc.c; structure offsets hold for 2.30 and later on x86_64):
//! 1. A second thread exists, so that `SINGLE_THREAD_P` is false and `__libc_malloc` locks the arena
//!    before it calls `_int_malloc`.
//! 2. The cache's counters (`tcache_perthread_struct`, the first chunk of the heap) are read, and blocks of
//!    each size allocated until all are zero. The large blocks of the next steps do not refill it.
//! 3. Of three neighbouring blocks the middle one is freed: too large for cache and fast bins, it becomes the
//!    only chunk of the unsorted bin. Its `bk` is overwritten with an address on the null page.
//! 4. The next large malloc walks the unsorted bin: `bck = victim->bk; ... if (bck->fd != victim` reads at `bk` + 16
//!    and faults in `_int_malloc`, between the arena's lock and unlock.

use std::fs;
use std::hint::black_box;
use std::io::Write as _;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::workload;

/// The address that malloc faults at: `bk` + the offset of `fd` in a chunk.
const FAULT_ADDRESS: usize = FALSE_BACK_POINTER + 16;
const FALSE_BACK_POINTER: usize = 0x20;
/// Where an unsorted chunk's `fd` points, measured from its arena (`offsetof(struct malloc_state, top)`).
const UNSORTED_BIN_OFFSET: usize = 96;
/// Size field of the cache's own chunk: 64 counters of 2 bytes, 64 list heads of 8, a header of 16, PREV_INUSE.
const CACHE_CHUNK_SIZE: usize = 0x291;
const CACHE_BINS: usize = 64;
/// Above the largest cached block (1032 bytes), below the threshold of mmap (128 KiB).
const LARGE: usize = 0x900;

/// Dies. Only for the main thread, whose arena grows by brk.
///
/// # Errors
/// If this libc's malloc is not the one described above.
#[inline(never)]
pub(super) fn die() -> Result<std::convert::Infallible, String> {
    workload::park_one()?;
    let heap = heap_start()?;
    // Sorts what earlier frees left in the unsorted bin and merges the fast bins, so that step 3 finds them empty.
    black_box(allocate(64 * 1024));
    use_up_free_blocks()?;
    drain_cache(heap)?;
    let (victim, arena) = lone_unsorted_chunk()?;
    // Standard error is not buffered and numbers are printed without allocating: nothing fills the cache again.
    let _ = writeln!(
        std::io::stderr(),
        "heap-lock: faults at {FAULT_ADDRESS:#x}, arena {arena:#x} (its mutex is the first word), cached blocks: {}",
        cached_blocks(heap)
    );
    corrupt(victim);
    black_box(allocate(2 * LARGE));
    Err("malloc did not fault: not the glibc that this was written for".to_owned())
}

/// The start of the brk heap.
fn heap_start() -> Result<usize, String> {
    let maps = fs::read_to_string("/proc/self/maps").map_err(|e| format!("/proc/self/maps: {e}"))?;
    maps.lines()
        .find(|line| line.ends_with("[heap]"))
        .and_then(|line| line.split_once('-'))
        .and_then(|(start, _)| usize::from_str_radix(start, 16).ok())
        .ok_or_else(|| "there is no [heap] in /proc/self/maps".to_owned())
}

/// Step 3 without the overwriting: the freed block's address and the arena's.
fn lone_unsorted_chunk() -> Result<(usize, usize), String> {
    static KEEP: [AtomicUsize; 2] = [const { AtomicUsize::new(0) }; 2];
    for _ in 0..1000 {
        let (before, middle, after) = (allocate(LARGE), allocate(LARGE), allocate(LARGE));
        KEEP[0].store(before, Ordering::Relaxed);
        KEEP[1].store(after, Ordering::Relaxed);
        // Neighbours in use keep the freed chunk from being merged into a larger one or into the top.
        if middle == before + LARGE + 16 && after == middle + LARGE + 16 {
            // SAFETY: `middle` came from malloc and nobody else knows it.
            unsafe { libc::free(middle as *mut libc::c_void) };
            let [forward, back] = read_links(middle);
            if forward != back || forward < UNSORTED_BIN_OFFSET {
                return Err("the freed block is not alone in the unsorted bin".to_owned());
            }
            return Ok((middle, forward - UNSORTED_BIN_OFFSET));
        }
    }
    Err("malloc gives no neighbouring blocks".to_owned())
}

/// Makes the next blocks come from the heap's end: one that is split off a larger free one leaves a rest in the unsorted
/// bin. The heap grows only when nothing that was freed is large enough.
fn use_up_free_blocks() -> Result<(), String> {
    // SAFETY: asks for the end of the heap and moves nothing.
    let end = || unsafe { libc::sbrk(0) } as usize;
    let before = end();
    for _ in 0..100_000 {
        black_box(allocate(LARGE));
        if end() != before {
            return Ok(());
        }
    }
    Err("the heap does not grow".to_owned())
}

/// Step 2, without giving anything back.
fn drain_cache(heap: usize) -> Result<(), String> {
    // SAFETY: the first words of the heap mapping are readable; glibc puts a chunk there at its first allocation.
    let size = unsafe { ((heap + 8) as *const usize).read_volatile() };
    if size != CACHE_CHUNK_SIZE {
        return Err("the heap does not start with a per-thread cache of glibc 2.30 or later".to_owned());
    }
    // Serving one size may refill the cache from a bin, hence more rounds than 64 bins of 7 blocks.
    for _ in 0..10_000 {
        let Some(bin) = (0..CACHE_BINS).find(|&bin| cached(heap, bin) != 0) else { return Ok(()) };
        black_box(allocate(24 + 16 * bin));
    }
    Err("the per-thread cache does not run empty".to_owned())
}

/// Blocks in the cache, after [`drain_cache`] has seen that there is one.
fn cached_blocks(heap: usize) -> usize {
    (0..CACHE_BINS).map(|bin| cached(heap, bin)).sum()
}

fn cached(heap: usize, bin: usize) -> usize {
    // SAFETY: the callers checked the size of the heap's first chunk: its first 128 bytes are the counters, and
    // `bin` is below 64. Volatile, because malloc changes them behind the compiler's back.
    usize::from(unsafe { ((heap + 16) as *const u16).add(bin).read_volatile() })
}

/// Step 3's overwriting.
fn corrupt(freed: usize) {
    // SAFETY: deliberately wrong, which is the point: the block is freed, and this is its `bk`. The memory
    // is mapped and Rust has no reference to it.
    unsafe { (freed as *mut usize).add(1).write_volatile(FALSE_BACK_POINTER) };
}

/// `fd` and `bk` of a freed block.
fn read_links(freed: usize) -> [usize; 2] {
    let links = freed as *const usize;
    // SAFETY: the block is freed, but its memory stays mapped, and a chunk of the unsorted bin keeps its links in it.
    unsafe { [links.read_volatile(), links.add(1).read_volatile()] }
}

fn allocate(bytes: usize) -> usize {
    // SAFETY: malloc has no precondition.
    black_box(unsafe { libc::malloc(bytes) }) as usize
}
