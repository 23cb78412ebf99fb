//! A handler that was there before Cenotaph, and must see the true cause: prints it and passes it on.

use std::cell::UnsafeCell;
use std::io;
use std::mem;

/// Signals that end a process because of what it did.
const SIGNALS: [libc::c_int; 7] =
    [libc::SIGSEGV, libc::SIGBUS, libc::SIGILL, libc::SIGFPE, libc::SIGABRT, libc::SIGTRAP, libc::SIGSYS];
/// The announcement's first word: `siginfo SIGNAL CODE ADDRESS`, the address 0 where the signal has none.
pub(crate) const ANNOUNCEMENT: &str = "siginfo";

struct Earlier(UnsafeCell<[Option<libc::sigaction>; SIGNALS.len()]>);
// SAFETY: written before the handlers are installed, only read by them.
unsafe impl Sync for Earlier {}
static EARLIER: Earlier = Earlier(UnsafeCell::new([None; SIGNALS.len()]));

/// Installs it for all signals, in front of what is there (std's handler for overflowing stacks).
///
/// # Errors
/// If the kernel refuses.
pub(crate) fn install() -> Result<(), String> {
    for (index, signal) in SIGNALS.into_iter().enumerate() {
        // SAFETY: all-zero actions are valid; the handler has the type that SA_SIGINFO asks for, and only makes
        // async-signal-safe calls. `EARLIER` is not read before the handler for this signal stands.
        let failed = unsafe {
            let mut before: libc::sigaction = mem::zeroed();
            let mut action: libc::sigaction = mem::zeroed();
            if libc::sigaction(signal, std::ptr::null(), &raw mut before) == 0
                && let Some(slot) = (*EARLIER.0.get()).get_mut(index)
            {
                *slot = Some(before);
            }
            action.sa_sigaction = on_signal as extern "C" fn(_, _, _) as usize;
            action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
            libc::sigfillset(&raw mut action.sa_mask);
            libc::sigaction(signal, &raw const action, std::ptr::null_mut()) != 0
        };
        if failed {
            return Err(format!("--chained-handler: {}", io::Error::last_os_error()));
        }
    }
    Ok(())
}

extern "C" fn on_signal(signal: libc::c_int, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    // SAFETY: the kernel's siginfo. The address is in every signal that the kernel raises for an instruction.
    let (code, address) =
        unsafe { ((*info).si_code, if (*info).si_code > 0 { (*info).si_addr() as u64 } else { 0 }) };
    let mut line = Line::default();
    line.text(ANNOUNCEMENT.as_bytes());
    line.number(signal.into());
    line.number(code.into());
    line.number(i128::from(address));
    line.text(b"\n");
    // SAFETY: a buffer and its length; the array is only read from here on. The calls are async-signal-safe.
    unsafe {
        libc::write(1, line.bytes.as_ptr().cast(), line.length);
        let index = SIGNALS.iter().position(|known| *known == signal);
        if let Some(before) = index.and_then(|index| (&(*EARLIER.0.get())).get(index)?.as_ref()) {
            libc::sigaction(signal, before, std::ptr::null_mut());
        }
        // It comes again when this returns, with the same cause.
        libc::syscall(libc::SYS_rt_tgsigqueueinfo, libc::getpid(), libc::gettid(), signal, info);
    }
}

/// Text, put together without allocating.
struct Line {
    bytes: [u8; 96],
    length: usize,
}

impl Default for Line {
    fn default() -> Self {
        Self { bytes: [0; 96], length: 0 }
    }
}

impl Line {
    fn text(&mut self, text: &[u8]) {
        for byte in text {
            if let Some(slot) = self.bytes.get_mut(self.length) {
                *slot = *byte;
                self.length += 1;
            }
        }
    }

    /// A space, then the number.
    fn number(&mut self, number: i128) {
        self.text(if number < 0 { b" -" } else { b" " });
        let mut digits = [0u8; 40];
        let (mut rest, mut first) = (number.unsigned_abs(), digits.len());
        loop {
            first -= 1;
            if let Some(slot) = digits.get_mut(first) {
                *slot = b'0' + (rest % 10) as u8;
            }
            rest /= 10;
            if rest == 0 || first == 0 {
                break;
            }
        }
        self.text(digits.get(first..).unwrap_or_default());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_numbers_are() {
        for number in [0, 7, -6, 128, i128::from(u64::MAX)] {
            let mut line = Line::default();
            line.number(number);
            assert_eq!(&line.bytes[..line.length], format!(" {number}").as_bytes());
        }
    }
}
