//! The subcommands: arguments in, one call into a library, a printed result.
#![forbid(unsafe_code)]

mod collect;

pub(crate) use collect::collect;
