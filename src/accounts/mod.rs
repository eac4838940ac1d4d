//! Who may do what: users, their keys, their tokens.
//!
//! In: an API key, a token, or an e-mail and a password. Out: a [`Caller`], or
//! [`Code::Unauthorized`] in the same words and the same time whether the user exists or not.
//!
//! Keys are found by a keyed hash and kept sealed, because the contract signs links with the
//! text of an API key. Answers are remembered for a few seconds: a key that was withdrawn by
//! another process (the command line) stops working within `REMEMBERED`.

mod attempts;
pub mod keys;
pub mod model;
mod password;
mod people;
mod seal;
pub mod second_factor;
mod store;
#[cfg(test)]
mod tests;
mod token;
mod totp;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::sync::SemaphorePermit;

pub use keys::NewKey;
pub use model::Caller;
pub use model::Config;
pub use model::Permission;
pub use model::Role;
pub use model::Scope;
pub use model::Scopes;
pub use model::User;
pub use seal::MasterKey;

use crate::accounts::attempts::Attempts;
use crate::accounts::model::CredentialKind;
use crate::accounts::model::Credentials;
use crate::error::Code;
use crate::error::Result;
use crate::infra::db::Db;
use crate::infra::db::Memory;
use crate::infra::db::Tx;
use crate::support::clock::Clock;
use crate::support::cpu::Cpu;
use crate::support::id;
use crate::support::rate::Buckets;
use crate::support::rate::Network;
use crate::support::rate::Windows;

/// How long an answer about a key or a user is believed.
const REMEMBERED: Duration = Duration::from_secs(5);

/// How long a token is good for; the contract says 24 hours, without refresh.
const TOKEN_LIFE: Duration = Duration::from_hours(24);

/// Passwords hashed at once: each takes 19 MiB and a core.
const HASHING: usize = 4;

/// Knows users and their credentials; cheap to clone.
#[derive(Clone)]
pub struct Accounts {
    config: Config,
    db: Db,
    clock: Clock,
    cpu: Cpu,
    master: Arc<MasterKey>,
    attempts: Arc<Attempts>,
    upload_key_calls: Arc<Buckets<Network>>,
    token_calls: Arc<Windows<(i64, i64)>>,
    hashing: Arc<Semaphore>,
    by_key: Memory<(CredentialKind, [u8; 32]), Option<Holder>>,
    by_user: Memory<i64, Option<Holder>>,
    by_access_id: Memory<String, Option<Signer>>,
}

/// What is remembered of a user.
#[derive(Clone)]
struct Holder {
    caller: Caller,
    epoch: i64,
    enabled: bool,
}

/// Whoever signs links.
#[derive(Clone)]
pub struct Signer {
    pub caller: Caller,
    pub api_keys: Vec<String>,
}

/// What a login gives.
pub struct Login {
    pub user: User,
    pub token: String,
    pub upload_key: Option<String>,
}

/// The texts of a user's keys, shown when they are made.
#[derive(Clone, Debug)]
pub struct Keys {
    pub api_key: String,
    pub upload_key: String,
}

/// What the environment may say about the first administrator; the rest is made up.
#[derive(Clone, Debug, Default)]
pub struct FirstAdministrator {
    pub email: Option<String>,
    pub password: Option<String>,
    pub api_key: Option<String>,
    pub upload_key: Option<String>,
}

/// The first administrator as made: shown once, then only its hashes remain.
pub struct Introduced {
    pub email: String,
    /// Absent when it was given by the environment: whoever set it knows it.
    pub password: Option<String>,
    pub keys: Keys,
}

