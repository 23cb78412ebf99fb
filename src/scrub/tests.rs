//! Planted values, in memory that is built by hand: every kind in every encoding at every phase.

mod aliases;

use super::aliases::in_order;
use super::*;
use crate::dump::layout::{MemoryEntry, ModuleEntry, Stream, ThreadEntry};

const KNOWN: &[&str] = &["wilhelmina", "Jane Q. Public", "/srv/people/42"];

/// Rule, text, and the part of it that must go.
const VALUES: &[(&str, &str, &str)] = &[
    ("email", "mail: wilma.vogel@example.com.", "wilma.vogel@example.com"),
    ("payment-card", "4111111111111111", "4111111111111111"),
    ("payment-card", "paid 5555 5555 5555 4444 now", "5555 5555 5555 4444"),
    ("payment-card", "3782-822463-10005", "3782-822463-10005"),
    ("iban", "DE89370400440532013000", "DE89370400440532013000"),
    ("iban", "to GB82 WEST 1234 5698 7654 32,", "GB82 WEST 1234 5698 7654 32"),
    ("us-ssn", "123-45-6789", "123-45-6789"),
    ("ipv4", "203.0.113.77", "203.0.113.77"),
    ("ipv4", "8.8.4.4", "8.8.4.4"),
    ("ipv6", "[2001:db8::8a2e:370:7334]:80", "2001:db8::8a2e:370:7334"),
    ("user-path", "/home/gwendolyn/x", "gwendolyn"),
    ("user-path", "C:\\Users\\Gwendolyn P\\x", "Gwendolyn P"),
    ("url-user-info", "ftp://gwendolyn:hunter22@host/", "gwendolyn:hunter22"),
    ("http-auth", "Authorization: Bearer abcdef0123456789", "abcdef0123456789"),
    ("http-auth", "Basic Z3dlbmRvbHluOmh1bnRlcjI=", "Z3dlbmRvbHluOmh1bnRlcjI="),
    (
        "jwt",
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9P",
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9P",
    ),
    ("pem-private-key", PEM, PEM),
    ("aws-key-id", "AKIAIOSFODNN7EXAMPLE", "AKIAIOSFODNN7EXAMPLE"),
    (
        "aws-secret",
        "aws_secret_access_key = wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
        "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
    ),
    ("github-token", "ghp_16C7e42F292c6912E7710c838347Ae178B4a", "ghp_16C7e42F292c6912E7710c838347Ae178B4a"),
    ("slack-token", "xoxb-123456789012-AbCdEfGhIjKlMnOp", "xoxb-123456789012-AbCdEfGhIjKlMnOp"),
    ("stripe-key", "sk_live_51H8abcdEFGHijklMNOP", "sk_live_51H8abcdEFGHijklMNOP"),
    ("known-value", "hello WILHELMINA!", "WILHELMINA"),
    ("known-value", "xwilhelmina99", "wilhelmina"),
    ("known-value", "by Jane Q. Public", "Jane Q. Public"),
];

const PEM: &str = "-----BEGIN RSA PRIVATE KEY-----\n\
    MIIBOgIBAAJBAKj34GkxFhD90vcNLYLInFEX6Ppy1tPf9Cnzj4p4WGeKLs1Pt8Qu\n\
    KUpRKfFLfRYC9AIKjbJTWit+CqvjWYzvQwECAwEAAQJAIJLixBy2qpFoS4DSmoEm\n\
    o3qGy0t6z09AIJtH+5OeRV1be+N4cDYJKffGzDa88vQENZiRm0GRq6a+HPGQMdTC\n\
    AQIhAKMSvzIBnni7ot/OSie2TmJLY4SwTQAevXysE2RbFDYdAiEBCUEaRQnMnbp7\n\
    9mxDXDf6AU0cN/RPBjb9qSHDcWZHGzUCIG2Es59z8ugGrDY+pxLQnwfotadxd+Uy\n\
    -----END RSA PRIVATE KEY-----";

#[derive(Debug, Clone, Copy, PartialEq)]
enum Wide {
    Utf8,
    Utf16Le,
    Utf16Be,
    Utf32Le,
}

