//! Scrubbing dumps of a real process: nothing planted is left, the receipt is exact, the frames are the same as before.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

use std::hint::black_box;
use std::io::{BufRead, BufReader, Read};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::process::{Child, Command, Stdio};

use cenotaph::dump::binaries::FileBinaries;
use cenotaph::dump::writer::{self, Request};
use cenotaph::dump::{Layout, unwind};
use cenotaph::scrub::{self, Level, Place, Policy, Receipt};

#[path = "support/byte_diff.rs"]
mod byte_diff;
#[path = "../src/dump/oracle.rs"]
mod oracle;

use byte_diff::assert_equals_receipt;

const ROLE: &str = "CENOTAPH_SCRUB_VICTIM";
const IN_ENVIRONMENT: &str = "zq7vxkwjhgq2-qwpzmb";
const IN_ARGUMENT: &str = "jx9wqkzvtp4-bqmzhw";
const USER: &str = "wilhelmina.q";

/// What the victim holds: rule, text around, the secret.
const PLANTED: &[(&str, &str, &str)] = &[
    ("email", "from <{}>", "gwendolyn.zephyr@example.org"),
    ("payment-card", "pan={};", "4111 1111 1111 1111"),
    ("iban", "{}", "DE89370400440532013000"),
    ("us-ssn", "ssn {}", "123-45-6789"),
    ("ipv4", "peer {}", "203.0.113.177"),
    ("ipv6", "peer [{}]:443", "2001:db8::8a2e:370:7334"),
    ("user-path", "/home/{}/save.dat", "gwendolynz"),
    ("url-user-info", "https://{}@host/", "gwen:qzxjkvwq"),
    ("http-auth", "Authorization: Bearer {}", "qzxj83v5wkq07btmdh"),
    ("jwt", "{}", "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9P"),
    ("aws-key-id", "{}", "AKIAIOSFODNN7EXAMPLE"),
    ("github-token", "{}", "ghp_16C7e42F292c6912E7710c838347Ae178B4a"),
    ("slack-token", "{}", "xoxb-917364820516-QwZkEfGhJxKlMnOp"),
    ("stripe-key", "{}", "sk_live_51H8abcdEFGHijklMNOP"),
    ("known-value", "user {} logged in", USER),
];

struct Victim {
    child: Child,
    tid: i32,
}