impl Accounts {
    pub fn new(config: Config, db: Db, clock: Clock, cpu: Cpu, master: MasterKey) -> Accounts {
        let calls = config.upload_key_calls_per_minute.max(1);
        Accounts {
            attempts: Arc::new(Attempts::new(&config)),
            upload_key_calls: Arc::new(Buckets::new(calls, Duration::from_mins(1) / calls)),
            token_calls: Arc::new(Windows::new(config.token_calls_per_minute.max(1), Duration::from_mins(1))),
            hashing: Arc::new(Semaphore::new(HASHING)),
            config,
            db,
            clock,
            cpu,
            master: Arc::new(master),
            by_key: Memory::new(1024, REMEMBERED),
            by_user: Memory::new(1024, REMEMBERED),
            by_access_id: Memory::new(1024, REMEMBERED),
        }
    }

    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Who holds this API key.
    pub async fn by_api_key(&self, text: &str) -> Result<Caller> {
        self.by_credential(CredentialKind::Api, text).await?.ok_or_else(unknown)
    }

    /// On whose behalf this upload key hands in.
    pub async fn by_upload_key(&self, text: &str) -> Result<Caller> {
        let found = self.by_credential(CredentialKind::Upload, text).await?;
        found.ok_or_else(|| Code::Unauthorized.because("This upload key is not valid."))
    }

    /// Who sends this token: one of ours with scopes, or one of a login.
    pub async fn by_bearer(&self, text: &str) -> Result<Caller> {
        match self.by_credential(CredentialKind::Token, text).await? {
            Some(caller) => Ok(caller),
            None => self.by_token(text).await,
        }
    }

    /// The same where an API key may stand in its place.
    pub async fn by_any(&self, text: &str) -> Result<Caller> {
        match self.by_credential(CredentialKind::Api, text).await? {
            Some(caller) => Ok(caller),
            None => self.by_bearer(text).await,
        }
    }

    /// Counts a call of Prepr's API; how many may be made in a minute, and how many are left of this one.
    pub fn pace_token(&self, caller: &Caller) -> (u32, Result<u32>) {
        let key = match *caller {
            Caller::Token { user_id, key_id, .. } => (user_id, key_id),
            _ => (caller.user_id(), 0),
        };
        let left = self
            .token_calls
            .take(key)
            .map_err(|wait| Code::TooManyRequests.because("Too many calls in this minute.").again_after(wait));
        (self.token_calls.most(), left)
    }

    async fn by_credential(&self, kind: CredentialKind, text: &str) -> Result<Option<Caller>> {
        if !is_key(text) {
            return Ok(None);
        }
        let lookup = self.master.lookup(text);
        let holder = if let Some(known) = self.by_key.get(&(kind, lookup)) {
            known
        } else {
            let (look, now) = (self.by_key.look(), self.clock.now());
            let found = self.db.read(move |c| store::by_credential(c, kind, &lookup, now)).await?;
            let holder = found.map(|(user, key_id, scopes)| {
                let caller = match kind {
                    CredentialKind::Api => Caller::of(&user),
                    CredentialKind::Upload => Caller::UploadKey { user_id: user.id, role: user.role, key_id },
                    CredentialKind::Token => Caller::Token { user_id: user.id, role: user.role, key_id, scopes },
                };
                Holder { caller, epoch: user.token_epoch, enabled: user.enabled }
            });
            self.by_key.remember(look, (kind, lookup), holder.clone());
            holder
        };
        holder.map(let_in).transpose()
    }

    /// Who this token was given to, unless it has expired or been revoked.
    pub async fn by_token(&self, text: &str) -> Result<Caller> {
        let claims = token::verify(&self.master, text, self.clock.now()).ok_or_else(unknown)?;
        let known = if let Some(known) = self.by_user.get(&claims.sub) {
            known
        } else {
            let look = self.by_user.look();
            let user = self.db.read(move |c| store::find(c, claims.sub)).await?;
            let known = user.map(|u| Holder { caller: Caller::of(&u), epoch: u.token_epoch, enabled: u.enabled });
            self.by_user.remember(look, claims.sub, known.clone());
            known
        };
        let holder = known.ok_or_else(unknown)?;
        let epoch = holder.epoch;
        let caller = let_in(holder)?;
        if epoch == claims.epoch { Ok(caller) } else { Err(unknown()) }
    }

