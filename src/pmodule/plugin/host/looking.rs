//! What a module sees of the stopped process.

use std::ffi::{c_char, c_void};

use super::super::super::abi::{self, HostPointer, Status, Text};
use super::border::{Refusal, fill, guarded, offer, store, text};
use super::{Call, Sees, lend, no_target};
use crate::target::{Module, Registers, Target};

/// Memory is read in pieces of this size, so that a wild length costs nothing.
const PIECE: usize = 64 << 10;

const READABLE: u32 = 1;
const WRITABLE: u32 = 2;
const EXECUTABLE: u32 = 4;
const PRIVATE: u32 = 8;

#[cfg(test)]
pub(super) const NUMBERS: &[(&str, u32)] =
    &[("READABLE", READABLE), ("WRITABLE", WRITABLE), ("EXECUTABLE", EXECUTABLE), ("PRIVATE", PRIVATE)];

/// A thread as the module sees it; it borrows the name.
pub(in crate::pmodule::plugin) fn thread(target: &Target, thread: &crate::target::Thread) -> abi::Thread {
    abi::Thread {
        size: size_of::<abi::Thread>() as u32,
        id: thread.id,
        crashed: (thread.id == target.tid).into(),
        signal: thread.signal.unwrap_or(0),
        name: lend(thread.name.as_deref()),
    }
}

fn target<'a>(call: &Call<'a>) -> Result<&'a Target, Refusal> {
    if let Sees::Target(target) = call.sees { Ok(target) } else { Err(no_target()) }
}

/// Up to `length` bytes at `address`, [`PIECE`] at most; empty if there are none.
fn piece(call: &Call<'_>, address: u64, length: usize) -> Result<Vec<u8>, Refusal> {
    let length = length.min(PIECE);
    match call.sees {
        Sees::Target(target) => Ok(target.memory().read(address, length)),
        Sees::Dump(dump) => {
            let end = address.saturating_add(length as u64);
            Ok(dump.read(address..end).unwrap_or_default().to_vec())
        }
        Sees::Noted(_) | Sees::Report(_) => Err(no_target()),
    }
}

pub(super) unsafe extern "C" fn read(
    _: HostPointer,
    address: u64,
    buffer: *mut c_void,
    length: usize,
    done: *mut usize,
) -> i32 {
    guarded(|call| {
        // SAFETY: the header's contract; so below.
        unsafe { offer(done, 0) };
        if buffer.is_null() && length > 0 {
            return Err(Refusal::null("the buffer"));
        }
        let mut filled = 0;
        while filled < length {
            let Some(at) = address.checked_add(filled as u64) else { break };
            let bytes = piece(call, at, length - filled)?;
            // SAFETY: `bytes` is no longer than what is left of the buffer's `length`, and is memory of ours.
            unsafe {
                std::ptr::copy_nonoverlapping(bytes.as_ptr(), buffer.cast::<u8>().add(filled), bytes.len());
            }
            filled += bytes.len();
            if bytes.is_empty() {
                break;
            }
        }
        // SAFETY: as above.
        unsafe { offer(done, filled) };
        match filled {
            _ if filled == length => Ok(()),
            0 => Err(Refusal::not_found("the memory cannot be read")),
            _ => Err(Refusal(Status::Short, "only a part of the memory can be read".to_owned())),
        }
    })
}

pub(super) unsafe extern "C" fn read_string(
    _: HostPointer,
    address: u64,
    buffer: *mut c_char,
    size: usize,
    length: *mut usize,
) -> i32 {
    guarded(|call| {
        // SAFETY: the header's contract; so below.
        unsafe { offer(length, 0) };
        let Some(room) = size.checked_sub(1).filter(|_| !buffer.is_null()) else {
            return Err(Refusal::null("the buffer"));
        };
        // SAFETY: there is room for one byte.
        unsafe { buffer.write(0) };
        let mut filled = 0;
        let mut ended = false;
        // One byte more than fits: it may be the zero byte.
        while filled <= room && !ended {
            let Some(at) = address.checked_add(filled as u64) else { break };
            let bytes = piece(call, at, (room + 1 - filled).min(256))?;
            if bytes.is_empty() {
                break;
            }
            let zero = bytes.iter().position(|&byte| byte == 0);
            ended = zero.is_some();
            let taken = zero.unwrap_or(bytes.len()).min(room - filled);
            // SAFETY: `filled + taken` is at most `room`, which leaves a byte for the terminator.
            unsafe {
                std::ptr::copy_nonoverlapping(bytes.as_ptr(), buffer.cast::<u8>().add(filled), taken);
                buffer.add(filled + taken).write(0);
            }
            filled += taken;
            if taken < bytes.len() {
                break;
            }
        }
        // SAFETY: as above.
        unsafe { offer(length, filled) };
        match (ended, filled) {
            (true, _) => Ok(()),
            (false, 0) if room > 0 => Err(Refusal::not_found("the memory cannot be read")),
            (false, _) => Err(Refusal(Status::Short, "no zero byte came before the end".to_owned())),
        }
    })
}

