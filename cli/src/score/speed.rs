//! How fast scrubbing is, beside memcpy and memchr of the same bytes in the same run, and beside the naive way.
#![deny(unsafe_op_in_unsafe_fn)]

use std::hint::black_box;
use std::sync::LazyLock;
use std::time::Duration;

use cenotaph::dump::Layout;
use cenotaph::scrub::{Engine, Policy, Receipt};
use regex::bytes::Regex;

use super::dump::{self, Place};
use super::measures::Measure;
use super::random::Random;
use crate::failure::{Failure, Result};

/// The rules as one would write them first: one expression each, one after another, for ASCII.
const NAIVE: &[&str] = &[
    r"(?-u)[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]+@[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)*\.[A-Za-z]{2,}",
    r"(?-u)\b(?:4\d{3}|5[1-5]\d{2}|6011|3[47]\d{2})[ -]?\d{4}[ -]?\d{4}[ -]?\d{3,4}\b",
    r"(?-u)\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}[A-Z0-9]{0,4}\b",
    r"(?-u)\b\d{3}-\d{2}-\d{4}\b",
    r"(?-u)\b(?:\d{1,3}\.){3}\d{1,3}\b",
    r"(?-u)\b(?:[0-9A-Fa-f]{0,4}:){2,7}[0-9A-Fa-f]{1,4}\b",
    r"(?-u)\b(?:[0-9A-Fa-f]{2}[:-]){5}[0-9A-Fa-f]{2}\b",
    r"(?-u)(?i)(?:/home/|/users/|\\users\\)[^/\\\x00]+",
    r"(?-u)://[^/@\s]+@",
    r"(?-u)eyJ[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*",
    r"(?-u)-----BEGIN [A-Z ]*PRIVATE KEY-----[^-]+",
    r"(?-u)\b(?:AKIA|ASIA)[A-Z0-9]{16}\b|gh[pousr]_[A-Za-z0-9]{30,}|xox[abprs]-[A-Za-z0-9-]{10,}|[sr]k_(?:live|test)_[A-Za-z0-9]{10,}",
    r#"(?-u)(?i)(?:password|passwd|secret|token|api[_-]?key)["']?\s*[:=]\s*["']?[^\s"'&;]{4,}"#,
];

/// A stack's length; an L2 cache holds it.
const STACK: usize = 132 << 10;
const HEAP: usize = 32 << 20;

fn gigabytes(bytes: usize, time: Duration) -> f64 {
    bytes as f64 / time.as_secs_f64().max(1e-12) / 1e9
}

/// The rows of speed. `heap` is memory of real programs.
pub(crate) fn measure(heap: &[u8], seed: u64, small: bool) -> Result<Vec<Measure>> {
    let mut heap_like: Vec<u8> =
        heap.iter().copied().cycle().take(if heap.is_empty() { 0 } else { HEAP }).collect();
    let source = if heap_like.is_empty() {
        "made up: no program's heap could be read"
    } else {
        "heaps of real programs"
    };
    let mut random = Random::new(seed ^ 3);
    if heap_like.is_empty() {
        heap_like = mixture(HEAP, 55, 12, &mut random);
    }
    let stack_like = mixture(STACK, 88, 2, &mut random);
    let mut measures = Vec::new();
    let rounds = if small { 3 } else { 7 };
    for (name, bytes, place, must, aim) in [
        ("stack-like", &stack_like, Place::Stack, 0.10, 0.25),
        ("heap-like", &heap_like, Place::Heap, 0.05, 0.15),
    ] {
        // Of what a cache holds many rounds, over some seconds: what shares the machine is seldom quiet for long.
        let rounds = if bytes.len() < HEAP { rounds * 1000 } else { rounds };
        let mut copy = vec![0; bytes.len()];
        // A byte that is not there, or the search would end.
        let counts = bytes.iter().fold([0usize; 256], |mut counts, &byte| {
            counts[usize::from(byte)] += 1;
            counts
        });
        let rare = (0..=255u8).min_by_key(|&byte| counts[usize::from(byte)]).unwrap_or(0);
        let (mut memcpy, mut memchr, mut scrub) =
            (Fastest::default(), Fastest::default(), Fastest::default());
        let mut scrubbing = Scrubbing::new(bytes, place)?;
        // In turn, and each for about as long, so that what else the machine does meets all of them alike.
        for _ in 0..rounds {
            memcpy.of(|times| {
                Ok(timed(times, || black_box(&mut copy[..]).copy_from_slice(black_box(bytes))))
            })?;
            memchr.of(|times| {
                Ok(timed(times, || {
                    black_box(memchr::memchr_iter(rare, black_box(bytes)).count());
                }))
            })?;
            scrub.of(|times| scrubbing.times(times))?;
        }
        let [memcpy, memchr, scrub] = [memcpy, memchr, scrub].map(|fastest| fastest.one);
        let (copied, searched, scrubbed) =
            (gigabytes(bytes.len(), memcpy), gigabytes(bytes.len(), memchr), gigabytes(bytes.len(), scrub));
        let naive = if name == "heap-like" && !small { Some(naive(bytes)?) } else { None };
        let naive = naive.map_or(String::new(), |rate| {
            format!(", naive regexes {rate:.3} GB/s ({:.0}x slower)", scrubbed / rate)
        });
        let note = format!(
            "scrub {scrubbed:.2} GB/s, memcpy {copied:.1}, memchr {searched:.1}{naive}; {}",
            if name == "heap-like" { source } else { "88 % zero, 1.5 % text" }
        );
        measures.push(Measure::least(
            &format!("throughput against memcpy, {name}"),
            scrubbed / copied,
            must,
            aim,
            note,
        ));
    }
    let sixteen: Vec<u8> = heap_like.iter().copied().take(16 << 20).collect();
    let mut scrubbing = Scrubbing::new(&sixteen, Place::Heap)?;
    let mut time = Duration::MAX;
    for _ in 0..rounds {
        time = time.min(scrubbing.once()?);
    }
    measures.push(Measure::most(
        "added time for a 16 MiB dump, ms",
        time.as_secs_f64() * 1000.0,
        30.0,
        10.0,
        "all of it heap".to_owned(),
    ));
    let text = text_of(&heap_like, 2 << 20);
    measures.push(hostile(&text)?);
    if small {
        // A shared machine's speed judges nobody.
        measures.iter_mut().for_each(|measure| measure.judged = false);
    }
    Ok(measures)
}

