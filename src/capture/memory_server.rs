//! A copy of the dying process that tells its memory to a worker that may not read it: rung 2b of the ladder.
//!
//! Reached by handlers: nothing here allocates, locks or calls user code. The copy is a raw `clone` without shared memory:
//! the kernel copies pages only when somebody writes to them, no other thread is in it, and no `atfork` handler runs. It
//! has all signals blocked, answers until its peer is gone or the time is over, and ends.

use std::cell::UnsafeCell;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

use super::signal_safe::{self, Waited};
use crate::memory_protocol::{MOST, REPLY, REQUEST, Wanted, reply};

const PAGE: u64 = 4096;

struct Buffer(UnsafeCell<[u8; REPLY + PAGE as usize]>);
// SAFETY: used by the copy alone, which has one thread and memory of its own.
unsafe impl Sync for Buffer {}
static BUFFER: Buffer = Buffer(UnsafeCell::new([0; REPLY + PAGE as usize]));

/// Starts a copy that serves until `until_ns` (monotonic). Returns the other end of its socket.
pub(super) fn start(until_ns: u64) -> Option<RawFd> {
    let (ours, theirs) = signal_safe::socket_pair()?;
    match signal_safe::copy_process() {
        Some(0) => {
            // It would not see its peer's end while it holds a copy of that.
            signal_safe::close(theirs);
            serve(ours, until_ns);
            signal_safe::exit_now(0)
        }
        copied => {
            signal_safe::close(ours);
            if copied.is_none() {
                signal_safe::close(theirs);
            }
            copied.map(|_| theirs)
        }
    }
}

/// The same from ordinary code, in a process that may live on: the copy is nobody's child, so that no zombie stays.
pub(crate) fn start_apart(until_ns: u64) -> Option<OwnedFd> {
    let (ours, theirs) = signal_safe::socket_pair()?;
    let before = signal_safe::block_all_signals();
    let copied = signal_safe::copy_process();
    if copied == Some(0) {
        let served = match signal_safe::copy_process() {
            Some(0) => {
                signal_safe::close(theirs);
                serve(ours, until_ns);
                true
            }
            other => other.is_some(),
        };
        signal_safe::exit_now(i32::from(!served));
    }
    signal_safe::set_signals(before);
    signal_safe::close(ours);
    // SAFETY: just made, and nobody else's.
    let theirs = unsafe { OwnedFd::from_raw_fd(theirs) };
    copied.is_some_and(signal_safe::wait_for).then_some(theirs)
}

fn serve(socket: RawFd, until_ns: u64) {
    let mut file: RawFd = -1;
    let mut request = [0; REQUEST];
    while let Waited::Answer(length) = signal_safe::receive(socket, &mut request, until_ns) {
        let answered = match Wanted::decode(request.get(..length).unwrap_or_default()) {
            Some((Wanted::Memory(address, length), number)) => {
                let length = readable(address, length);
                signal_safe::send_two(socket, &reply(number, length), address, length as usize)
            }
            Some((Wanted::File(which, from_start), number)) => {
                if from_start {
                    signal_safe::close(file);
                    file = signal_safe::open(which.path());
                }
                // SAFETY: this process has one thread.
                let buffer = unsafe { &mut *BUFFER.0.get() };
                let read = signal_safe::read(file, &mut buffer[REPLY..]);
                buffer[..REPLY].copy_from_slice(&reply(number, read as u64));
                signal_safe::send(socket, &buffer[..(REPLY + read).min(REPLY + PAGE as usize)])
            }
            None => false,
        };
        if !answered {
            return;
        }
    }
}

/// How many of `length` bytes from `address` on can be read.
fn readable(address: u64, length: u64) -> u64 {
    let Some(end) = address.checked_add(length.min(MOST as u64)) else { return 0 };
    let mut page = address & !(PAGE - 1);
    while page < end && signal_safe::is_readable(page) {
        page += PAGE;
    }
    page.min(end).saturating_sub(address)
}
