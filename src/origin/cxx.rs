//! The C++ exception that a thread is handling, read from outside.
//!
//! Layouts: the Itanium C++ ABI ("Exception Handling", 2.2.2 and 2.5; "RTTI layout", 2.9.5) and libstdc++'s
//! `unwind-cxx.h` for `__cxa_exception`, which its exception class `GNUCC++\0` vouches for. libc++ has another layout,
//! says so by its class, and is left alone.
#![forbid(unsafe_code)]

use serde::{Deserialize, Serialize};

use crate::target::{Memory, Target};

/// "GNUC" "C++" and 0 for a primary exception, 1 for one that stands for another (`std::rethrow_exception`).
const PRIMARY: u64 = 0x474e_5543_432b_2b00;
const DEPENDENT: u64 = PRIMARY | 1;
/// Offsets in `__cxa_exception`: the exception class in its unwind header, and its length, behind which the object lies.
const CLASS: u64 = 80;
const LENGTH: u64 = 112;
/// `__cxa_eh_globals`: the first word is the innermost exception being handled.
const MOST_TEXT: usize = 1024;
const LONGEST_NAME: usize = 512;
/// The longest chain of base classes that is followed.
const DEEPEST: usize = 16;

/// An exception.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Exception {
    /// Readable.
    pub(crate) type_name: String,
    /// `what()`, where its text can be found without calling it.
    pub(crate) what: Option<String>,
}

/// The exception that the crashing thread handles; `globals` is where `__cxa_get_globals` lies from the thread's control
/// block on.
pub(super) fn exception(target: &Target, globals: Option<i64>) -> Option<Exception> {
    let memory = target.memory();
    let at = target.crashed()?.control_block?.checked_add_signed(globals?)?;
    let header = memory.read_pointer(at).filter(|&header| header != 0)?;
    let object = match memory.read_u64(header.checked_add(CLASS)?)? {
        PRIMARY => header.checked_add(LENGTH)?,
        // Its first word is the object that it stands for.
        DEPENDENT => memory.read_pointer(header)?,
        _ => return None,
    };
    let type_information = memory.read_pointer(object.checked_sub(LENGTH)?)?;
    let name = type_name(memory, type_information)?;
    let what = match name.as_str() {
        "PKc" | "Pc" => memory.read_pointer(object).and_then(|text| memory.read_string(text, MOST_TEXT)),
        _ => Kinds::of(target).what(memory, type_information, object),
    };
    Some(Exception { type_name: readable(&name), what })
}

/// The mangled name in a `std::type_info`.
fn type_name(memory: &dyn Memory, type_information: u64) -> Option<String> {
    let name = memory.read_pointer(type_information.checked_add(8)?)?;
    let name = memory.read_string(name, LONGEST_NAME)?;
    // A type whose name is compared by address.
    let name = name.strip_prefix('*').unwrap_or(&name);
    (!name.is_empty()).then(|| name.to_owned())
}

/// Which kind of class a `type_info` describes is told by its virtual table.
struct Kinds {
    single: Option<u64>,
    multiple: Option<u64>,
}

impl Kinds {
    fn of(target: &Target) -> Self {
        // An object points behind two words of its table.
        let table = |name: &str| target.symbol(name).and_then(|symbol| symbol.address.checked_add(16));
        Self {
            single: table("_ZTVN10__cxxabiv120__si_class_type_infoE"),
            multiple: table("_ZTVN10__cxxabiv121__vmi_class_type_infoE"),
        }
    }

    /// The text of a `std::runtime_error` or `std::logic_error` that begins where the object does: in libstdc++ their one
    /// member points at characters.
    fn what(&self, memory: &dyn Memory, mut type_information: u64, object: u64) -> Option<String> {
        for _ in 0..DEEPEST {
            if matches!(
                type_name(memory, type_information)?.as_str(),
                "St13runtime_error" | "St11logic_error"
            ) {
                let text = memory.read_pointer(object.checked_add(8)?)?;
                return memory.read_string(text, MOST_TEXT);
            }
            let table = memory.read_pointer(type_information)?;
            type_information = if Some(table) == self.single {
                memory.read_pointer(type_information.checked_add(16)?)?
            } else if Some(table) == self.multiple {
                // Flags and count, then pairs of a base and its offset (from bit 8 on) with flags (bit 0: virtual).
                let first = memory.read_pointer(type_information.checked_add(24)?)?;
                let place = memory.read_i64(type_information.checked_add(32)?)?;
                (place >> 8 == 0 && place & 1 == 0).then_some(first)?
            } else {
                return None;
            };
        }
        None
    }
}

/// A mangled type name as it is written, for names that consist of identifiers ("N4game7RefusedE"); others stay.
fn readable(mangled: &str) -> String {
    plain(mangled).unwrap_or_else(|| mangled.to_owned())
}

fn plain(mangled: &str) -> Option<String> {
    match mangled {
        "PKc" => return Some("const char *".to_owned()),
        "Pc" => return Some("char *".to_owned()),
        "i" => return Some("int".to_owned()),
        _ => {}
    }
    let nested = mangled.strip_prefix('N').and_then(|rest| rest.strip_suffix('E'));
    let (mut parts, mut rest) = (Vec::new(), nested.unwrap_or(mangled));
    if let Some(behind) = rest.strip_prefix("St") {
        parts.push("std");
        rest = behind;
    }
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let length: usize = rest.get(..digits)?.parse().ok()?;
        let end = digits.checked_add(length)?;
        let part = rest.get(digits..end).filter(|part| !part.is_empty())?;
        parts.push(if part == "_GLOBAL__N_1" { "(anonymous namespace)" } else { part });
        rest = rest.get(end..)?;
    }
    let plain = !parts.is_empty() && (nested.is_some() || parts.len() == 1 || mangled.starts_with("St"));
    plain.then(|| parts.join("::"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_readable_or_stay() {
        for (mangled, name) in [
            ("St13runtime_error", "std::runtime_error"),
            ("St9bad_alloc", "std::bad_alloc"),
            ("N4game7RefusedE", "game::Refused"),
            ("7Refused", "Refused"),
            ("N12_GLOBAL__N_13OwnE", "(anonymous namespace)::Own"),
            ("PKc", "const char *"),
            ("i", "int"),
            ("NSt10filesystem7__cxx1116filesystem_errorE", "std::filesystem::__cxx11::filesystem_error"),
            ("N4game5ErrorIiEE", "N4game5ErrorIiEE"),
            ("99x", "99x"),
            ("N99999999999999999999xE", "N99999999999999999999xE"),
            ("", ""),
        ] {
            assert_eq!(readable(mangled), name, "{mangled}");
        }
    }
}
