//! Which system calls a process may still make (seccomp(2)), as a classic BPF program.

use std::io;

/// What becomes of a system call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is made.
    Allow,
    /// It fails with this `errno`.
    Fail(u16),
    /// It ends the process, as if by SIGSYS.
    Kill,
    /// It is not made, and raises SIGSYS, whose handler knows its number.
    Trap,
}

/// What is looked at of a call's arguments: their lower 32 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum If {
    /// Argument number `.0` is `.1`.
    Equal(u8, u32),
    /// Argument number `.0` has a bit of `.1`.
    AnyBit(u8, u32),
}

/// One system call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rule {
    call: u32,
    condition: Option<(If, Verdict)>,
    verdict: Verdict,
}

impl Rule {
    /// The same for all arguments. `call` is one of `libc::SYS_*`.
    pub(crate) fn of(call: libc::c_long, verdict: Verdict) -> Self {
        // The kernel's numbers have nine bits.
        Self { call: call as u32, condition: None, verdict }
    }

    /// `then` where the condition holds, else `otherwise`.
    pub(crate) fn when(call: libc::c_long, condition: If, then: Verdict, otherwise: Verdict) -> Self {
        Self { call: call as u32, condition: Some((condition, then)), verdict: otherwise }
    }

    #[cfg(test)]
    pub(super) fn is_about(&self, call: libc::c_long) -> bool {
        libc::c_long::from(self.call) == call
    }
}

