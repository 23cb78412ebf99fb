//! Minidumps made by hand, byte by byte (minidumpapiset.h; Breakpad's minidump_format.h): independent of the library's own writer,
//! with every place that can hold text.
#![forbid(unsafe_code)]

/// Where in a dump text is planted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Place {
    Stack,
    Heap,
    Heap64,
    Registers,
    Vector,
    Exception,
    ThreadName,
    ModulePath,
    DebugFile,
    UnloadedModule,
    HandleName,
    LinkMap,
    SystemVersion,
    MiscInfo,
    TextStream,
    Environment,
    Comment,
    Annotation,
    Unknown,
    Gap,
}

impl Place {
    pub(crate) const ALL: [Self; 20] = [
        Self::Stack,
        Self::Heap,
        Self::Heap64,
        Self::Registers,
        Self::Vector,
        Self::Exception,
        Self::ThreadName,
        Self::ModulePath,
        Self::DebugFile,
        Self::UnloadedModule,
        Self::HandleName,
        Self::LinkMap,
        Self::SystemVersion,
        Self::MiscInfo,
        Self::TextStream,
        Self::Environment,
        Self::Comment,
        Self::Annotation,
        Self::Unknown,
        Self::Gap,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Stack => "stack",
            Self::Heap => "heap",
            Self::Heap64 => "heap (Memory64)",
            Self::Registers => "registers",
            Self::Vector => "vector registers",
            Self::Exception => "exception parameters",
            Self::ThreadName => "thread name",
            Self::ModulePath => "module path",
            Self::DebugFile => "debug file",
            Self::UnloadedModule => "unloaded module",
            Self::HandleName => "handle name",
            Self::LinkMap => "link map",
            Self::SystemVersion => "system version",
            Self::MiscInfo => "misc info",
            Self::TextStream => "text streams",
            Self::Environment => "argv and envp",
            Self::Comment => "comments",
            Self::Annotation => "annotations",
            Self::Unknown => "unknown stream",
            Self::Gap => "gaps",
        }
    }

    /// Whether its bytes are a program's memory: of any content, at any phase.
    pub(crate) fn is_memory(self) -> bool {
        matches!(self, Self::Stack | Self::Heap | Self::Heap64)
    }

    /// Whether the format says that it is UTF-16LE.
    pub(crate) fn is_utf16(self) -> bool {
        matches!(
            self,
            Self::ThreadName
                | Self::ModulePath
                | Self::UnloadedModule
                | Self::HandleName
                | Self::LinkMap
                | Self::SystemVersion
                | Self::MiscInfo
        )
    }

    /// Most bytes of one plant.
    pub(crate) fn room(self) -> usize {
        match self {
            // 15 words each.
            Self::Registers | Self::Exception => 120,
            Self::Vector => 512,
            Self::ThreadName => 30,
            Self::MiscInfo => 250,
            _ => usize::MAX,
        }
    }
}

/// The text streams: cpuinfo, status, lsb-release, maps, limits, soft errors.
const TEXT: [u32; 6] = [0x4767_0003, 0x4767_0004, 0x4767_0005, 0x4767_0009, 0x4d7a_0003, 0x4d7a_0004];

/// Offsets of RDI RSI RDX RCX R8 R9, RAX, RBX, RBP, R10 to R15 in `CONTEXT` of winnt.h.
const REGISTERS: [usize; 15] = [176, 168, 136, 128, 184, 192, 120, 144, 160, 200, 208, 216, 224, 232, 240];

/// A dump, and where in it each byte of each plant went.
pub(crate) struct Planted {
    pub(crate) bytes: Vec<u8>,
    pub(crate) positions: Vec<Vec<usize>>,
}

