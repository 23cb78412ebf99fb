//! Scrubbing any dump that parses: the same length, parses again, and differs only where the receipt says.
#![no_main]

use std::sync::OnceLock;

use cenotaph::dump::Layout;
use cenotaph::scrub::{Engine, Level, Policy, Receipt};
use libfuzzer_sys::fuzz_target;

/// Values in the seeds, and addresses where the argument strings might lie.
fn engine(level: Level) -> &'static Engine {
    static ENGINES: OnceLock<[Engine; 2]> = OnceLock::new();
    let [pattern, pointers] = ENGINES.get_or_init(|| {
        [Level::Pattern, Level::Pointers].map(|level| {
            let known = ["marguerite", "/home/marguerite", "hostess-7", "ab"].map(str::to_owned).to_vec();
            let arguments = Some(0x7ffd_0000_0000..0x7fff_ffff_f000);
            Engine::new(&Policy { level, known, arguments }).expect("a policy within the limits")
        })
    });
    if level == Level::Pattern { pattern } else { pointers }
}

fuzz_target!(|bytes: &[u8]| {
    let Ok(layout) = Layout::parse(bytes) else { return };
    for level in [Level::Pattern, Level::Pointers] {
        let (mut scrubbed, mut receipt) = (bytes.to_vec(), Receipt::default());
        if engine(level).dump(&mut scrubbed, &layout, &mut receipt).is_err() {
            continue;
        }
        assert_eq!(scrubbed.len(), bytes.len());
        assert_eq!(receipt.discrepancy(bytes, &scrubbed), None, "{level:?}");
        let again = Layout::parse(&scrubbed).expect("a scrubbed dump parses");
        assert_eq!(again.threads.len(), layout.threads.len());
        assert_eq!(again.modules.len(), layout.modules.len());
        assert_eq!(again.memory, layout.memory);
        // Nothing is left that a second pass would find.
        let (mut twice, mut second) = (scrubbed.clone(), Receipt::default());
        engine(level).dump(&mut twice, &again, &mut second).expect("a scrubbed dump can be scrubbed");
        assert!(twice == scrubbed, "{level:?}: a second pass found {:?}", second.entries);
    }
});
