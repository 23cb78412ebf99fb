//! A pmodule that notes what the game was doing: level, frame and the allocator's statistics, from a global. In C:
//! game_state.c.

use std::mem::{offset_of, size_of};

use cenotaph::pmodule::{AnnotationLevel, Description, Edit, Edits, Event, Failure, Pmodule};
use cenotaph::target::Target;

use crate::game::{GAME_STATE_VERSION, GameState};

/// More than this in use makes reports that one wants to see together.
const MUCH: u64 = 4 << 20;

/// See the module.
#[derive(Clone)]
pub(crate) struct NoteGameState;

impl Pmodule for NoteGameState {
    fn describe(&self) -> Description {
        Description::new("game-state").on(Event::Attach)
    }

    fn attach(&mut self, target: &Target, edits: &mut Edits) -> Result<(), Failure> {
        let state = target.symbol("current_game_state").ok_or("the program exports no current_game_state")?;
        let bytes = target.memory().read(state.address, size_of::<GameState>());
        let short = |offset| bytes.get(offset..)?.first_chunk().map(|word| u32::from_le_bytes(*word));
        let long = |offset| bytes.get(offset..)?.first_chunk().map(|word| u64::from_le_bytes(*word));
        let unread = "the game's state cannot be read";
        if short(offset_of!(GameState, version)).ok_or(unread)? != GAME_STATE_VERSION {
            return Err("the game's state has another layout than GameState".into());
        }
        let level = short(offset_of!(GameState, level)).ok_or(unread)?;
        let frame = long(offset_of!(GameState, frame)).ok_or(unread)?;
        let allocations = long(offset_of!(GameState, allocations)).ok_or(unread)?;
        let used = long(offset_of!(GameState, bytes_in_use)).ok_or(unread)?;
        let at_most = long(offset_of!(GameState, bytes_at_most)).ok_or(unread)?;
        edits.attribute("game.level", level.into())?;
        edits.attribute("game.frame", i64::try_from(frame).unwrap_or(i64::MAX).into())?;
        let json = format!(
            r#"{{"level":{level},"frame":{frame},"allocator":{{"allocations":{allocations},"bytes_in_use":{used},"bytes_at_most":{at_most}}}}}"#
        );
        edits.annotate(AnnotationLevel::Json, json)?;
        if used > MUCH {
            edits.annotate(AnnotationLevel::Warning, "the game holds more than 4 MiB")?;
            edits.push(Edit::Classifier("much-memory".to_owned()))?;
        }
        Ok(())
    }
}
