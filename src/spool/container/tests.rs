use super::*;

fn id() -> ReportId {
    ReportId([7; 16])
}

fn parts() -> Vec<Part> {
    vec![
        Part { kind: PartKind::Report, bytes: br#"{"application":"skyforge"}"#.to_vec() },
        Part { kind: PartKind::Receipt, bytes: Vec::new() },
        Part { kind: PartKind::Minidump, bytes: noise(200_000) },
    ]
}

/// Bytes that do not compress, so that the part takes several chunks (xorshift32, fixed seed).
fn noise(len: usize) -> Vec<u8> {
    let mut state = 2_463_534_242u32;
    std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state as u8
    })
    .take(len)
    .collect()
}

fn sealed(parts: &[Part]) -> (Vec<u8>, LocalKey) {
    let key = LocalKey::random().unwrap();
    (seal(id(), 1_234, parts, &key).unwrap().bytes, key)
}

#[test]
fn parts_come_back() {
    let key = LocalKey::random().unwrap();
    let made = seal(id(), 1_234, &parts(), &key).unwrap();
    assert_eq!(open(&made.bytes, &key).unwrap(), parts());
    assert_eq!(read_part(&made.bytes, PartKind::Report, &key).unwrap().unwrap(), parts()[0]);
    assert_eq!(read_part(&made.bytes, PartKind::Pointers, &key).unwrap(), None);
    let header = header(&made.bytes).unwrap();
    assert_eq!((header.id, header.time_ms), (id(), 1_234));
    let kinds: Vec<_> = header.parts.iter().map(|part| (part.kind, part.plain_len, part.present)).collect();
    assert_eq!(
        kinds,
        [(PartKind::Report, 26, true), (PartKind::Receipt, 0, true), (PartKind::Minidump, 200_000, true)]
    );
    assert_eq!(made.plain_len, 200_026);
    let overhead = made.bytes.len() as u64 - made.compressed_len;
    assert_eq!(
        overhead,
        (FIXED + 3 * ENTRY + WRAPPED + 2 + 3 * seal::PREFIX + (1 + 1 + 4) * seal::TAG) as u64
    );
}

#[test]
fn nothing_is_readable_without_the_key() {
    let (bytes, key) = sealed(&parts());
    for word in [&b"skyforge"[..], b"application", &parts()[2].bytes[..8]] {
        assert!(!bytes.windows(word.len()).any(|window| window == word));
    }
    let other = LocalKey::random().unwrap();
    assert!(matches!(open(&bytes, &other), Err(Error::Unsealed(_))));
    assert!(matches!(read_part(&bytes, PartKind::Report, &other), Err(Error::Unsealed(_))));
    // The same report sealed twice has nothing but its header in common.
    let again = seal(id(), 1_234, &parts(), &key).unwrap().bytes;
    let first = FIXED + 3 * ENTRY;
    assert_eq!(again[..first], bytes[..first]);
    assert!(again[first..].windows(8).zip(bytes[first..].windows(8)).filter(|(a, b)| a == b).count() <= 2);
}

#[test]
fn a_part_can_be_dropped_without_a_key() {
    let (bytes, key) = sealed(&parts());
    for kind in [PartKind::Report, PartKind::Receipt, PartKind::Minidump] {
        let less = without_part(&bytes, kind).unwrap();
        let left: Vec<_> = parts().into_iter().filter(|part| part.kind != kind).collect();
        assert_eq!(open(&less, &key).unwrap(), left, "{kind:?}");
        assert_eq!(read_part(&less, kind, &key).unwrap(), None);
        let listed = header(&less).unwrap().parts;
        assert_eq!(
            listed.iter().filter(|part| !part.present).map(|part| part.kind).collect::<Vec<_>>(),
            [kind]
        );
        assert_eq!(without_part(&less, kind).unwrap(), less, "twice is once");
    }
    assert_eq!(without_part(&bytes, PartKind::Pointers).unwrap(), bytes);
    let none = [PartKind::Report, PartKind::Receipt, PartKind::Minidump]
        .iter()
        .fold(bytes, |bytes, kind| without_part(&bytes, *kind).unwrap());
    assert_eq!(open(&none, &key).unwrap(), []);
}

