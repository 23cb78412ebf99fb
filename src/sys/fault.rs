//! Where a confined child dies: its last message, sent by a handler, and how its parent reads it.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicI32, AtomicU8, Ordering};

/// How a child was about to die. It was written by a process that runs foreign code: numbers, and nothing that is believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fault {
    /// The signal.
    pub(crate) signal: i32,
    /// The call that is not allowed, of SIGSYS.
    pub(crate) call: u32,
    /// The last call that set `errno` was refused memory.
    pub(crate) refused: bool,
    /// Whether it died in code that was loaded through a descriptor.
    pub(crate) own: bool,
    /// Its program counter.
    pub(crate) instruction: u64,
    /// The same from the start of its binary, as `addr2line` takes it; 0 if there is none.
    pub(crate) offset: u64,
}

const LENGTH: usize = 26;

impl Fault {
    fn bytes(&self) -> [u8; LENGTH] {
        let mut bytes = [0; LENGTH];
        bytes[..4].copy_from_slice(&self.signal.to_le_bytes());
        bytes[4..8].copy_from_slice(&self.call.to_le_bytes());
        bytes[8] = self.refused.into();
        bytes[9] = self.own.into();
        bytes[10..18].copy_from_slice(&self.instruction.to_le_bytes());
        bytes[18..].copy_from_slice(&self.offset.to_le_bytes());
        bytes
    }

    /// What stands behind the tag of a message.
    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; LENGTH] = bytes.try_into().ok()?;
        Some(Self {
            signal: i32::from_le_bytes(*bytes.first_chunk()?),
            call: u32::from_le_bytes(*bytes[4..].first_chunk()?),
            refused: bytes[8] != 0,
            own: bytes[9] != 0,
            instruction: u64::from_le_bytes(*bytes[10..].first_chunk()?),
            offset: u64::from_le_bytes(*bytes[18..].first_chunk()?),
        })
    }
}

static SOCKET: AtomicI32 = AtomicI32::new(-1);
static TAG: AtomicU8 = AtomicU8::new(0);
/// Binaries of this process while it was well: start, end, what to subtract for an offset, and whether one is its own.
static BINARIES: OnceLock<Vec<Binary>> = OnceLock::new();

#[derive(Debug)]
struct Binary {
    start: u64,
    end: u64,
    bias: u64,
    /// The last component of its path; empty for the program.
    name: String,
    /// It was loaded through a descriptor.
    own: bool,
}

/// In a child just forked: has what kills it send a message over `socket` before, `tag` and a [`Fault`]. It dies all the same, and
/// also of an overflow of its stack.
pub(crate) fn tell(socket: c_int, tag: u8) {
    const STACK: usize = 64 << 10;
    SOCKET.store(socket, Ordering::Relaxed);
    TAG.store(tag, Ordering::Relaxed);
    let stack: &'static mut [u8] = Box::leak(vec![0; STACK].into_boxed_slice());
    let stack = libc::stack_t { ss_sp: stack.as_mut_ptr().cast(), ss_flags: 0, ss_size: STACK };
    // SAFETY: a stack that is never freed, a handler of the type that SA_SIGINFO takes, and zeros for the rest of a structure of
    // integers and pointers.
    unsafe {
        libc::sigaltstack(&raw const stack, std::ptr::null_mut());
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = handle as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_RESETHAND;
        for signal in [
            libc::SIGSEGV,
            libc::SIGBUS,
            libc::SIGILL,
            libc::SIGFPE,
            libc::SIGTRAP,
            libc::SIGABRT,
            libc::SIGSYS,
        ] {
            libc::sigaction(signal, &raw const action, std::ptr::null_mut());
        }
    }
}

/// Remembers where the binaries of this process lie, for the handler.
pub(crate) fn note_own_code() {
    let _ = BINARIES.set(binaries());
}

/// The binary that holds `address` in this process: its file name and the offset there.
pub(crate) fn place(address: u64) -> Option<(String, u64)> {
    let all = binaries();
    let binary = all.iter().find(|binary| (binary.start..binary.end).contains(&address))?;
    let name = if binary.name.is_empty() { "the program" } else { &binary.name };
    Some((name.to_owned(), address.wrapping_sub(binary.bias)))
}

