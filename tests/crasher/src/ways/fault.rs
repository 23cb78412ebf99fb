//! Deaths by one instruction of our own, with planted values in the registers.

use std::arch::asm;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};

use crate::masked;
use crate::options::Usage;

/// The address that `null` writes to: on the null page, and not 0, so that a test sees that it is the real one.
#[allow(dead_code, reason = "the assembly below spells it out")]
pub(crate) const NULL_PAGE_ADDRESS: u64 = 0x10;
/// Where `bus` maps its file: below 2 GiB, so that the instruction holds the address and no register is needed.
pub(crate) const BUS_ADDRESS: usize = 0x1000_0000;
/// A system call that Linux does not have; `sys` forbids it by a seccomp filter and calls it.
pub(crate) const UNUSED_SYSTEM_CALL: u32 = 1000;

/// General registers that values go to, in this order: rbx r12 r13 r14 r15 rdx rsi rdi r8 r9 r10. Not rsp and rbp,
/// which unwinding needs (scrubbing keeps them too), and not rax, rcx, r11, which `syscall` takes.
const GENERAL: usize = 11;
/// xmm0 to xmm15, in this order.
const VECTOR: usize = 16;

/// Words as they are loaded, then the masks they are XORed with in the register itself, so that no memory ever holds
/// the plain value.
static GENERAL_WORDS: [AtomicU64; 2 * GENERAL] = [const { AtomicU64::new(0) }; 2 * GENERAL];
static VECTOR_WORDS: Aligned = Aligned([const { AtomicU64::new(0) }; 4 * VECTOR]);
static LOADED: AtomicBool = AtomicBool::new(false);
static ZERO: AtomicU8 = AtomicU8::new(0);

#[repr(align(16))]
struct Aligned([AtomicU64; 4 * VECTOR]);

/// What the registers will hold.
#[derive(Default)]
pub(crate) struct Registers {
    general: Vec<u64>,
    vector: Vec<[u8; 16]>,
}

impl Registers {
    /// Adds a value: its bytes in as many general registers as they take, and again in vector registers. The last
    /// register of each is filled up with zeros.
    pub(crate) fn add_value(&mut self, bytes: &[u8]) {
        self.general.extend(bytes.chunks(8).map(|chunk| u64::from_le_bytes(padded(chunk))));
        self.vector.extend(bytes.chunks(16).map(padded::<16>));
    }

    /// Adds a pointer, in a general register.
    pub(crate) fn add_pointer(&mut self, pointer: u64) {
        self.general.push(pointer);
    }

    /// Stores it all, masked, for the instruction that dies.
    ///
    /// # Errors
    /// If there are not enough registers.
    pub(crate) fn store(self) -> Result<(), Usage> {
        if self.general.len() > GENERAL || self.vector.len() > VECTOR {
            return Err(Usage(format!(
                "plant: {} general and {} vector registers are needed, there are {GENERAL} and {VECTOR}; plant less at once",
                self.general.len(),
                self.vector.len()
            )));
        }
        LOADED.store(!self.general.is_empty(), Ordering::Relaxed);
        let (general, vector) = (&GENERAL_WORDS, &VECTOR_WORDS.0);
        for (index, word) in self.general.iter().enumerate() {
            store_masked(&general[index], &general[index + GENERAL], *word);
        }
        for (index, bytes) in self.vector.iter().enumerate() {
            for half in 0..2 {
                let word = u64::from_le_bytes(padded(&bytes[half * 8..half * 8 + 8]));
                store_masked(&vector[index * 2 + half], &vector[index * 2 + half + 2 * VECTOR], word);
            }
        }
        Ok(())
    }
}

