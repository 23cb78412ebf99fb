//! A thread's registers on x86_64, wherever they come from.
#![forbid(unsafe_code)]

use crash_context::CrashContext;

/// Bytes of the kernel's `user_regs_struct`: 27 registers (sys/user.h).
pub const GENERAL_LEN: usize = 27 * 8;
/// Bytes of the FXSAVE image (Intel SDM, volume 1, 10.5.1).
pub const FLOAT_LEN: usize = 512;

/// The registers of a thread of a 64-bit x86 process.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs, reason = "the processor's names")]
pub struct Registers {
    pub rax: u64,
    pub rbx: u64,
    pub rcx: u64,
    pub rdx: u64,
    pub rsi: u64,
    pub rdi: u64,
    pub rbp: u64,
    pub rsp: u64,
    pub r8: u64,
    pub r9: u64,
    pub r10: u64,
    pub r11: u64,
    pub r12: u64,
    pub r13: u64,
    pub r14: u64,
    pub r15: u64,
    pub rip: u64,
    pub eflags: u64,
    pub cs: u16,
    pub fs: u16,
    pub gs: u16,
    /// What a signal's context does not have.
    pub traced: Option<Traced>,
    /// Floating point and SSE state.
    pub float: Option<Float>,
}

/// Registers that only a tracer sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the processor's names")]
pub struct Traced {
    pub ds: u16,
    pub es: u16,
    pub ss: u16,
    /// Where the thread's own storage is.
    pub fs_base: u64,
    pub gs_base: u64,
}

/// The state that FXSAVE stores.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs, reason = "the processor's names")]
pub struct Float {
    pub control_word: u16,
    pub status_word: u16,
    pub tag_word: u16,
    pub opcode: u16,
    /// Address of the last floating point instruction.
    pub instruction: u64,
    /// Address of its operand.
    pub operand: u64,
    pub mxcsr: u32,
    pub mxcsr_mask: u32,
    pub st: [u128; 8],
    pub xmm: [u128; 16],
}

impl Registers {
    /// From the kernel's register sets. `None` if `general` is not a 64-bit process's.
    pub(super) fn from_sets(general: &[u8], float: Option<&[u8]>) -> Option<Self> {
        let words: [u64; GENERAL_LEN / 8] = std::array::from_fn(|i| word(general, i).unwrap_or_default());
        if general.len() != GENERAL_LEN {
            return None;
        }
        // Named in the order of user_regs_struct; the one at 15 is the system call's number.
        let [r15, r14, r13, r12, rbp, rbx, r11, r10, r9, r8, rax, rcx, rdx, rsi, rdi, _, rip, ..] = words;
        let [.., cs, eflags, rsp, ss, fs_base, gs_base, ds, es, fs, gs] = words;
        let traced = Some(Traced { ds: ds as u16, es: es as u16, ss: ss as u16, fs_base, gs_base });
        let (cs, fs, gs) = (cs as u16, fs as u16, gs as u16);
        let float = float.and_then(Float::from_image);
        Some(Self {
            rax,
            rbx,
            rcx,
            rdx,
            rsi,
            rdi,
            rbp,
            rsp,
            r8,
            r9,
            r10,
            r11,
            r12,
            r13,
            r14,
            r15,
            rip,
            eflags,
            cs,
            fs,
            gs,
            traced,
            float,
        })
    }

    /// From what the kernel gave to a signal handler.
    pub fn from_crash(context: &CrashContext) -> Self {
        let registers = &context.context.uc_mcontext.gregs;
        let register = |number: libc::c_int| registers[number as usize].cast_unsigned();
        // REG_CSGSFS packs four segments of 16 bits, cs lowest (sys/ucontext.h).
        let segments = register(libc::REG_CSGSFS);
        let float = &context.float_state;
        Self {
            rax: register(libc::REG_RAX),
            rbx: register(libc::REG_RBX),
            rcx: register(libc::REG_RCX),
            rdx: register(libc::REG_RDX),
            rsi: register(libc::REG_RSI),
            rdi: register(libc::REG_RDI),
            rbp: register(libc::REG_RBP),
            rsp: register(libc::REG_RSP),
            r8: register(libc::REG_R8),
            r9: register(libc::REG_R9),
            r10: register(libc::REG_R10),
            r11: register(libc::REG_R11),
            r12: register(libc::REG_R12),
            r13: register(libc::REG_R13),
            r14: register(libc::REG_R14),
            r15: register(libc::REG_R15),
            rip: register(libc::REG_RIP),
            eflags: register(libc::REG_EFL),
            cs: segments as u16,
            gs: (segments >> 16) as u16,
            fs: (segments >> 32) as u16,
            traced: None,
            float: Some(Float {
                control_word: float.cwd,
                status_word: float.swd,
                tag_word: float.ftw,
                opcode: float.fop,
                instruction: float.rip,
                operand: float.rdp,
                mxcsr: float.mxcsr,
                mxcsr_mask: float.mxcr_mask,
                st: wide(&float.st_space),
                xmm: wide(&float.xmm_space),
            }),
        }
    }