pub(super) unsafe extern "C" fn read_register(_: HostPointer, id: i32, name: Text, value: *mut u64) -> i32 {
    guarded(|call| {
        // SAFETY: the header's contract.
        let name = unsafe { text(name, "the register's name") }?;
        let thread = target(call)?.threads.iter().find(|thread| thread.id == id);
        let thread = thread.ok_or_else(|| Refusal::not_found("no thread has this id"))?;
        let registers = thread.registers.as_ref();
        let registers = registers.ok_or_else(|| {
            Refusal::not_found("the thread could not be stopped, or its registers not be read")
        })?;
        let found =
            register(registers, name).ok_or_else(|| Refusal::not_found("no register has this name"))?;
        // SAFETY: the header's contract: there is room for two.
        unsafe { store(value.cast::<[u64; 2]>(), [found as u64, (found >> 64) as u64], "the value") }
    })
}

/// A register by the processor's name.
fn register(registers: &Registers, name: &str) -> Option<u128> {
    let r = registers;
    let general = match name {
        "rax" => r.rax,
        "rbx" => r.rbx,
        "rcx" => r.rcx,
        "rdx" => r.rdx,
        "rsi" => r.rsi,
        "rdi" => r.rdi,
        "rbp" => r.rbp,
        "rsp" => r.rsp,
        "r8" => r.r8,
        "r9" => r.r9,
        "r10" => r.r10,
        "r11" => r.r11,
        "r12" => r.r12,
        "r13" => r.r13,
        "r14" => r.r14,
        "r15" => r.r15,
        "rip" => r.rip,
        "eflags" => r.eflags,
        "cs" => r.cs.into(),
        "fs" => r.fs.into(),
        "gs" => r.gs.into(),
        "fs_base" => r.traced?.fs_base,
        "gs_base" => r.traced?.gs_base,
        _ => {
            let number: usize = name.strip_prefix("xmm")?.parse().ok()?;
            return r.float.as_ref()?.xmm.get(number).copied();
        }
    };
    Some(general.into())
}

pub(super) unsafe extern "C" fn thread_at(_: HostPointer, index: usize, out: *mut abi::Thread) -> i32 {
    guarded(|call| {
        let end = || Refusal::not_found("there are not as many threads");
        let found = match call.sees {
            Sees::Target(target) => thread(target, target.threads.get(index).ok_or_else(end)?),
            Sees::Dump(dump) => {
                let id = dump.layout().threads.get(index).ok_or_else(end)?.id;
                let crashed = dump.layout().exception.as_ref().is_some_and(|crash| crash.thread_id == id);
                abi::Thread {
                    size: 0,
                    id: id.cast_signed(),
                    crashed: crashed.into(),
                    signal: 0,
                    name: Text::EMPTY,
                }
            }
            Sees::Noted(_) | Sees::Report(_) => return Err(no_target()),
        };
        // SAFETY: the header's contract.
        unsafe { fill(out, found) }
    })
}

pub(super) unsafe extern "C" fn module_at(_: HostPointer, index: usize, out: *mut abi::Module) -> i32 {
    guarded(|call| {
        let found = target(call)?.modules.get(index);
        let module = found.ok_or_else(|| Refusal::not_found("there are not as many modules"))?;
        let build_id = if module.build_id.is_empty() { std::ptr::null() } else { module.build_id.as_ptr() };
        let found = abi::Module {
            size: 0,
            deleted: module.deleted.into(),
            start: module.range.start,
            end: module.range.end,
            path: Text::lend(&module.path),
            name: Text::lend(&module.name),
            build_id,
            build_id_length: module.build_id.len(),
        };
        // SAFETY: the header's contract.
        unsafe { fill(out, found) }
    })
}