const WIDE: [Wide; 4] = [Wide::Utf8, Wide::Utf16Le, Wide::Utf16Be, Wide::Utf32Le];

fn encode(text: &str, wide: Wide) -> Vec<u8> {
    match wide {
        Wide::Utf8 => text.as_bytes().to_vec(),
        Wide::Utf16Le => text.encode_utf16().flat_map(u16::to_le_bytes).collect(),
        Wide::Utf16Be => text.encode_utf16().flat_map(u16::to_be_bytes).collect(),
        Wide::Utf32Le => text.chars().flat_map(|c| u32::from(c).to_le_bytes()).collect(),
    }
}

/// xorshift64*, from CENOTAPH_SEED or the clock.
struct Random(u64);

impl Random {
    fn seeded() -> Self {
        let clock = || std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64;
        let seed = std::env::var("CENOTAPH_SEED").ok().map_or_else(clock, |seed| seed.parse().unwrap());
        println!("CENOTAPH_SEED={seed}");
        Self(seed | 1)
    }

    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) % bound as u64) as usize
    }

    /// Bytes of any value between bytes that are no text in any encoding, so that a value beside them ends there.
    fn noise(&mut self, length: usize) -> Vec<u8> {
        let mut bytes: Vec<u8> = (0..length).map(|_| self.below(256) as u8).collect();
        bytes.splice(0..0, [1, 2, 3, 4]);
        bytes.extend([1, 2, 3, 4]);
        bytes
    }
}

fn engine() -> Engine {
    Engine::new(&policy()).unwrap()
}

fn policy() -> Policy {
    Policy { known: KNOWN.iter().map(|&value| value.to_owned()).collect(), ..Policy::default() }
}

/// A layout of one stack and one piece of heap; they fill the bytes.
fn layout(stack: usize, whole: usize) -> Layout {
    let stack_entry = MemoryEntry { address: 0x7ffe_0000_0000, bytes: 0..stack };
    Layout {
        processor: 9,
        memory: vec![stack_entry.clone(), MemoryEntry { address: 0x5555_0000_0000, bytes: stack..whole }],
        threads: vec![ThreadEntry { id: 1, context: 0..0, stack: stack_entry }],
        ..Layout::default()
    }
}

fn scrubbed(bytes: &[u8], layout: &Layout, engine: &Engine) -> (Vec<u8>, Receipt) {
    let (mut after, mut receipt) = (bytes.to_vec(), Receipt::default());
    engine.clone().dump(&mut after, layout, &mut receipt).unwrap();
    assert_eq!(receipt.discrepancy(bytes, &after), None);
    byte_diff::assert_equals_receipt("memory built by hand", bytes, &after, &receipt);
    (after, receipt)
}

/// 8 bytes in a row of `secret`, a range of `before`, that `after` still holds there.
fn survivor(before: &[u8], after: &[u8], secret: &Range<usize>) -> Option<usize> {
    let (before, after) = (&before[secret.clone()], &after[secret.clone()]);
    (0..before.len().saturating_sub(7)).find(|&at| before[at..at + 8] == after[at..at + 8])
}

/// Where the secret part of `text` stands in its encoding.
fn part(text: &str, secret: &str, wide: Wide) -> Range<usize> {
    let start = text.find(secret).unwrap();
    let unit = encode("x", wide).len();
    start * unit..(start + secret.len()) * unit
}