/// What this thread has had of a processor, so that other programs on the machine do not count.
#[allow(unsafe_code, reason = "a system call without a safe wrapper in std")]
fn processor_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a local structure of the type that the call fills.
    let failed = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) } != 0;
    let (seconds, nanoseconds) = (u64::try_from(time.tv_sec), u32::try_from(time.tv_nsec));
    match (failed, seconds, nanoseconds) {
        (false, Ok(seconds), Ok(nanoseconds)) => Duration::new(seconds, nanoseconds),
        _ => Duration::ZERO,
    }
}

fn timed(times: usize, mut run: impl FnMut()) -> Duration {
    let start = processor_time();
    (0..times).for_each(|_| run());
    since(start) / u32::try_from(times).unwrap_or(1).max(1)
}

/// What it has had since `start`, without what asking for it takes: a system call, half a microsecond of the 25 of a small dump.
fn since(start: Duration) -> Duration {
    static ASKING: LazyLock<Duration> = LazyLock::new(|| {
        let asked = |_| {
            let start = processor_time();
            processor_time().saturating_sub(start)
        };
        (0..1000).map(asked).min().unwrap_or_default()
    });
    let now = processor_time();
    now.saturating_sub(start).saturating_sub(*ASKING)
}

/// How long something takes that is done a few times in a row, in the fastest of many such rows.
struct Fastest {
    /// One time of the fastest row so far.
    one: Duration,
    /// How often a row does it, to take [`ROW`].
    times: usize,
}

/// Of processor time: long for a clock, and short beside what other programs leave alone.
const ROW: Duration = Duration::from_micros(200);

impl Default for Fastest {
    fn default() -> Self {
        Self { one: Duration::MAX, times: 1 }
    }
}

impl Fastest {
    /// One more row: `run` does it as often as it is told, and says how long one took.
    fn of(&mut self, run: impl FnOnce(usize) -> Result<Duration>) -> Result<()> {
        self.one = self.one.min(run(self.times)?);
        let times = ROW.as_nanos() / self.one.as_nanos().max(1);
        self.times = usize::try_from(times).unwrap_or(1).clamp(1, 1 << 12);
        Ok(())
    }
}

/// A dump that is scrubbed again and again, with three known values.
struct Scrubbing {
    bytes: Vec<u8>,
    layout: Layout,
    engine: Engine,
    scrubbed: Vec<u8>,
}

impl Scrubbing {
    fn new(memory: &[u8], place: Place) -> Result<Self> {
        let bytes = dump::memory(place, memory, &[]).bytes;
        let known = ["marguerite", "/home/marguerite", "hostess-7"].map(str::to_owned).to_vec();
        Ok(Self {
            layout: Layout::parse(&bytes)?,
            engine: Engine::new(&Policy { known, ..Policy::default() })?,
            scrubbed: bytes.clone(),
            bytes,
        })
    }

    /// The time of one of `times` scrubs.
    fn times(&mut self, times: usize) -> Result<Duration> {
        let mut total = Duration::ZERO;
        for _ in 0..times {
            total += self.once()?;
        }
        Ok(total / u32::try_from(times).unwrap_or(1).max(1))
    }

    fn once(&mut self) -> Result<Duration> {
        self.scrubbed.copy_from_slice(&self.bytes);
        let (mut engine, mut receipt) = (self.engine.clone(), Receipt::default());
        let start = processor_time();
        engine.dump(black_box(&mut self.scrubbed), &self.layout, &mut receipt)?;
        Ok(since(start))
    }
}

