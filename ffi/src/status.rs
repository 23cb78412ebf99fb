//! What a call came to: a number for programs, a text for people.
#![forbid(unsafe_code)]

use std::cell::RefCell;
use std::ffi::CStr;

use cenotaph::Error;

/// What a call came to. 0 is success; a number keeps its meaning for ever, and later versions may add more.
#[repr(i32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum cenotaph_status {
    /// It was done.
    Ok = 0,
    /// An argument is NULL that must not be.
    NullArgument = 1,
    /// A text is not UTF-8.
    InvalidUtf8 = 2,
    /// A number has no meaning for that argument.
    InvalidArgument = 3,
    /// A buffer is too small for what should go into it.
    BufferTooSmall = 4,
    /// A defect of Cenotaph, caught at the border. Nothing more was done; the application may go on.
    Panic = 5,
    /// A setting cannot be used.
    InvalidConfig = 6,
    /// A file or directory cannot be used.
    File = 7,
    /// No monitor process can be started, or it has ended.
    MonitorUnavailable = 8,
    /// Cenotaph is installed in this process already.
    AlreadyInstalled = 9,
    /// The call needs an installed Cenotaph.
    NotInstalled = 10,
    /// The operating system refused.
    System = 11,
    /// Bytes from elsewhere are not what they claim to be.
    Malformed = 12,
    /// A stored report cannot be opened.
    Unsealed = 13,
    /// Too many of something, or too long.
    Limit = 14,
    /// Consent does not allow it.
    ConsentRefused = 15,
    /// Nobody answered in time.
    Timeout = 16,
    /// A server could not be reached safely or did not accept.
    Upload = 17,
    /// A failure that this version of the interface has no number for.
    Other = 18,
}

impl cenotaph_status {
    /// Every status, by number.
    pub(crate) const ALL: [Self; 19] = [
        Self::Ok,
        Self::NullArgument,
        Self::InvalidUtf8,
        Self::InvalidArgument,
        Self::BufferTooSmall,
        Self::Panic,
        Self::InvalidConfig,
        Self::File,
        Self::MonitorUnavailable,
        Self::AlreadyInstalled,
        Self::NotInstalled,
        Self::System,
        Self::Malformed,
        Self::Unsealed,
        Self::Limit,
        Self::ConsentRefused,
        Self::Timeout,
        Self::Upload,
        Self::Other,
    ];

    /// A few words for each.
    pub(crate) fn message(self) -> &'static CStr {
        match self {
            Self::Ok => c"ok",
            Self::NullArgument => c"an argument is NULL that must not be",
            Self::InvalidUtf8 => c"a text is not UTF-8",
            Self::InvalidArgument => c"an argument has no meaning",
            Self::BufferTooSmall => c"a buffer is too small",
            Self::Panic => c"a defect of Cenotaph was caught",
            Self::InvalidConfig => c"a setting cannot be used",
            Self::File => c"a file or directory cannot be used",
            Self::MonitorUnavailable => c"there is no monitor process",
            Self::AlreadyInstalled => c"already installed in this process",
            Self::NotInstalled => c"not installed",
            Self::System => c"the operating system refused",
            Self::Malformed => c"bytes are not what they claim to be",
            Self::Unsealed => c"a stored report cannot be opened",
            Self::Limit => c"a limit was exceeded",
            Self::ConsentRefused => c"consent does not allow it",
            Self::Timeout => c"nobody answered in time",
            Self::Upload => c"a server could not be reached safely or did not accept",
            Self::Other => c"another failure",
        }
    }

    /// The words for a number that may be no status at all.
    pub(crate) fn message_of(code: i32) -> &'static CStr {
        Self::ALL.into_iter().find(|status| *status as i32 == code).map_or(c"unknown status", Self::message)
    }
}

/// Why a call failed. The text may name a file, but never holds the value of a secret, attribute or breadcrumb.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) status: cenotaph_status,
    pub(crate) text: String,
}

impl Failure {
    pub(crate) fn new(status: cenotaph_status, text: impl Into<String>) -> Self {
        Self { status, text: text.into() }
    }
}