    /// Who signs with this access id, and the texts of the API keys that may have been used.
    pub async fn signer(&self, access_id: &str) -> Result<Option<Signer>> {
        let asked = access_id.to_owned();
        if let Some(known) = self.by_access_id.get(&asked) {
            return Ok(known);
        }
        let (look, now) = (self.by_access_id.look(), self.clock.now());
        let found = self.db.read(move |c| store::signer(c, &asked, now)).await?;
        let signer = found.map(|(user, sealed)| Signer {
            caller: Caller::of(&user),
            api_keys: sealed.iter().filter_map(|s| self.master.open(s).ok()).collect(),
        });
        self.by_access_id.remember(look, access_id.to_owned(), signer.clone());
        Ok(signer)
    }

    /// The access id of a user, and the API key that signs for them now.
    pub async fn signing(&self, user: i64) -> Result<(String, String)> {
        let found = move |c: &rusqlite::Connection| {
            let user = store::find(c, user)?.ok_or_else(unknown)?;
            Ok((user.access_id, store::sealed(c, user.id, CredentialKind::Api)?))
        };
        let (access_id, sealed) = self.db.read(found).await?;
        let sealed =
            sealed.ok_or_else(|| Code::Forbidden.because("Signing links takes an API key; this user has none."))?;
        Ok((access_id, self.master.open(&sealed)?))
    }

    /// Checks an e-mail and a password, and a code where one is asked for, and gives a token
    /// for 24 hours.
    pub async fn login(&self, credentials: Credentials, from: Network) -> Result<Login> {
        let Credentials { email, password, otp } = credentials;
        self.attempts.password(&email, from)?;
        let asked = email.clone();
        let user = self.db.read(move |c| store::by_email(c, &asked)).await?;
        let right = self.is_password_of(user.as_ref(), password).await?;
        let user = user
            .filter(|u| right && u.enabled)
            .ok_or_else(|| Code::Unauthorized.because("This e-mail and password do not belong together."))?;
        self.attempts.right(&email, from);
        self.pass(&user, otp).await?;
        // One that does not open any more keeps nobody from logging in: it can be rotated.
        let id = user.id;
        let sealed = self.db.read(move |c| store::sealed(c, id, CredentialKind::Upload)).await?;
        let upload_key = sealed.and_then(|s| self.master.open(&s).ok());
        let token = token::issue(&self.master, user.id, user.token_epoch, self.clock.now(), TOKEN_LIFE)?;
        Ok(Login { user, token, upload_key })
    }

    /// Asks a user who is known already for the password.
    async fn prove(&self, user: i64, password: String, from: Network) -> Result<User> {
        let user = self.db.read(move |c| store::find(c, user)?.ok_or_else(user_not_found)).await?;
        self.attempts.password(&user.email, from)?;
        if !self.is_password_of(Some(&user), password).await? {
            return Err(Code::Forbidden.because("This is not the present password."));
        }
        self.attempts.right(&user.email, from);
        Ok(user)
    }

    /// An unknown e-mail costs the same work as a wrong password, so time tells nothing.
    async fn is_password_of(&self, user: Option<&User>, password: String) -> Result<bool> {
        let hash = user.and_then(|user| user.password_hash.clone());
        let _turn = self.hashing().await?;
        self.cpu.run(move || Ok(password::verify(&password, hash.as_deref()))).await
    }