fn binaries() -> Vec<Binary> {
    unsafe extern "C" fn note(info: *mut libc::dl_phdr_info, _: usize, all: *mut c_void) -> c_int {
        // SAFETY: dl_iterate_phdr(3) hands over a structure that is valid for the call, and what `binaries` gave it.
        let (info, all) = unsafe { (&*info, &mut *all.cast::<Vec<Binary>>()) };
        // SAFETY: as many headers as it says; the name is NULL or terminated.
        let (headers, name) = unsafe {
            let name =
                if info.dlpi_name.is_null() { c"" } else { CStr::from_ptr(info.dlpi_name.cast::<c_char>()) };
            (std::slice::from_raw_parts(info.dlpi_phdr, info.dlpi_phnum.into()), name)
        };
        let loaded = || headers.iter().filter(|header| header.p_type == libc::PT_LOAD);
        let start = loaded().map(|header| header.p_vaddr).min().unwrap_or(0);
        let end = loaded().map(|header| header.p_vaddr.saturating_add(header.p_memsz)).max().unwrap_or(0);
        let name = name.to_string_lossy();
        let file = Path::new(&*name).file_name().map_or_else(Default::default, |name| name.to_string_lossy());
        all.push(Binary {
            start: info.dlpi_addr.wrapping_add(start),
            end: info.dlpi_addr.wrapping_add(end),
            bias: info.dlpi_addr,
            own: name.starts_with("/proc/self/fd/"),
            name: file.into_owned(),
        });
        0
    }
    let mut all: Vec<Binary> = Vec::new();
    // SAFETY: a callback of the right type, which is called before this returns, with a pointer to a local.
    unsafe { libc::dl_iterate_phdr(Some(note), (&raw mut all).cast()) };
    all
}

/// Signal-safe: reads what was noted, and sends.
unsafe extern "C" fn handle(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    /// `_call_addr`, `_syscall` (sigaction(2)): behind three integers and their padding.
    const CALL: usize = 24;
    // SAFETY: with SA_SIGINFO the kernel hands over both structures, which are whole while the handler runs; 28 bytes of
    // the first are there for every signal. `errno` is this thread's.
    let (instruction, call, refused) = unsafe {
        let context = &*context.cast::<libc::ucontext_t>();
        let instruction = context.uc_mcontext.gregs[libc::REG_RIP as usize].cast_unsigned();
        let call = info.cast::<u8>().add(CALL).cast::<u32>().read_unaligned();
        (instruction, call, *libc::__errno_location() == libc::ENOMEM)
    };
    let all = BINARIES.get().map_or(&[][..], Vec::as_slice);
    let binary = all.iter().find(|binary| (binary.start..binary.end).contains(&instruction));
    let fault = Fault {
        signal,
        call: if signal == libc::SIGSYS { call } else { 0 },
        refused,
        own: binary.is_some_and(|binary| binary.own),
        instruction,
        offset: binary.map_or(0, |binary| instruction.wrapping_sub(binary.bias)),
    };
    let mut message = [0; LENGTH + 1];
    message[0] = TAG.load(Ordering::Relaxed);
    message[1..].copy_from_slice(&fault.bytes());
    // SAFETY: a buffer of that length; both are system calls that a handler may make. The signal has its default action again
    // (SA_RESETHAND) and comes when this returns.
    unsafe {
        libc::send(
            SOCKET.load(Ordering::Relaxed),
            message.as_ptr().cast(),
            message.len(),
            libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL,
        );
        libc::syscall(libc::SYS_tgkill, libc::getpid(), libc::syscall(libc::SYS_gettid), signal);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_survives_its_message() {
        let (instruction, offset) = (0x7fff_0000_1139, 0x1139);
        let fault = Fault { signal: 31, call: 59, refused: true, own: true, instruction, offset };
        assert_eq!(Fault::parse(&fault.bytes()), Some(fault));
        assert_eq!(Fault::parse(&fault.bytes()[1..]), None);
    }

    #[test]
    fn code_has_a_place() {
        let (name, offset) = place(binaries as *const () as u64).unwrap();
        assert!(name == "the program" && offset > 0, "{name} {offset:#x}");
        let (name, _) = place(libc::getpid as *const () as u64).unwrap();
        assert!(name.starts_with("libc"), "{name}");
        assert_eq!(place(8), None);
    }
}