/// A dump with all of `plants` in `place`. Memory is given as the bytes of one region, with the plants' starts in it.
pub(crate) fn memory(place: Place, region: &[u8], plants: &[(usize, usize)]) -> Planted {
    let mut dump = Dump::new();
    let at = dump.append(region);
    let start = if place == Place::Stack { STACK } else { 0x5577_0000_0000 };
    let thread_stack = if place == Place::Stack { (start, region.len(), at) } else { (STACK, 0, 0) };
    let context = dump.append(&[0; 1232]);
    let threads = dump.threads(&[(1, thread_stack, (1232, context))]);
    dump.stream(3, threads);
    if place == Place::Heap {
        let list = [1u32.to_le_bytes().to_vec(), descriptor(start, region.len(), at)].concat();
        let list = dump.append_located(&list);
        dump.stream(5, list);
    } else if place == Place::Heap64 {
        let words = [1, at as u64, start, region.len() as u64];
        let list = dump.append_located(&words.map(u64::to_le_bytes).concat());
        dump.stream(9, list);
    }
    let positions =
        plants.iter().map(|(offset, length)| (at + offset..at + offset + length).collect()).collect();
    Planted { bytes: dump.finish(), positions }
}

const STACK: u64 = 0x7ffd_0000_0000;

/// A dump with all of `plants` in a place that is no memory.
pub(crate) fn elsewhere(place: Place, plants: &[Vec<u8>]) -> Planted {
    let mut dump = Dump::new();
    let mut positions = Vec::new();
    let whole = |at: usize, plant: &Vec<u8>| (at..at + plant.len()).collect::<Vec<usize>>();
    let mut threads = Vec::new();
    let mut lists: Vec<Vec<u8>> = Vec::new();
    for (number, plant) in plants.iter().enumerate() {
        let id = number as u32 + 2;
        match place {
            Place::Registers | Place::Vector => {
                let mut context = vec![0; 1232];
                let offsets: Vec<usize> = match place {
                    Place::Registers => REGISTERS.iter().flat_map(|&at| at..at + 8).collect(),
                    _ => (416..1200).collect(),
                };
                plant.iter().zip(&offsets).for_each(|(byte, &at)| context[at] = *byte);
                let at = dump.append(&context);
                positions.push(offsets.iter().take(plant.len()).map(|offset| at + offset).collect());
                threads.push((id, (STACK, 0, 0), (1232, at)));
            }
            Place::Exception => {
                let context = dump.append(&[0; 1232]);
                let mut stream = [1u32, 0, 11, 0].map(u32::to_le_bytes).concat();
                stream.extend([0u64, 0, 15].map(u64::to_le_bytes).concat());
                let parameters = stream.len();
                stream.extend(plant);
                stream.resize(parameters + 120, 0);
                stream.extend([1232, context as u32].map(u32::to_le_bytes).concat());
                let located = dump.append_located(&stream);
                positions.push(whole(located.1 + parameters, plant));
                dump.stream(6, located);
            }
            Place::Gap => {
                let at = dump.append(plant);
                positions.push(whole(at, plant));
            }
            Place::TextStream | Place::Environment | Place::Comment | Place::Unknown => {
                let kinds: &[u32] = match place {
                    Place::TextStream => &TEXT,
                    Place::Environment => &[0x4767_0006, 0x4767_0007],
                    Place::Comment => &[10, 11],
                    _ => &[0x1234_5678],
                };
                let kind = number % kinds.len();
                lists.resize(kinds.len(), Vec::new());
                let list = &mut lists[kind];
                positions.push(whole(list.len() << 8 | kind, &Vec::new()));
                // Where the stream begins is not known yet: see below.
                positions[number] = vec![kind, list.len(), plant.len()];
                list.extend(plant);
                list.push(if kinds == TEXT { b'\n' } else { 0 });
            }
            Place::Annotation => {
                // Two MINIDUMP_UTF8_STRING: an empty key, and the value.
                let key = dump.append(&[0; 5]) as u32;
                let text = [&(plant.len() as u32).to_le_bytes(), plant.as_slice(), &[0]].concat();
                let value = dump.append(&text);
                positions.push(whole(value + 4, plant));
                lists.push([key, value as u32].map(u32::to_le_bytes).concat());
            }
            Place::MiscInfo => {
                // MINIDUMP_MISC_INFO_4: 232 bytes of numbers and time zone names before BuildString.
                let mut stream = [832u32, 0].map(u32::to_le_bytes).concat();
                stream.resize(232, 0);
                stream.extend(plant);
                stream.resize(832, 0);
                let located = dump.append_located(&stream);
                positions.push(whole(located.1 + 232, plant));
                dump.stream(15, located);
            }
            Place::DebugFile => {
                let mut record = b"RSDS".to_vec();
                record.extend([7; 20]);
                record.extend(plant);
                record.extend(b"\\game.pdb\0");
                let located = dump.append_located(&record);
                positions.push(whole(located.1 + 24, plant));
                let name = dump.string(b"g\0a\0m\0e\0").0;
                lists.push(module(number, name as u32, located));
            }
            Place::SystemVersion => {
                let (rva, text) = dump.string(plant);
                positions.push(whole(text, plant));
                dump.version = rva as u32;
            }
            _ => {
                let path = place == Place::ModulePath;
                let tail: &[u8] = if path { b"\\\0l\0i\0b\0.\0s\0o\0" } else { b"" };
                let (rva, text) = dump.string(&[plant, tail].concat());
                positions.push(whole(text, plant));
                lists.push(match place {
                    Place::ModulePath => module(number, rva as u32, (0, 0)),
                    Place::ThreadName => [id.to_le_bytes().as_slice(), &(rva as u64).to_le_bytes()].concat(),
                    Place::UnloadedModule => {
                        let mut entry = (0x1000_0000u64 + number as u64 * 4096).to_le_bytes().to_vec();
                        entry.extend([4096, 0, 0, rva as u32].map(u32::to_le_bytes).concat());
                        entry
                    }
                    Place::HandleName => {
                        let mut entry = (number as u64).to_le_bytes().to_vec();
                        entry.extend([0, rva as u32, 0, 0, 0, 0].map(u32::to_le_bytes).concat());
                        entry
                    }
                    _ => {
                        let mut entry = 0x1000u64.to_le_bytes().to_vec();
                        entry.extend((rva as u32).to_le_bytes());
                        entry.extend(0u64.to_le_bytes());
                        entry
                    }
                });
            }
        }
    }
    let count = (plants.len() as u32).to_le_bytes().to_vec();
    let entries = lists.concat();
    match place {
        Place::ModulePath | Place::DebugFile => dump.list(4, &[count, entries].concat()),
        Place::ThreadName => dump.list(24, &[count, entries].concat()),
        Place::UnloadedModule => {
            dump.list(14, &[[12u32, 24].map(u32::to_le_bytes).concat(), count, entries].concat());
        }
        Place::HandleName => {
            dump.list(12, &[[16u32, 32].map(u32::to_le_bytes).concat(), count, vec![0; 4], entries].concat());
        }
        Place::Annotation => {
            // MINIDUMP_CRASHPAD_INFO: version, two ids, simple annotations, modules.
            let (length, at) = dump.append_located(&[count, entries].concat());
            let mut stream = 1u32.to_le_bytes().to_vec();
            stream.resize(36, 0);
            stream.extend([length as u32, at as u32, 0, 0].map(u32::to_le_bytes).concat());
            dump.list(0x4350_0001, &stream);
        }
        Place::LinkMap => {
            let at = dump.append(&entries) as u32;
            let mut stream = [2, at, plants.len() as u32].map(u32::to_le_bytes).concat();
            stream.extend([0u64; 3].map(u64::to_le_bytes).concat());
            dump.list(0x4767_000a, &stream);
        }
        Place::TextStream | Place::Environment | Place::Comment | Place::Unknown => {
            let kinds: &[u32] = match place {
                Place::TextStream => &TEXT,
                Place::Environment => &[0x4767_0006, 0x4767_0007],
                Place::Comment => &[10, 11],
                _ => &[0x1234_5678],
            };
            let starts: Vec<usize> = lists
                .iter()
                .zip(kinds)
                .map(|(text, kind)| {
                    let located = dump.append_located(text);
                    dump.stream(*kind, located);
                    located.1
                })
                .collect();
            for position in &mut positions {
                let (kind, offset, length) = (position[0], position[1], position[2]);
                *position = (starts[kind] + offset..starts[kind] + offset + length).collect();
            }
        }
        _ => {}
    }
    if threads.is_empty() {
        let context = dump.append(&[0; 1232]);
        threads.push((1, (STACK, 0, 0), (1232, context)));
    }
    let threads = dump.threads(&threads);
    dump.stream(3, threads);
    Planted { bytes: dump.finish(), positions }
}