impl Victim {
    fn start() -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "victim", "--nocapture", "--test-threads=1", IN_ARGUMENT])
            .env(ROLE, IN_ENVIRONMENT)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let line = lines.map(Result::unwrap).find_map(|line| Some(line.split_once("VICTIM ")?.1.to_owned()));
        Self { tid: line.expect("the victim's announcement").parse().unwrap(), child }
    }

    /// With the memory that its stacks and registers point to.
    fn dump(&self) -> Vec<u8> {
        let pid = self.child.id();
        let dump = writer::write(Request::new(pid as i32, self.tid, None)).unwrap();
        let memory = std::fs::File::open(format!("/proc/{pid}/mem")).unwrap();
        let mut read = |address, buffer: &mut [u8]| memory.read_at(buffer, address).unwrap_or(0);
        writer::with_indirect(dump, 4 << 20, &self.mappings(), &mut read).unwrap()
    }

    fn mappings(&self) -> Vec<Range<u64>> {
        let maps = std::fs::read_to_string(format!("/proc/{}/maps", self.child.id())).unwrap();
        let range = |line: &str| {
            let (start, end) = line.split_once(' ')?.0.split_once('-')?;
            let number = |text| u64::from_str_radix(text, 16).unwrap();
            line.contains(" r").then(|| number(start)..number(end))
        };
        maps.lines().filter_map(range).collect()
    }

    /// `arg_start` to `env_end`: fields 48 and 51 of proc_pid_stat(5).
    fn policy(&self, level: Level) -> Policy {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
        let field = |number: usize| fields[number - 3].parse::<u64>().unwrap();
        Policy {
            level,
            known: vec![USER.to_owned()],
            arguments: Some(field(48)..field(51)),
            ..Policy::default()
        }
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Not a test of its own: what a victim runs.
#[test]
fn victim() {
    if std::env::var_os(ROLE).is_none() {
        return;
    }
    let thread = std::thread::Builder::new().name(USER.to_owned());
    // A thread gives itself its name.
    let barrier = std::sync::Arc::new(std::sync::Barrier::new(2));
    let named = barrier.clone();
    let worker = move || {
        named.wait();
        loop {
            std::thread::park();
        }
    };
    thread.spawn(worker).unwrap();
    barrier.wait();
    // The text is put together at run time; what remains of that is overwritten before the dump.
    let mut heap: Vec<Box<[u8]>> = Vec::new();
    let mut stack = [[0u8; 1024]; 3];
    let mut at = [0; 3];
    for &(_, around, secret) in PLANTED {
        let text = around.replace("{}", secret);
        for (wide, slots) in stack.iter_mut().enumerate() {
            let encoded = encode(&text, wide);
            heap.push(encoded.clone().into_boxed_slice());
            if at[wide] + encoded.len() + 8 <= slots.len() {
                slots[at[wide]..at[wide] + encoded.len()].copy_from_slice(&encoded);
                at[wide] += encoded.len() + 5;
            }
        }
    }
    let pointers: [*const u8; 64] =
        std::array::from_fn(|i| heap.get(i).map_or(std::ptr::null(), |b| b.as_ptr()));
    // SAFETY: takes nothing and returns a number.
    let tid = unsafe { libc::gettid() };
    black_box((&stack, &pointers, &heap));
    announce(tid, 4);
    black_box((&stack, &pointers, &heap));
}

#[inline(never)]
fn announce(tid: i32, depth: u32) {
    if depth > 0 {
        announce(tid, depth - 1);
    } else {
        println!("VICTIM {tid}");
        // Until it is killed, or its parent is gone.
        let _ = std::io::stdin().read(&mut [0]);
    }
    black_box(depth);
}

fn encode(text: &str, wide: usize) -> Vec<u8> {
    match wide {
        0 => text.as_bytes().to_vec(),
        1 => text.encode_utf16().flat_map(u16::to_le_bytes).collect(),
        _ => text.chars().flat_map(|c| u32::from(c).to_le_bytes()).collect(),
    }
}

/// Eight characters of a secret that `bytes` hold. (Eight bytes of UTF-16 are four letters, as in "vendor".)
fn survivor(bytes: &[u8], secret: &str, wide: usize) -> Option<String> {
    let encoded = encode(secret, wide);
    let step = [1, 2, 4][wide];
    let length = 8 * step;
    let windows = encoded.windows(length.min(encoded.len())).step_by(step);
    let found = windows.enumerate().find(|(_, window)| memchr::memmem::find(bytes, window).is_some());
    found.map(|(at, _)| format!("{secret} from {at}"))
}

#[test]
fn nothing_planted_is_left_and_frames_are_the_same() {
    let victim = Victim::start();
    let before = victim.dump();
    let layout = Layout::parse(&before).unwrap();
    for &(rule, _, secret) in PLANTED {
        for wide in 0..3 {
            assert!(survivor(&before, secret, wide).is_some(), "{rule} was planted, encoding {wide}");
        }
    }
    for secret in [IN_ENVIRONMENT, IN_ARGUMENT] {
        assert!(survivor(&before, secret, 0).is_some());
    }
    for level in [Level::Pattern, Level::Pointers] {
        let policy = victim.policy(level);
        let (mut after, mut receipt) = (before.clone(), Receipt::default());
        let started = std::time::Instant::now();
        scrub::dump(&mut after, &layout, &policy, &mut receipt).unwrap();
        println!(
            "{level:?}: {} bytes, {} entries, {:?}",
            after.len(),
            receipt.entries.len(),
            started.elapsed()
        );
        for tally in receipt.summary() {
            println!(
                "  {:12} {:20} {:5} {:8}",
                tally.place.to_string(),
                tally.rule,
                tally.count,
                tally.bytes
            );
        }
        assert_equals_receipt(&format!("{level:?}"), &before, &after, &receipt);
        assert_eq!(receipt.discrepancy(&before, &after), None);
        for &(rule, _, secret) in PLANTED {
            for wide in 0..3 {
                assert_eq!(survivor(&after, secret, wide), None, "{rule} at {level:?}, encoding {wide}");
            }
            let listed = receipt.entries.iter().any(|entry| entry.rule == rule);
            assert!(listed || level == Level::Pointers, "{rule} is listed");
        }
        for secret in [IN_ENVIRONMENT, IN_ARGUMENT] {
            assert_eq!(survivor(&after, secret, 0), None, "{secret}");
        }
        for place in [Place::Environment, Place::Stack, Place::Heap, Place::ThreadName] {
            assert!(receipt.entries.iter().any(|entry| entry.place == place), "{place}");
        }
        same_frames(&before, &after);
    }
}

fn same_frames(before: &[u8], after: &[u8]) {
    let trace = |dump: &[u8]| {
        let layout = Layout::parse(dump).unwrap();
        unwind::stack_trace(dump, &layout, &FileBinaries::new()).unwrap()
    };
    let (old, new) = (trace(before), trace(after));
    assert!(old.threads.len() >= 3 && old.threads[0].frames.len() > 8, "{}", old.threads[0].frames.len());
    for (old, new) in old.threads.iter().zip(&new.threads) {
        assert_eq!((old.id, &old.frames), (new.id, &new.frames));
    }
    assert_eq!(old.modules, new.modules);
    // An independent reader and stackwalker, without unwind tables: contexts, frame pointers and scanning.
    let (old, new) = (oracle::process(before), oracle::process(after));
    let named = |state| {
        let frames = oracle::frames(state).into_iter();
        let base = |name: String| name.rsplit('/').next().unwrap_or_default().to_owned();
        frames
            .map(|(id, frames)| {
                let frames = frames.into_iter();
                (id, frames.map(|(name, offset, trust)| (name.map(base), offset, trust)).collect::<Vec<_>>())
            })
            .collect::<Vec<_>>()
    };
    for (old, new) in named(&old).into_iter().zip(named(&new)) {
        for (at, (a, b)) in old.1.iter().zip(&new.1).enumerate() {
            assert_eq!(a, b, "frame {at} of {} and {}", old.1.len(), new.1.len());
        }
        assert_eq!(old.1.len(), new.1.len());
    }
    assert_eq!(old.exception_info.map(|i| i.reason), new.exception_info.map(|i| i.reason));
}

#[test]
fn a_scrubbed_dump_still_parses_in_every_stream() {
    use minidump as md;
    let victim = Victim::start();
    let before = victim.dump();
    let mut after = before.clone();
    let layout = Layout::parse(&before).unwrap();
    let mut receipt = Receipt::default();
    scrub::dump(&mut after, &layout, &victim.policy(Level::Pattern), &mut receipt).unwrap();
    assert_equals_receipt("a real process", &before, &after, &receipt);
    Layout::parse(&after).unwrap();
    let (old, new) = (md::Minidump::read(&before[..]).unwrap(), md::Minidump::read(&after[..]).unwrap());
    macro_rules! still_there {
        ($($stream:ty),*) => {$(
            assert_eq!(old.get_stream::<$stream>().is_ok(), new.get_stream::<$stream>().is_ok(), stringify!($stream));
        )*};
    }
    still_there!(
        md::MinidumpThreadList,
        md::MinidumpModuleList,
        md::MinidumpMemoryList,
        md::MinidumpException,
        md::MinidumpSystemInfo,
        md::MinidumpMiscInfo,
        md::MinidumpMemoryInfoList,
        md::MinidumpThreadNames,
        md::MinidumpLinuxCpuInfo,
        md::MinidumpLinuxProcStatus,
        md::MinidumpLinuxMaps,
        md::MinidumpLinuxLsbRelease,
        md::MinidumpHandleDataStream
    );
    let modules = |dump: &md::Minidump<'_, &[u8]>| {
        let modules = dump.get_stream::<md::MinidumpModuleList>().unwrap();
        use md::Module;
        modules
            .iter()
            .map(|m| (m.base_address(), m.code_identifier(), m.debug_identifier()))
            .collect::<Vec<_>>()
    };
    assert_eq!(modules(&old), modules(&new));
}

