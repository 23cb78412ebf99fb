//! Any bytes as a core file: the view of a dead process, and its dump.
#![no_main]

use std::cell::RefCell;
use std::fs::File;
use std::os::unix::fs::FileExt;

use cenotaph::dump::Layout;
use cenotaph::dump::linux_writer::{self, Limits};
use cenotaph::target::Target;
use libfuzzer_sys::fuzz_target;
use tempfile::NamedTempFile;

thread_local! {
    static FILE: RefCell<Option<NamedTempFile>> = const { RefCell::new(None) };
}

fuzz_target!(|bytes: &[u8]| {
    FILE.with_borrow_mut(|file| {
        let file = file.get_or_insert_with(|| NamedTempFile::new_in("/dev/shm").expect("a file in memory"));
        let write = |file: &File| file.set_len(0).and_then(|()| file.write_all_at(bytes, 0));
        write(file.as_file()).expect("room");
        let Ok(target) = Target::from_core(file.path()) else { return };
        assert!(!target.threads.is_empty() && !target.maps.is_empty());
        assert!(target.maps.windows(2).all(|pair| pair[0].range.end <= pair[1].range.start));
        for mapping in target.maps.iter().take(64) {
            let length = usize::try_from(mapping.range.end - mapping.range.start).unwrap_or(usize::MAX);
            let read = target.memory().read(mapping.range.start, length);
            assert!(read.len() <= length);
        }
        let (named, pc) =
            (target.symbol("main"), target.crashed().and_then(|t| t.registers.as_ref()).map(|r| r.rip));
        for address in named.map(|symbol| symbol.address).into_iter().chain(pc) {
            if let Some((symbol, offset)) = target.symbolize(address) {
                assert_eq!(symbol.address + offset, address);
                assert!(symbol.size == 0 || offset < symbol.size);
            }
        }
        let limits = Limits { indirect: 1 << 16, total: 1 << 20 };
        let taken = linux_writer::write(target, limits).expect("a dump");
        Layout::parse(&taken.dump).expect("a dump that can be read");
    });
});
