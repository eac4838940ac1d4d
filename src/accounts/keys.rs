//! API keys, upload keys and tokens while they live: shown, rotated, revoked; and what came in by
//! an upload key.
//!
//! A user has one present API key and upload key, and any number of tokens. Replaced, it works for a stated time beside the
//! new one, which covers programs that read their configuration once a day, and links signed
//! with it; revoked, it ends at once.

use std::time::Duration;

use crate::accounts::Accounts;
use crate::accounts::give;
use crate::accounts::is_key;
use crate::accounts::model::Caller;
use crate::accounts::model::CredentialKind;
use crate::accounts::model::Key;
use crate::accounts::model::Scopes;
use crate::accounts::seal::MasterKey;
use crate::accounts::store;
use crate::accounts::user_not_found;
use crate::error::Code;
use crate::error::Result;
use crate::infra::db::Tx;
use crate::support::id;
use crate::support::rate::Network;

/// The longest text that says what a token is for.
const MOST_LABEL_CHARS: usize = 100;

/// Tokens of one user.
const MOST_TOKENS: u32 = 100;

/// What a key is replaced by.
#[derive(Clone, Debug)]
pub enum NewKey {
    Random,
    /// A text of the caller's; the present one changes nothing.
    Given(String),
}

impl NewKey {
    /// An empty text asks for one of ours.
    pub fn of(text: Option<String>) -> NewKey {
        text.filter(|text| !text.is_empty()).map_or(NewKey::Random, NewKey::Given)
    }

    fn text(self, name: &str) -> Result<String> {
        match self {
            NewKey::Random => Ok(id::hex(&id::random::<16>()?)),
            NewKey::Given(text) if is_key(&text) => Ok(text),
            NewKey::Given(_) => Err(Code::InvalidRequest
                .because(format!("{name}: a key has 32 to 64 letters, digits and dashes; empty asks for a new one"))),
        }
    }
}

impl Accounts {
    /// A user's keys that are good now, oldest first.
    pub async fn list_keys(&self, user: i64) -> Result<Vec<Key>> {
        let now = self.clock.now();
        let kept = self
            .db
            .read(move |c| {
                store::find(c, user)?.ok_or_else(user_not_found)?;
                store::credentials(c, user, now)
            })
            .await?;
        let shown = |key: store::Kept| Key {
            id: key.id,
            kind: key.kind,
            hint: self.master.open(&key.sealed).unwrap_or_default().chars().take(4).collect(),
            label: key.label,
            scopes: key.scopes,
            created_at: key.created_at,
            expires_at: key.expires_at,
        };
        Ok(kept.into_iter().map(shown).collect())
    }

    /// Replaces a key; the text of the new one. The old one works for `valid_old` longer.
    pub async fn rotate(&self, user: i64, kind: CredentialKind, new: NewKey, valid_old: Duration) -> Result<String> {
        if kind == CredentialKind::Token {
            return Err(Code::InvalidRequest.because("A token is not replaced: make another one and revoke this."));
        }
        let text = new.text("key")?;
        let (given, this) = (text.clone(), self.clone());
        self.db
            .write(move |tx| {
                store::find(tx, user)?.ok_or_else(user_not_found)?;
                replace(tx, &this.master, user, kind, &given, valid_old)?;
                this.changes(tx);
                Ok(())
            })
            .await?;
        Ok(text)
    }

    /// Replaces both keys at once, and does `also` in the same transaction.
    pub async fn set_keys(
        &self,
        user: i64,
        api: NewKey,
        upload: NewKey,
        valid_old: Duration,
        also: impl FnOnce(&Tx) -> Result<()> + Send + 'static,
    ) -> Result<()> {
        let (api, upload, this) = (api.text("api_key")?, upload.text("upload_key")?, self.clone());
        self.db
            .write(move |tx| {
                replace(tx, &this.master, user, CredentialKind::Api, &api, valid_old)?;
                replace(tx, &this.master, user, CredentialKind::Upload, &upload, valid_old)?;
                this.changes(tx);
                also(tx)
            })
            .await
    }

