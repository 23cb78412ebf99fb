//! The binaries of this process, noted while it is well: a handler cannot ask the dynamic linker, whose lock may be held.

use std::cell::UnsafeCell;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::minimal_record::{MODULES, Module};

/// Modules in the order of their code.
struct Table {
    modules: UnsafeCell<[Module; MODULES]>,
    count: AtomicUsize,
}
// SAFETY: only `publish` writes, one call at a time, and into the table that `ACTIVE` does not name.
unsafe impl Sync for Table {}

static TABLES: [Table; 2] =
    [const { Table { modules: UnsafeCell::new([Module::NONE; MODULES]), count: AtomicUsize::new(0) } }; 2];
/// The table that readers use.
static ACTIVE: AtomicUsize = AtomicUsize::new(0);

/// The modules as they were published last; signal-safe. A reader that is interrupted by two publications may see a
/// mixture, never anything out of bounds.
pub(super) fn modules() -> &'static [Module] {
    let table = &TABLES[ACTIVE.load(Ordering::Acquire) % TABLES.len()];
    let count = table.count.load(Ordering::Acquire).min(MODULES);
    // SAFETY: plain integers that are always initialised; `publish` writes into the other table.
    unsafe { std::slice::from_raw_parts(table.modules.get().cast::<Module>(), count) }
}

/// Whether the code of one of `modules` holds `address`; signal-safe.
pub(super) fn is_code(modules: &[Module], address: u64) -> bool {
    let after = modules.partition_point(|module| module.code_start <= address);
    after.checked_sub(1).and_then(|index| modules.get(index)).is_some_and(|module| address < module.code_end)
}

/// Replaces them. Only one call at a time.
pub(super) fn publish(modules: impl Iterator<Item = Module>) {
    let next = (ACTIVE.load(Ordering::Acquire) + 1) % TABLES.len();
    let table = &TABLES[next];
    let mut count = 0;
    for module in modules.take(MODULES) {
        // SAFETY: inside the array; nobody reads this table, since `ACTIVE` names the other one.
        unsafe { table.modules.get().cast::<Module>().add(count).write(module) };
        count += 1;
    }
    table.count.store(count, Ordering::Release);
    ACTIVE.store(next, Ordering::Release);
}
