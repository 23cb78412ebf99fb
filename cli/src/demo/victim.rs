//! The program that crashes in the demonstration: a small game with an account, a payment and a token in memory.
#![allow(unsafe_code, reason = "it has to crash, with known bytes in its registers")]

use std::hint::black_box;
use std::path::PathBuf;
use std::time::Duration;

use cenotaph::privacy::{Basis, ConsentPolicy};
use cenotaph::report::Level;
use cenotaph::{Config, Destination};
use lexopt::prelude::*;

use super::planted;
use crate::failure::{Failure, Result};

/// How long the second start waits for the delivery of what the first one left.
const DELIVERY: Duration = Duration::from_secs(30);

/// `cenotaph demo-victim DIR URL CA [--grant]`: not for users.
pub(crate) fn victim(mut arguments: lexopt::Parser) -> Result<()> {
    let (mut words, mut grant) = (Vec::new(), false);
    while let Some(argument) = arguments.next()? {
        match argument {
            Value(word) => words.push(word),
            Long("grant") => grant = true,
            other => return Err(other.unexpected().into()),
        }
    }
    let [dir, url, authority] = words.as_slice() else {
        return Err(Failure::Usage("demo-victim DIR URL CA [--grant]".to_owned()));
    };
    let dir = PathBuf::from(dir);
    let guard = Config::new("cenotaph-demo", env!("CARGO_PKG_VERSION"))
        .destination(Destination::crashpad(&url.to_string_lossy())?)
        .certificate_authority(authority)
        .spool(dir.join("spool"))
        .log(dir.join("log.jsonl"))
        .consent(ConsentPolicy::AskFirst)
        .install()?;
    if grant {
        cenotaph::consent()?.grant(Basis::Person)?;
        return Ok(guard.flush(DELIVERY)?);
    }
    cenotaph::register_secret(planted::ACCOUNT.value)?;
    cenotaph::set_attribute("account", planted::ACCOUNT.value)?;
    cenotaph::set_attribute("peer", planted::ADDRESS.value)?;
    cenotaph::set_attribute("level", 7)?;
    cenotaph::add_breadcrumb(Level::Info, "net", planted::BEARER.value)?;
    cenotaph::add_breadcrumb(Level::Info, "ui", "shop opened")?;
    load_profile();
    Ok(())
}

#[inline(never)]
fn load_profile() {
    let mail = on_stack::<64>(&planted::EMAIL);
    let saves = on_stack::<64>(&planted::NAME_PATH);
    charge_card();
    black_box((&mail, &saves));
}

#[inline(never)]
fn charge_card() {
    let card = planted::CARD.encoding.encode(planted::CARD.value).into_boxed_slice();
    let iban = planted::IBAN.encoding.encode(planted::IBAN.value).into_boxed_slice();
    let token = planted::JWT.encoding.encode(planted::JWT.value).into_boxed_slice();
    // Pointers on the live stack are what makes these blocks part of a dump.
    let pointers = [card.as_ptr(), iban.as_ptr(), token.as_ptr()];
    update_balance(black_box(&pointers));
    black_box((&card, &iban, &token));
}

fn on_stack<const N: usize>(planted: &planted::Planted) -> [u8; N] {
    let mut bytes = [0; N];
    let encoded = planted.encoding.encode(planted.value);
    let length = encoded.len().min(N);
    bytes[..length].copy_from_slice(&encoded[..length]);
    black_box(bytes)
}

/// Dies, with the first 16 bytes of an address in two registers.
#[inline(never)]
fn update_balance(pointers: &[*const u8; 3]) {
    black_box(pointers);
    let mut words = [0u64; 3];
    for (word, chunk) in words.iter_mut().zip(planted::REGISTER.value.as_bytes().chunks(8)) {
        let mut full = [0; 8];
        full[..chunk.len()].copy_from_slice(chunk);
        *word = u64::from_le_bytes(full);
    }
    let [first, second, third] = black_box(words);
    #[cfg(target_arch = "x86_64")]
    // SAFETY: this write to an unmapped address is the demonstration's crash; nothing runs after it.
    unsafe {
        std::arch::asm!("mov dword ptr [0x10], eax", in("r12") first, in("r13") second, in("r14") third);
    }
    #[cfg(not(target_arch = "x86_64"))]
    // SAFETY: as above.
    unsafe {
        black_box((first, second, third));
        std::ptr::without_provenance_mut::<u32>(0x10).write_volatile(1);
    }
}