    /// Gives a user another token; its number and its text, which is shown this once.
    pub async fn give_token(&self, user: i64, label: String, scopes: Scopes) -> Result<(i64, String)> {
        if label.trim().is_empty() || label.chars().count() > MOST_LABEL_CHARS {
            return Err(Code::InvalidRequest
                .because(format!("name: say in 1 to {MOST_LABEL_CHARS} characters what the token is for")));
        }
        if scopes == Scopes::default() {
            return Err(Code::InvalidRequest.because("scopes: a token has to be for something"));
        }
        let text = id::hex(&id::random::<24>()?);
        let (lookup, sealed) = (self.master.lookup(&text), self.master.seal(&text)?);
        let number = self
            .db
            .write(move |tx| {
                store::find(tx, user)?.ok_or_else(user_not_found)?;
                if store::tokens(tx, user)? >= MOST_TOKENS {
                    return Err(Code::InvalidRequest.because(format!("A user has at most {MOST_TOKENS} tokens.")));
                }
                store::insert_token(tx, user, &lookup, &sealed, label.trim(), scopes)
            })
            .await?;
        Ok((number, text))
    }

    /// Ends a key now.
    pub async fn revoke(&self, user: i64, key: i64) -> Result<()> {
        let this = self.clone();
        self.db
            .write(move |tx| {
                if !store::revoke(tx, user, key)? {
                    return Err(Code::KeyNotFound.because("No key of this user has this id."));
                }
                this.changes(tx);
                Ok(())
            })
            .await
    }

    /// Counts a call with an upload key, which anybody may have read out of a page.
    pub fn pace_upload_key(&self, from: Network) -> Result<()> {
        self.upload_key_calls.take(from).map_err(|wait| {
            Code::TooManyRequests.because("Too many calls with an upload key from this address.").again_after(wait)
        })
    }

    /// Notes that these assets came in by an upload key. Whoever has no upload key leaves no note.
    pub async fn note_handed_in(&self, caller: &Caller, assets: Vec<String>) -> Result<()> {
        let Caller::UploadKey { key_id, .. } = *caller else { return Ok(()) };
        let while_ = Duration::from_secs(self.config.upload_key_describe_seconds);
        // A note that is lost in a power cut costs the right to describe, not the asset.
        self.db
            .write_relaxed(move |tx| {
                store::forget_handed_in(tx, key_id, tx.now().minus(while_))?;
                assets.iter().try_for_each(|asset| store::hand_in(tx, asset, key_id))
            })
            .await
    }

    /// Whether this caller may write an asset's data: by role; or with the upload key by which
    /// it came in, for a while.
    pub async fn may_describe(&self, caller: &Caller, asset: &str) -> Result<()> {
        let Caller::UploadKey { key_id, .. } = *caller else { return Ok(()) };
        let (asset, now) = (asset.to_owned(), self.clock.now());
        let at = self.db.read(move |c| store::handed_in(c, &asset, key_id)).await?;
        let while_ = Duration::from_secs(self.config.upload_key_describe_seconds);
        if at.is_some_and(|at| now.since(at) < while_) {
            return Ok(());
        }
        // The same for what came in otherwise, long ago, or not at all: an upload key reads nothing.
        Err(Code::Forbidden.because("This upload key may describe only what came in by it a short while ago."))
    }
}

/// Notes that an asset came in by an upload key, in the transaction of a room that takes it in.
pub fn note_handed_in(tx: &Tx, asset: &str, key_id: i64) -> Result<()> {
    store::hand_in(tx, asset, key_id)
}

/// Makes `text` the present key of its kind.
fn replace(
    tx: &Tx,
    master: &MasterKey,
    user: i64,
    kind: CredentialKind,
    text: &str,
    valid_old: Duration,
) -> Result<()> {
    let present = store::sealed(tx, user, kind)?.and_then(|sealed| master.open(&sealed).ok());
    if present.as_deref() == Some(text) {
        return Ok(());
    }
    store::expire(tx, user, kind, tx.now().plus(valid_old))?;
    let lookup = master.lookup(text);
    match store::owner(tx, &lookup)? {
        None => give(tx, master, user, kind, text),
        Some((owner, word)) if owner == user && word == kind.word() => store::revive(tx, &lookup),
        Some(_) => Err(Code::Conflict.because("This key is in use.")),
    }
}
