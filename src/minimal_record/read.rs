//! Reading a record that some process left, which may have been damaged, or made by somebody else.
#![forbid(unsafe_code)]

use std::ops::Range;

use super::{Checksum, Event, HEAD, Head, LEN, MAGIC, MODULE, MODULES, Module, VERSION, WORDS, Why, fixed};
use crate::error::{Error, Result};

/// Addresses of user space end here.
const USER_SPACE: u64 = 1 << 47;

/// A record that makes sense.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) head: Head,
    pub(crate) modules: Vec<Module>,
    /// Upwards from `head.stack_start`.
    pub(crate) words: Vec<u64>,
}

impl Record {
    /// Reads one.
    ///
    /// # Errors
    /// [`Error::Malformed`] for anything that no handler writes: another length or version, a checksum that does not fit,
    /// counts and addresses beyond their limits, a word that points nowhere known.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self> {
        let malformed = |reason: &str| Error::malformed("minimal record", reason);
        if bytes.len() != LEN {
            return Err(malformed("its length is not that of a record"));
        }
        let (body, sum) = bytes.split_last_chunk::<8>().ok_or_else(|| malformed("cut short"))?;
        let mut checksum = Checksum::new();
        checksum.add(body);
        if checksum.finish() != u64::from_le_bytes(*sum) {
            return Err(malformed("its checksum does not fit"));
        }
        let head = head(body)?;
        let modules: Vec<Module> = body[HEAD..]
            .chunks_exact(MODULE)
            .take(MODULES.min(head.modules as usize))
            .map(module)
            .collect::<Option<_>>()
            .ok_or_else(|| malformed("a module without addresses or with too long a name"))?;
        if modules.windows(2).any(|pair| pair[1].code_start < pair[0].code_end) {
            return Err(malformed("modules that overlap or are out of order"));
        }
        let words: Vec<u64> = body[HEAD + MODULES * MODULE..]
            .chunks_exact(8)
            .take(head.words as usize)
            .filter_map(|word| word.first_chunk().map(|word| u64::from_le_bytes(*word)))
            .collect();
        let record = Self { head, modules, words };
        if record.words.iter().any(|&word| word != 0 && !record.is_pointer(word)) {
            return Err(malformed("a word that points nowhere known"));
        }
        Ok(record)
    }

    /// Addresses of the words.
    pub(crate) fn stack(&self) -> Range<u64> {
        let start = self.head.stack_start;
        start..start.saturating_add(self.words.len() as u64 * 8)
    }

    fn is_pointer(&self, word: u64) -> bool {
        let after = self.modules.partition_point(|module| module.code_start <= word);
        let code = after.checked_sub(1).and_then(|index| self.modules.get(index));
        self.stack().contains(&word) || code.is_some_and(|module| word < module.code_end)
    }
}

impl Module {
    /// What the linker wrote into it, or nothing.
    pub(crate) fn build_id(&self) -> &[u8] {
        self.build_id.get(..usize::from(self.build_id_len)).unwrap_or_default()
    }

    /// Its file's base name.
    pub(crate) fn name(&self) -> String {
        let name = self.name.get(..usize::from(self.name_len)).unwrap_or_default();
        String::from_utf8_lossy(name).into_owned()
    }
}

/// The text in a fixed room, without the zeros behind it.
pub(crate) fn text(room: &[u8]) -> String {
    let end = room.iter().position(|&byte| byte == 0).unwrap_or(room.len());
    String::from_utf8_lossy(&room[..end]).into_owned()
}

fn head(bytes: &[u8]) -> Result<Head> {
    let malformed = |reason: &str| Error::malformed("minimal record", reason);
    let mut rest = bytes;
    let mut take = |length: usize| {
        let (taken, others) = rest.split_at_checked(length).ok_or_else(|| malformed("cut short"))?;
        rest = others;
        Ok::<&[u8], Error>(taken)
    };
    let word = |bytes: &[u8]| u64::from_le_bytes(fixed(bytes));
    let half = |bytes: &[u8]| u32::from_le_bytes(fixed(bytes));
    if word(take(8)?) != MAGIC || half(take(4)?) != VERSION || half(take(4)?) as usize != LEN {
        return Err(malformed("another kind or version"));
    }
    let id = fixed(take(16)?);
    let time_ms = word(take(8)?);
    let event = match half(take(4)?) {
        0 => Event::Signal,
        1 => Event::Fault,
        2 => Event::Panic,
        _ => return Err(malformed("an unknown event")),
    };
    let why = match half(take(4)?) {
        1 => Why::Gone,
        2 => Why::Silent,
        3 => Why::Failed,
        4 => Why::Fault,
        5 => Why::Closed,
        _ => return Err(malformed("an unknown cause")),
    };
    let (signal, code) = (half(take(4)?).cast_signed(), half(take(4)?).cast_signed());
    let (address, pc, sp, fp) = (word(take(8)?), word(take(8)?), word(take(8)?), word(take(8)?));
    let (stack_start, thread) = (word(take(8)?), half(take(4)?));
    let (words, modules) = (half(take(4)?), half(take(4)?));
    take(4)?;
    let (application, version, location) = (fixed(take(64)?), fixed(take(64)?), fixed(take(64)?));
    let whole = Head {
        id,
        time_ms,
        event,
        why,
        signal,
        code,
        address,
        thread,
        pc,
        sp,
        fp,
        stack_start,
        words,
        modules,
        application,
        version,
        location,
    };
    let in_bounds = words as usize <= WORDS
        && modules as usize <= MODULES
        && stack_start.is_multiple_of(8)
        && stack_start.checked_add(u64::from(words) * 8).is_some_and(|end| end <= USER_SPACE);
    if in_bounds { Ok(whole) } else { Err(malformed("counts beyond its limits")) }
}

