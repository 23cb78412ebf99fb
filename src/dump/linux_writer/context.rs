//! Registers as the minidump has them.
#![forbid(unsafe_code)]

use minidump_common::format::{CONTEXT_AMD64, ContextFlagsAmd64, XMM_SAVE_AREA32};
use scroll::{LE, Pwrite};

use crate::target::{Float, Registers};

/// The context of a thread. Debug registers are left out, and the flags do not promise them: each would take a call of
/// its own (PTRACE_PEEKUSER), six more for each thread, and only debuggers set them.
pub(super) fn context(registers: &Registers) -> CONTEXT_AMD64 {
    let mut flags = ContextFlagsAmd64::CONTEXT_AMD64_FULL;
    let mut context = CONTEXT_AMD64 {
        cs: registers.cs,
        fs: registers.fs,
        gs: registers.gs,
        // The upper half is reserved by the processor.
        eflags: registers.eflags as u32,
        rax: registers.rax,
        rcx: registers.rcx,
        rdx: registers.rdx,
        rbx: registers.rbx,
        rsp: registers.rsp,
        rbp: registers.rbp,
        rsi: registers.rsi,
        rdi: registers.rdi,
        r8: registers.r8,
        r9: registers.r9,
        r10: registers.r10,
        r11: registers.r11,
        r12: registers.r12,
        r13: registers.r13,
        r14: registers.r14,
        r15: registers.r15,
        rip: registers.rip,
        ..CONTEXT_AMD64::default()
    };
    if let Some(traced) = &registers.traced {
        flags |= ContextFlagsAmd64::CONTEXT_AMD64_SEGMENTS;
        (context.ds, context.es, context.ss) = (traced.ds, traced.es, traced.ss);
    }
    if let Some(float) = &registers.float {
        // A structure of 512 bytes into a place of 512 bytes.
        let _ = context.float_save.pwrite_with(float_save(float), 0, LE);
    }
    context.context_flags = flags.bits();
    context
}

/// The image has 32 bits of the addresses and their segments; the latter are not in the 64-bit form of FXSAVE.
fn float_save(float: &Float) -> XMM_SAVE_AREA32 {
    XMM_SAVE_AREA32 {
        control_word: float.control_word,
        status_word: float.status_word,
        tag_word: float.tag_word as u8,
        error_opcode: float.opcode,
        error_offset: float.instruction as u32,
        data_offset: float.operand as u32,
        mx_csr: float.mxcsr,
        mx_csr_mask: float.mxcsr_mask,
        float_registers: float.st,
        xmm_registers: float.xmm,
        ..XMM_SAVE_AREA32::default()
    }
}