#[test]
fn parts_of_another_report_do_not_fit() {
    let key = LocalKey::random().unwrap();
    let two = [parts()[2].clone()];
    let (a, b) = (seal(id(), 1, &two, &key).unwrap().bytes, seal(id(), 1, &two, &key).unwrap().bytes);
    let body = FIXED + ENTRY + WRAPPED + 2;
    let mixed = [&a[..body], &b[body..]].concat();
    assert!(matches!(open(&mixed, &key), Err(Error::Unsealed(_))));
}

#[test]
fn every_truncation_and_every_flipped_byte_is_an_error() {
    let small = vec![parts()[0].clone(), Part { kind: PartKind::StackTrace, bytes: noise(300) }];
    let (bytes, key) = sealed(&small);
    for len in 0..bytes.len() {
        assert!(open(&bytes[..len], &key).is_err(), "cut to {len}");
        assert!(header(&bytes[..len]).is_err(), "cut to {len}");
        assert!(without_part(&bytes[..len], PartKind::Report).is_err(), "cut to {len}");
    }
    let longer = [&bytes[..], &[0]].concat();
    assert!(open(&longer, &key).is_err());
    let mut flipped = bytes.clone();
    for at in 0..bytes.len() {
        for bit in 0..8 {
            flipped[at] ^= 1 << bit;
            assert!(open(&flipped, &key).is_err(), "byte {at} bit {bit}");
            let _ = (header(&flipped), without_part(&flipped, PartKind::Report));
            flipped[at] ^= 1 << bit;
        }
    }
    assert_eq!(open(&flipped, &key).unwrap(), small);
}

#[test]
fn reports_that_do_not_fit_are_refused() {
    let key = LocalKey::random().unwrap();
    let try_seal = |parts: &[Part]| seal(id(), 0, parts, &key).unwrap_err().to_string();
    assert!(try_seal(&[]).contains("no parts"));
    let twice = [parts()[0].clone(), parts()[0].clone()];
    assert!(try_seal(&twice).contains("two parts of kind Report"));
    let long = [Part { kind: PartKind::Minidump, bytes: vec![0; MAX_PART + 1] }];
    assert!(try_seal(&long).contains("67108864"));
}

#[test]
fn a_part_of_highly_compressible_bytes_stays_within_its_bound() {
    let zeros = [Part { kind: PartKind::Minidump, bytes: vec![0; 8 << 20] }];
    let (bytes, key) = sealed(&zeros);
    assert!(bytes.len() < 16 * 1024, "{}", bytes.len());
    assert!(open(&bytes, &key).unwrap() == zeros);
}

#[test]
fn a_stream_longer_or_shorter_than_claimed_is_refused() {
    // Someone with the key could still lie about lengths; the reader allocates by them.
    let key = LocalKey::random().unwrap();
    for (claimed, why) in [(100u32, "longer"), (5_000, "shorter")] {
        let part = Part { kind: PartKind::Minidump, bytes: vec![1; 1000] };
        let (fixed, report_key) = (fixed_header(id(), 0, 1), [3; 32]);
        let part_key = part_key(&report_key, id(), part.kind);
        let (body, _) = seal_part(&fixed, &part, claimed, &part_key, &mut Compressor::new()).unwrap();
        let mut bytes = fixed.to_vec();
        bytes.extend([part.kind as u8, 0, 0, 0]);
        bytes.extend(claimed.to_le_bytes());
        bytes.extend((body.len() as u32).to_le_bytes());
        let wrapped = seal::wrap_key(&key.derive("container/v1"), &report_key, &bytes).unwrap();
        bytes.extend(wrapped);
        bytes.extend(1u16.to_le_bytes());
        bytes.extend(body);
        let error = open(&bytes, &key).unwrap_err().to_string();
        assert!(error.contains("not as long"), "{why}: {error}");
    }
}
