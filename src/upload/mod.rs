//! Delivery: claim a report, ask the gate, send it over TLS, read the reply, decide.
//!
//! Runs in the uploader process, on one thread. A report leaves the queue only after every destination's acceptance
//! was parsed; whatever else happens keeps it on disk.
#![forbid(unsafe_code)]

pub mod destination;
pub mod drain;
pub mod http;
pub mod http_date;
pub mod multipart;
pub mod outbox;
pub mod response;
pub mod retry;
pub mod tls;

pub use destination::Opened;
pub use drain::{Claim, Event, Hooks, Lane, Progress, Queue, Summary, drain};
pub use http::{Https, TimeLimits, Transport};
pub use outbox::Outbox;
