//! What a real application has besides its fault: threads and heap.

use std::sync::mpsc;
use std::thread;

use crate::chain;
use crate::masked::Masked;
use crate::wipe;

const BLOCK: usize = 100 * 1024;
const PAGE: usize = 4096;

/// Starts `count` threads, ten frames deep in pause(2), and returns when all are there. The first ones
/// get the names given.
///
/// # Errors
/// If the machine refuses so many threads.
pub(crate) fn park(count: usize, names: Vec<Masked>) -> Result<(), String> {
    let mut names = names.into_iter();
    let (parked, all_parked) = mpsc::channel();
    for _ in 0..count {
        let (parked, name) = (parked.clone(), names.next());
        let body = move || {
            if let Some(name) = name {
                rename(&name);
            }
            chain::ten_frames_deep(&mut || {
                let _ = parked.send(());
                loop {
                    // SAFETY: no precondition; signals that are handled end it, hence the loop.
                    unsafe { libc::pause() };
                }
            });
        };
        thread::Builder::new()
            .name("parked".to_owned())
            .spawn(body)
            .map_err(|e| format!("--threads: {e}"))?;
    }
    drop(parked);
    (0..count).try_for_each(|_| all_parked.recv()).map_err(|e| format!("--threads: {e}"))
}

/// One more parked thread.
///
/// # Errors
/// If the machine refuses it.
pub(crate) fn park_one() -> Result<(), String> {
    park(1, Vec::new())
}

/// Allocates `mib` MiB in blocks of 100 KiB, touches every page, and keeps them.
pub(crate) fn fill_heap(mib: usize) {
    for _ in 0..(mib * 1024 * 1024).div_ceil(BLOCK) {
        let block = vec![0u8; BLOCK].leak();
        block.iter_mut().step_by(PAGE).for_each(|byte| *byte = 1);
        if let Some(last) = block.last_mut() {
            *last = 1;
        }
        std::hint::black_box(block);
    }
}

/// Names the calling thread; no copy of the name stays in this process.
fn rename(name: &Masked) {
    let mut text = [0u8; crate::plant::THREAD_NAME_BYTES + 1];
    if let Some((_terminator, room)) = text.split_last_mut() {
        name.unmask_into(room);
    }
    // SAFETY: `text` ends in a zero byte and lives through the call, which copies it into the kernel.
    unsafe { libc::pthread_setname_np(libc::pthread_self(), text.as_ptr().cast()) };
    wipe::bytes(&mut text);
}