    /// Puts the general registers where a signal handler finds them: the inverse of [`from_crash`](Self::from_crash).
    pub(super) fn into_crash(self, context: &mut CrashContext) {
        let registers = &mut context.context.uc_mcontext.gregs;
        let segments = u64::from(self.cs) | u64::from(self.gs) << 16 | u64::from(self.fs) << 32;
        let values = [
            (libc::REG_RAX, self.rax),
            (libc::REG_RBX, self.rbx),
            (libc::REG_RCX, self.rcx),
            (libc::REG_RDX, self.rdx),
            (libc::REG_RSI, self.rsi),
            (libc::REG_RDI, self.rdi),
            (libc::REG_RBP, self.rbp),
            (libc::REG_RSP, self.rsp),
            (libc::REG_R8, self.r8),
            (libc::REG_R9, self.r9),
            (libc::REG_R10, self.r10),
            (libc::REG_R11, self.r11),
            (libc::REG_R12, self.r12),
            (libc::REG_R13, self.r13),
            (libc::REG_R14, self.r14),
            (libc::REG_R15, self.r15),
            (libc::REG_RIP, self.rip),
            (libc::REG_EFL, self.eflags),
            (libc::REG_CSGSFS, segments),
        ];
        for (number, value) in values {
            registers[number as usize] = value.cast_signed();
        }
    }

    /// The general registers, the program counter first: what may point to something worth keeping.
    pub fn pointers(&self) -> [u64; 17] {
        [
            self.rip, self.rdi, self.rsi, self.rdx, self.rcx, self.r8, self.r9, self.rax, self.rbx, self.rbp,
            self.rsp, self.r10, self.r11, self.r12, self.r13, self.r14, self.r15,
        ]
    }
}

impl Float {
    /// From an FXSAVE image in its 64-bit form.
    fn from_image(image: &[u8]) -> Option<Self> {
        let image: &[u8; FLOAT_LEN] = image.first_chunk()?;
        let quarter = |at: usize| u16::from_le_bytes([image[at], image[at + 1]]);
        let half = |at: usize| u32::from(quarter(at)) | u32::from(quarter(at + 2)) << 16;
        let whole = |at: usize| u64::from(half(at)) | u64::from(half(at + 4)) << 32;
        let wide = |at: usize| u128::from(whole(at)) | u128::from(whole(at + 8)) << 64;
        Some(Self {
            control_word: quarter(0),
            status_word: quarter(2),
            tag_word: quarter(4),
            opcode: quarter(6),
            instruction: whole(8),
            operand: whole(16),
            mxcsr: half(24),
            mxcsr_mask: half(28),
            st: std::array::from_fn(|i| wide(32 + i * 16)),
            xmm: std::array::from_fn(|i| wide(160 + i * 16)),
        })
    }
}

fn word(bytes: &[u8], number: usize) -> Option<u64> {
    bytes.get(number * 8..)?.first_chunk().map(|word| u64::from_le_bytes(*word))
}

/// Four 32-bit units, lowest first, make one register.
fn wide<const N: usize>(units: &[u32]) -> [u128; N] {
    std::array::from_fn(|i| {
        units.iter().skip(i * 4).take(4).rev().fold(0, |value, &unit| value << 32 | u128::from(unit))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_order_is_that_of_libc() {
        let general: Vec<u8> = (1..=27u64).flat_map(|n| (n * 0x1_0001).to_le_bytes()).collect();
        let registers = Registers::from_sets(&general, None).unwrap();
        let at = |offset: usize| (offset as u64 / 8 + 1) * 0x1_0001;
        macro_rules! same {
            ($($name:ident),*) => {
                $(assert_eq!(
                    registers.$name as u64 & 0xffff,
                    at(std::mem::offset_of!(libc::user_regs_struct, $name)) & 0xffff
                );)*
            };
        }
        same!(rax, rbx, rcx, rdx, rsi, rdi, rbp, rsp, r8, r9, r10, r11, r12, r13, r14, r15, rip, eflags, cs);
        same!(fs, gs);
        let traced = registers.traced.unwrap();
        assert_eq!(traced.fs_base, at(std::mem::offset_of!(libc::user_regs_struct, fs_base)));
        assert_eq!(traced.ss, at(std::mem::offset_of!(libc::user_regs_struct, ss)) as u16);
        assert_eq!(size_of::<libc::user_regs_struct>(), GENERAL_LEN);
        assert_eq!(size_of::<libc::user_fpregs_struct>(), FLOAT_LEN);
        assert!(Registers::from_sets(&general[..68], None).is_none(), "a 32-bit process's");
    }

    #[test]
    fn float_state_of_an_image_and_of_a_signal_is_one() {
        let image: Vec<u8> = (0..FLOAT_LEN).map(|i| (i * 7) as u8).collect();
        let float = Float::from_image(&image).unwrap();
        let mut bytes = vec![0; size_of::<CrashContext>()];
        let at = std::mem::offset_of!(CrashContext, float_state);
        bytes[at..at + FLOAT_LEN].copy_from_slice(&image);
        let context = CrashContext::from_bytes(&bytes).unwrap();
        assert_eq!(Registers::from_crash(&context).float, Some(float.clone()));
        assert_eq!(float.xmm[15].to_le_bytes(), image[400..416]);
        // Into a context and back.
        let general: Vec<u8> = (1..=27u64).flat_map(|n| (n * 0x1_0001).to_le_bytes()).collect();
        let registers = Registers::from_sets(&general, Some(&image)).unwrap();
        let mut context = context;
        registers.clone().into_crash(&mut context);
        let back = Registers::from_crash(&context);
        assert_eq!(back, Registers { traced: None, ..registers });
        assert_eq!(Float::from_image(&image[..511]), None);
    }
}