#[test]
fn planted_values_go_from_noise_in_every_encoding_at_every_phase() {
    let mut random = Random::seeded();
    let (mut bytes, mut plants, mut stack) = (vec![], vec![], 0);
    for place in [Place::Stack, Place::Heap] {
        for &(rule, text, secret) in VALUES {
            for wide in WIDE {
                for phase in 0..8 {
                    let length = random.below(40);
                    bytes.extend(random.noise(length));
                    while bytes.len() % 8 != phase {
                        bytes.push(1);
                    }
                    let start = bytes.len();
                    bytes.extend(encode(text, wide));
                    let secret = part(text, secret, wide);
                    let secret = start + secret.start..start + secret.end;
                    plants.push((place, rule, wide, phase, secret));
                }
            }
        }
        bytes.extend(random.noise(20));
        if place == Place::Stack {
            stack = bytes.len();
        }
    }
    let (after, receipt) = scrubbed(&bytes, &layout(stack, bytes.len()), &engine());
    let (again, second) = scrubbed(&after, &layout(stack, bytes.len()), &engine());
    assert_eq!(again, after, "scrubbing twice changes nothing more: {:?}", second.entries);
    for (place, rule, wide, phase, range) in plants {
        let what = format!("{rule} in {wide:?} at phase {phase} on the {place}");
        assert_eq!(survivor(&bytes, &after, &range), None, "{what}");
        let listed = receipt.entries.iter().any(|entry| {
            let (start, end) = (entry.offset as usize, (entry.offset + entry.length) as usize);
            entry.place == place && entry.rule == rule && start < range.end && range.start < end
        });
        assert!(listed, "{what}");
    }
}

#[test]
fn values_that_an_edge_cuts_leave_nothing() {
    let engine = engine();
    for &(rule, text, secret) in VALUES {
        for wide in WIDE {
            let (whole, secret) = (encode(text, wide), part(text, secret, wide));
            for cut in 1..whole.len() {
                // The first part ends one region, the second begins the next.
                let mut bytes = vec![1; 64];
                bytes.extend(&whole);
                bytes.extend([1; 64]);
                let (edge, secret) = (64 + cut, 64 + secret.start..64 + secret.end);
                let (after, _) = scrubbed(&bytes, &layout(edge, bytes.len()), &engine);
                let parts = [secret.start..secret.end.min(edge), secret.start.max(edge)..secret.end];
                let left = parts.map(|part| {
                    let part = part.start..part.end.max(part.start);
                    survivor(&bytes, &after, &part)
                });
                assert_eq!(left, [None, None], "{rule} in {wide:?} cut at {cut} of {text:?}");
            }
        }
    }
}

#[test]
fn a_window_inside_a_key_is_all_gone() {
    let whole = encode(PEM, Wide::Utf8);
    for start in (33..120).step_by(7) {
        let window = &whole[start..start + 150];
        let (after, _) = scrubbed(window, &layout(0, 150), &engine());
        assert_eq!(survivor(window, &after, &(0..150)), None, "from {start}");
    }
}

#[test]
fn ordinary_memory_stays() {
    let mut bytes = vec![0; 16];
    for line in include_str!("rules/negatives.txt").lines() {
        for wide in WIDE {
            bytes.extend(encode(line, wide));
            bytes.extend([0; 8]);
        }
    }
    for i in 0..2000u32 {
        bytes.extend((f64::from(i) * 0.37).to_le_bytes());
        bytes.extend((0x5555_4142_4300_u64 + u64::from(i) * 16).to_le_bytes());
        bytes.extend(i.to_le_bytes());
    }
    bytes.extend([0; 16]);
    let (after, receipt) = scrubbed(&bytes, &layout(0, bytes.len()), &engine());
    assert_eq!(receipt.entries, []);
    assert_eq!(after, bytes);
}

#[test]
fn pointers_into_modules_survive_at_edges_and_in_matches() {
    // "alice@example.com" followed at once by a return address whose bytes are letters.
    let mut bytes = b"\x01\x01\x01\x01\x01\x01\x01alice@example.com".to_vec();
    bytes.extend(0x5555_6162_6364_u64.to_le_bytes());
    bytes.extend([1; 8]);
    bytes.extend(0x5555_4142_4344_u64.to_le_bytes());
    let mut layout = layout(bytes.len(), bytes.len());
    layout.memory.truncate(1);
    layout.modules.push(ModuleEntry {
        base: 0x5555_0000_0000,
        size: 0xffff_ffff,
        name: 0..0,
        codeview: 0..0,
        debug_file: 0..0,
        build_id: 0..0,
    });
    let (after, _) = scrubbed(&bytes, &layout, &engine());
    assert_eq!(in_order(&String::from_utf8_lossy(&after[7..24])), "[email#1]********");
    assert_eq!(after[24..], bytes[24..]);
}