#[test]
fn a_byte_too_many_or_too_few_is_seen() {
    let entry = |encoding: &str, offset: usize, length: usize| {
        byte_diff::Entry::new(&serde_json::json!({"encoding": encoding, "offset": offset, "length": length}))
    };
    let (before, after) = (b"abcdefgh\0\0\0\0", b"ab***fgh\0\0\0\0");
    let said =
        |entries: &[byte_diff::Entry]| byte_diff::compare(before, after, entries).err().unwrap_or_default();
    assert_eq!(said(&[entry("utf-8", 2, 3)]), "");
    assert_eq!(said(&[entry("utf-8", 2, 2), entry("utf-8", 4, 1)]), "");
    for (entries, reason) in [
        (vec![], "0x2 changed"),
        (vec![entry("utf-8", 2, 2)], "0x4 changed"),
        (vec![entry("utf-8", 2, 4)], "0x5 is not blank"),
        (vec![entry("binary", 2, 3)], "0x2 is not blank"),
        (vec![entry("utf-8", 2, 3), entry("binary", 8, 2)], "did not change"),
        (vec![entry("utf-8", 2, 300)], "outside"),
        (vec![entry("utf-8", 2, 0)], "outside"),
    ] {
        assert!(said(&entries).contains(reason), "{}", said(&entries));
    }
    assert!(byte_diff::compare(b"a", b"ab", &[]).unwrap_err().contains("1 bytes became 2"));

    // Aliases, and words of a stack.
    let (before, after) =
        (b"-alice@example.org-01234567-", b"-[email#317]******-\xfe\xfe\xfe\xfe\xfe\xfe\xfe\xfe-");
    let named = |length: usize, alias: &str| {
        let email = serde_json::json!({"encoding": "utf-8", "offset": 1, "length": length, "alias": alias});
        let entries = [byte_diff::Entry::new(&email), entry("word", 19, 8)];
        byte_diff::compare(before, after, &entries).err().unwrap_or_default()
    };
    assert_eq!(named(17, "[email#317]"), "");
    for (length, alias, reason) in [
        (17, "[email#318]", "0xa is not blank"),
        (17, "[#317]", "0x2 is not blank"),
        (17, "[email#317]**", "has no alias"),
        (17, "[e mail#317]", "has no alias"),
        (8, "[email#317]", "has no alias"),
        (16, "[email#317]", "0x11 changed"),
    ] {
        assert!(named(length, alias).contains(reason), "{alias}: {}", named(length, alias));
    }
}
