//! Values planted in real processes: this program, started again, holds them on its stack and heap while it is dumped. Nothing that
//! was planted may be left in the dump, and an independent stackwalker must find the same frames.
#![forbid(unsafe_code)]

use std::hint::black_box;
use std::io::{BufRead, BufReader, Read, Write};
use std::ops::Range;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Barrier};

use aho_corasick::AhoCorasick;
use cenotaph::dump::Layout;
use cenotaph::dump::linux_writer::{self, Limits};
use cenotaph::scrub::{self, Level, Policy, Receipt};
use cenotaph::target::{Request, Target};

use super::corpus::{Corpus, Sample};
use super::encode::{Encoded, Form, encode};
use super::random::Random;
use super::recall::Count;
use crate::commands::frames;
use crate::failure::{Failure, Result};
use crate::output;

/// Module, offset in it, trust.
type Frame = (String, u64, String);

/// What real processes showed.
#[derive(Debug, Default)]
pub(crate) struct Real {
    /// Occurrences of planted values in the memory of processes.
    pub(crate) values: Count,
    /// Dumps whose receipt did not equal the byte difference.
    pub(crate) wrong_receipts: u64,
    /// Frames, and those that are the same after scrubbing: `Pattern`; `Pointers`, crashing thread; `Pointers`, all.
    pub(crate) frames: [Count; 3],
    pub(crate) dumps: u64,
    pub(crate) examples: Vec<String>,
}

/// Bytes on the victim's stack for values.
const STACK: usize = 48 << 10;
/// Blocks on its heap.
const BLOCKS: usize = 512;

/// Starts victims with `per_victim` values each, with 1 to 128 threads.
pub(crate) fn measure(corpus: &Corpus, known: &[String], victims: usize, seed: u64) -> Result<Real> {
    let mut real = Real::default();
    let mut random = Random::new(seed ^ 0x5eed);
    let mut samples: Vec<&Sample> = corpus.samples.iter().filter(|sample| sample.value.len() >= 6).collect();
    random.shuffle(&mut samples);
    for (number, batch) in samples.chunks(BLOCKS).take(victims).enumerate() {
        let plants: Vec<(bool, &Sample, usize, Encoded)> = batch
            .iter()
            .map(|sample| {
                let form = *random.of(&[Form::Utf8, Form::Utf8, Form::Utf16Le, Form::Utf32Le]);
                let encoded = encode(&sample.text(), form, &mut random);
                (random.below(4) == 0, *sample, sample.before.chars().count(), encoded)
            })
            .collect();
        let threads = [1, 2, 8, 32, 128][number % 5];
        let before = Victim::start(&plants, threads)?.dump()?;
        judge(&before, &plants, known, &mut real)?;
    }
    Ok(real)
}

fn judge(
    before: &[u8],
    plants: &[(bool, &Sample, usize, Encoded)],
    known: &[String],
    real: &mut Real,
) -> Result<()> {
    let layout = Layout::parse(before)?;
    let mut scrubbed = Vec::new();
    for level in [Level::Pattern, Level::Pointers] {
        let policy = Policy { level, known: known.to_vec(), ..Policy::default() };
        let (mut after, mut receipt) = (before.to_vec(), Receipt::default());
        scrub::dump(&mut after, &layout, &policy, &mut receipt)?;
        real.wrong_receipts += u64::from(receipt.discrepancy(before, &after).is_some());
        scrubbed.push(after);
    }
    real.dumps += 1;
    // Wherever in the dump the whole text stood, no four characters of the value may be left.
    let texts: Vec<&[u8]> = plants.iter().map(|plant| &plant.3.bytes[..]).collect();
    let search =
        AhoCorasick::new(&texts).map_err(|e| Failure::Failed(format!("the search for values: {e}")))?;
    for hit in search.find_overlapping_iter(before) {
        let (_, sample, start, encoded) = &plants[hit.pattern().as_usize()];
        let characters = &encoded.characters[*start..*start + sample.value.chars().count()];
        let kept = |character: &Range<usize>| {
            let range = hit.start() + character.start..hit.start() + character.end;
            before[range.clone()] == scrubbed[0][range]
        };
        let survivors: Vec<bool> = characters.iter().map(kept).collect();
        let leaked = survivors.windows(4).any(|window| window.iter().all(|&kept| kept));
        real.values.add(Count { planted: 1, removed: u64::from(!leaked) });
        if leaked && real.examples.len() < 20 {
            real.examples.push(format!("real process, {}: {}", sample.kind, sample.text()));
        }
    }
    for tables in [true, false] {
        let old = frames(before, before, tables)?;
        for (level, after) in scrubbed.iter().enumerate() {
            let new = frames(after, before, tables)?;
            for (thread, (id, frames)) in old.iter().enumerate() {
                // A frame in no module names no code: it is where the walk without tables went astray.
                let code = |frames: &[Frame]| -> Vec<Frame> {
                    frames.iter().filter(|frame| !frame.0.is_empty()).cloned().collect()
                };
                let frames = code(frames);
                let found = new.iter().find(|(other, _)| other == id);
                let found = found.map(|(_, frames)| code(frames)).unwrap_or_default();
                let same = frames.iter().zip(found.iter()).take_while(|(a, b)| a == b).count() as u64;
                // What is walked beyond the old end is a difference too.
                let longer = found.len().saturating_sub(frames.len()) as u64;
                let count = Count { planted: frames.len() as u64 + longer, removed: same };
                if level == 0 {
                    real.frames[0].add(count);
                } else {
                    real.frames[2].add(count);
                    if thread == 0 {
                        real.frames[1].add(count);
                    }
                }
                if count.planted != count.removed && real.examples.len() < 40 {
                    real.examples.push(format!(
                        "frames of thread {thread} with tables {tables} at level {level}: {:?} became {:?}",
                        frames.get(same as usize),
                        found.get(same as usize)
                    ));
                }
            }
        }
    }
    Ok(())
}