fn module(bytes: &[u8]) -> Option<Module> {
    let number = |at: usize| bytes.get(at..at + 8).map(|bytes| u64::from_le_bytes(fixed(bytes)));
    let module = Module {
        start: number(0)?,
        end: number(8)?,
        code_start: number(16)?,
        code_end: number(24)?,
        build_id_len: *bytes.get(32)?,
        name_len: *bytes.get(33)?,
        build_id: fixed(bytes.get(40..40 + super::BUILD_ID)?),
        name: fixed(bytes.get(72..72 + super::NAME)?),
    };
    let ordered = module.start < module.end
        && module.start <= module.code_start
        && module.code_start < module.code_end
        && module.code_end <= module.end
        && module.end <= USER_SPACE;
    let fits =
        usize::from(module.build_id_len) <= super::BUILD_ID && usize::from(module.name_len) <= super::NAME;
    // A base name, whatever the file says.
    let base = !module.name.contains(&b'/');
    (ordered && fits && base).then_some(module)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn head() -> Head {
        Head {
            id: [1; 16],
            time_ms: 1_700_000_000_000,
            event: Event::Fault,
            why: Why::Gone,
            signal: 11,
            code: 1,
            address: 0x10,
            thread: 7,
            pc: 0x40_1000,
            sp: 0x7000_0000,
            fp: 0x7000_0008,
            stack_start: 0x7000_0000,
            words: 3,
            modules: 1,
            application: fixed(b"game"),
            version: fixed(b"1.2"),
            location: fixed(b""),
        }
    }

    pub(crate) fn module() -> Module {
        Module {
            start: 0x40_0000,
            end: 0x41_0000,
            code_start: 0x40_1000,
            code_end: 0x40_2000,
            build_id: fixed(&[0xce, 7]),
            build_id_len: 2,
            name: fixed(b"game"),
            name_len: 4,
        }
    }

    pub(crate) fn bytes(head: &Head, modules: &[Module], words: &[u64]) -> Vec<u8> {
        let mut bytes = head.encode().to_vec();
        bytes.extend(modules.iter().flat_map(Module::encode));
        bytes.resize(HEAD + MODULES * MODULE, 0);
        bytes.extend(words.iter().flat_map(|word| word.to_le_bytes()));
        bytes.resize(LEN - 8, 0);
        sealed(bytes)
    }

    fn sealed(mut body: Vec<u8>) -> Vec<u8> {
        let mut sum = Checksum::new();
        sum.add(&body);
        body.extend(sum.finish().to_le_bytes());
        body
    }

    #[test]
    fn what_is_written_is_read() {
        let words = [0x40_1234, 0, 0x7000_0010];
        let record = Record::parse(&bytes(&head(), &[module()], &words)).unwrap();
        assert_eq!(record, Record { head: head(), modules: vec![module()], words: words.to_vec() });
        assert_eq!((record.modules[0].name(), record.modules[0].build_id()), ("game".into(), &[0xce, 7][..]));
        assert_eq!(text(&record.head.version), "1.2");
    }

    #[test]
    fn damage_is_refused() {
        let whole = bytes(&head(), &[module()], &[0x40_1234, 0, 0]);
        for length in [0, 7, HEAD, LEN - 1] {
            assert!(Record::parse(&whole[..length]).is_err(), "{length}");
        }
        assert!(Record::parse(&[&whole[..], &[0]].concat()).is_err());
        for at in (0..LEN).step_by(97) {
            let mut damaged = whole.clone();
            damaged[at] ^= 0x20;
            assert!(Record::parse(&damaged).is_err(), "{at}");
        }
    }

    /// With a true checksum: what somebody else might write.
    #[test]
    fn what_no_handler_writes_is_refused() {
        type Change = fn(&mut Head, &mut Module, &mut [u64; 3]);
        let cases: [(&str, Change); 11] = [
            ("too many words", |head, _, _| head.words = 8193),
            ("too many modules", |head, _, _| head.modules = 257),
            ("a stack that wraps around", |head, _, _| head.stack_start = u64::MAX - 7),
            ("a stack between words", |head, _, _| head.stack_start += 1),
            ("more modules than there are", |head, _, _| head.modules = 2),
            ("a module upside down", |_, module, _| module.end = 1),
            ("code outside its module", |_, module, _| module.code_end = module.end + 1),
            ("a name too long", |_, module, _| module.name_len = 57),
            ("a build id too long", |_, module, _| module.build_id_len = 33),
            ("a path", |_, module, _| module.name[1] = b'/'),
            ("a word that is no pointer", |_, _, words| words[1] = u64::from_le_bytes(*b"a secret")),
        ];
        for (what, change) in cases {
            let (mut head, mut module, mut words) = (head(), module(), [0; 3]);
            change(&mut head, &mut module, &mut words);
            assert!(Record::parse(&bytes(&head, &[module], &words)).is_err(), "{what}");
        }
        let pairs = [(8, 2u8), (12, 1), (40, 9), (44, 9)];
        for (at, value) in pairs {
            let mut body = bytes(&head(), &[module()], &[0; 3])[..LEN - 8].to_vec();
            body[at] = value;
            assert!(Record::parse(&sealed(body)).is_err(), "{at}");
        }
        let modules = [module(), module()];
        assert!(
            Record::parse(&bytes(&Head { modules: 2, ..head() }, &modules, &[0; 3])).is_err(),
            "one twice"
        );
    }
}