pub(super) unsafe extern "C" fn map_at(_: HostPointer, index: usize, out: *mut abi::Map) -> i32 {
    guarded(|call| {
        let found = target(call)?.maps.get(index);
        let map = found.ok_or_else(|| Refusal::not_found("there are not as many mappings"))?;
        let bits = [
            (map.readable, READABLE),
            (map.writable, WRITABLE),
            (map.executable, EXECUTABLE),
            (map.private, PRIVATE),
        ];
        let permissions = bits.into_iter().filter(|(set, _)| *set).map(|(_, bit)| bit).sum();
        let (start, end, offset) = (map.range.start, map.range.end, map.offset);
        // SAFETY: the header's contract.
        unsafe {
            fill(out, abi::Map { size: 0, permissions, start, end, offset, name: Text::lend(&map.name) })
        }
    })
}

pub(super) unsafe extern "C" fn crash(_: HostPointer, out: *mut abi::Crash) -> i32 {
    guarded(|call| {
        let target = target(call)?;
        let none = || Refusal::not_found("the process did not crash");
        let signal = target.crash.as_ref().ok_or_else(none)?.siginfo;
        // A dump without a crash has a number of Breakpad's there that is no signal.
        let number = i32::try_from(signal.ssi_signo).map_err(|_| none())?;
        let faults = [libc::SIGSEGV, libc::SIGBUS, libc::SIGILL, libc::SIGFPE, libc::SIGTRAP, libc::SIGSYS];
        let has_address = signal.ssi_code > 0 && faults.contains(&number);
        let found = abi::Crash {
            size: 0,
            signal: number,
            code: signal.ssi_code,
            process: target.pid,
            thread: target.tid,
            has_address: has_address.into(),
            address: if has_address { signal.ssi_addr } else { 0 },
        };
        // SAFETY: the header's contract.
        unsafe { fill(out, found) }
    })
}

pub(super) unsafe extern "C" fn symbol(
    _: HostPointer,
    module: Text,
    name: Text,
    address: *mut u64,
    size: *mut u64,
) -> i32 {
    guarded(|call| {
        let target = target(call)?;
        // SAFETY: the header's contract; so below.
        let (module, name) =
            unsafe { (text(module, "the module's name")?, text(name, "the symbol's name")?) };
        let found = match module {
            "" => target.symbol(name),
            _ => (0..target.modules.len())
                .filter(|&index| is_called(&target.modules[index], module))
                .find_map(|index| target.symbol_in(index, name)),
        };
        let found = found.ok_or_else(|| Refusal::not_found(&no_symbol(target, module, name)))?;
        // SAFETY: as above.
        unsafe {
            offer(address, found.address);
            offer(size, found.size);
        }
        Ok(())
    })
}

/// Why a symbol was not found, and the way out.
fn no_symbol(target: &Target, module: &str, name: &str) -> String {
    let who = match module {
        "" => "no binary".to_owned(),
        _ if !target.modules.iter().any(|binary| is_called(binary, module)) => {
            return format!("no binary's name begins with {module}");
        }
        _ => format!("no binary whose name begins with {module}"),
    };
    format!("{who} exports {name}; link the program that has it with -Wl,--export-dynamic-symbol={name}")
}

/// Whether a module's file name, or the name that it gives itself, starts with `start`.
fn is_called(module: &Module, start: &str) -> bool {
    [&module.path, &module.name]
        .iter()
        .any(|path| path.rsplit('/').next().is_some_and(|name| name.starts_with(start)))
}

pub(super) unsafe extern "C" fn symbolize(
    _: HostPointer,
    address: u64,
    buffer: *mut c_char,
    size: usize,
    length: *mut usize,
    offset: *mut u64,
) -> i32 {
    guarded(|call| {
        let found = target(call)?.symbolize(address);
        let (symbol, distance) =
            found.ok_or_else(|| Refusal::not_found("no exported symbol holds the address"))?;
        let Some(room) = size.checked_sub(1).filter(|_| !buffer.is_null()) else {
            return Err(Refusal::null("the buffer"));
        };
        let cut = symbol.name.floor_char_boundary(room);
        // SAFETY: the header's contract: the buffer has `size` bytes, and `cut` and the terminator fit into them.
        unsafe {
            std::ptr::copy_nonoverlapping(symbol.name.as_ptr(), buffer.cast::<u8>(), cut);
            buffer.add(cut).write(0);
            offer(length, symbol.name.len());
            offer(offset, distance);
        }
        if cut < symbol.name.len() {
            return Err(Refusal(Status::Short, "the symbol's name did not fit".to_owned()));
        }
        Ok(())
    })
}
