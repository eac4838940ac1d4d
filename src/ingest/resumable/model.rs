//! An upload that comes in pieces, without I/O.

use std::fmt;
use std::str::FromStr;

use crate::accounts::Caller;
use crate::accounts::Role;
use crate::assets::AssetId;
use crate::ingest::Note;
use crate::ingest::Once;
use crate::support::clock::Instant;
use crate::text_column;

/// What a row of `resumable` holds.
#[derive(Clone, Debug)]
pub struct Resumable {
    /// Its address, and later the asset's.
    pub id: AssetId,
    pub user_id: i64,
    /// The upload key by which it began, if it was one.
    pub upload_key_id: Option<i64>,
    pub kind: Kind,
    pub state: State,
    /// Absent until the sender knows.
    pub length_bytes: Option<u64>,
    /// So many are on the disk.
    pub offset_bytes: u64,
    /// The length may not be more.
    pub most_bytes: u64,
    pub name: String,
    pub note: Note,
    /// What the sender said about it, word for word.
    pub said: String,
    /// What it is joined of.
    pub parts: Vec<AssetId>,
    pub parts_said: String,
    pub created_at: Instant,
    pub expires_at: Instant,
}

/// What becomes of the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// An asset.
    Whole,
    /// With others, an asset: it waits to be joined.
    Part,
    /// An asset; they come from parts.
    Joined,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Open,
    /// Its asset is there.
    Finished,
    /// Expired, given up, or a part that was joined.
    Gone,
}

/// What is said when one begins.
#[derive(Clone, Debug, Default)]
pub struct Beginning {
    pub name: String,
    pub note: Note,
    pub said: String,
    /// Absent: said later.
    pub length_bytes: Option<u64>,
    pub is_part: bool,
    /// Less than the box takes, for callers who may not hand in more.
    pub most_bytes: Option<u64>,
    /// By which the same call finds the upload again.
    pub once: Option<Once>,
}

impl Kind {
    const WORDS: [(Kind, &'static str); 3] = [(Kind::Whole, "whole"), (Kind::Part, "part"), (Kind::Joined, "joined")];
}

impl State {
    const WORDS: [(State, &'static str); 3] =
        [(State::Open, "open"), (State::Finished, "finished"), (State::Gone, "gone")];
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(Self::WORDS.iter().find(|(kind, _)| kind == self).map_or("", |(_, word)| word))
    }
}

impl FromStr for Kind {
    type Err = ();

    fn from_str(text: &str) -> Result<Kind, ()> {
        Self::WORDS.iter().find(|(_, word)| *word == text).map(|(kind, _)| *kind).ok_or(())
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(Self::WORDS.iter().find(|(state, _)| state == self).map_or("", |(_, word)| word))
    }
}

impl FromStr for State {
    type Err = ();

    fn from_str(text: &str) -> Result<State, ()> {
        Self::WORDS.iter().find(|(_, word)| *word == text).map(|(state, _)| *state).ok_or(())
    }
}

text_column!(Kind);
text_column!(State);

impl Resumable {
    /// All of it is on the disk.
    pub fn is_whole(&self) -> bool {
        self.length_bytes == Some(self.offset_bytes)
    }

    /// It is about to become an asset.
    pub fn is_due(&self) -> bool {
        self.state == State::Open && self.kind != Kind::Part && (self.is_whole() || self.kind == Kind::Joined)
    }

    /// How much room is set aside for it between its pieces: all that is still to come, if that is known.
    ///
    /// Nothing for what comes by an upload key. Anybody may have read that in a page, and would promise the
    /// disk away without sending a byte; room for such a piece is set aside while it comes.
    pub fn reserves_bytes(&self) -> Option<u64> {
        let keeps = self.state == State::Open && self.kind != Kind::Joined && self.upload_key_id.is_none();
        let to_come = self.length_bytes.map(|length| length.saturating_sub(self.offset_bytes));
        to_come.filter(|bytes| keeps && *bytes > 0)
    }

    /// Its asset, once that is there.
    pub fn asset(&self) -> Option<AssetId> {
        (self.state == State::Finished).then_some(self.id)
    }

    /// Whether it is the caller's. Upload keys are public, so they reach only what came by one.
    pub fn is_of(&self, caller: &Caller) -> bool {
        match *caller {
            Caller::Nobody => false,
            Caller::Known { user_id, role } | Caller::Token { user_id, role, .. } => {
                user_id == self.user_id || role == Role::Admin
            }
            Caller::UploadKey { user_id, .. } => user_id == self.user_id && self.upload_key_id.is_some(),
        }
    }

    /// Whoever began it, as far as the record of the asset goes.
    pub(super) fn owner(&self) -> Caller {
        Caller::Known { user_id: self.user_id, role: Role::User }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_upload_is_its_creators_and_administrators() {
        let by = |user_id, by_upload_key: bool| Resumable {
            id: AssetId::random().unwrap(),
            user_id,
            upload_key_id: by_upload_key.then_some(7),
            kind: Kind::Whole,
            state: State::Open,
            length_bytes: None,
            offset_bytes: 0,
            most_bytes: 1,
            name: String::new(),
            note: Note::default(),
            said: String::new(),
            parts: Vec::new(),
            parts_said: String::new(),
            created_at: Instant(0),
            expires_at: Instant(0),
        };
        let known = |user_id, role| Caller::Known { user_id, role };
        let page = |user_id| Caller::UploadKey { user_id, role: Role::Admin, key_id: 1 };
        for (upload, caller, is_theirs) in [
            (by(2, false), known(2, Role::Creator), true),
            (by(2, false), known(3, Role::Manager), false),
            (by(2, false), known(1, Role::Admin), true),
            (by(2, false), page(2), false),
            (by(2, true), page(2), true),
            (by(2, true), page(3), false),
            (by(2, true), known(2, Role::Creator), true),
            (by(0, false), Caller::Nobody, false),
        ] {
            assert_eq!(upload.is_of(&caller), is_theirs, "{caller:?} of {}", upload.user_id);
        }
    }

    #[test]
    fn words_read_back() {
        for (kind, word) in Kind::WORDS {
            assert_eq!((kind.to_string().as_str(), word.parse()), (word, Ok(kind)));
        }
        for (state, word) in State::WORDS {
            assert_eq!((state.to_string().as_str(), word.parse()), (word, Ok(state)));
        }
    }
}
