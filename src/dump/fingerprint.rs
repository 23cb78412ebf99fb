//! Which crashes are the same crash.
#![forbid(unsafe_code)]

use sha2::{Digest, Sha256};

use crate::report::{Fingerprint, StackTrace};

/// Frames that count.
const FRAMES: usize = 8;

/// SHA-256 over the reason's name and, of the crashing thread's innermost 8 frames that lie in a module, the module's
/// name, its build id and the offset in it. Addresses do not count, so the same crash of the same build has one
/// fingerprint in every process. `reason` is [`Reason::name`](crate::report::Reason::name).
pub fn fingerprint(reason: &str, trace: &StackTrace) -> Fingerprint {
    let mut hash = Sha256::new();
    hash.update(b"cenotaph fingerprint 1");
    text(&mut hash, reason);
    let crashed = trace.threads.iter().find(|thread| thread.crashed);
    let frames = crashed.map_or(&[][..], |thread| &thread.frames);
    let in_modules =
        frames.iter().filter_map(|frame| Some((trace.modules.get(frame.module?)?, frame.offset)));
    for (module, offset) in in_modules.take(FRAMES) {
        text(&mut hash, &module.name);
        text(&mut hash, &module.build_id);
        hash.update(offset.to_le_bytes());
    }
    Fingerprint(hash.finalize().into())
}

/// A fingerprint that `components` tell apart further. Without any it is the same.
pub fn refined(fingerprint: Fingerprint, components: &[String]) -> Fingerprint {
    if components.is_empty() {
        return fingerprint;
    }
    let mut hash = Sha256::new();
    hash.update(b"cenotaph fingerprint components 1");
    hash.update(fingerprint.0);
    components.iter().for_each(|component| text(&mut hash, component));
    Fingerprint(hash.finalize().into())
}

/// With its length before it, so that the border of two texts counts.
fn text(hash: &mut Sha256, text: &str) {
    hash.update((text.len() as u64).to_le_bytes());
    hash.update(text);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{Frame, Module, Thread, Trust};

    fn trace(base: u64, offsets: &[(Option<usize>, u64)]) -> StackTrace {
        let module = |name: &str, base| Module {
            name: name.into(),
            build_id: format!("{:02x}", name.len()),
            base,
            size: 0x1000,
        };
        let frame = |&(module, offset): &(Option<usize>, u64)| Frame {
            instruction: base + offset,
            module,
            offset,
            trust: Trust::Unwound,
        };
        let frames: Vec<_> = offsets.iter().map(frame).collect();
        let idle = Thread { id: 1, name: None, crashed: false, frames: frames[..1].to_vec() };
        StackTrace {
            modules: vec![module("app", base), module("libc.so.6", base + 0x10000)],
            threads: vec![Thread { id: base as u32, name: Some("main".into()), crashed: true, frames }, idle],
        }
    }

    #[test]
    fn equal_for_one_cause_and_different_for_two() {
        let (app, libc) = (Some(0), Some(1));
        let frames = [(app, 1), (libc, 2), (app, 3)];
        let one = fingerprint("SIGSEGV", &trace(0x1000, &frames));
        let same = |reason: &str, base, frames: &[_]| fingerprint(reason, &trace(base, frames)) == one;
        assert!(same("SIGSEGV", 0x7000_0000, &frames), "load address and thread id do not count");
        assert!(
            same("SIGSEGV", 0x1000, &[(app, 1), (None, 77), (libc, 2), (app, 3)]),
            "frames without module"
        );
        assert!(!same("SIGABRT", 0x1000, &frames));
        assert!(!same("SIGSEGV", 0x1000, &[(app, 1), (libc, 3), (app, 3)]));
        assert!(!same("SIGSEGV", 0x1000, &[(app, 1), (app, 2), (app, 3)]));
        assert!(!same("SIGSEGV", 0x1000, &frames[..2]));

        let mut deep: Vec<_> = (0..9).map(|offset| (app, offset)).collect();
        let nine = fingerprint("SIGSEGV", &trace(0, &deep));
        deep[8].1 = 99;
        assert_eq!(fingerprint("SIGSEGV", &trace(0, &deep)), nine, "the ninth frame does not count");
        deep[7].1 = 99;
        assert_ne!(fingerprint("SIGSEGV", &trace(0, &deep)), nine, "the eighth does");
    }

    #[test]
    fn the_hash_is_stable_over_versions() {
        // Computed by Python's hashlib from the documented input; a change splits groups on every server.
        let one = fingerprint("SIGSEGV", &trace(0x1000, &[(Some(0), 1), (Some(1), 0x22)]));
        assert_eq!(one.to_string(), "2728698c35035dc10cb46fdf6f921d4f948d255b78cdf8f27da06c560302d788");
        assert_ne!(fingerprint("SIGSEGV", &StackTrace::default()), one);
    }
}