/// How many plants one dump can hold there.
pub(crate) fn capacity(place: Place) -> usize {
    match place {
        Place::Exception | Place::MiscInfo | Place::SystemVersion => 1,
        _ => 500,
    }
}

pub(super) fn descriptor(start: u64, length: usize, at: usize) -> Vec<u8> {
    [start.to_le_bytes().as_slice(), &(length as u32).to_le_bytes(), &(at as u32).to_le_bytes()].concat()
}

fn module(number: usize, name: u32, record: (usize, usize)) -> Vec<u8> {
    let mut entry = (0x4000_0000u64 + number as u64 * 0x10_0000).to_le_bytes().to_vec();
    entry.extend([0x1000, 0, 0, name].map(u32::to_le_bytes).concat());
    entry.extend([0; 52]);
    entry.extend([record.0 as u32, record.1 as u32, 0, 0, 0, 0, 0, 0].map(u32::to_le_bytes).concat());
    entry
}

/// Header, room for a directory, then whatever is appended.
pub(super) struct Dump {
    bytes: Vec<u8>,
    directory: Vec<u8>,
    version: u32,
    pub(super) processor: u16,
}

/// Streams that there is room for.
const STREAMS: usize = 16;

/// Id; start, length and offset of the stack; length and offset of the context.
pub(super) type Thread = (u32, (u64, usize, usize), (usize, usize));

