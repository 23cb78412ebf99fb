//! Heaps of real programs that hold nobody's data: what is redacted there is redacted wrongly, but for what literally is what the
//! rule says (the addresses of authors in the texts of a library).
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use cenotaph::dump::Layout;
use cenotaph::scrub::{self, Policy, Receipt};

use super::dump::{self, Place};
use crate::failure::{Failure, Result};
use crate::output;

/// Bytes of a program's memory that are looked at together.
const PIECE: usize = 16 << 20;

/// Programs with their arguments, which say a line when their heap is full and then wait; or which wait for a text that does not come.
/// What is not on this machine is left out, and the score says what was there.
const PROGRAMS: &[(&str, &[&str])] = &[
    // Compilers, in the middle of a file whose rest they wait for.
    (
        "gcc",
        &[
            "-fsyntax-only",
            "-x",
            "c++",
            "-include",
            "iostream",
            "-include",
            "regex",
            "-include",
            "map",
            "-include",
            "random",
            "-include",
            "algorithm",
            "-include",
            "/dev/stdin",
            "/dev/null",
        ],
    ),
    (
        "gcc",
        &[
            "-fsyntax-only",
            "-x",
            "c",
            "-include",
            "stdio.h",
            "-include",
            "stdlib.h",
            "-include",
            "math.h",
            "-include",
            "signal.h",
            "-include",
            "/dev/stdin",
            "/dev/null",
        ],
    ),
    // Not into /dev/null: as root it would come to lie there.
    ("rustc", &["--crate-type", "lib", "--emit", "metadata=FOLDER/metadata", "/dev/stdin"]),
    (
        "sqlite3",
        &[
            "-cmd",
            "create table t as with recursive n(i) as (select 1 union all select i+1 from n where i<LIMIT*2000) select i,printf('row %d %g',i,i*0.37) s,hex(i*7919) h from n; create index s on t(s);",
            "-cmd",
            ".print ready",
            ":memory:",
        ],
    ),
    // A browser, with a page that makes things. It ends with the folder that it was given as its home.
    (
        BROWSER,
        &[
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--no-first-run",
            "--disable-background-networking",
            "--single-process",
            "--remote-debugging-port=0",
            "data:text/html,<script>const keep=[];for(let i=0;i<LIMIT*1000;i++){const p=document.createElement('p');p.textContent='row '+i+' '+Math.sin(i);document.body.append(p);keep.push({i,s:i.toString(36)})}</script>",
        ],
    ),
    // A game.
    ("gnugo", &["--mode", "gtp", "--cache-size", "24"]),
    ("git", &["cat-file", "--batch"]),
    (
        "python3",
        &[
            "-c",
            "import ast,glob,os,sys\nkeep=[]\nfor f in sorted(glob.glob(os.path.dirname(os.__file__)+'/*.py'))[:LIMIT]:\n try: keep.append(ast.parse(open(f).read()))\n except Exception: pass\nprint('ready',flush=True)\nsys.stdin.read()",
        ],
    ),
    (
        "python3",
        &[
            "-c",
            "import sys\nkeep=[[i*0.37,str(i*1.7),hex(i*7919),(i,i+1)] for i in range(LIMIT*5000)]\nprint('ready',flush=True)\nsys.stdin.read()",
        ],
    ),
    (
        "node",
        &[
            "-e",
            "const keep=[];for(let i=0;i<LIMIT*4000;i++)keep.push({id:i,x:Math.sin(i),s:'node'+i.toString(36)});for(const m of require('module').builtinModules)try{keep.push(require(m))}catch{};console.log('ready');process.stdin.resume()",
        ],
    ),
    (
        "perl",
        &[
            "-e",
            "$|=1;use POSIX;my @k;for my $i(1..LIMIT*4000){push @k,{id=>$i,v=>sprintf('%.9f',sin($i)),h=>sprintf('%x',$i*2654435761)}}print \"ready\\n\";<STDIN>;",
        ],
    ),
    (
        "awk",
        &[
            "BEGIN{for(i=0;i<LIMIT*5000;i++)a[i]=sprintf(\"%.12g:%x\",i*0.731,i*48271);print \"ready\";fflush();getline}",
        ],
    ),
    (
        "bash",
        &[
            "-c",
            "for((i=0;i<LIMIT*60;i++));do a[i]=\"entry-$i-$((i*7919))-$((i*31%97)).$((i%13))\";done;echo ready;read",
        ],
    ),
    (
        "gdb",
        &[
            "-nx",
            "-q",
            "-batch",
            "-ex",
            "file /bin/bash",
            "-ex",
            "python import gdb,sys;print('ready',flush=True);sys.stdin.read()",
        ],
    ),
];