#[test]
fn streams_are_kept_blanked_or_dropped_by_their_kind() {
    let parts: [(u32, &[u8]); 7] = [
        (0x4767_0007, b"HOME=/home/x\0SECRET=y\0"),
        (0x4767_0006, b"game\0--token\0t\0"),
        (0x4767_0003, b"model\t: x\nSerial\t\t: 00000000deadbeef\nHardware\t: y\n"),
        (0x4767_0004, b"Name:\twilhelmina\nPid:\t12\n"),
        (0x4767_0009, b"5555 r-xp /home/gwendolyn/bin/game\n"),
        (0x4350_00ff, b"annotation: who knows"),
        (0x4767_0008, b"\x03\0\0\0\0\0\0\0\x07\0\0\0\0\0\0\0wilhelminaalice@example.com"),
    ];
    let mut bytes = vec![0; 12 * parts.len()];
    let mut layout = Layout { processor: 9, ..Layout::default() };
    for (at, (kind, text)) in parts.iter().enumerate() {
        let entry = at * 12..at * 12 + 12;
        let start = bytes.len();
        bytes.extend(*text);
        let location = [*kind, text.len() as u32, start as u32];
        bytes[entry.clone()].copy_from_slice(&location.map(u32::to_le_bytes).concat());
        layout.streams.push(Stream { kind: *kind, entry, bytes: start..bytes.len() });
    }
    layout.gaps.push(bytes.len()..bytes.len() + 5);
    bytes.extend(b"stray");
    let (after, receipt) = scrubbed(&bytes, &layout, &engine());
    let text = |at: usize| in_order(&String::from_utf8_lossy(&after[layout.streams[at].bytes.clone()]));
    assert_eq!(text(0), "*".repeat(22));
    assert_eq!(text(1), "*".repeat(15));
    assert_eq!(text(2), "model\t: x\nSerial\t\t: [#1]************\nHardware\t: y\n");
    assert_eq!(text(3), "Name:\t[#1]******\nPid:\t12\n");
    assert_eq!(text(4), "5555 r-xp /home/[#1]*****/bin/game\n");
    assert_eq!(text(5), "\0".repeat(21));
    assert_eq!(after[60..72], [0; 12], "its directory entry");
    assert_eq!(
        text(6),
        format!("\u{3}{}\u{7}{}", "\0".repeat(7), "\0".repeat(34)),
        "an auxiliary vector is numbers"
    );
    assert!(after.ends_with(&[0; 5]));
    let rules: Vec<_> = receipt.entries.iter().map(|entry| entry.rule.as_str()).collect();
    for rule in
        ["unknown-stream", "gap", "environment", "command-line", "cpu-serial", "known-value", "user-path"]
    {
        assert!(rules.contains(&rule), "{rule}");
    }
}

#[test]
fn annotations_are_scrubbed_and_the_client_id_goes() {
    use minidump::{Minidump, MinidumpCrashpadInfo};
    let trace = crate::report::StackTrace::default();
    let reason = crate::report::Reason::Requested { reason: String::new() };
    let mut dump = crate::dump::synthetic::write(&trace, &reason, 0).unwrap();
    let layout = Layout::parse(&dump).unwrap();
    let annotations =
        [("level", "castle"), ("mail", "to alice@example.com"), ("of wilhelmina", "\u{e9} wilhelmina")];
    crate::dump::crashpad_info::append(&mut dump, &layout, [7; 16], &annotations).unwrap();
    let layout = Layout::parse(&dump).unwrap();
    // A device's name, as Crashpad's own handler writes it.
    dump[layout.client_id.clone().unwrap()].copy_from_slice(b"0123456789abcdef");
    let (after, receipt) = scrubbed(&dump, &layout, &engine());
    let oracle = Minidump::read(&after[..]).unwrap();
    let info = oracle.get_stream::<MinidumpCrashpadInfo>().unwrap();
    let found: Vec<_> =
        info.simple_annotations.iter().map(|(key, value)| in_order(&format!("{key}={value}"))).collect();
    assert_eq!(found, ["level=castle", "mail=to [email#1]********", "of [#1]******=\u{e9} [#1]******"]);
    assert_eq!(info.raw.client_id.to_string(), "00000000-0000-0000-0000-000000000000");
    assert!(receipt.entries.iter().any(|entry| entry.rule == "client-id"));
}

