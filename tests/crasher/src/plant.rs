//! The plant file: which values lie where in the victim when it dies.
//!
//! A JSON list of [`Entry`]. This file depends on nothing else of the program, so that a test can include it
//! (`#[path = "../src/plant.rs"] mod plant;`) and print the same reasons that the program refuses with.

use serde::Deserialize;

/// The kernel's limit for a thread name, without its terminator (`TASK_COMM_LEN`, prctl(2) PR_SET_NAME).
pub(crate) const THREAD_NAME_BYTES: usize = 15;

/// One value to plant.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Entry {
    /// The text, before encoding.
    pub(crate) value: String,
    place: PlaceName,
    #[serde(default)]
    pointer: Option<Pointer>,
    /// How the text is laid out in memory. Default: UTF-8.
    #[serde(default)]
    pub(crate) encoding: Encoding,
    /// The attribute's key, the breadcrumb's category or the environment variable's name.
    #[serde(default)]
    pub(crate) key: Option<String>,
    /// Address modulo 16 at which a value on the stack or in the heap starts. Default: 0.
    #[serde(default)]
    pub(crate) phase: u8,
}

/// Where a value lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// In a live frame of the dying thread.
    Stack,
    /// In a heap block that only a register points to.
    HeapRegister,
    /// In a heap block that only a live stack slot points to.
    HeapStack,
    /// In general registers (8 bytes each, in order) and again in vector registers (16 bytes each).
    Register,
    /// In the initial environment block.
    Env,
    /// In the initial argument block.
    Arg,
    /// In an attribute of the SDK.
    Attribute,
    /// In a breadcrumb of the SDK.
    Breadcrumb,
    /// In the name of a parked thread.
    ThreadName,
}

/// How text becomes bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Encoding {
    /// UTF-8.
    #[default]
    Utf8,
    /// UTF-16, little endian, without a byte order mark.
    Utf16Le,
    /// UTF-32, little endian, without a byte order mark.
    Utf32Le,
}

/// Why a value of this encoding cannot lie in this place when the victim dies this way (the way's name on the
/// command line), or `None` if it can. This is the table of n/a cells.
///
/// For the way `none` registers are loaded by the later command `die WAY`, so they are accepted.
pub(crate) fn not_applicable(place: Place, encoding: Encoding, way: &str) -> Option<&'static str> {
    match place {
        Place::Env | Place::Arg | Place::ThreadName if encoding != Encoding::Utf8 => {
            Some("a C string ends at its first zero byte, which UTF-16 and UTF-32 text is full of")
        }
        Place::Attribute | Place::Breadcrumb if encoding != Encoding::Utf8 => {
            Some("the SDK's functions take UTF-8 text")
        }
        Place::Register | Place::HeapRegister if !dies_at_our_instruction(way) => {
            Some("code of libc, std or the SDK runs between the load and the death and reuses the registers")
        }
        _ => None,
    }
}

/// Whether the last instruction of this way to die is one of ours, directly behind the register loads.
pub(crate) fn dies_at_our_instruction(way: &str) -> bool {
    matches!(way, "null" | "bus" | "ill" | "fpe" | "trap" | "sys" | "two-threads" | "none")
}

/// Reads a plant file and refuses what cannot be planted for this way to die.
///
/// # Errors
/// A message that names the entry by its position, never by its value.
pub(crate) fn parse(json: &[u8], way: &str) -> Result<Vec<Entry>, String> {
    // serde_json's own message may quote the text around the error.
    let entries: Vec<Entry> = serde_json::from_slice(json)
        .map_err(|e| format!("not a list of entries: line {}, column {}", e.line(), e.column()))?;
    for (index, entry) in entries.iter().enumerate() {
        entry.check(way).map_err(|reason| format!("entry {index}: {reason}"))?;
    }
    Ok(entries)
}

#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum PlaceName {
    Stack,
    Heap,
    HeapRegister,
    HeapStack,
    Register,
    Env,
    Arg,
    Attribute,
    Breadcrumb,
    ThreadName,
}

#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Pointer {
    Register,
    Stack,
}

impl Entry {
    /// Where it goes. `heap` alone means: pointed to from the stack.
    pub(crate) fn place(&self) -> Place {
        match (self.place, self.pointer) {
            (PlaceName::Heap, Some(Pointer::Register)) | (PlaceName::HeapRegister, _) => Place::HeapRegister,
            (PlaceName::Heap, _) | (PlaceName::HeapStack, _) => Place::HeapStack,
            (PlaceName::Stack, _) => Place::Stack,
            (PlaceName::Register, _) => Place::Register,
            (PlaceName::Env, _) => Place::Env,
            (PlaceName::Arg, _) => Place::Arg,
            (PlaceName::Attribute, _) => Place::Attribute,
            (PlaceName::Breadcrumb, _) => Place::Breadcrumb,
            (PlaceName::ThreadName, _) => Place::ThreadName,
        }
    }

