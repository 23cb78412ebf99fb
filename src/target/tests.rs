use super::*;

/// This process as a target that runs.
pub(super) fn own() -> Target {
    let pid = std::process::id().cast_signed();
    let memory = Live::new(pid);
    let read = |name: &str| std::fs::read(format!("/proc/self/{name}")).unwrap();
    let (maps_text, auxv) = (read("maps"), read("auxv"));
    let maps = maps::parse(&maps_text);
    let modules =
        modules::read(&memory, &maps, super::auxv(&auxv, AT_ENTRY), super::auxv(&auxv, AT_SYSINFO_EHDR));
    Target {
        pid,
        tid: pid,
        crash: None,
        threads: Vec::new(),
        maps,
        modules,
        maps_text,
        auxv,
        status: Vec::new(),
        start_up: None,
        notes: Vec::new(),
        memory: Box::new(memory),
        symbols: symbols::Cache::default(),
        stopped: None,
    }
}

#[test]
fn auxiliary_vectors() {
    let bytes: Vec<u8> =
        [3u64, 7, 9, 0x1000, 9, 5, 0, 0].iter().flat_map(|word| word.to_le_bytes()).collect();
    assert_eq!(auxv(&bytes, 9), Some(0x1000));
    assert_eq!(auxv(&bytes, 7), None, "a value is no key");
    assert_eq!(auxv(&bytes[..20], 9), None);
}