impl From<Error> for Failure {
    /// The library's own words, but for those that name Rust items where C has others.
    fn from(error: Error) -> Self {
        use cenotaph_status as S;
        let status = match &error {
            Error::InvalidConfig { .. } => S::InvalidConfig,
            Error::File { .. } => S::File,
            Error::MonitorUnavailable(_) => S::MonitorUnavailable,
            Error::AlreadyInstalled => S::AlreadyInstalled,
            Error::NotInstalled => S::NotInstalled,
            Error::System { .. } => S::System,
            Error::Malformed { .. } => S::Malformed,
            Error::Unsealed(_) => S::Unsealed,
            Error::Limit { .. } => S::Limit,
            Error::ConsentRefused(_) => S::ConsentRefused,
            Error::Timeout(_) => S::Timeout,
            Error::Upload(_) => S::Upload,
            _ => S::Other,
        };
        let text = match &error {
            Error::InvalidConfig { field, reason } => format!("{}: {reason}", c_name_of_setter(field)),
            Error::AlreadyInstalled => {
                "Cenotaph is already installed in this process; call cenotaph_shutdown() first".to_owned()
            }
            Error::NotInstalled => "Cenotaph is not installed; call cenotaph_install() first".to_owned(),
            Error::ConsentRefused(stage) => {
                format!("consent does not allow {stage}; it takes cenotaph_consent_grant() first")
            }
            other => other.to_string(),
        };
        Self { status, text }
    }
}

fn c_name_of_setter(field: &str) -> String {
    match field {
        "install" => "cenotaph_install".to_owned(),
        "new" => "cenotaph_options_new".to_owned(),
        "destination" | "secret" => format!("cenotaph_options_add_{field}"),
        "consent" => "cenotaph_options_set_consent_policy".to_owned(),
        "deadline" | "linger" => format!("cenotaph_options_set_{field}_ms"),
        "plugin" | "rules" | "rules_file" => format!("cenotaph_options_add_{field}"),
        other => format!("cenotaph_options_set_{other}"),
    }
}

thread_local! {
    static LAST_ERROR: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Keeps the failure's text for this thread and returns its status.
pub(crate) fn record(failure: Failure) -> cenotaph_status {
    // While a thread ends there may be no place for the text any more; the status says enough then.
    let _ = LAST_ERROR.try_with(|last| *last.borrow_mut() = failure.text);
    failure.status
}

/// Calls `read` with the text of this thread's last failure; empty if there was none.
pub(crate) fn last_error<T>(read: impl FnOnce(&str) -> T) -> Option<T> {
    LAST_ERROR.try_with(|last| read(&last.borrow())).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_for_ever() {
        use cenotaph_status as S;
        let published = [
            (0, S::Ok),
            (1, S::NullArgument),
            (2, S::InvalidUtf8),
            (3, S::InvalidArgument),
            (4, S::BufferTooSmall),
            (5, S::Panic),
            (6, S::InvalidConfig),
            (7, S::File),
            (8, S::MonitorUnavailable),
            (9, S::AlreadyInstalled),
            (10, S::NotInstalled),
            (11, S::System),
            (12, S::Malformed),
            (13, S::Unsealed),
            (14, S::Limit),
            (15, S::ConsentRefused),
            (16, S::Timeout),
            (17, S::Upload),
            (18, S::Other),
        ];
        assert_eq!(published.len(), S::ALL.len());
        for (number, status) in published {
            assert_eq!(status as i32, number);
            assert_eq!(S::message_of(number), status.message());
        }
        for stranger in [-1, 19, i32::MAX, i32::MIN] {
            assert_eq!(S::message_of(stranger), c"unknown status");
        }
    }

    #[test]
    fn errors_speak_c() {
        let cases = [
            (Error::NotInstalled, cenotaph_status::NotInstalled, "cenotaph_install()"),
            (Error::AlreadyInstalled, cenotaph_status::AlreadyInstalled, "cenotaph_shutdown()"),
            (
                Error::ConsentRefused("a report"),
                cenotaph_status::ConsentRefused,
                "a report; it takes cenotaph_consent_grant()",
            ),
            (
                Error::InvalidConfig { field: "deadline", reason: "too long".into() },
                cenotaph_status::InvalidConfig,
                "cenotaph_options_set_deadline_ms: too long",
            ),
            (
                Error::InvalidConfig { field: "secret", reason: "too long".into() },
                cenotaph_status::InvalidConfig,
                "cenotaph_options_add_secret: too long",
            ),
            (Error::Timeout("the monitor"), cenotaph_status::Timeout, "the monitor"),
        ];
        for (error, status, text) in cases {
            let failure = Failure::from(error);
            assert_eq!(failure.status, status);
            assert!(failure.text.contains(text), "{}", failure.text);
        }
    }

    #[test]
    fn the_last_failure_belongs_to_its_thread() {
        record(Failure::new(cenotaph_status::Other, "mine"));
        std::thread::spawn(|| assert_eq!(last_error(str::len), Some(0))).join().unwrap();
        assert_eq!(last_error(str::to_owned).as_deref(), Some("mine"));
    }
}
