//! What the level `Pointers` leaves of text on stacks: on 64 bit, and on 32 bit, where four characters are an address.
#![forbid(unsafe_code)]

use cenotaph::scrub::{Level, Policy};

use super::corpus::{Corpus, Sample};
use super::dump::{Dump, Place, Planted};
use super::encode::Form;
use super::measures::Measure;
use super::random::Random;
use super::recall::{self, Count, Matrix};
use crate::failure::Result;
use crate::output;

/// A processor and where a program lies in its memory.
struct Machine {
    /// Of the place in the matrix.
    name: &'static str,
    /// `PROCESSOR_ARCHITECTURE_*` of winnt.h.
    processor: u16,
    /// Bytes of a word.
    width: usize,
    /// Bytes of the CPU context (`CONTEXT` of winnt.h, Breakpad's minidump_cpu_arm.h), and where it has the stack and the frame pointer.
    context: usize,
    stack_pointer: usize,
    frame_pointer: usize,
    stack: u64,
    modules: &'static [Module],
    /// An instruction that calls, again and again, from [`CODE`] on.
    call: &'static [u8],
}

/// Start and length.
type Module = (u64, u32);

/// On 32 bit modules and the stack lie where letters point to: all that ends in one of "a" to "p", and in "st".
const IN_LETTERS: &[Module] =
    &[(0x40_0000, 1 << 20), (0x5655_5000, 2 << 20), (0x6100_0000, 1 << 28), (0xf7d0_0000, 4 << 20)];
const STACK_IN_LETTERS: u64 = 0x7473_0000;
/// A page of code that a 32-bit dump has, in letters too.
const CODE: u64 = 0x6162_6000;
const CODE_LENGTH: usize = 4096;

const AMD64: Machine = Machine {
    name: "stack at Pointers, x86-64",
    processor: 9,
    width: 8,
    context: 1232,
    stack_pointer: 152,
    frame_pointer: 160,
    stack: 0x7ffd_0000_0000,
    modules: &[(0x5577_0000_0000, 16 << 20), (0x7f12_3400_0000, 64 << 20)],
    call: &[],
};
const X86: Machine = Machine {
    name: "stack at Pointers, x86",
    processor: 0,
    width: 4,
    context: 716,
    stack_pointer: 196,
    frame_pointer: 180,
    stack: STACK_IN_LETTERS,
    modules: IN_LETTERS,
    call: &[0xe8, 1, 2, 3, 4, 0x89, 0xc3, 0x90],
};
const ARM: Machine = Machine {
    name: "stack at Pointers, ARM",
    processor: 5,
    width: 4,
    context: 368,
    stack_pointer: 56,
    frame_pointer: 48,
    stack: STACK_IN_LETTERS,
    modules: IN_LETTERS,
    // BL; MOV R0, R0.
    call: &[0x10, 0, 0, 0xeb, 0, 0, 0xa0, 0xe1],
};

/// Frames that frame pointers lead through, below what is planted.
const FRAMES: usize = 6;

/// Both rows. What survived, and receipts that are wrong, go into `matrix` too.
pub(crate) fn measure(
    corpus: &Corpus,
    plants: usize,
    seed: u64,
    matrix: &mut Matrix,
) -> Result<Vec<Measure>> {
    let mut rows = Vec::new();
    for (bits, must, machines) in [(64, 0.0, &[AMD64][..]), (32, 0.0001, &[X86, ARM])] {
        let (mut all, mut notes) = (Count::default(), Vec::new());
        for machine in machines {
            output::progress(machine.name);
            let found = planted_on(machine, corpus, plants, seed)?;
            let mut count = Count::default();
            found.cells.values().for_each(|cell| count.add(*cell));
            notes.push(format!(
                "{} of {}: {} plants",
                count.planted - count.removed,
                machine.name,
                count.planted
            ));
            all.add(count);
            matrix.wrong_receipts += found.wrong_receipts;
            matrix.missed_examples.extend(found.missed_examples);
        }
        rows.push(Measure::most(
            &format!("Pointers, {bits} bit: share of runs of 4 that survive"),
            1.0 - all.rate(),
            must,
            0.0,
            notes.join(", "),
        ));
    }
    Ok(rows)
}

