//! Who may do what: users, their keys, their tokens.
//!
//! In: an API key, a token, or an e-mail and a password. Out: a [`Caller`], or
//! [`Code::Unauthorized`] in the same words and the same time whether the user exists or not.
//!
//! Keys are found by a keyed hash and kept sealed, because the contract signs links with the
//! text of an API key. Answers are remembered for a few seconds: a key that was withdrawn by
//! another process (the command line) stops working within `REMEMBERED`.

pub mod model;
mod password;
mod seal;
mod store;
mod token;

use std::sync::Arc;
use std::time::Duration;

pub use model::Caller;
pub use model::Permission;
pub use model::Role;
pub use model::User;
pub use seal::MasterKey;

use crate::accounts::model::CredentialKind;
use crate::accounts::model::NewUser;
use crate::error::Code;
use crate::error::Result;
use crate::infra::db::Db;
use crate::infra::db::Tx;
use crate::support::clock::Clock;
use crate::support::cpu::Cpu;
use crate::support::id;

/// How long an answer about a key or a user is believed.
const REMEMBERED: Duration = Duration::from_secs(5);

/// How long a token is good for; the contract says 24 hours, without refresh.
const TOKEN_LIFE: Duration = Duration::from_hours(24);

/// Knows users and their credentials; cheap to clone.
#[derive(Clone)]
pub struct Accounts {
    db: Db,
    clock: Clock,
    cpu: Cpu,
    master: Arc<MasterKey>,
    by_key: moka::sync::Cache<[u8; 32], Option<Caller>>,
    by_user: moka::sync::Cache<i64, Option<(Caller, i64)>>,
    by_access_id: moka::sync::Cache<String, Option<Signer>>,
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
    pub fn new(db: Db, clock: Clock, cpu: Cpu, master: MasterKey) -> Accounts {
        Accounts {
            db,
            clock,
            cpu,
            master: Arc::new(master),
            by_key: moka::sync::Cache::builder().max_capacity(1024).time_to_live(REMEMBERED).build(),
            by_user: moka::sync::Cache::builder().max_capacity(1024).time_to_live(REMEMBERED).build(),
            by_access_id: moka::sync::Cache::builder().max_capacity(1024).time_to_live(REMEMBERED).build(),
        }
    }

    /// Who holds this API key.
    pub async fn by_api_key(&self, text: &str) -> Result<Caller> {
        if !is_key(text) {
            return Err(unknown());
        }
        let lookup = self.master.lookup(text);
        let caller = if let Some(known) = self.by_key.get(&lookup) {
            known
        } else {
            let now = self.clock.now();
            let found = self.db.read(move |c| store::by_credential(c, CredentialKind::Api, &lookup, now)).await?;
            let caller = found.map(|user| Caller::of(&user));
            self.by_key.insert(lookup, caller.clone());
            caller
        };
        caller.ok_or_else(unknown)
    }

    /// Who this token was given to, unless it has expired or been revoked.
    pub async fn by_token(&self, text: &str) -> Result<Caller> {
        let claims = token::verify(&self.master, text, self.clock.now()).ok_or_else(unknown)?;
        let known = if let Some(known) = self.by_user.get(&claims.sub) {
            known
        } else {
            let user = self.db.read(move |c| store::find(c, claims.sub)).await?;
            let known = user.filter(|u| u.enabled).map(|u| (Caller::of(&u), u.token_epoch));
            self.by_user.insert(claims.sub, known.clone());
            known
        };
        known.filter(|(_, epoch)| *epoch == claims.epoch).map(|(caller, _)| caller).ok_or_else(unknown)
    }