fn naive(bytes: &[u8]) -> Result<f64> {
    let rules: Vec<Regex> = NAIVE
        .iter()
        .map(|rule| Regex::new(rule))
        .collect::<std::result::Result<_, _>>()
        .map_err(|e| Failure::Failed(format!("a rule as a regular expression: {e}")))?;
    let part = &bytes[..bytes.len().min(8 << 20)];
    let start = processor_time();
    let hits: usize = rules.iter().map(|rule| rule.find_iter(part).count()).sum();
    black_box(hits);
    Ok(gigabytes(part.len(), since(start)))
}

/// The texts of six characters and more in `memory`, with a zero behind each, again and again up to `length`.
fn text_of(memory: &[u8], length: usize) -> Vec<u8> {
    let is_text = |byte: &u8| matches!(byte, b' '..=b'~' | b'\t' | b'\n' | b'\r');
    let texts = memory.split(|byte| !is_text(byte)).filter(|text| text.len() >= 6);
    let mut all: Vec<u8> = texts.flat_map(|text| text.iter().chain(&[0])).copied().take(length).collect();
    if !all.is_empty() {
        all = all.iter().copied().cycle().take(length).collect();
    }
    all
}

/// How much slower the worst of some hostile texts is than `text`, that of real programs, of which there is nothing else either.
fn hostile(text: &[u8]) -> Result<Measure> {
    const UNITS: &[&str] = &[
        "a",
        "1",
        "@",
        "a@",
        "a@b.",
        "1.",
        "1.1.1.1.",
        ":",
        "1:",
        "/",
        "/home/",
        "://a@",
        "eyJa.",
        "-----BEGIN ",
        "AKIA",
        "password=",
        "password=a ",
        "token:",
        "tel 1",
        "+1",
        "(",
        "%41",
        "\\u0041",
        "YWFh",
        "6161",
        "geo:1.",
        "a\0",
        "a\0\0\0",
        "<",
        "1-",
        "4111 ",
        "sk-",
        "né ",
        "mnemonic: add ",
        "bc1",
        "7656119",
        "DE89 ",
        "tel 1",
        "key=a&",
        "Cookie: a=b;",
        "s-1-5-21-",
        ":AA",
    ];
    let mut typical = Scrubbing::new(text, Place::Heap)?;
    let mut ratios = Vec::new();
    for unit in UNITS {
        ratios.push((slower(unit, &mut typical, 2)?, *unit));
    }
    // What one look takes for the worst may have met a busy moment.
    ratios.sort_by(|a, b| b.0.total_cmp(&a.0));
    ratios.truncate(6);
    for (ratio, unit) in &mut ratios {
        *ratio = slower(unit, &mut typical, 7)?;
    }
    ratios.sort_by(|a, b| b.0.total_cmp(&a.0));
    let note: Vec<String> =
        ratios.iter().take(4).map(|(ratio, unit)| format!("{unit:?} {ratio:.2}")).collect();
    Ok(Measure::most(
        "hostile text against the text of a heap, times slower",
        ratios.first().map_or(0.0, |(ratio, _)| *ratio),
        3.0,
        1.0,
        format!("repeated: {}", note.join(", ")),
    ))
}

/// How many times slower a text of nothing but `unit` is than `typical`, each the fastest of some rounds, in turn.
fn slower(unit: &str, typical: &mut Scrubbing, rounds: usize) -> Result<f64> {
    let length = typical.bytes.len().min(2 << 20);
    let mut hostile = Scrubbing::new(&unit.as_bytes().repeat(length / unit.len()), Place::Heap)?;
    let (mut ours, mut theirs) = (Duration::MAX, Duration::MAX);
    for _ in 0..rounds {
        ours = ours.min(typical.once()?);
        theirs = theirs.min(hostile.once()?);
    }
    let pace = |time: Duration, scrubbing: &Scrubbing| time.as_secs_f64() / scrubbing.bytes.len() as f64;
    Ok(pace(theirs, &hostile) / pace(ours, typical).max(f64::MIN_POSITIVE))
}

/// Memory like a process's: so many percent zeros and text, and for the rest pointers and numbers.
fn mixture(length: usize, zeros: usize, text: usize, random: &mut Random) -> Vec<u8> {
    const TEXTS: &[&str] = &[
        "libstdc++.so.6",
        "texture hero_diffuse.png",
        "std::vector<int>::push_back",
        "at line 42 of main.lua",
        "level 7 loaded",
    ];
    let mut bytes = Vec::with_capacity(length + 64);
    while bytes.len() < length {
        let dice = random.below(1000);
        // A text is about three words long.
        if dice < text * 10 / 3 {
            bytes.extend(random.of(TEXTS).as_bytes());
            bytes.resize(bytes.len().next_multiple_of(8), 0);
        } else if dice < text * 10 / 3 + zeros * 10 {
            // Zeros come in series.
            bytes.extend([0; 8]);
        } else {
            let word = match random.below(3) {
                0 => 0x7ffd_1234_0000 + random.next() % 0x10_0000,
                1 => 0x55d5_c3a4_b000 + random.next() % 0x100_0000,
                _ => random.next() % 5000,
            };
            bytes.extend(word.to_le_bytes());
        }
    }
    bytes.truncate(length);
    bytes
}