/// The program that leaves files, and is what it starts itself.
const BROWSER: &str = "chromium";

/// What heaps of programs showed.
#[derive(Debug, Default)]
pub(crate) struct Negatives {
    pub(crate) mebibytes: f64,
    pub(crate) programs: Vec<String>,
    /// Each program once, and what it says of its version.
    pub(crate) versions: Vec<String>,
    /// Redactions by rule: all, and those of text that is not what the rule says.
    pub(crate) by_rule: BTreeMap<String, (u64, u64)>,
    pub(crate) examples: Vec<String>,
    /// A heap, to measure speed with.
    pub(crate) heap: Vec<u8>,
}

impl Negatives {
    pub(crate) fn wrong(&self) -> u64 {
        self.by_rule.values().map(|(_, wrong)| wrong).sum()
    }

    pub(crate) fn all(&self) -> u64 {
        self.by_rule.values().map(|(all, _)| all).sum()
    }
}

/// Scrubs the heaps of what programs there are on this machine, and the files in `folder`, `mebibytes` in all at most and
/// a third of that of one program.
pub(crate) fn measure(mebibytes: usize, keep: usize, folder: Option<&Path>) -> Result<Negatives> {
    let mut found = Negatives::default();
    let limit = mebibytes.div_ceil(2).to_string();
    let more = |found: &mut Negatives, piece: &[u8]| {
        if found.heap.len() < keep {
            let more = piece.len().min(keep - found.heap.len());
            found.heap.extend(&piece[..more]);
        }
        look_at(piece, found)
    };
    for path in folder.map(files).transpose()?.unwrap_or_default() {
        let before = found.mebibytes;
        let bytes = std::fs::read(&path).map_err(|e| Failure::file(&path, "read", e))?;
        bytes.chunks(PIECE).try_for_each(|piece| more(&mut found, piece))?;
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        found.programs.push(format!("{name} {:.0} MiB", found.mebibytes - before));
    }
    for (program, arguments) in PROGRAMS {
        let left = (mebibytes as f64 - found.mebibytes).min(mebibytes as f64 / 3.0);
        if left < 1.0 {
            break;
        }
        let arguments: Vec<String> =
            arguments.iter().map(|argument| argument.replace("LIMIT", &limit)).collect();
        let Some(running) = Running::start(program, &arguments) else {
            found.programs.push(format!("{program} n/a"));
            continue;
        };
        output::progress(format_args!("heap of {program}"));
        let version =
            format!("{program}: {}", version(program).unwrap_or_else(|| "version unknown".to_owned()));
        if !found.versions.contains(&version) {
            found.versions.push(version);
        }
        let before = found.mebibytes;
        running.each_piece((left * 1048576.0) as usize, |piece| more(&mut found, piece))?;
        found.programs.push(format!("{program} {:.0} MiB", found.mebibytes - before));
    }
    Ok(found)
}

fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(folder).map_err(|e| Failure::file(folder, "read", e))?;
    let mut files: Vec<PathBuf> =
        entries.filter_map(|entry| Some(entry.ok()?.path())).filter(|path| path.is_file()).collect();
    files.sort();
    Ok(files)
}

