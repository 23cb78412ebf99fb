//! What the demonstration's victim holds that is nobody's business.
#![forbid(unsafe_code)]

/// A value and where the victim keeps it.
pub(crate) struct Planted {
    /// What it is.
    pub(crate) kind: &'static str,
    /// The text.
    pub(crate) value: &'static str,
    /// Where.
    pub(crate) place: &'static str,
    /// How it is stored there.
    pub(crate) encoding: Encoding,
}

/// How text lies in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Encoding {
    /// One byte a character.
    Utf8,
    /// As Windows, Java and JavaScript keep it.
    Utf16,
    /// As C's `wchar_t` on Unix.
    Utf32,
}

impl Encoding {
    /// `text` as it lies in memory.
    pub(crate) fn encode(self, text: &str) -> Vec<u8> {
        match self {
            Self::Utf8 => text.as_bytes().to_vec(),
            Self::Utf16 => text.encode_utf16().flat_map(u16::to_le_bytes).collect(),
            Self::Utf32 => text.chars().flat_map(|c| u32::from(c).to_le_bytes()).collect(),
        }
    }

    /// Its usual name.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Utf8 => "UTF-8",
            Self::Utf16 => "UTF-16",
            Self::Utf32 => "UTF-32",
        }
    }
}

const fn planted(
    kind: &'static str,
    value: &'static str,
    place: &'static str,
    encoding: Encoding,
) -> Planted {
    Planted { kind, value, place, encoding }
}

pub(crate) static EMAIL: Planted =
    planted("e-mail", "wilhelmina.quist@corvid-mail.example.org", "stack", Encoding::Utf8);
pub(crate) static NAME_PATH: Planted =
    planted("user name in a path", "/home/wquist77x/saves/", "stack", Encoding::Utf16);
pub(crate) static CARD: Planted = planted("payment card", "4929 7242 4711 2357", "heap", Encoding::Utf8);
pub(crate) static IBAN: Planted = planted("IBAN", "DE75512108001245126199", "heap", Encoding::Utf32);
pub(crate) static JWT: Planted = planted(
    "JSON web token",
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiI3N3F4In0.Zm9vYmFyYmF6cXV4cXV1eHF1dXV4",
    "heap",
    Encoding::Utf8,
);
pub(crate) static REGISTER: Planted = planted("e-mail", "wq77@corvid-x.org", "registers", Encoding::Utf8);
pub(crate) static TOKEN: Planted =
    planted("GitHub token", "ghp_Qx7vWz3kLm9nRt5yUi1oPa2sDf4gHj6kZb8c", "environment", Encoding::Utf8);
pub(crate) static BEARER: Planted =
    planted("bearer token", "Bearer q7Xv9-Lw2nZk4RtY8uIo", "breadcrumb", Encoding::Utf8);
pub(crate) static ADDRESS: Planted =
    planted("IPv6 address", "2001:db8:77aa:41c9:9d2e:5b7f:c3a8:e614", "attribute", Encoding::Utf8);
pub(crate) static ACCOUNT: Planted =
    planted("registered secret", "corvid-player-77QX-41c9", "attribute", Encoding::Utf8);

/// All of them.
pub(crate) static ALL: [&Planted; 10] =
    [&EMAIL, &NAME_PATH, &CARD, &IBAN, &JWT, &REGISTER, &TOKEN, &BEARER, &ADDRESS, &ACCOUNT];

/// The part of a value that must not be found: a path's surroundings are kept, and so is the word "Bearer".
pub(crate) fn secret_part(planted: &Planted) -> &'static str {
    match planted.kind {
        "user name in a path" => "wquist77x",
        "bearer token" => planted.value.trim_start_matches("Bearer "),
        _ => planted.value,
    }
}