    /// Who signs with this access id, and the texts of the API keys that may have been used.
    pub async fn signer(&self, access_id: &str) -> Result<Option<Signer>> {
        if let Some(known) = self.by_access_id.get(access_id) {
            return Ok(known);
        }
        let (asked, now) = (access_id.to_owned(), self.clock.now());
        let found = self.db.read(move |c| store::signer(c, &asked, now)).await?;
        let signer = found.map(|(user, sealed)| Signer {
            caller: Caller::of(&user),
            api_keys: sealed.iter().filter_map(|s| self.master.open(s).ok()).collect(),
        });
        self.by_access_id.insert(access_id.to_owned(), signer.clone());
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

    /// Checks an e-mail and a password and gives a token for 24 hours.
    pub async fn login(&self, email: String, password: String) -> Result<Login> {
        let (user, sealed) = self
            .db
            .read(move |c| {
                let user = store::by_email(c, &email)?;
                let sealed = match &user {
                    Some(user) => store::sealed(c, user.id, CredentialKind::Upload)?,
                    None => None,
                };
                Ok((user, sealed))
            })
            .await?;
        // An unknown e-mail costs the same work as a wrong password, so time tells nothing.
        let hash = user.as_ref().map(|u| u.password_hash.clone());
        let right = self.cpu.run(move || Ok(password::verify(&password, hash.as_deref()))).await?;
        let user = user
            .filter(|u| right && u.enabled)
            .ok_or_else(|| Code::Unauthorized.because("This e-mail and password do not belong together."))?;
        // One that does not open any more keeps nobody from logging in: it can be rotated.
        let upload_key = sealed.and_then(|s| self.master.open(&s).ok());
        let token = token::issue(&self.master, user.id, user.token_epoch, self.clock.now(), TOKEN_LIFE)?;
        Ok(Login { user, token, upload_key })
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

    /// Makes a user with an API key and an upload key.
    pub async fn create(
        &self,
        email: String,
        password: String,
        role: Role,
        keys: Option<Keys>,
    ) -> Result<(User, Keys)> {
        if !email.contains('@') || email.len() > 254 || email.chars().any(char::is_whitespace) {
            return Err(Code::InvalidRequest.because(format!("`{email}` is not an e-mail address")));
        }
        if password.len() < 8 {
            return Err(Code::InvalidRequest.because("a password has at least 8 characters"));
        }
        let keys = match keys {
            Some(keys) => keys,
            None => Keys { api_key: key_or_random(None, "")?, upload_key: key_or_random(None, "")? },
        };
        let access_id = random_access_id()?;
        let hash = self.cpu.run(move || password::hash(&password)).await?;
        let master = Arc::clone(&self.master);
        let user = self
            .db
            .write(move |tx| {
                if store::by_email(tx, &email)?.is_some() {
                    return Err(Code::Conflict.because(format!("there is a user `{email}` already")));
                }
                let id =
                    store::insert(tx, &NewUser { email: &email, access_id: &access_id, role, password_hash: &hash })?;
                give(tx, &master, id, CredentialKind::Api, &keys.api_key)?;
                give(tx, &master, id, CredentialKind::Upload, &keys.upload_key)?;
                let user = store::find(tx, id)?.ok_or(Code::Internal)?;
                Ok((user, keys))
            })
            .await?;
        Ok(user)
    }

    /// Every user, oldest first.
    pub async fn users(&self) -> Result<Vec<User>> {
        self.db.read(store::all).await
    }

    /// What a user is called when it is said who did something.
    pub async fn email(&self, user: i64) -> Result<String> {
        let found = self.db.read(move |c| store::find(c, user)).await?;
        Ok(found.map_or_else(|| format!("user {user}"), |user| user.email))
    }

    /// Sets a new password and revokes the tokens given so far.
    pub async fn set_password(&self, email: String, password: String) -> Result<()> {
        if password.len() < 8 {
            return Err(Code::InvalidRequest.because("a password has at least 8 characters"));
        }
        let hash = self.cpu.run(move || password::hash(&password)).await?;
        self.db.write(move |tx| store::set_password(tx, known(tx, &email)?.id, &hash)).await
    }

    /// Lets a user in, or keeps a user out, keys and tokens included.
    pub async fn set_enabled(&self, email: String, enabled: bool) -> Result<()> {
        self.db.write(move |tx| store::set_enabled(tx, known(tx, &email)?.id, enabled)).await?;
        self.forget();
        Ok(())
    }

    /// Gives a user a new API key. The old one works for `grace` longer.
    pub async fn rotate_api_key(&self, email: String, grace: Duration) -> Result<String> {
        let text = key_or_random(None, "")?;
        let master = Arc::clone(&self.master);
        let given = text.clone();
        self.db
            .write(move |tx| {
                let user = known(tx, &email)?;
                store::expire(tx, user.id, CredentialKind::Api, tx.now().plus(grace))?;
                give(tx, &master, user.id, CredentialKind::Api, &given)
            })
            .await?;
        self.forget();
        Ok(text)
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

    fn forget(&self) {
        self.by_key.invalidate_all();
        self.by_user.invalidate_all();
        self.by_access_id.invalidate_all();
    }
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