fn look_at(piece: &[u8], found: &mut Negatives) -> Result<()> {
    let planted = dump::memory(Place::Heap, piece, &[(0, piece.len())]);
    let start = planted.positions[0].first().copied().unwrap_or(0);
    let layout = Layout::parse(&planted.bytes)?;
    let (mut after, mut receipt) = (planted.bytes.clone(), Receipt::default());
    scrub::dump(&mut after, &layout, &Policy::default(), &mut receipt)?;
    if let Some(at) = receipt.discrepancy(&planted.bytes, &after) {
        return Err(Failure::Failed(format!("a receipt that is not the byte difference, at {at:#x}")));
    }
    found.mebibytes += piece.len() as f64 / 1048576.0;
    for entry in &receipt.entries {
        let (offset, length) = (entry.offset as usize, entry.length as usize);
        // The edges of a piece are ours, not the program's; an echo repeats what was counted.
        if offset < start || offset >= start + piece.len() || entry.rule == "cut-off" || entry.rule == "echo"
        {
            continue;
        }
        let text: String = planted.bytes[offset..offset + length]
            .iter()
            .filter(|&&b| b != 0)
            .map(|&b| char::from(b))
            .collect();
        let wrong = !is_literally(&entry.rule, &text);
        let count = found.by_rule.entry(entry.rule.clone()).or_default();
        count.0 += 1;
        count.1 += u64::from(wrong);
        if wrong && found.examples.len() < 120 {
            let (from, to) = (offset.saturating_sub(24), (offset + length + 12).min(planted.bytes.len()));
            let around = String::from_utf8_lossy(&planted.bytes[from..to]).into_owned();
            found.examples.push(format!("{}: {text:?} in {around:?}", entry.rule));
        }
    }
    Ok(())
}

/// Whether a strict reader, which shares nothing with the rules, takes `text` for what the rule says. Only for kinds that can be told from
/// the text alone; of others every redaction in these heaps counts as wrong.
fn is_literally(rule: &str, text: &str) -> bool {
    match rule {
        "email" => text.split_once('@').is_some_and(|(local, domain)| {
            let labels: Vec<&str> = domain.split('.').collect();
            let plain = |c: char| c.is_ascii_alphanumeric() || "._%+-".contains(c);
            local.chars().all(plain)
                && labels.len() >= 2
                && labels.iter().all(|label| {
                    !label.is_empty() && label.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
                })
                && labels
                    .last()
                    .is_some_and(|top| top.len() >= 2 && top.chars().all(|c| c.is_ascii_lowercase()))
        }),
        "ipv4" => text.parse::<Ipv4Addr>().is_ok(),
        "ipv6" => text.parse::<Ipv6Addr>().is_ok(),
        // A directory of people's folders, and no more than a name.
        "user-path" => {
            !text.is_empty()
                && text.len() < 33
                && text.chars().all(|c| c.is_alphanumeric() || "._- ".contains(c))
        }
        "mac" => text.len() == 17,
        _ => false,
    }
}

/// A program with no more of our environment than it needs.
fn command(program: &str) -> Option<Command> {
    // Where Debian has games, too.
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path = std::env::split_paths(&path).chain(["/usr/games".into()]);
    let mut command = Command::new(program);
    command.env_clear().env("PATH", std::env::join_paths(path).ok()?).env("LC_ALL", "C");
    // Rust's compiler is found by the launcher of its installer through the home directory.
    if program == "rustc" {
        command.env("HOME", std::env::var_os("HOME").unwrap_or_default());
    }
    Some(command)
}

/// The first line that a program says of its version.
fn version(program: &str) -> Option<String> {
    let said = command(program)?.arg("--version").stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    let text = String::from_utf8_lossy(&said.stdout).into_owned();
    text.lines().map(str::trim).find(|line| !line.is_empty()).map(str::to_owned)
}

struct Running {
    child: Child,
    /// Where a program that leaves files leaves them.
    folder: PathBuf,
    /// Whether it starts others that do its work: gcc does.
    has_children: bool,
}

/// How long a program may take until it waits.
const DEADLINE: Duration = Duration::from_secs(60);