/// Loads the registers and ends in the instructions given. Every byte offset is `index * 8` or `index * 16` of
/// the arrays above, the masks behind the words.
macro_rules! die_at {
    ($($fault:literal),+ $(; $operands:tt)?) => {
        asm!(
            "cmp byte ptr [rip + {loaded}], 0",
            "je 2f",
            "mov rbx, qword ptr [rip + {general}]", "xor rbx, qword ptr [rip + {general} + 88]",
            "mov r12, qword ptr [rip + {general} + 8]", "xor r12, qword ptr [rip + {general} + 96]",
            "mov r13, qword ptr [rip + {general} + 16]", "xor r13, qword ptr [rip + {general} + 104]",
            "mov r14, qword ptr [rip + {general} + 24]", "xor r14, qword ptr [rip + {general} + 112]",
            "mov r15, qword ptr [rip + {general} + 32]", "xor r15, qword ptr [rip + {general} + 120]",
            "mov rdx, qword ptr [rip + {general} + 40]", "xor rdx, qword ptr [rip + {general} + 128]",
            "mov rsi, qword ptr [rip + {general} + 48]", "xor rsi, qword ptr [rip + {general} + 136]",
            "mov rdi, qword ptr [rip + {general} + 56]", "xor rdi, qword ptr [rip + {general} + 144]",
            "mov r8, qword ptr [rip + {general} + 64]", "xor r8, qword ptr [rip + {general} + 152]",
            "mov r9, qword ptr [rip + {general} + 72]", "xor r9, qword ptr [rip + {general} + 160]",
            "mov r10, qword ptr [rip + {general} + 80]", "xor r10, qword ptr [rip + {general} + 168]",
            "movdqa xmm0, xmmword ptr [rip + {vector}]", "pxor xmm0, xmmword ptr [rip + {vector} + 256]",
            "movdqa xmm1, xmmword ptr [rip + {vector} + 16]", "pxor xmm1, xmmword ptr [rip + {vector} + 272]",
            "movdqa xmm2, xmmword ptr [rip + {vector} + 32]", "pxor xmm2, xmmword ptr [rip + {vector} + 288]",
            "movdqa xmm3, xmmword ptr [rip + {vector} + 48]", "pxor xmm3, xmmword ptr [rip + {vector} + 304]",
            "movdqa xmm4, xmmword ptr [rip + {vector} + 64]", "pxor xmm4, xmmword ptr [rip + {vector} + 320]",
            "movdqa xmm5, xmmword ptr [rip + {vector} + 80]", "pxor xmm5, xmmword ptr [rip + {vector} + 336]",
            "movdqa xmm6, xmmword ptr [rip + {vector} + 96]", "pxor xmm6, xmmword ptr [rip + {vector} + 352]",
            "movdqa xmm7, xmmword ptr [rip + {vector} + 112]", "pxor xmm7, xmmword ptr [rip + {vector} + 368]",
            "movdqa xmm8, xmmword ptr [rip + {vector} + 128]", "pxor xmm8, xmmword ptr [rip + {vector} + 384]",
            "movdqa xmm9, xmmword ptr [rip + {vector} + 144]", "pxor xmm9, xmmword ptr [rip + {vector} + 400]",
            "movdqa xmm10, xmmword ptr [rip + {vector} + 160]", "pxor xmm10, xmmword ptr [rip + {vector} + 416]",
            "movdqa xmm11, xmmword ptr [rip + {vector} + 176]", "pxor xmm11, xmmword ptr [rip + {vector} + 432]",
            "movdqa xmm12, xmmword ptr [rip + {vector} + 192]", "pxor xmm12, xmmword ptr [rip + {vector} + 448]",
            "movdqa xmm13, xmmword ptr [rip + {vector} + 208]", "pxor xmm13, xmmword ptr [rip + {vector} + 464]",
            "movdqa xmm14, xmmword ptr [rip + {vector} + 224]", "pxor xmm14, xmmword ptr [rip + {vector} + 480]",
            "movdqa xmm15, xmmword ptr [rip + {vector} + 240]", "pxor xmm15, xmmword ptr [rip + {vector} + 496]",
            "2:",
            $($fault,)+
            // A handler that returns behind a trap must not run on into whatever the linker put next.
            "ud2",
            $(zero = sym $operands,)?
            loaded = sym LOADED,
            general = sym GENERAL_WORDS,
            vector = sym VECTOR_WORDS,
            options(noreturn)
        )
    };
}

/// SIGSEGV with `si_addr` [`NULL_PAGE_ADDRESS`].
#[inline(never)]
pub(super) fn null() -> ! {
    // SAFETY: no process has the null page mapped (vm.mmap_min_addr), so the write faults and nothing behind it runs.
    unsafe { die_at!("mov byte ptr [0x10], 1") }
}

/// SIGBUS with `si_addr` [`BUS_ADDRESS`], where [`super::prepare`] mapped a page that its file no longer has.
#[inline(never)]
pub(super) fn bus() -> ! {
    // SAFETY: the page is our own mapping behind the end of its file, so the write faults (mmap(2), SIGBUS).
    unsafe { die_at!("mov byte ptr [0x10000000], 1") }
}

/// SIGILL by the instruction that is undefined by definition.
#[inline(never)]
pub(super) fn ill() -> ! {
    // SAFETY: ud2 faults and nothing behind it runs.
    unsafe { die_at!("ud2") }
}

/// SIGFPE by an integer division by zero, whatever the dividend (ax) is.
#[inline(never)]
pub(super) fn fpe() -> ! {
    // SAFETY: the divisor is a static that nobody writes, zero, so the division faults.
    unsafe { die_at!("div byte ptr [rip + {zero}]"; ZERO) }
}

/// SIGTRAP by a breakpoint.
#[inline(never)]
pub(super) fn trap() -> ! {
    // SAFETY: int3 traps; a handler that returns meets the ud2 behind it.
    unsafe { die_at!("int3") }
}

/// SIGSYS by the system call that [`super::prepare`]'s filter answers with a trap.
#[inline(never)]
pub(super) fn sys() -> ! {
    // SAFETY: the kernel has no such call, so even unfiltered it changes nothing but rax, rcx and r11.
    unsafe { die_at!("mov eax, 1000", "syscall") }
}

fn store_masked(word: &AtomicU64, mask: &AtomicU64, plain: u64) {
    let key = u64::from_le_bytes(padded(&masked::random(8)));
    word.store(plain ^ key, Ordering::Relaxed);
    mask.store(key, Ordering::Relaxed);
}

fn padded<const N: usize>(bytes: &[u8]) -> [u8; N] {
    let mut all = [0; N];
    all.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
    all
}