#[test]
fn names_are_scrubbed_but_for_base_names() {
    let mut bytes = Vec::new();
    let mut put = |text: &str| {
        let start = bytes.len();
        bytes.extend(encode(text, Wide::Utf16Le));
        start..bytes.len()
    };
    let module = put("/home/gwendolyn/wilhelmina/wilhelmina-game");
    let threads = [put("wilhelmina 1"), put("a.smith@example"), put("tokio-runtime-w")];
    let system = put("Linux wilhelmina 6.1");
    let build_id = bytes.len()..bytes.len() + 10;
    bytes.extend(b"wilhelmina");
    let layout = Layout {
        processor: 9,
        modules: vec![ModuleEntry {
            base: 0,
            size: 0,
            name: module.clone(),
            codeview: build_id.clone(),
            debug_file: 0..0,
            build_id: build_id.clone(),
        }],
        thread_names: threads.iter().map(|name| (1, name.clone())).collect(),
        strings: vec![(7, system.clone())],
        ..Layout::default()
    };
    let (after, _) = scrubbed(&bytes, &layout, &engine());
    let text = |range: &Range<usize>| in_order(&crate::dump::layout::utf16(&after[range.clone()]));
    assert_eq!(text(&module), "/home/[#1]*****/[#2]******/wilhelmina-game");
    let names: Vec<_> = threads.iter().map(text).collect();
    assert_eq!(names, ["[#1]****** 1", &"*".repeat(15), "tokio-runtime-w"]);
    assert_eq!(text(&system), "Linux [#1]****** 6.1");
    assert_eq!(after[build_id], *b"wilhelmina");
}

#[test]
fn a_piece_of_a_value_goes_from_thread_names_as_from_a_report() {
    let mut bytes = b"of zzplumtreecat\0".to_vec();
    bytes.resize(64, 0);
    let wide = encode("plumtreecat", Wide::Utf16Le);
    let name = bytes.len()..bytes.len() + wide.len();
    bytes.extend(wide);
    let status = bytes.len()..bytes.len() + 17;
    bytes.extend(b"Name:\tplumtreecat");
    let layout = Layout {
        thread_names: vec![(1, name.clone())],
        streams: vec![Stream { kind: 0x4767_0004, entry: 0..0, bytes: status.clone() }],
        ..layout(32, 64)
    };
    let policy = Policy { known: vec!["zzplumtreecat".to_owned()], ..Policy::default() };
    let (after, receipt) = scrubbed(&bytes, &layout, &Engine::new(&policy).unwrap());
    let alias = String::from_utf8_lossy(&after[status.start + 6..status.end]).into_owned();
    assert_eq!(in_order(&alias), "[echo#1]***");
    assert_eq!(after[name], encode(&alias, Wide::Utf16Le));
    let of = |place| receipt.entries.iter().filter(move |e| e.place == place && e.rule == "echo");
    assert_eq!((of(Place::ThreadName).count(), of(Place::TextStream).count()), (1, 1));
}

#[test]
fn debug_records_hold_what_they_are_for() {
    let mut bytes = vec![0; 64];
    bytes.extend(b"RSDS0123456789abcdef0001game.pdb\0alice@example.org");
    let pdb = ModuleEntry {
        base: 0,
        size: 0,
        name: 0..0,
        codeview: 64..bytes.len(),
        debug_file: 64 + 24..64 + 32,
        build_id: 0..0,
    };
    let start = bytes.len();
    bytes.extend(b"LEpB");
    bytes.extend(b"carol@example.org ".repeat(8));
    let (codeview, build_id) = (start..bytes.len(), start + 4..bytes.len());
    let elf = ModuleEntry { codeview, debug_file: 0..0, build_id, ..pdb.clone() };
    let (after, _) = scrubbed(&bytes, &Layout { modules: vec![pdb, elf], ..layout(32, 64) }, &engine());
    assert_eq!(after[64..start - 17], bytes[64..start - 17], "the record itself");
    assert!(after[start - 17..start].iter().all(|&byte| byte == 0));
    assert!(after[start + 4..].iter().all(|&byte| byte == 0));
}