impl Dump {
    pub(super) fn new() -> Self {
        Self { bytes: vec![0; 32 + STREAMS * 12], directory: Vec::new(), version: 0, processor: 9 }
    }

    pub(super) fn append(&mut self, bytes: &[u8]) -> usize {
        let at = self.bytes.len();
        self.bytes.extend(bytes);
        at
    }

    /// Length and offset.
    pub(super) fn append_located(&mut self, bytes: &[u8]) -> (usize, usize) {
        (bytes.len(), self.append(bytes))
    }

    /// Offsets of the string and of its text.
    pub(super) fn string(&mut self, text: &[u8]) -> (usize, usize) {
        let at = self.append(&(text.len() as u32).to_le_bytes());
        self.append(text);
        self.append(&[0, 0]);
        (at, at + 4)
    }

    pub(super) fn stream(&mut self, kind: u32, (length, at): (usize, usize)) {
        self.directory.extend([kind, length as u32, at as u32].map(u32::to_le_bytes).concat());
    }

    pub(super) fn list(&mut self, kind: u32, bytes: &[u8]) {
        let located = self.append_located(bytes);
        self.stream(kind, located);
    }

    pub(super) fn threads(&mut self, threads: &[Thread]) -> (usize, usize) {
        let mut list = (threads.len() as u32).to_le_bytes().to_vec();
        for (id, (start, length, at), (context_length, context)) in threads {
            list.extend([*id, 0, 0, 0, 0, 0].map(u32::to_le_bytes).concat());
            list.extend(descriptor(*start, *length, *at));
            list.extend([*context_length as u32, *context as u32].map(u32::to_le_bytes).concat());
        }
        self.append_located(&list)
    }

    pub(super) fn finish(mut self) -> Vec<u8> {
        let mut system = self.processor.to_le_bytes().to_vec();
        system.extend([0; 18]);
        system.extend([0x8201, self.version].map(u32::to_le_bytes).concat());
        system.resize(56, 0);
        let located = self.append_located(&system);
        self.stream(7, located);
        let count = self.directory.len() / 12;
        assert!(count <= STREAMS, "room for the directory");
        let header = [0x504d_444d, 0xa793, count as u32, 32, 0, 0, 0, 0].map(u32::to_le_bytes).concat();
        self.bytes[..32].copy_from_slice(&header);
        let directory = std::mem::take(&mut self.directory);
        self.bytes[32..32 + directory.len()].copy_from_slice(&directory);
        self.bytes
    }
}
