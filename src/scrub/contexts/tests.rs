use super::*;
use crate::scrub::Receipt;
use crate::scrub::receipt::WORD_FILL;

#[test]
fn printable_words() {
    for (word, expected) in [
        (&b"alice@ex"[..], true),
        (b"om\0\0\0\0\0\0", true),
        (b"a\0b\0c\0d\0", true),
        (b"a\0\0\0b\0\0\0", true),
        ("Jürgen\0".as_bytes(), true),
        ("日本\0\0".as_bytes(), true),
        (&0x0000_7fff_1234_5678_u64.to_le_bytes(), false),
        (&1.5f64.to_le_bytes(), false),
        (&0xffff_ffff_0000_0000_u64.to_le_bytes(), false),
        (b"a\0\0\0\0\0\0\0", false),
        (&[0; 8], false),
    ] {
        assert_eq!(is_printable(word), expected, "{word:x?}");
    }
    let small = |value| is_small(value, 8);
    assert!(small(4096) && small(0) && small((-4096i64).cast_unsigned()));
    assert!(!small(4097) && !small((-4097i64).cast_unsigned()) && !small(1 << 63));
    assert!(is_small(4096, 4) && is_small(0xffff_f000, 4));
    assert!(!is_small(4097, 4) && !is_small(0xffff_efff, 4) && !is_small(0xffff_f000, 8));
}

#[test]
fn a_context_keeps_what_unwinding_needs() {
    let put = |bytes: &mut Vec<u8>, offset: usize, value: [u8; 8]| {
        bytes[offset..offset + 8].copy_from_slice(&value)
    };
    let mut context = vec![b'S'; 1232];
    context[48..72].fill(0x11);
    put(&mut context, 248, *b"pcpcpcpc");
    put(&mut context, 152, 0x7ffe_0000_1000_u64.to_le_bytes());
    put(&mut context, 160, 0x7ffe_0000_1040_u64.to_le_bytes());
    put(&mut context, 120, (-11i64).to_le_bytes());
    put(&mut context, 128, 0xfedc_ba98_8765_4321_u64.to_le_bytes());
    put(&mut context, 176, *b"\x01wilhel\x02");
    put(&mut context, 168, *b"mi\x80\x81\x82\x83\x84\x85");
    let before = context.clone();
    let mut receipt = Receipt::default();
    let mapped = Addresses::new(std::iter::once(0x7ffe_0000_0000..0x7ffe_0001_0000));
    let known = Known::new(&[]).unwrap();
    Cpu::new(9)
        .unwrap()
        .scrub(&mut Editor::new(&mut context, &mut receipt), &(0..1232), &mapped, &known, Level::Pattern)
        .unwrap();
    assert_eq!(receipt.discrepancy(&before, &context), None);
    for kept in [48..72, 248..256, 152..160, 160..168, 120..128, 128..136] {
        assert_eq!(context[kept.clone()], before[kept.clone()], "{kept:?}");
    }
    for gone in [0..48, 72..120, 256..1232] {
        assert!(context[gone.clone()].iter().all(|&byte| byte == 0), "{gone:?}");
    }
    for gone in [136..152, 176..184, 184..248] {
        assert!(context[gone.clone()].iter().all(|&byte| byte == WORD_FILL), "{gone:?}");
    }
}

#[test]
fn a_value_split_over_registers_is_found() {
    let mut words_ = b"\x01\x02\x03\x04\x05wil\x80\x81\x82\x83\x84\x85\x86\x87".to_vec();
    words_[8..13].copy_from_slice(b"helmi");
    let mut receipt = Receipt::default();
    let known = Known::new(&["wilhelmi".to_owned()]).unwrap();
    words(
        &mut Editor::new(&mut words_, &mut receipt),
        &[0, 8],
        8,
        Place::Registers,
        &Addresses::default(),
        &known,
        Level::Pattern,
    );
    assert_eq!(words_, [WORD_FILL; 16]);
    assert_eq!(receipt.entries[0].rule, "known-value");
}

#[test]
fn what_is_not_understood_is_refused() {
    assert!(Cpu::new(6).is_err());
    let (mut bytes, mut receipt) = (vec![0; 100], Receipt::default());
    let known = Known::new(&[]).unwrap();
    let mut editor = Editor::new(&mut bytes, &mut receipt);
    assert!(
        Cpu::new(12)
            .unwrap()
            .scrub(&mut editor, &(0..100), &Addresses::default(), &known, Level::Pattern)
            .is_err()
    );
    assert!(
        Cpu::new(12)
            .unwrap()
            .scrub(&mut editor, &(0..0), &Addresses::default(), &known, Level::Pattern)
            .is_ok()
    );
}

#[test]
fn layouts_equal_those_of_the_format_crate() {
    use minidump_common::format as md;
    use scroll::{LE, Pwrite, ctx::SizeWith};
    assert_eq!(md::CONTEXT_AMD64::size_with(&LE), AMD64.length);
    assert_eq!(md::CONTEXT_ARM64::size_with(&LE), ARM64.length);
    assert_eq!(md::CONTEXT_ARM64_OLD::size_with(&LE), ARM64_OLD.length);
    let amd64 = md::CONTEXT_AMD64 { rsp: 1, rdi: 2, rsi: 3, rbp: 4, r15: 5, rip: 6, ..Default::default() };
    let mut bytes = vec![0; AMD64.length];
    bytes.pwrite_with(amd64, 0, LE).unwrap();
    assert_eq!([152, 176, 168, 160, 240, 248].map(|at| word(&bytes, at)), [1, 2, 3, 4, 5, 6]);
    let mut arm64 = md::CONTEXT_ARM64 { sp: 1, pc: 2, ..Default::default() };
    (arm64.iregs[0], arm64.iregs[30], arm64.float_regs[0], arm64.wvr[1]) = (3, 4, 5, 6);
    let mut bytes = vec![0; ARM64.length];
    bytes.pwrite_with(arm64, 0, LE).unwrap();
    assert_eq!([256, 264, 8, 248, 272, 904].map(|at| word(&bytes, at)), [1, 2, 3, 4, 5, 6]);
    let mut old = md::CONTEXT_ARM64_OLD { sp: 1, pc: 2, ..Default::default() };
    (old.iregs[0], old.iregs[30], old.float_regs[31]) = (3, 4, 5);
    let mut bytes = vec![0; ARM64_OLD.length];
    bytes.pwrite_with(old, 0, LE).unwrap();
    assert_eq!([256, 264, 8, 248, 780].map(|at| word(&bytes, at)), [1, 2, 3, 4, 5]);
}