#[test]
fn a_string_that_many_name_is_scrubbed_once() {
    let mut bytes = vec![0; 128];
    let wide = encode(&"bob@example.org ".repeat(1 << 10), Wide::Utf16Le);
    let name = bytes.len()..bytes.len() + wide.len();
    bytes.extend(wide);
    let (codeview, debug_file, build_id) = (0..0, 0..0, 0..0);
    let module = ModuleEntry { base: 0, size: 0, name: name.clone(), codeview, debug_file, build_id };
    let layout = Layout {
        thread_names: vec![(1, name.clone()); 1 << 16],
        modules: vec![module; 1 << 16],
        ..layout(32, 128)
    };
    // Hours, once for each.
    let (after, receipt) = scrubbed(&bytes, &layout, &engine());
    assert!(receipt.entries.iter().all(|entry| entry.place == Place::ThreadName));
    assert!(memchr::memmem::find(&after, &encode("bob@", Wide::Utf16Le)).is_none());
}

#[test]
fn a_stricter_level_leaves_no_more_of_names() {
    let mut bytes = vec![0; 40];
    bytes.extend(b"annette.kowalski@example.org");
    bytes.resize(128, 0);
    let wide = encode("w-annette.k", Wide::Utf16Le);
    let name = bytes.len()..bytes.len() + wide.len();
    bytes.extend(wide);
    let layout = Layout { thread_names: vec![(1, name.clone())], ..layout(32, 128) };
    for level in [Level::Pattern, Level::Pointers, Level::Drop] {
        let (after, _) = scrubbed(&bytes, &layout, &Engine::new(&Policy { level, ..policy() }).unwrap());
        let left: Vec<u8> = after[name.clone()].iter().step_by(2).copied().collect();
        let left = String::from_utf8(left).unwrap();
        assert!(left.starts_with("w-") && !left.contains("anne"), "{left} at {level:?}");
    }
}

#[test]
fn arguments_go_from_whatever_memory_holds_them() {
    let bytes = [b'a'; 64];
    let mut layout = layout(32, 64);
    (layout.memory[0].address, layout.memory[1].address) = (100, 120);
    let policy = Policy { arguments: Some(110..125), ..policy() };
    let (after, receipt) = scrubbed(&bytes, &layout, &Engine::new(&policy).unwrap());
    assert_eq!(after[10..25], [0; 15]);
    assert_eq!(after[32..37], [0; 5]);
    assert!(receipt.entries.iter().any(|e| e.place == Place::Environment && e.rule == "argv-envp"));
}

#[test]
fn hostile_memory_takes_time_in_proportion_to_its_size() {
    // Time is not asserted: at quadratic cost this would not end for minutes.
    for unit in [
        "a",
        "1234-",
        "@",
        "a@b.co ",
        "1.1.1.1 ",
        "-----BEGIN PRIVATE KEY-----\n",
        "eyJ",
        "aaaaa\0",
        "a\0",
        "\0a\0\0",
    ] {
        let bytes = unit.repeat((1 << 20) / unit.len()).into_bytes();
        let (after, _) = scrubbed(&bytes, &layout(0, bytes.len()), &engine());
        assert_eq!(after.len(), bytes.len());
    }
}

#[test]
fn very_many_findings_are_joined() {
    let bytes = "10.1.2.3 ".repeat(1 << 17).into_bytes();
    let (after, receipt) = scrubbed(&bytes, &layout(0, bytes.len()), &engine());
    assert!(after.iter().all(|&byte| byte == b'*' || byte == b' '));
    assert!(receipt.entries.len() < 10, "{}", receipt.entries.len());
}

#[test]
fn unknown_processors_and_impossible_policies_are_refused() {
    let mut receipt = Receipt::default();
    let unknown = Layout { processor: 7, ..Layout::default() };
    assert!(dump(&mut [], &unknown, &policy(), &mut receipt).is_err());
    let too_many = Policy { known: (0..5000).map(|i| format!("value {i}")).collect(), ..Policy::default() };
    let known = Layout { processor: 9, ..Layout::default() };
    assert!(dump(&mut [], &known, &too_many, &mut receipt).is_err());
}
