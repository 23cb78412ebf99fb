//! A pmodule that blanks the player's password: found by the symbol that the game exports and the layout of
//! [`Account`]. What the field held is then sought in the whole report, copies on stacks among it. In C: redact_password.c.

use std::mem::{offset_of, size_of};

use cenotaph::pmodule::{Description, Edits, Event, Failure, Pmodule};
use cenotaph::target::Target;

use crate::game::Account;

/// See the module.
#[derive(Clone)]
pub(crate) struct RedactPassword;

impl Pmodule for RedactPassword {
    fn describe(&self) -> Description {
        // Early, it redacts, and needs no frames.
        Description::new("redact-password").priority(-10).on(Event::Attach).redacts()
    }

    fn attach(&mut self, target: &Target, edits: &mut Edits) -> Result<(), Failure> {
        let account = target.symbol("player_account").ok_or("the program exports no player_account")?;
        // Another build of the game: where the password is, nobody knows. It redacts, so the report will hold no memory.
        if account.size != size_of::<Account>() as u64 {
            return Err("player_account is of another size than Account".into());
        }
        let password = account.address + offset_of!(Account, password) as u64;
        edits.blank(password..password + 64)
    }
}
