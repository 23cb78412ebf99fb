//! The figures as a table, and as JSON.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use serde::Serialize;

use crate::Failure;
use crate::calls::Calls;
use crate::crash::{RENAMED, Sample};
use crate::options::{Options, Sdk};
use crate::requirements::{self, Ratios, Requirement, Traced};
use crate::statistics::Summary;

/// The order in which the stages end. Others that the log may have come behind.
const STAGES: [&str; 5] = ["dump", "unwind", "scrub", "seal", "spool"];

/// All samples of a series.
pub(crate) struct Rows<'a> {
    pub(crate) samples: Vec<(usize, Sdk, Sample)>,
    pub(crate) traced: Option<Traced>,
    pub(crate) options: &'a Options,
}

#[derive(Serialize)]
struct Document {
    /// By number of threads.
    rows: Vec<Row>,
    /// With bounds.
    measures: Vec<Requirement>,
    with_pmodules: Option<Row>,
    /// Of the crashes under strace: the victim's threads and the counts.
    system_calls: Vec<(usize, Calls)>,
    runs: usize,
    heap_mib: usize,
    seed: u64,
    processors: usize,
    file_system: String,
}

/// Times in milliseconds from the crash on; ratios of medians, Cenotaph's over minidumper's.
#[derive(Serialize)]
struct Row {
    threads: usize,
    released_ratio: f64,
    spooled_ratio: f64,
    dump_bytes_ratio: f64,
    cenotaph_released_ms: Summary,
    cenotaph_spooled_ms: Summary,
    cenotaph_gone_ms: Summary,
    cenotaph_dump_bytes: f64,
    /// Until each stage had ended; medians.
    cenotaph_stages_ms: BTreeMap<String, f64>,
    /// Until the harness saw the report's rename. What makes it durable, the file's fsync, comes before; only on a file
    /// system that is not known the directory's after it.
    cenotaph_renamed_ms: f64,
    minidumper_released_ms: Summary,
    minidumper_complete_ms: Summary,
    minidumper_gone_ms: Summary,
    minidumper_dump_bytes: f64,
}

impl Rows<'_> {
    pub(crate) fn print(&self, out: &mut impl Write) -> io::Result<()> {
        let document = self.document();
        writeln!(
            out,
            "crash_latency: {} runs, {} MiB heap, seed {}, {} processors, {}; ms from the crash on, median / p95",
            document.runs, document.heap_mib, document.seed, document.processors, document.file_system
        )?;
        writeln!(
            out,
            "complete: Cenotaph's report scrubbed, sealed and fsync'd; minidumper's raw dump closed, no fsync\n"
        )?;
        writeln!(
            out,
            "{:>7}  {:<10} {:>17} {:>17} {:>17} {:>10}",
            "threads", "", "released", "complete", "gone", "dump KiB"
        )?;
        for row in &document.rows {
            row.print(out)?;
        }
        if let Some(row) = &document.with_pmodules {
            let Row { threads, released_ratio, spooled_ratio, .. } = row;
            let (released, complete) = (row.cenotaph_released_ms.median, row.cenotaph_spooled_ms.median);
            writeln!(
                out,
                "\nwith the three example pmodules on, {threads} threads: released {released:.2} ms ({released_ratio:.2} of \
                 minidumper's), complete {complete:.2} ms ({spooled_ratio:.2})"
            )?;
        }
        writeln!(out, "\nCenotaph's stages: ms from the crash to each one's end, median")?;
        let stages = document.stages();
        let titles: String = stages.iter().map(|stage| format!(" {stage:>8}")).collect();
        writeln!(out, "{:>7} {titles}", "threads")?;
        for row in &document.rows {
            let cells = stages.iter().map(|stage| row.cenotaph_stages_ms.get(stage));
            let cells: String =
                cells.map(|ms| ms.map_or(format!(" {:>8}", "-"), |ms| format!(" {ms:>8.2}"))).collect();
            writeln!(out, "{:>7} {cells}", row.threads)?;
        }
        if let [(few, first), (many, second)] = &document.system_calls[..] {
            writeln!(out, "\nCenotaph's system calls, by strace: all / during the stop / reads then")?;
            for (threads, calls) in [(few, first), (many, second)] {
                writeln!(out, "{threads:>7}  {} / {} / {}", calls.all, calls.during_stop, calls.reads)?;
            }
        }
        requirements::print(&document.measures, out)
    }

    pub(crate) fn write_json(&self, path: &Path) -> Result<(), Failure> {
        let mut text = serde_json::to_string_pretty(&self.document())?;
        text.push('\n');
        std::fs::write(path, text).map_err(|error| format!("cannot write {}: {error}", path.display()).into())
    }

    fn document(&self) -> Document {
        let options = self.options;
        let mut threads = options.threads.clone();
        threads.sort_unstable();
        threads.dedup();
        let rows: Vec<Row> = threads.into_iter().map(|threads| self.row(threads, Sdk::Cenotaph)).collect();
        let with_pmodules =
            options.threads_with_pmodules().map(|threads| self.row(threads, Sdk::WithPmodules));
        let ratios = rows.iter().map(|row| Ratios {
            threads: row.threads,
            released: row.released_ratio,
            complete: row.spooled_ratio,
            dump_bytes: row.dump_bytes_ratio,
        });
        let traced = self.traced.as_ref();
        Document {
            measures: requirements::requirements(&ratios.collect::<Vec<_>>(), traced),
            rows,
            with_pmodules,
            system_calls: traced.map_or_else(Vec::new, |t| t.threads.into_iter().zip(t.calls).collect()),
            runs: options.runs,
            heap_mib: options.heap_mib,
            seed: options.seed,
            processors: std::thread::available_parallelism().map_or(0, usize::from),
            file_system: file_system(&options.dir),
        }
    }

    /// Of one form of Cenotaph beside minidumper.
    fn row(&self, threads: usize, subject: Sdk) -> Row {
        let of = |sdk, value: &dyn Fn(&Sample) -> f64| {
            let samples = self.samples.iter().filter(|(t, s, _)| (*t, *s) == (threads, sdk));
            Summary::of(samples.map(|(_, _, sample)| value(sample)))
        };
        let ours = |value: &dyn Fn(&Sample) -> f64| of(subject, value);
        let theirs = |value: &dyn Fn(&Sample) -> f64| of(Sdk::Minidumper, value);
        let ratio = |value: &dyn Fn(&Sample) -> f64| ours(value).median / theirs(value).median;
        let stages = self.samples.iter().flat_map(|(_, _, sample)| sample.stages_ms.keys());
        let stage = |name: &str| ours(&|s| s.stages_ms.get(name).copied().unwrap_or(f64::NAN)).median;
        let mut stages: BTreeMap<String, f64> = stages.map(|name| (name.clone(), stage(name))).collect();
        Row {
            threads,
            released_ratio: ratio(&|s| s.released_ms),
            spooled_ratio: ratio(&|s| s.complete_ms),
            dump_bytes_ratio: ratio(&|s| s.dump_bytes),
            cenotaph_released_ms: ours(&|s| s.released_ms),
            cenotaph_spooled_ms: ours(&|s| s.complete_ms),
            cenotaph_gone_ms: ours(&|s| s.gone_ms),
            cenotaph_dump_bytes: ours(&|s| s.dump_bytes).median,
            cenotaph_renamed_ms: stages.remove(RENAMED).unwrap_or(f64::NAN),
            cenotaph_stages_ms: stages,
            minidumper_released_ms: theirs(&|s| s.released_ms),
            minidumper_complete_ms: theirs(&|s| s.complete_ms),
            minidumper_gone_ms: theirs(&|s| s.gone_ms),
            minidumper_dump_bytes: theirs(&|s| s.dump_bytes).median,
        }
    }
}