impl Running {
    fn start(program: &str, arguments: &[String]) -> Option<Self> {
        let said = arguments.iter().any(|argument| argument.contains("ready"));
        let folder = std::env::temp_dir().join(format!("cenotaph-score-{}", std::process::id()));
        let mut command = command(program)?;
        std::fs::create_dir(&folder).ok()?;
        let in_folder = |argument: &String| argument.replace("FOLDER", &folder.to_string_lossy());
        let child = command
            .args(arguments.iter().map(in_folder))
            .envs((program == BROWSER).then_some(("HOME", &folder)))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn();
        let Ok(child) = child else {
            let _ = std::fs::remove_dir(&folder);
            return None;
        };
        let mut running = Self { child, folder, has_children: program != BROWSER };
        if program == "rustc" {
            let stdin = running.child.stdin.as_mut()?;
            stdin.write_all(b"pub fn nothing() {}\n").ok()?;
        }
        if !said {
            return running.waits().then_some(running);
        }
        let mut line = String::new();
        BufReader::new(running.child.stdout.take()?).read_line(&mut line).ok()?;
        line.starts_with("ready").then_some(running)
    }

    /// The process, or the one that it started.
    fn process(&self) -> u32 {
        let id = self.child.id();
        if !self.has_children {
            return id;
        }
        let children = std::fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap_or_default();
        children.split_whitespace().next().and_then(|child| child.parse().ok()).unwrap_or(id)
    }

    /// Whether it comes to wait: it sleeps, and has used no processor for half a second.
    fn waits(&self) -> bool {
        let started = Instant::now();
        let mut last = (String::new(), Instant::now());
        while started.elapsed() < DEADLINE {
            let Ok(stat) = std::fs::read_to_string(format!("/proc/{}/stat", self.process())) else {
                return false;
            };
            // State, and the times in user and kernel mode: fields 3, 14 and 15 of proc_pid_stat(5).
            let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
            let field = |number: usize| fields.get(number - 3).copied().unwrap_or_default();
            let now = format!("{} {} {}", field(3), field(14), field(15));
            if field(3) == "Z" {
                return false;
            }
            if now != last.0 || field(3) != "S" {
                last = (now, Instant::now());
            } else if last.1.elapsed() > Duration::from_millis(500) {
                return true;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        false
    }

    /// Its private writable memory, in pieces.
    fn each_piece(&self, most: usize, mut call: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
        // A launcher (pyenv and the like) may have replaced itself by then; its memory is that of the program.
        let pid = self.process();
        let Ok(maps) = std::fs::read_to_string(format!("/proc/{pid}/maps")) else { return Ok(()) };
        let Ok(memory) = std::fs::File::open(format!("/proc/{pid}/mem")) else { return Ok(()) };
        let mut left = most;
        for line in maps.lines().filter(|line| line.contains(" rw-p ") && !line.contains("[stack]")) {
            let Some(range) = super::real::readable(line) else { continue };
            let mut at = range.start;
            while at < range.end && left > 0 {
                let length = ((range.end - at) as usize).min(PIECE).min(left);
                let mut piece = vec![0; length];
                let read = memory.read_at(&mut piece, at).unwrap_or(0);
                if read == 0 {
                    break;
                }
                piece.truncate(read);
                call(&piece)?;
                at += read as u64;
                left -= read.min(left);
            }
        }
        Ok(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Without its input a compiler that somebody else started ends too.
        drop(self.child.stdin.take());
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As root a compiler replaces a device that it is to write to.
    #[test]
    fn nothing_is_written_but_into_the_folder() {
        let outputs: Vec<&str> = PROGRAMS
            .iter()
            .flat_map(|(_, arguments)| arguments.windows(2))
            .filter(|two| matches!(two[0], "-o" | "--emit" | "--out-dir"))
            .map(|two| two[1])
            .collect();
        assert_eq!(outputs, ["metadata=FOLDER/metadata"]);
    }
}
