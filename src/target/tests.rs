use super::*;

#[test]
fn auxiliary_vectors() {
    let bytes: Vec<u8> =
        [3u64, 7, 9, 0x1000, 9, 5, 0, 0].iter().flat_map(|word| word.to_le_bytes()).collect();
    assert_eq!(auxv(&bytes, 9), Some(0x1000));
    assert_eq!(auxv(&bytes, 7), None, "a value is no key");
    assert_eq!(auxv(&bytes[..20], 9), None);
}