/// Confines this thread, and what it starts, for ever: `rules` in their order, the first that names a call decides,
/// `otherwise` for all others. Also sets no_new_privs, without which the kernel wants a privilege for it.
///
/// # Errors
/// If the kernel has no seccomp; nothing is confined then.
pub(crate) fn confine(rules: &[Rule], otherwise: Verdict) -> io::Result<()> {
    let mut program = program(rules, otherwise);
    let length = u16::try_from(program.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let filter = libc::sock_fprog { len: length, filter: program.as_mut_ptr() };
    // SAFETY: plain values; `filter` points to `program`, which outlives the call and which the kernel copies.
    unsafe {
        if libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0
            || libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const filter) < 0
        {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// AUDIT_ARCH_X86_64 (`<linux/audit.h>`): EM_X86_64, 64 bits, little-endian.
const ARCHITECTURE: u32 = 0xc000_003e;
/// The x32 interface has the same architecture and this bit in the number (`__X32_SYSCALL_BIT`).
const X32: u32 = 0x4000_0000;
/// Offsets in `struct seccomp_data` (`<linux/seccomp.h>`).
const NUMBER: u32 = 0;
const ARCH: u32 = 4;
const ARGUMENTS: u32 = 16;

fn program(rules: &[Rule], otherwise: Verdict) -> Vec<libc::sock_filter> {
    let mut program = vec![
        load(ARCH),
        jump(libc::BPF_JEQ, ARCHITECTURE, 1, 0),
        end(Verdict::Kill),
        load(NUMBER),
        jump(libc::BPF_JGE, X32, 0, 1),
        end(Verdict::Kill),
    ];
    let mut sorted = rules.to_vec();
    // Stable: the first that names a call stays first.
    sorted.sort_by_key(|rule| rule.call);
    sorted.dedup_by_key(|rule| rule.call);
    for group in sorted.chunks(GROUP) {
        let mut comparisons: Vec<libc::sock_filter> = group.iter().flat_map(compare).collect();
        comparisons.push(end(otherwise));
        // A group is far shorter than the 255 instructions that can be skipped.
        let (last, length) = (group.last().map_or(0, |rule| rule.call), comparisons.len() as u8);
        program.push(jump(libc::BPF_JGT, last, length, 0));
        program.append(&mut comparisons);
    }
    program.push(end(otherwise));
    program
}

/// Rules that are compared one by one, behind one comparison for all of them. The kernel runs a filter for each number that it
/// has when the filter is set (`seccomp_cache_prepare`), so that its length is waited for.
const GROUP: usize = 8;

/// What decides by one rule, and goes on behind if the rule is about another call.
fn compare(rule: &Rule) -> Vec<libc::sock_filter> {
    match rule.condition {
        None => vec![jump(libc::BPF_JEQ, rule.call, 0, 1), end(rule.verdict)],
        Some((condition, then)) => {
            let (argument, test) = match condition {
                If::Equal(argument, value) => (argument, jump(libc::BPF_JEQ, value, 0, 1)),
                If::AnyBit(argument, bits) => (argument, jump(libc::BPF_JSET, bits, 0, 1)),
            };
            // Everything behind ends the program, so that the number need not be loaded again.
            vec![
                jump(libc::BPF_JEQ, rule.call, 0, 4),
                load(ARGUMENTS + u32::from(argument) * 8),
                test,
                end(then),
                end(rule.verdict),
            ]
        }
    }
}

fn load(offset: u32) -> libc::sock_filter {
    instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, offset, 0, 0)
}

/// Skips `yes` instructions where the comparison holds, else `no`.
fn jump(comparison: u32, value: u32, yes: u8, no: u8) -> libc::sock_filter {
    instruction(libc::BPF_JMP | comparison | libc::BPF_K, value, yes, no)
}

fn end(verdict: Verdict) -> libc::sock_filter {
    let action = match verdict {
        Verdict::Allow => libc::SECCOMP_RET_ALLOW,
        Verdict::Fail(errno) => libc::SECCOMP_RET_ERRNO | u32::from(errno),
        Verdict::Kill => libc::SECCOMP_RET_KILL_PROCESS,
        Verdict::Trap => libc::SECCOMP_RET_TRAP,
    };
    instruction(libc::BPF_RET | libc::BPF_K, action, 0, 0)
}

fn instruction(code: u32, k: u32, jt: u8, jf: u8) -> libc::sock_filter {
    // Codes of classic BPF have eight bits.
    libc::sock_filter { code: code as u16, jt, jf, k }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the kernel would do.
    fn run(program: &[libc::sock_filter], architecture: u32, call: u32, arguments: [u64; 6]) -> u32 {
        let mut data = [call, architecture, 0, 0].map(u32::to_ne_bytes).concat();
        data.extend(arguments.iter().flat_map(|argument| argument.to_ne_bytes()));
        let (mut at, mut accumulator) = (0, 0);
        loop {
            let step = program[at];
            at += 1;
            let code = u32::from(step.code);
            let skip = |yes: bool| usize::from(if yes { step.jt } else { step.jf });
            if code == libc::BPF_LD | libc::BPF_W | libc::BPF_ABS {
                let offset = step.k as usize;
                accumulator = u32::from_ne_bytes(data[offset..offset + 4].try_into().unwrap());
            } else if code == libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K {
                at += skip(accumulator == step.k);
            } else if code == libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K {
                at += skip(accumulator >= step.k);
            } else if code == libc::BPF_JMP | libc::BPF_JGT | libc::BPF_K {
                at += skip(accumulator > step.k);
            } else if code == libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K {
                at += skip(accumulator & step.k != 0);
            } else {
                assert_eq!(code, libc::BPF_RET | libc::BPF_K);
                return step.k;
            }
        }
    }

    #[test]
    fn decides_by_number_and_argument() {
        let rules = [
            Rule::of(0, Verdict::Allow),
            Rule::when(62, If::Equal(0, 7), Verdict::Allow, Verdict::Kill),
            Rule::when(56, If::AnyBit(0, 0x1_0000), Verdict::Fail(1), Verdict::Kill),
            Rule::of(435, Verdict::Fail(38)),
        ];
        let program = program(&rules, Verdict::Fail(13));
        let (allow, kill) = (libc::SECCOMP_RET_ALLOW, libc::SECCOMP_RET_KILL_PROCESS);
        let fail = |errno| libc::SECCOMP_RET_ERRNO | errno;
        let cases = [
            (ARCHITECTURE, 0, 0, allow),
            (ARCHITECTURE, 1, 0, fail(13)),
            (ARCHITECTURE, 62, 7, allow),
            (ARCHITECTURE, 62, 8, kill),
            (ARCHITECTURE, 62, 0, kill),
            (ARCHITECTURE, 56, 0x1_0f00, fail(1)),
            (ARCHITECTURE, 56, 0x11, kill),
            (ARCHITECTURE, 435, 0, fail(38)),
            (ARCHITECTURE, X32, 0, kill),
            (ARCHITECTURE, u32::MAX, 0, kill),
            (0x4000_0003, 0, 0, kill),
        ];
        for (architecture, call, argument, expected) in cases {
            let arguments = [argument, 0, 0, 0, 0, 0];
            assert_eq!(run(&program, architecture, call, arguments), expected, "{call} {argument:x}");
        }
    }
}
