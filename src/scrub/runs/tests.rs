use super::*;
use crate::scrub::rules;

fn lines(bytes: &[u8]) -> Vec<(Encoding, usize, String)> {
    let mut all = Vec::new();
    scan(bytes, SHORTEST, &mut Scratch::default(), |run, line| {
        let range = run.bytes(&(0..run.count), bytes);
        all.push((run.encoding, range.start, String::from_utf8(line.to_vec()).unwrap()));
    });
    all
}

#[test]
fn runs_are_found_in_every_encoding_at_every_phase() {
    let text = "text @ 42";
    for (encoding, unit) in [
        (Encoding::Utf8, vec![None]),
        (Encoding::Utf16Le, vec![None, Some(0)]),
        (Encoding::Utf16Be, vec![Some(0), None]),
        (Encoding::Utf32Le, vec![None, Some(0), Some(0), Some(0)]),
        (Encoding::Utf32Be, vec![Some(0), Some(0), Some(0), None]),
    ] {
        for offset in 0..200 {
            let mut bytes = vec![0xfe; offset];
            bytes.extend(text.bytes().flat_map(|c| unit.iter().map(move |u| u.unwrap_or(c))));
            bytes.extend([0xfe; 9]);
            assert_eq!(lines(&bytes), [(encoding, offset, text.to_owned())]);
        }
    }
}

#[test]
fn a_run_looks_at_letters_of_other_scripts_around_it() {
    for text in [
        "contraseña: xyz",
        "né le 1.2.3",
        "пароль: abc1",
        "maryna@example.укр",
        "é@example.укр",
        "C:\\Users\\Zoë",
    ] {
        let bytes: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
        let expected: Vec<u8> = text.chars().map(rules::narrow).collect();
        let mut all = Vec::new();
        scan(&bytes, SHORTEST, &mut Scratch::default(), |run, line| {
            all.push((run.bytes(&(0..line.len()), &bytes), line.to_vec()));
        });
        assert!(all.contains(&(0..bytes.len(), expected)), "{text}: {all:?}");
    }
}

#[test]
fn utf8_belongs_to_its_run_and_stray_bytes_do_not() {
    let bytes = "\u{1}é日本 José wrote\u{1}".as_bytes();
    assert_eq!(lines(bytes), [(Encoding::Utf8, 1, "é日本 José wrote".to_owned())]);
    assert_eq!(lines(b"\x80\xffabcdefg\xc3"), [(Encoding::Utf8, 2, "abcdefg".to_owned())]);
}

#[test]
fn runs_equal_those_of_a_naive_search() {
    let mut state = 7u64;
    let mut bytes = Vec::new();
    while bytes.len() < 20_000 {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let length = (state >> 40) as usize % 40;
        let stride = [1, 2, 4][(state >> 50) as usize % 3];
        for i in 0..length {
            bytes.push(if i % stride == 0 { b'a' + (i % 26) as u8 } else { 0 });
        }
        bytes.push((state >> 33) as u8 | 0x80);
    }
    for stride in [2, 4] {
        let mut naive = Vec::new();
        for phase in 0..stride {
            let mut at = phase;
            while at < bytes.len() {
                let run = edge_run(&bytes, at, stride, true, usize::MAX);
                if run.count >= LEAST {
                    naive.push((at, run.count));
                }
                at += run.count.max(1) * stride;
            }
        }
        for least in [LEAST, SHORTEST] {
            let mut fast = Vec::new();
            scan(&bytes, least, &mut Scratch::default(), |run, _| {
                // Those with letters are others once more.
                if run.encoding.stride() == stride && run.back + run.ahead == 0 {
                    fast.push((run.first, run.count));
                }
            });
            let mut naive: Vec<_> = naive.iter().copied().filter(|(_, count)| *count >= least).collect();
            naive.sort_unstable();
            fast.sort_unstable();
            assert_eq!(fast, naive, "stride {stride}");
        }
    }
}

#[test]
fn runs_are_found_again_few_or_many() {
    for count in [3, 40, FEW + 10] {
        let mut bytes = Vec::new();
        for number in 0..count {
            let text = format!("run number {number}");
            match number % 3 {
                0 => bytes.extend(text.as_bytes()),
                1 => bytes.extend(text.encode_utf16().flat_map(u16::to_le_bytes)),
                _ => bytes.extend(text.chars().flat_map(|c| u32::from(c).to_be_bytes())),
            }
            bytes.extend(vec![0xfe; 4 + number % 90]);
        }
        // One that looks back is not remembered by itself.
        for more in ["", "пароль: abcdef"] {
            bytes.extend(more.encode_utf16().flat_map(u16::to_le_bytes));
            let (mut once, mut again) = (Vec::new(), Vec::new());
            let mut scratch = Scratch::default();
            let blocks = scan(&bytes, SHORTEST, &mut scratch, |run, line| {
                once.push((run.clone(), line.to_vec()));
            });
            assert_eq!(blocks.runs.is_some(), count <= 40 && more.is_empty());
            scan_again(&bytes, &blocks, &mut scratch, |run, line| again.push((run.clone(), line.to_vec())));
            assert!(once.len() >= count);
            assert_eq!(again, once);
        }
    }
}

#[test]
fn short_runs_at_the_edges_are_found() {
    let edges = |bytes: &[u8]| {
        let mut all = Vec::new();
        scan_edges(bytes, |run, line| all.push((run.encoding, run.first, line.to_vec())));
        all
    };
    assert_eq!(edges(b"abcd\xff\xffxyz\xff"), [(Encoding::Utf8, 0, b"abcd".to_vec())]);
    assert_eq!(edges(b"\xff\xffwxyz"), [(Encoding::Utf8, 2, b"wxyz".to_vec())]);
    assert_eq!(edges(b"\xff\xffx\0y\0z\0"), [(Encoding::Utf16Le, 2, b"xyz".to_vec())]);
    assert_eq!(edges(b"\0y\0\0\0z\0\0\0\xff\xff"), [(Encoding::Utf32Le, 1, b"yz".to_vec())]);
    assert_eq!(edges(b""), []);
    assert_eq!(edges(b"abcd"), [(Encoding::Utf8, 0, b"abcd".to_vec())]);
    // As long as others, or longer: they are found without looking at edges.
    for unit in [&b"x"[..], b"x\0", b"x\0\0\0"] {
        for count in [SHORTEST, SHORTEST + 1, 500] {
            assert_eq!(edges(&unit.repeat(count)), [], "{unit:?} {count} times");
        }
    }
}
