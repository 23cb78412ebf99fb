//! Putting planted values where they belong, and keeping them there while the victim dies.

use std::hint::black_box;

use crate::masked::Masked;
use crate::options::Usage;
use crate::plant::{Entry, Place};
use crate::sdk::Session;
use crate::ways::Registers;
use crate::wipe;

/// Room for all values on the stack.
const STACK_BYTES: usize = 16 * 1024;
/// Zero bytes behind each value, so that neighbours are not read as one text in any encoding.
const GAP: usize = 16;
/// Stack slots for pointers into the heap.
const POINTERS: usize = 64;

/// What [`while_live`](Self::while_live) puts on the stack.
#[derive(Default)]
pub(crate) struct Payload {
    stack: Vec<(usize, Masked)>,
    stack_end: usize,
    pointers: Vec<usize>,
    /// Names for parked threads; taken out by who parks them.
    pub(crate) thread_names: Vec<Masked>,
}

impl Payload {
    /// Plants what has its final place already (heap, SDK) and keeps the rest masked. Entries for the
    /// environment and the arguments are skipped: [`crate::reexec`] plants those.
    ///
    /// # Errors
    /// If there is no room for all values.
    pub(crate) fn plant(entries: &[Entry], session: &Session) -> Result<Self, Usage> {
        let mut payload = Self::default();
        let mut registers = Registers::default();
        for (index, entry) in entries.iter().enumerate() {
            let key = || entry.key.clone().unwrap_or_else(|| format!("planted_{index}"));
            match entry.place() {
                Place::Env | Place::Arg => {}
                Place::Stack => payload.add_to_stack(entry)?,
                Place::HeapStack => payload.pointers.push(heap_block(entry)),
                Place::HeapRegister => registers.add_pointer(heap_block(entry) as u64),
                Place::Register => registers.add_value(&entry.encoded()),
                Place::Attribute => session.attribute(&key(), &entry.value),
                Place::Breadcrumb => session.breadcrumb(&key(), &entry.value),
                Place::ThreadName => payload.thread_names.push(Masked::new(&entry.encoded())),
            }
        }
        if payload.pointers.len() > POINTERS {
            return Err(Usage(format!("plant: at most {POINTERS} heap values with a pointer on the stack")));
        }
        registers.store()?;
        Ok(payload)
    }

    /// Calls `act` in a frame below the values, which stay until it returns.
    pub(crate) fn while_live(&self, act: &mut dyn FnMut()) {
        if self.stack.is_empty() && self.pointers.is_empty() {
            act()
        } else {
            self.planted_frame(act)
        }
        black_box("while_live");
    }

    fn add_to_stack(&mut self, entry: &Entry) -> Result<(), Usage> {
        let value = Masked::new(&entry.encoded());
        let start = self.stack_end.next_multiple_of(16) + usize::from(entry.phase);
        self.stack_end = start + value.len() + GAP;
        if self.stack_end > STACK_BYTES {
            return Err(Usage(format!(
                "plant: values on the stack take more than {STACK_BYTES} bytes together"
            )));
        }
        self.stack.push((start, value));
        Ok(())
    }

    /// The frame that holds the values.
    #[inline(never)]
    fn planted_frame(&self, act: &mut dyn FnMut()) {
        let mut values = Aligned([0; STACK_BYTES]);
        let mut pointers = [0usize; POINTERS];
        for (start, value) in &self.stack {
            if let Some(target) = values.0.get_mut(*start..) {
                value.unmask_into(target);
            }
        }
        pointers.iter_mut().zip(&self.pointers).for_each(|(slot, pointer)| *slot = *pointer);
        // Whoever might look at these bytes could do so during `act`: so they must be in memory by then.
        black_box((&mut values, &mut pointers));
        act();
        wipe::bytes(&mut black_box(&mut values).0);
        black_box(&mut pointers).fill(0);
    }
}

#[repr(align(16))]
struct Aligned([u8; STACK_BYTES]);

/// A block that is never freed, with the value at the phase asked for.
fn heap_block(entry: &Entry) -> usize {
    let value = entry.encoded();
    let phase = usize::from(entry.phase);
    let block = vec![0u8; phase + value.len() + GAP].leak();
    let start = block.as_mut_ptr() as usize + phase;
    block.iter_mut().skip(phase).zip(&value).for_each(|(to, from)| *to = *from);
    black_box(block);
    start
}