/// Values, and runs of four characters of any kind, in every encoding on stacks of `machine`.
fn planted_on(machine: &Machine, corpus: &Corpus, plants: usize, seed: u64) -> Result<Matrix> {
    let policy = Policy { level: Level::Pointers, ..Policy::default() };
    let mut matrix = Matrix::default();
    for form in Form::PLAIN {
        let mut random = Random::new(seed ^ 99 ^ (form as u64) << 40 ^ u64::from(machine.processor) << 48);
        let runs: Vec<Sample> = (0..plants.saturating_mul(20)).map(|_| run(&mut random)).collect();
        let values = corpus.samples.chunks(500).take(plants.div_ceil(20));
        for batch in values.chain(runs.chunks(500)) {
            let batch: Vec<&Sample> = batch.iter().collect();
            let plants = recall::plants(&batch, Place::Stack, form, &mut random);
            let (region, starts) = recall::region(&plants, form, &mut random);
            let planted = dump(machine, &region, &starts);
            let after = recall::scrubbed(&planted.bytes, &policy, machine.name, &mut matrix)?;
            for (plant, positions) in plants.iter().zip(&planted.positions) {
                // Everything around them goes at this level, too.
                recall::judge(
                    plant,
                    positions,
                    &planted,
                    &after,
                    (form.name(), machine.name),
                    false,
                    &mut matrix,
                );
            }
        }
    }
    Ok(matrix)
}

/// Four printable characters, half of the time letters.
fn run(random: &mut Random) -> Sample {
    let (first, count) = if random.below(2) == 0 { (b'a', 26) } else { (b'!', 94) };
    let value = (0..4).map(|_| char::from(first + random.below(count) as u8)).collect();
    let nothing = String::new;
    Sample { kind: "run of 4".to_owned(), before: nothing(), value, after: nothing(), locale: nothing() }
}

/// A dump of one thread, whose stack has frames first and then `region`.
fn dump(machine: &Machine, region: &[u8], starts: &[(usize, usize)]) -> Planted {
    let word = |value: u64| value.to_le_bytes()[..machine.width].to_vec();
    let base = machine.modules.last().map_or(0, |module| module.0);
    let frames = (0..FRAMES as u64).flat_map(|frame| {
        let next = if frame + 1 == FRAMES as u64 {
            0
        } else {
            machine.stack + (frame + 1) * 2 * machine.width as u64
        };
        [word(next), word(base + 0x1234 + frame)].concat()
    });
    let stack: Vec<u8> = frames.chain(region.iter().copied()).collect();
    let mut context = vec![0; machine.context];
    for offset in [machine.stack_pointer, machine.frame_pointer] {
        context[offset..offset + machine.width].copy_from_slice(&word(machine.stack));
    }
    let mut dump = Dump::new();
    dump.processor = machine.processor;
    let at = dump.append(&stack);
    let context = dump.append_located(&context);
    let threads = dump.threads(&[(1, (machine.stack, stack.len(), at), context)]);
    dump.stream(3, threads);
    let name = dump.string(b"g\0a\0m\0e\0").0 as u32;
    let mut modules = (machine.modules.len() as u32).to_le_bytes().to_vec();
    for (start, length) in machine.modules {
        modules.extend(start.to_le_bytes());
        modules.extend([*length, 0, 0, name].map(u32::to_le_bytes).concat());
        // The rest of MINIDUMP_MODULE, which is 108 bytes long.
        modules.extend([0; 84]);
    }
    dump.list(4, &modules);
    if !machine.call.is_empty() {
        let code: Vec<u8> = machine.call.iter().copied().cycle().take(CODE_LENGTH).collect();
        let at = dump.append(&code);
        let list = [1u32.to_le_bytes().to_vec(), super::dump::descriptor(CODE, code.len(), at)].concat();
        dump.list(5, &list);
    }
    let first = at + FRAMES * 2 * machine.width;
    let whole = |&(offset, length): &(usize, usize)| (first + offset..first + offset + length).collect();
    Planted { bytes: dump.finish(), positions: starts.iter().map(whole).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Otherwise a dump from which everything is gone would score best.
    #[test]
    fn pointers_and_frames_stay_on_every_machine() {
        for machine in [AMD64, X86, ARM] {
            // No two characters.
            let base = machine.modules[0].0 + 0x102;
            let region: Vec<u8> = [base, 7, u64::from_le_bytes(*b"textword")]
                .iter()
                .flat_map(|value| value.to_le_bytes()[..machine.width].to_vec())
                .collect();
            let planted = dump(&machine, &region, &[(0, region.len())]);
            let policy = Policy { level: Level::Pointers, ..Policy::default() };
            let mut matrix = Matrix::default();
            let after = recall::scrubbed(&planted.bytes, &policy, "test", &mut matrix).unwrap();
            let start = planted.positions[0][0];
            let frames = start - FRAMES * 2 * machine.width..start + 2 * machine.width;
            assert_eq!(after[frames.clone()], planted.bytes[frames], "{}", machine.name);
            let text = start + 2 * machine.width;
            let fill = if machine.width == 8 { [0xfe; 8] } else { [0; 8] };
            assert_eq!(after[text..text + machine.width], fill[..machine.width], "{}", machine.name);
            assert_eq!(matrix.wrong_receipts, 0, "{}", machine.name);
        }
    }
}
