//! What the C++ runtime of this process keeps for each thread.

use std::arch::asm;

/// glibc puts the thread-local data of what is loaded at the start right below each thread's control block (ELF TLS,
/// variant II); what is loaded later may get another place in each thread.
const BELOW: std::ops::Range<i64> = -(1 << 20)..0;

/// Where the exceptions of a thread are (`__cxa_get_globals`, Itanium C++ ABI, "Exception Handling", 2.2.2), from its
/// control block on: the same in every thread. `None` in a program without a shared C++ runtime.
pub(crate) fn exception_globals() -> Option<i64> {
    // SAFETY: a C string; the lookup has no effect.
    let function = unsafe { libc::dlsym(libc::RTLD_DEFAULT, c"__cxa_get_globals".as_ptr()) };
    if function.is_null() {
        return None;
    }
    // SAFETY: the function of this name takes nothing and returns a pointer to this thread's data.
    let globals = unsafe {
        let function: extern "C" fn() -> *mut libc::c_void = std::mem::transmute(function);
        function()
    };
    let control_block: i64;
    // SAFETY: the first word of a control block is its own address (ELF TLS, variant II; `tcbhead_t` of glibc).
    unsafe { asm!("mov {}, fs:0", out(reg) control_block, options(nostack, readonly, preserves_flags)) };
    let offset = (globals.addr() as i64).wrapping_sub(control_block);
    BELOW.contains(&offset).then_some(offset)
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_program_of_rust_has_none() {
        assert_eq!(super::exception_globals(), None);
    }
}
