use super::*;

fn blocks() -> Vec<[u8; BLOCK]> {
    let mut blocks: Vec<[u8; BLOCK]> =
        (0..=255u8).map(|first| std::array::from_fn(|i| first.wrapping_add((i * 37) as u8))).collect();
    let mut state = 1u64;
    for round in 0..2000 {
        blocks.push(std::array::from_fn(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            match state >> 61 {
                0 | 1 => 0,
                2 | 3 if round % 2 == 0 => b'a',
                _ => (state >> 40) as u8,
            }
        }));
    }
    blocks.push([0; BLOCK]);
    blocks
}

fn naive(block: &[u8; BLOCK]) -> (u64, u64) {
    let bits = |is: fn(u8) -> bool| {
        block.iter().enumerate().fold(0u64, |bits, (at, &byte)| bits | u64::from(is(byte)) << at)
    };
    (bits(is_text), bits(|byte| byte == 0))
}

#[test]
fn the_bitmaps_say_what_the_bytes_are_in_every_way_to_make_them() {
    let blocks = blocks();
    let expected: Vec<_> = blocks.iter().map(naive).collect();
    assert_eq!(blocks.iter().map(scalar).collect::<Vec<_>>(), expected, "scalar");
    #[cfg(target_arch = "x86_64")]
    assert_eq!(blocks.iter().map(x86::classify_sse2).collect::<Vec<_>>(), expected, "SSE2");
    // A block that is cut off, too.
    for length in 0..400 {
        let bytes = &blocks.as_flattened()[..length];
        for start in [0, 1, 63, 64, 100] {
            let (text, zero) = maps(bytes, start);
            for at in 0..128 {
                let byte = bytes.get(start + at).copied().unwrap_or(0xff);
                assert_eq!((text >> at & 1 == 1, zero >> at & 1 == 1), (is_text(byte), byte == 0));
            }
        }
    }
}

type Way = unsafe fn(&[[u8; BLOCK]], &[u8], bool, &mut Vec<Candidate>);

/// The ways that this processor has.
fn ways() -> Vec<(&'static str, Way)> {
    let mut ways: Vec<(&str, Way)> = vec![("scalar", |blocks, rest, long, out| {
        collect(blocks, rest, long, scalar, out);
    })];
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::is_x86_feature_detected;
        ways.push(("SSE2", |blocks, rest, long, out| {
            collect(blocks, rest, long, x86::classify_sse2, out);
        }));
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("popcnt") {
            ways.push(("AVX2", x86::candidates_avx2));
        }
        if is_x86_feature_detected!("avx512bw") && is_x86_feature_detected!("popcnt") {
            ways.push(("AVX-512", x86::candidates_avx512));
        }
    }
    ways
}

#[test]
fn every_way_to_look_for_runs_finds_the_same_blocks() {
    let blocks = blocks();
    for long in [false, true] {
        for cut in [0, 1, 30, 63] {
            let bytes = &blocks.as_flattened()[..blocks.len() * BLOCK - cut];
            let (whole, rest) = bytes.as_chunks::<BLOCK>();
            let (mut dispatched, mut reference) = (Vec::new(), Vec::new());
            candidates(bytes, long, &mut dispatched);
            collect(whole, rest, long, naive, &mut reference);
            assert_eq!(dispatched, reference);
            for (name, way) in ways() {
                let mut found = Vec::new();
                // SAFETY: the processor has what the way needs.
                unsafe { way(whole, rest, long, &mut found) };
                assert_eq!(found, reference, "{name}");
            }
            assert!(reference.len() > 100 && reference.len() < blocks.len());
            for Candidate { block, maps: found } in reference {
                assert_eq!(found, maps(bytes, block * BLOCK));
            }
        }
    }
}

#[test]
fn text_ends_where_it_does() {
    for length in [0, 1, 63, 64, 65, 200] {
        for from in [0, 5, 64] {
            let mut bytes = vec![0; from];
            bytes.extend(vec![b'x'; length]);
            assert_eq!(text_end(&bytes, from), from + length);
            bytes.extend([0, b'x']);
            assert_eq!(text_end(&bytes, from), from + length);
        }
    }
}

#[test]
fn characters_are_of_the_kinds_that_they_are_of_in_every_way_to_tell() {
    let mut bytes: Vec<u8> = (0..=255).collect();
    bytes.extend(blocks().as_flattened());
    let close = b"+/-_09afgzAFGZ.:@[`{ \x7f,^";
    bytes.extend(blocks().as_flattened().iter().map(|&byte| close[usize::from(byte) % close.len()]));
    for length in 0..=BLOCK {
        for start in (0..bytes.len() - length).step_by(61) {
            let part = &bytes[start..start + length];
            let bits = |is: fn(&u8) -> bool| {
                part.iter().enumerate().fold(0u64, |bits, (at, byte)| bits | u64::from(is(byte)) << at)
            };
            let expected = Kinds {
                word: bits(|byte| byte.is_ascii_alphanumeric() || b"+/-_".contains(byte)),
                hex: bits(u8::is_ascii_hexdigit),
                cut: bits(|byte| b"+/-_".contains(byte)),
            };
            assert_eq!(by_table(part), expected, "table {part:?}");
            assert_eq!(kinds(part), expected, "{part:?}");
        }
    }
}