impl Document {
    fn stages(&self) -> Vec<String> {
        let known = STAGES.map(str::to_owned);
        let all = self.rows.iter().flat_map(|row| row.cenotaph_stages_ms.keys().cloned());
        let others: std::collections::BTreeSet<String> = all.filter(|stage| !known.contains(stage)).collect();
        known.into_iter().chain(others).collect()
    }
}

impl Row {
    fn print(&self, out: &mut impl Write) -> io::Result<()> {
        let pair = |s: &Summary| format!("{:.2} / {:.2}", s.median, s.p95);
        let mut line = |head: &str, name: &str, cells: [String; 4]| {
            let [released, complete, gone, dump] = cells;
            writeln!(out, "{head:>7}  {name:<10} {released:>17} {complete:>17} {gone:>17} {dump:>10}")
        };
        let kib = |bytes: f64| format!("{:.0}", bytes / 1024.0);
        let (released, complete) = (&self.cenotaph_released_ms, &self.cenotaph_spooled_ms);
        let gone = &self.cenotaph_gone_ms;
        let cells = [pair(released), pair(complete), pair(gone), kib(self.cenotaph_dump_bytes)];
        line(&self.threads.to_string(), "cenotaph", cells)?;
        let (released, complete) = (&self.minidumper_released_ms, &self.minidumper_complete_ms);
        let gone = &self.minidumper_gone_ms;
        let cells = [pair(released), pair(complete), pair(gone), kib(self.minidumper_dump_bytes)];
        line("", "minidumper", cells)?;
        let ratio = |ratio: f64| format!("{ratio:.2}");
        let gone = self.cenotaph_gone_ms.median / self.minidumper_gone_ms.median;
        let cells = [self.released_ratio, self.spooled_ratio, gone, self.dump_bytes_ratio].map(ratio);
        line("", "ratio", cells)
    }
}

/// Its name where it is a usual one, else the magic number (statfs(2)).
fn file_system(dir: &Path) -> String {
    let Ok(path) = CString::new(dir.as_os_str().as_bytes()) else { return "?".to_owned() };
    // SAFETY: an all-zero statfs is valid to be overwritten; the path is NUL-terminated.
    let kind = unsafe {
        let mut found: libc::statfs = std::mem::zeroed();
        if libc::statfs(path.as_ptr(), &raw mut found) != 0 {
            return "?".to_owned();
        }
        found.f_type
    };
    let known = [
        (libc::EXT4_SUPER_MAGIC, "ext4"),
        (libc::XFS_SUPER_MAGIC, "xfs"),
        (libc::BTRFS_SUPER_MAGIC, "btrfs"),
        (libc::TMPFS_MAGIC, "tmpfs"),
        (libc::OVERLAYFS_SUPER_MAGIC, "overlayfs"),
    ];
    let name = known.into_iter().find(|(magic, _)| *magic == kind).map(|(_, name)| name);
    name.map_or_else(|| format!("file system {kind:#x}"), str::to_owned)
}
