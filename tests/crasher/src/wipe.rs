//! Leaving no copies behind: values must lie in the victim only where they were planted.
//!
//! Three things keep copies: freed heap blocks (parsers and strings move while they grow), dead stack below the
//! live frames, and vector registers (memcpy works through them).

use std::alloc::{GlobalAlloc, Layout, System};
use std::arch::asm;
use std::hint::black_box;
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};

/// Bytes of dead stack that [`leftovers`] clears: more than parsing and the SDK's setters use.
const DEAD_STACK_BYTES: usize = 512 * 1024;

/// The system's allocator, which clears blocks before it frees them until planting is over. After that the victim
/// is an ordinary program again: freed blocks keep what they held.
pub(crate) struct WipingAllocator {
    wiping: AtomicBool,
}

impl WipingAllocator {
    pub(crate) const fn new() -> Self {
        Self { wiping: AtomicBool::new(true) }
    }

    /// Planting is over.
    pub(crate) fn stop(&self) {
        self.wiping.store(false, Ordering::Relaxed);
    }

    fn is_wiping(&self) -> bool {
        self.wiping.load(Ordering::Relaxed)
    }
}

// SAFETY: every block comes from `System` and goes back to it with the layout it was asked for; a block is cleared
// only between the caller's last use and `System::dealloc`.
unsafe impl GlobalAlloc for WipingAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise about `layout` is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise about `layout` is passed on.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        if self.is_wiping() {
            // SAFETY: the caller gives up `block`, which is `layout.size()` bytes long.
            unsafe { clear(block, layout.size()) };
        }
        // SAFETY: the caller's promise that `block` came from here with `layout` is passed on.
        unsafe { System.dealloc(block, layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        if !self.is_wiping() {
            // SAFETY: the caller's promises are passed on.
            return unsafe { System.realloc(block, layout, new_size) };
        }
        // SAFETY: the caller promises that `new_size`, rounded up to the alignment, does not overflow.
        let new_layout = unsafe { Layout::from_size_align_unchecked(new_size, layout.align()) };
        // SAFETY: `new_size` is not zero by the caller's promise.
        let new_block = unsafe { System.alloc(new_layout) };
        if !new_block.is_null() {
            // SAFETY: both blocks are at least as long as the smaller size, and apart, as both are allocated.
            unsafe { ptr::copy_nonoverlapping(block, new_block, layout.size().min(new_size)) };
            // SAFETY: the caller gives up `block` because the new one is not null.
            unsafe { self.dealloc(block, layout) };
        }
        new_block
    }
}

/// Clears bytes in a way that is not optimised away.
pub(crate) fn bytes(bytes: &mut [u8]) {
    // SAFETY: the slice is valid for writes of its length, and zero is a valid u8.
    unsafe { clear(bytes.as_mut_ptr(), bytes.len()) };
}

/// Clears the dead stack below the caller and the vector registers.
pub(crate) fn leftovers() {
    dead_stack();
    vector_registers();
}

/// # Safety
/// `start` must be valid for writes of `length` bytes that nobody reads as anything but bytes afterwards.
unsafe fn clear(start: *mut u8, length: usize) {
    for offset in 0..length {
        // SAFETY: inside the range that the caller vouches for.
        unsafe { start.add(offset).write_volatile(0) };
    }
}

#[inline(never)]
fn dead_stack() {
    let mut frame = [0u8; DEAD_STACK_BYTES];
    bytes(black_box(&mut frame));
}

#[inline(never)]
fn vector_registers() {
    macro_rules! zero {
        ($instruction:literal, $prefix:literal, $($number:literal)*) => {
            concat!($($instruction, " ", $prefix, $number, ", ", $prefix, $number, ", ", $prefix, $number, "\n"),*)
        };
    }
    if is_x86_feature_detected!("avx512f") {
        // SAFETY: the CPU has these registers; they are all declared as overwritten.
        unsafe {
            asm!(zero!("vpxorq", "zmm", "16" "17" "18" "19" "20" "21" "22" "23" "24" "25" "26" "27" "28" "29" "30" "31"),
                out("xmm16") _, out("xmm17") _, out("xmm18") _, out("xmm19") _, out("xmm20") _, out("xmm21") _,
                out("xmm22") _, out("xmm23") _, out("xmm24") _, out("xmm25") _, out("xmm26") _, out("xmm27") _,
                out("xmm28") _, out("xmm29") _, out("xmm30") _, out("xmm31") _, options(nomem, nostack));
        }
    }
    if is_x86_feature_detected!("avx") {
        // SAFETY: the CPU has AVX; the System V ABI's caller-saved set covers all vector registers.
        unsafe { asm!("vzeroall", clobber_abi("sysv64"), options(nomem, nostack)) };
    } else {
        // SAFETY: SSE2 is part of x86_64; the registers are declared as overwritten.
        unsafe {
            asm!(
                "pxor xmm0, xmm0",
                "pxor xmm1, xmm1",
                "pxor xmm2, xmm2",
                "pxor xmm3, xmm3",
                "pxor xmm4, xmm4",
                "pxor xmm5, xmm5",
                "pxor xmm6, xmm6",
                "pxor xmm7, xmm7",
                "pxor xmm8, xmm8",
                "pxor xmm9, xmm9",
                "pxor xmm10, xmm10",
                "pxor xmm11, xmm11",
                "pxor xmm12, xmm12",
                "pxor xmm13, xmm13",
                "pxor xmm14, xmm14",
                "pxor xmm15, xmm15",
                clobber_abi("sysv64"),
                options(nomem, nostack)
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[inline(never)]
    fn leave_a_trace() -> (usize, usize) {
        let mut frame = [0xa5u8; 256];
        let address = black_box(&mut frame).as_ptr() as usize;
        black_box(&frame);
        (address, frame.len())
    }

    #[inline(never)]
    fn count_traces((address, length): (usize, usize)) -> usize {
        // SAFETY: a part of this thread's own stack, which stays mapped; read byte by byte as whatever it holds now.
        (0..length)
            .filter(|offset| unsafe { (address as *const u8).add(*offset).read_volatile() } == 0xa5)
            .count()
    }

    #[test]
    fn dead_frames_are_cleared() {
        // Far below, so that the frames of the calls in this test do not lie over the trace.
        #[inline(never)]
        fn deeper() -> (usize, usize) {
            let room = [0u8; 8192];
            let trace = leave_a_trace();
            black_box(&room);
            trace
        }
        let trace = deeper();
        assert_eq!(count_traces(trace), trace.1, "nothing overwrote it yet");
        leftovers();
        assert_eq!(count_traces(trace), 0);
    }
}