    async fn hashing(&self) -> Result<SemaphorePermit<'_>> {
        self.hashing.acquire().await.map_err(|e| Code::Busy.from("hashing a password", e))
    }

    /// Makes the first administrator when there is no user yet.
    pub async fn introduce(&self, given: FirstAdministrator) -> Result<Option<Introduced>> {
        if self.db.read(|c| Ok(store::count(c)? > 0)).await? {
            return Ok(None);
        }
        let email = given.email.unwrap_or_else(|| "admin@cloakroom.local".to_owned());
        let made_up = if given.password.is_none() { Some(id::hex(&id::random::<8>()?)) } else { None };
        let password = given.password.or_else(|| made_up.clone()).unwrap_or_default();
        let keys = Keys {
            api_key: key_or_random(given.api_key, "CLOAKROOM_ADMIN_API_KEY")?,
            upload_key: key_or_random(given.upload_key, "CLOAKROOM_ADMIN_UPLOAD_KEY")?,
        };
        self.create(email.clone(), password, Role::Admin, Some(keys.clone())).await?;
        Ok(Some(Introduced { email, password: made_up, keys }))
    }

    /// The same, inside a transaction or a read.
    pub fn email_within(c: &rusqlite::Connection, user: i64) -> Result<Option<String>> {
        Ok(store::find(c, user)?.map(|user| user.email))
    }

    /// What a user is called when it is said who did something.
    pub async fn email(&self, user: i64) -> Result<String> {
        let found = self.db.read(move |c| store::find(c, user)).await?;
        Ok(found.map_or_else(|| format!("user {user}"), |user| user.email))
    }

    /// The present keys of a user, opened.
    pub async fn keys(&self, email: String) -> Result<Keys> {
        let sealed = move |c: &rusqlite::Connection| {
            let user = known(c, &email)?;
            Ok((store::sealed(c, user.id, CredentialKind::Api)?, store::sealed(c, user.id, CredentialKind::Upload)?))
        };
        let (api, upload) = self.db.read(sealed).await?;
        let open =
            |sealed: Option<Vec<u8>>| sealed.map(|s| self.master.open(&s)).transpose().map(Option::unwrap_or_default);
        Ok(Keys { api_key: open(api)?, upload_key: open(upload)? })
    }

    /// Seals a secret of the settings.
    pub fn seal(&self, text: &str) -> Result<Vec<u8>> {
        self.master.seal(text)
    }

    /// Opens what [`Accounts::seal`] sealed.
    pub fn unseal(&self, sealed: &[u8]) -> Result<String> {
        self.master.open(sealed)
    }

    /// This write changes who is let in: it holds at once.
    fn changes(&self, tx: &Tx) {
        self.by_key.changes_all(tx);
        self.by_user.changes_all(tx);
        self.by_access_id.changes_all(tx);
    }
}

impl Keys {
    fn random() -> Result<Keys> {
        Ok(Keys { api_key: id::hex(&id::random::<16>()?), upload_key: id::hex(&id::random::<16>()?) })
    }
}

/// Whoever is disabled is known all the same, and told so.
fn let_in(holder: Holder) -> Result<Caller> {
    if holder.enabled { Ok(holder.caller) } else { Err(Code::Forbidden.because("This user is disabled.")) }
}

fn user_not_found() -> crate::error::Error {
    Code::UserNotFound.because("No user has this id.")
}

fn known(c: &rusqlite::Connection, email: &str) -> Result<User> {
    store::by_email(c, email)?.ok_or_else(|| Code::NotFound.because(format!("there is no user `{email}`")))
}

fn give(tx: &Tx, master: &MasterKey, user: i64, kind: CredentialKind, text: &str) -> Result<()> {
    store::insert_credential(tx, user, kind, &master.lookup(text), &master.seal(text)?)
}

fn key_or_random(given: Option<String>, variable: &str) -> Result<String> {
    match given {
        Some(text) if is_key(&text) => Ok(text),
        Some(_) => Err(Code::InvalidRequest.because(format!("{variable} has to be 32 to 64 letters and digits"))),
        None => Ok(id::hex(&id::random::<16>()?)),
    }
}

/// 32 letters and digits of base32, as the contract's are.
fn random_access_id() -> Result<String> {
    const ALPHABET: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
    let random: [u8; 32] = id::random()?;
    Ok(random.iter().filter_map(|byte| ALPHABET.get(usize::from(byte & 31))).map(|&c| char::from(c)).collect())
}

/// Ours are 32 hex digits; a key that was moved over from elsewhere may be a little longer.
fn is_key(text: &str) -> bool {
    (32..=64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
}

fn unknown() -> crate::error::Error {
    Code::Unauthorized.because("Send a valid X-FileSpin-Api-Key header or Authorization: Bearer token.")
}