struct Victim {
    child: Child,
    tid: i32,
}

impl Victim {
    fn start(plants: &[(bool, &Sample, usize, Encoded)], threads: usize) -> Result<Self> {
        let failed = |e: std::io::Error| Failure::Failed(format!("a process to plant values in: {e}"));
        let program = std::env::current_exe().map_err(failed)?;
        let mut child = Command::new(program)
            .args(["score-victim", &threads.to_string()])
            .env_clear()
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(failed)?;
        let mut stdin = child.stdin.take();
        if let Some(stdin) = &mut stdin {
            let mut all = (plants.len() as u32).to_le_bytes().to_vec();
            for (on_stack, _, _, encoded) in plants {
                all.push(u8::from(*on_stack));
                all.extend((encoded.bytes.len() as u32).to_le_bytes());
                all.extend(&encoded.bytes);
            }
            stdin.write_all(&all).and_then(|()| stdin.flush()).map_err(failed)?;
        }
        let mut line = String::new();
        if let Some(stdout) = child.stdout.take() {
            BufReader::new(stdout).read_line(&mut line).map_err(failed)?;
        }
        child.stdin = stdin;
        let victim = Self { child, tid: line.trim().parse().unwrap_or(0) };
        if victim.tid == 0 {
            return Err(Failure::Failed("a process to plant values in did not start".to_owned()));
        }
        Ok(victim)
    }

    /// As the monitor takes it, with more of the heap.
    fn dump(&self) -> Result<Vec<u8>> {
        let target = Target::stop(Request::new(self.child.id().cast_signed(), self.tid, None))?;
        let limits = Limits { indirect: 4 << 20, ..Limits::default() };
        Ok(linux_writer::write(target, limits)?.dump)
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The addresses of a line of /proc/PID/maps, if they can be read.
pub(crate) fn readable(line: &str) -> Option<Range<u64>> {
    let (range, rest) = line.split_once(' ')?;
    let (start, end) = range.split_once('-')?;
    let number = |text| u64::from_str_radix(text, 16).ok();
    (rest.starts_with('r') && !rest.contains("/dev/") && !rest.contains("[v"))
        .then_some(number(start)?..number(end)?)
}

/// `cenotaph score-victim THREADS`: not for users. Reads values, holds them, says its thread's id, and waits.
pub(crate) fn victim(mut arguments: lexopt::Parser) -> Result<()> {
    let threads: usize = arguments
        .next()?
        .and_then(|argument| match argument {
            lexopt::Arg::Value(value) => value.to_str()?.parse().ok(),
            _ => None,
        })
        .unwrap_or(1);
    let barrier = Arc::new(Barrier::new(threads));
    for _ in 1..threads {
        let barrier = barrier.clone();
        std::thread::spawn(move || {
            barrier.wait();
            loop {
                std::thread::park();
            }
        });
    }
    barrier.wait();
    hold(6)
}

#[inline(never)]
fn hold(depth: u32) -> Result<()> {
    if depth > 0 {
        let result = hold(depth - 1);
        black_box(depth);
        return result;
    }
    let failed = |e: std::io::Error| Failure::Failed(format!("standard input: {e}"));
    let mut stdin = std::io::stdin().lock();
    let mut number = [0; 4];
    let mut stack = [0u8; STACK];
    let mut heap: Vec<Box<[u8]>> = Vec::new();
    let mut used = 0;
    stdin.read_exact(&mut number).map_err(failed)?;
    for _ in 0..u32::from_le_bytes(number) {
        let mut on_stack = [0];
        stdin.read_exact(&mut on_stack).map_err(failed)?;
        stdin.read_exact(&mut number).map_err(failed)?;
        let length = u32::from_le_bytes(number) as usize;
        match stack.get_mut(used..used + length).filter(|_| on_stack[0] == 1) {
            Some(room) => {
                stdin.read_exact(room).map_err(failed)?;
                // A terminator, and any phase for the next.
                used += length + 4 + length % 5;
            }
            None => {
                let mut block = vec![0; length].into_boxed_slice();
                stdin.read_exact(&mut block).map_err(failed)?;
                heap.push(block);
            }
        }
    }
    let pointers: [*const u8; BLOCKS] =
        std::array::from_fn(|at| heap.get(at).map_or(std::ptr::null(), |block| block.as_ptr()));
    black_box((&stack, &pointers, &heap));
    let tid = std::fs::read_link("/proc/thread-self").map_err(failed)?;
    let tid = tid.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    output::line(tid)?;
    // Until it is killed, or its parent is gone.
    let _ = stdin.read(&mut [0]);
    black_box((&stack, &pointers, &heap));
    Ok(())
}
