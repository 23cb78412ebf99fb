//! `cenotaph collect`.

use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;

use lexopt::prelude::*;

use crate::collect::{Fail, Options, Server};
use crate::failure::{Failure, Result};
use crate::interrupt::Interrupts;
use crate::output;

pub(crate) fn collect(arguments: lexopt::Parser) -> Result<()> {
    let options = parse(arguments)?;
    // Before the collector's first thread, so that all of them leave the signals to this one.
    let interrupts = Interrupts::block()?;
    let server = Server::start(&options, |text| output::note(text))?;
    output::note(format_args!("certificate authority: {}", server.authority().display()));
    output::line(format_args!("https://{}", server.address()))?;
    interrupts.wait();
    let seen = server.stop();
    output::note(format_args!(
        "stopped: {} connections, {} requests, {} accepted",
        seen.connections, seen.requests, seen.accepted
    ));
    Ok(())
}

fn parse(mut arguments: lexopt::Parser) -> Result<Options> {
    let (mut listen, mut dir, mut self_signed, mut fail) = (None, None, false, None);
    while let Some(argument) = arguments.next()? {
        match argument {
            Long("listen") => listen = Some(address(&arguments.value()?.string()?)?),
            Long("dir") => dir = Some(PathBuf::from(arguments.value()?)),
            Long("self-signed") => self_signed = true,
            Long("fail") => fail = Some(parse_fail(&arguments.value()?.string()?)?),
            other => return Err(other.unexpected().into()),
        }
    }
    let missing = |what: &str| Failure::Usage(format!("collect: {what} is missing"));
    if !self_signed {
        return Err(Failure::Usage(
            "collect: --self-signed is missing; the collector has no other certificate than its own"
                .to_owned(),
        ));
    }
    Ok(Options {
        listen: listen.ok_or_else(|| missing("--listen ADDR"))?,
        dir: dir.ok_or_else(|| missing("--dir DIR"))?,
        fail,
    })
}

fn address(text: &str) -> Result<SocketAddr> {
    let wrong = || Failure::Usage(format!("--listen {text}: expected HOST:PORT, for example 127.0.0.1:0"));
    text.to_socket_addrs().map_err(|_| wrong())?.next().ok_or_else(wrong)
}

fn parse_fail(text: &str) -> Result<Fail> {
    let numbers: Option<Vec<u64>> = text.split(':').map(|part| part.parse().ok()).collect();
    let fail = match numbers.as_deref() {
        Some([count, status]) => Some((*count, *status, None)),
        Some([count, status, seconds]) => Some((*count, *status, Some(*seconds))),
        _ => None,
    };
    match fail {
        Some((count, status @ 200..=599, retry_after)) => {
            // The pattern keeps it within 16 bits.
            Ok(Fail { count, status: u16::try_from(status).unwrap_or(500), retry_after })
        }
        _ => Err(Failure::Usage(format!(
            "--fail {text}: expected N:STATUS or N:STATUS:SECONDS with a status from 200 to 599"
        ))),
    }
}
