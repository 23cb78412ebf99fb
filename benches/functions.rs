//! The stages' functions one by one, on the dump of a process with 16 threads, beside memcpy and gzip of the same bytes.
//!
//! ```text
//! cargo bench --bench functions -- [FILTER]
//! ```

use std::error::Error;
use std::hint::black_box;
use std::io::{Read, Write};
use std::ops::Range;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use cenotaph::dump::binaries::FileBinaries;
use cenotaph::dump::{Layout, indirect, unwind, writer};
use cenotaph::report::ReportId;
use cenotaph::scrub::{Engine, Level, Policy, Receipt};
use cenotaph::spool::{LocalKey, Part, PartKind, container};
use criterion::{BatchSize, Criterion, Throughput};
use flate2::Compression;
use flate2::write::GzEncoder;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const SUBJECT: &str = "--subject";
const THREADS: usize = 16;

fn main() -> Result<()> {
    if std::env::args().nth(1).as_deref() == Some(SUBJECT) {
        return be_subject();
    }
    let input = Input::take()?;
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .sample_size(20)
        .without_plots()
        .configure_from_args();
    dump(&mut criterion, &input);
    scrub(&mut criterion, &input)?;
    seal(&mut criterion, &input)?;
    criterion.final_summary();
    Ok(())
}

/// A process's dump, and what its stages need besides.
struct Input {
    dump: Vec<u8>,
    layout: Layout,
    readable: Vec<Range<u64>>,
}

impl Input {
    fn take() -> Result<Self> {
        let mut subject = Subject::start()?;
        let pid = i32::try_from(subject.0.id())?;
        let maps = std::fs::read_to_string(format!("/proc/{pid}/maps"))?;
        let readable: Vec<Range<u64>> = maps.lines().filter_map(readable).collect();
        let memory = std::fs::File::open(format!("/proc/{pid}/mem"))?;
        let mut read = |address, buffer: &mut [u8]| {
            std::os::unix::fs::FileExt::read_at(&memory, buffer, address).unwrap_or(0)
        };
        let dump = writer::write(writer::Request::new(pid, pid, None))?;
        let dump = writer::with_indirect(dump, 512 * 1024, &readable, &mut read)?;
        subject.0.kill()?;
        Ok(Self { layout: Layout::parse(&dump)?, dump, readable })
    }

    fn throughput(&self) -> Throughput {
        Throughput::Bytes(self.dump.len() as u64)
    }
}

fn dump(criterion: &mut Criterion, input: &Input) {
    let mut group = criterion.benchmark_group("dump");
    group.throughput(input.throughput());
    group.bench_function("parse", |b| b.iter(|| Layout::parse(black_box(&input.dump))));
    group.bench_function("wanted", |b| {
        b.iter(|| indirect::wanted(black_box(&input.dump), &input.layout, &input.readable, 512 * 1024));
    });
    group.bench_function("unwind, files read", |b| {
        b.iter(|| unwind::stack_trace(black_box(&input.dump), &input.layout, &FileBinaries::new()));
    });
    let known = FileBinaries::new();
    group.bench_function("unwind, files known", |b| {
        b.iter(|| unwind::stack_trace(black_box(&input.dump), &input.layout, &known));
    });
    group.finish();
}

fn scrub(criterion: &mut Criterion, input: &Input) -> Result<()> {
    let policy = |level| Policy {
        level,
        known: ["marguerite", "/home/marguerite", "hostess-7"].map(str::to_owned).to_vec(),
        ..Policy::default()
    };
    let mut group = criterion.benchmark_group("scrub");
    group.bench_function("compile the policy", |b| b.iter(|| Engine::new(&policy(Level::Pattern))));
    group.throughput(input.throughput());
    for (name, level) in [("pattern", Level::Pattern), ("pointers", Level::Pointers)] {
        let mut engine = Engine::new(&policy(level))?;
        group.bench_function(name, |b| {
            b.iter_batched_ref(
                || (input.dump.clone(), Receipt::default()),
                |(dump, receipt)| engine.dump(dump, &input.layout, receipt),
                BatchSize::LargeInput,
            );
        });
    }
    group.finish();
    Ok(())
}

fn seal(criterion: &mut Criterion, input: &Input) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let key = LocalKey::load_or_create(dir.path())?;
    let parts = [Part { kind: PartKind::Minidump, bytes: input.dump.clone() }];
    let mut group = criterion.benchmark_group("seal");
    group.throughput(input.throughput());
    group.bench_function("memcpy", |b| {
        let mut copy = vec![0; input.dump.len()];
        b.iter(|| black_box(&mut copy).copy_from_slice(black_box(&input.dump)));
    });
    for level in [1, 3, 6] {
        group.bench_function(format!("gzip -{level}"), |b| b.iter(|| gzip(black_box(&input.dump), level)));
    }
    group.bench_function("container", |b| {
        b.iter(|| container::seal(ReportId([1; 16]), 1, black_box(&parts), &key));
    });
    group.finish();
    Ok(())
}

fn gzip(bytes: &[u8], level: u32) -> std::io::Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::new(level));
    encoder.write_all(bytes)?;
    encoder.finish()
}

/// The start and end of a line of maps, if it is readable memory and no device.
fn readable(line: &str) -> Option<Range<u64>> {
    let (range, rest) = line.split_once(' ')?;
    let (start, end) = range.split_once('-')?;
    let number = |text| u64::from_str_radix(text, 16).ok();
    (rest.starts_with('r') && !rest.contains(" /dev/")).then_some(number(start)?..number(end)?)
}

/// This program, run once more as a process to be dumped. Ended when dropped.
struct Subject(Child);

impl Subject {
    fn start() -> Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .arg(SUBJECT)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut ready = [0; 6];
        child.stdout.as_mut().ok_or("no pipe")?.read_exact(&mut ready)?;
        Ok(Self(child))
    }
}

impl Drop for Subject {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Sixteen threads, some text on the heap, and a wait for the end of standard input.
fn be_subject() -> Result<()> {
    let text: Arc<[String]> =
        (0..2000).map(|i| format!("line {i} of the subject, mail{i}@example.org\n")).collect();
    for _ in 1..THREADS {
        let text = text.clone();
        std::thread::spawn(move || {
            loop {
                std::thread::park();
                black_box(&text);
            }
        });
    }
    std::io::stdout().write_all(b"ready\n")?;
    std::io::stdout().flush()?;
    std::io::stdin().read_to_end(&mut Vec::new())?;
    black_box(text);
    Ok(())
}