    /// The text's bytes in its encoding.
    pub(crate) fn encoded(&self) -> Vec<u8> {
        match self.encoding {
            Encoding::Utf8 => self.value.as_bytes().to_vec(),
            Encoding::Utf16Le => self.value.encode_utf16().flat_map(u16::to_le_bytes).collect(),
            Encoding::Utf32Le => self.value.chars().flat_map(|c| u32::from(c).to_le_bytes()).collect(),
        }
    }

    fn check(&self, way: &str) -> Result<(), String> {
        let place = self.place();
        if self.value.is_empty() {
            return Err("the value is empty".to_owned());
        }
        if self.pointer.is_some() && self.place != PlaceName::Heap {
            return Err("`pointer` belongs to the place `heap`".to_owned());
        }
        if self.phase > 15 {
            return Err("`phase` is 0 to 15".to_owned());
        }
        if let Some(reason) = not_applicable(place, self.encoding, way) {
            return Err(format!("{place:?} cannot hold {:?} when dying by `{way}`: {reason}", self.encoding));
        }
        let c_string = matches!(place, Place::Env | Place::Arg | Place::ThreadName);
        if c_string && self.value.contains('\0') {
            return Err(format!("{place:?} cannot hold a zero byte"));
        }
        if place == Place::ThreadName && self.value.len() > THREAD_NAME_BYTES {
            return Err(format!("a thread name holds at most {THREAD_NAME_BYTES} bytes"));
        }
        let bad_name = |name: &String| name.is_empty() || name.contains(['=', '\0']);
        if place == Place::Env && self.key.as_ref().is_some_and(bad_name) {
            return Err("`key` is no name for an environment variable".to_owned());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_one(json: &str, way: &str) -> Result<Entry, String> {
        parse(json.as_bytes(), way).map(|mut list| list.remove(0))
    }

    #[test]
    fn places_by_both_spellings() {
        for (json, place) in [
            (r#"[{"value":"v","place":"stack"}]"#, Place::Stack),
            (r#"[{"value":"v","place":"heap"}]"#, Place::HeapStack),
            (r#"[{"value":"v","place":"heap","pointer":"stack"}]"#, Place::HeapStack),
            (r#"[{"value":"v","place":"heap","pointer":"register"}]"#, Place::HeapRegister),
            (r#"[{"value":"v","place":"heap-register"}]"#, Place::HeapRegister),
            (r#"[{"value":"v","place":"heap-stack","encoding":"utf32le"}]"#, Place::HeapStack),
            (r#"[{"value":"v","place":"thread-name"}]"#, Place::ThreadName),
        ] {
            assert_eq!(parse_one(json, "null").map(|e| e.place()), Ok(place), "{json}");
        }
    }

    #[test]
    fn refuses_what_cannot_be_held() {
        for (json, way, word) in [
            (r#"[{"value":"v","place":"env","encoding":"utf16le"}]"#, "null", "zero byte"),
            (r#"[{"value":"v","place":"attribute","encoding":"utf32le"}]"#, "null", "UTF-8"),
            (r#"[{"value":"v","place":"register"}]"#, "abort", "registers"),
            (r#"[{"value":"v","place":"heap-register"}]"#, "stack-overflow", "registers"),
            (r#"[{"value":"a\u0000b","place":"arg"}]"#, "null", "zero byte"),
            (r#"[{"value":"sixteen bytes ab","place":"thread-name"}]"#, "null", "15"),
            (r#"[{"value":"v","place":"env","key":"A=B"}]"#, "null", "key"),
            (r#"[{"value":"","place":"stack"}]"#, "null", "empty"),
            (r#"[{"value":"v","place":"stack","pointer":"register"}]"#, "null", "pointer"),
            (r#"[{"value":"v","place":"stack","phase":16}]"#, "null", "phase"),
            (r#"[{"value":"v","place":"moon"}]"#, "null", "not a list"),
            (r#"[{"value":"v","place":"stack","x":1}]"#, "null", "not a list"),
            ("{", "null", "not a list"),
        ] {
            let refusal = parse_one(json, way).err().unwrap_or_default();
            assert!(refusal.contains(word), "{json} {way}: {refusal:?}");
        }
    }

    #[test]
    fn a_refusal_does_not_quote_the_value() {
        let refusal = parse_one(r#"[{"value":"hunter2-hunter2","place":"moon"}]"#, "null").err();
        assert!(refusal.is_some_and(|text| !text.contains("hunter2")));
    }

    #[test]
    fn encodings() {
        let bytes = |encoding: &str| {
            let json = format!(r#"[{{"value":"aé","place":"stack","encoding":"{encoding}"}}]"#);
            parse_one(&json, "null").map(|e| e.encoded())
        };
        assert_eq!(bytes("utf8"), Ok(b"a\xc3\xa9".to_vec()));
        assert_eq!(bytes("utf16le"), Ok(b"a\0\xe9\0".to_vec()));
        assert_eq!(bytes("utf32le"), Ok(b"a\0\0\0\xe9\0\0\0".to_vec()));
    }
}
