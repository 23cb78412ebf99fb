//! Scrubbing any dump that parses: the same length, parses again, and differs only where the receipt says.
#![no_main]

use std::cell::RefCell;

use cenotaph::dump::Layout;
use cenotaph::scrub::{Engine, Level, Policy, Receipt};
use libfuzzer_sys::fuzz_target;

thread_local! {
    static ENGINES: RefCell<[(Level, Engine); 2]> =
        RefCell::new([Level::Pattern, Level::Pointers].map(|level| (level, engine(level))));
}

/// With values that the seeds hold, and addresses where the argument strings might lie.
fn engine(level: Level) -> Engine {
    let known = ["marguerite", "/home/marguerite", "hostess-7", "ab"].map(str::to_owned).to_vec();
    let arguments = Some(0x7ffd_0000_0000..0x7fff_ffff_f000);
    Engine::new(&Policy { level, known, arguments, ..Policy::default() }).expect("a policy within the limits")
}

fuzz_target!(|bytes: &[u8]| {
    let Ok(layout) = Layout::parse(bytes) else { return };
    ENGINES.with_borrow(|engines| {
        // A clone each time: what an engine has found it looks for in the next dump, and a finding would need all inputs before.
        engines.iter().for_each(|(level, engine)| check(bytes, &layout, *level, &mut engine.clone()));
    });
});

fn check(bytes: &[u8], layout: &Layout, level: Level, engine: &mut Engine) {
    let (mut scrubbed, mut receipt) = (bytes.to_vec(), Receipt::default());
    if engine.dump(&mut scrubbed, layout, &mut receipt).is_err() {
        return;
    }
    assert_eq!(scrubbed.len(), bytes.len());
    assert_eq!(receipt.discrepancy(bytes, &scrubbed), None, "{level:?}");
    let again = Layout::parse(&scrubbed).expect("a scrubbed dump parses");
    assert_eq!(again.threads.len(), layout.threads.len());
    assert_eq!(again.modules.len(), layout.modules.len());
    assert_eq!(again.memory, layout.memory);
    // Nothing is left that a second pass would find.
    let (mut twice, mut second) = (scrubbed.clone(), Receipt::default());
    engine.dump(&mut twice, &again, &mut second).expect("a scrubbed dump can be scrubbed");
    assert!(twice == scrubbed, "{level:?}: a second pass found {:?}", second.entries);
}
