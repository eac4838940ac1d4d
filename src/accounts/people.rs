//! Users as administrators and they themselves see them: made, invited, found, changed, gone.
//!
//! Invariant: there is always an administrator who can log in. Every change that could end
//! this is weighed inside its transaction, after it was made and before it is kept.
//!
//! An invitation is a link that is shown once, works once and ends by itself. Until it is
//! accepted a user has neither password nor keys. A change of role or of password, and
//! disabling, end the tokens given so far.

use std::sync::Arc;
use std::time::Duration;

use crate::accounts::Accounts;
use crate::accounts::Keys;
use crate::accounts::give;
use crate::accounts::known;
use crate::accounts::model::Change;
use crate::accounts::model::CredentialKind;
use crate::accounts::model::Filter;
use crate::accounts::model::Introduction;
use crate::accounts::model::Invitation;
use crate::accounts::model::NewUser;
use crate::accounts::model::Person;
use crate::accounts::model::Role;
use crate::accounts::model::User;
use crate::accounts::password;
use crate::accounts::random_access_id;
use crate::accounts::store;
use crate::accounts::user_not_found;
use crate::error::Code;
use crate::error::Result;
use crate::infra::db::Tx;
use crate::support::id;
use crate::support::page::Page;
use crate::support::rate::Network;

const SHORTEST_PASSWORD: usize = 8;
const LONGEST_PASSWORD: usize = 1024;
const LONGEST_NAME: usize = 200;

impl Accounts {
    /// Makes a user with a password, an API key and an upload key.
    pub async fn create(
        &self,
        email: String,
        password: String,
        role: Role,
        keys: Option<Keys>,
    ) -> Result<(User, Keys)> {
        let said = Introduction {
            email,
            first_name: String::new(),
            last_name: String::new(),
            locale: "en".to_owned(),
            role,
            enabled: true,
            password: Some(password),
        };
        let keys = match keys {
            Some(keys) => keys,
            None => Keys::random()?,
        };
        let user = self.add(said, Some(keys.clone())).await?.0;
        Ok((user, keys))
    }

    /// Makes a user; without a password they are invited.
    pub async fn introduce_person(&self, said: Introduction) -> Result<(Person, Option<Invitation>)> {
        let keys = if said.password.is_some() { Some(Keys::random()?) } else { None };
        let (user, invitation) = self.add(said, keys.clone()).await?;
        let (api_key, upload_key) = keys.map(|keys| (keys.api_key, keys.upload_key)).unzip();
        Ok((Person { user, api_key, upload_key }, invitation))
    }

    async fn add(&self, said: Introduction, keys: Option<Keys>) -> Result<(User, Option<Invitation>)> {
        check_email(&said.email)?;
        for (what, text) in [("first_name", &said.first_name), ("last_name", &said.last_name)] {
            check_name(what, text)?;
        }
        check_locale(&said.locale)?;
        let access_id = random_access_id()?;
        let (hash, invitation) = match &said.password {
            Some(password) => (Some(self.hashed(password.clone()).await?), None),
            None => (None, Some(self.new_invitation()?)),
        };
        let (master, invited) = (Arc::clone(&self.master), invitation.clone());
        let user = self
            .db
            .write(move |tx| {
                unused(tx, &said.email)?;
                let new = NewUser {
                    email: &said.email,
                    access_id: &access_id,
                    first_name: &said.first_name,
                    last_name: &said.last_name,
                    locale: &said.locale,
                    role: said.role,
                    enabled: said.enabled,
                    password_hash: hash.as_deref(),
                };
                let id = store::insert(tx, &new)?;
                if let Some(keys) = keys {
                    give(tx, &master, id, CredentialKind::Api, &keys.api_key)?;
                    give(tx, &master, id, CredentialKind::Upload, &keys.upload_key)?;
                }
                if let Some(invited) = invited {
                    store::invite(tx, id, &master.lookup(&invited.token), invited.expires_at)?;
                }
                store::find(tx, id)?.ok_or_else(|| Code::Internal.into())
            })
            .await?;
        Ok((user, invitation))
    }

    /// A new link for somebody who has not accepted yet; the old one ends.
    pub async fn invite_again(&self, user: i64) -> Result<Invitation> {
        let invitation = self.new_invitation()?;
        let (master, given) = (Arc::clone(&self.master), invitation.clone());
        self.db
            .write(move |tx| {
                let user = store::find(tx, user)?.ok_or_else(user_not_found)?;
                if user.password_hash.is_some() {
                    return Err(Code::Conflict.because("This user has accepted an invitation already."));
                }
                store::invite(tx, user.id, &master.lookup(&given.token), given.expires_at)
            })
            .await?;
        Ok(invitation)
    }

    /// Whose invitation this is.
    pub async fn invited(&self, token: &str) -> Result<User> {
        let (lookup, now) = (self.master.lookup(token), self.clock.now());
        self.db.read(move |c| store::invited(c, &lookup, now)).await?.ok_or_else(no_invitation)
    }

    /// Becomes a user by an invitation: it works once.
    pub async fn accept(&self, token: String, password: String, mut change: Change) -> Result<Person> {
        change.role = None;
        change.enabled = None;
        change.email = None;
        check(&change)?;
        // Looked at before, so that hashing is not for everybody, and once more when it counts.
        self.invited(&token).await?;
        let hash = self.hashed(password).await?;
        let keys = Keys::random()?;
        let (given, master) = (keys.clone(), Arc::clone(&self.master));
        let user = self
            .db
            .write(move |tx| {
                let mut user = store::invited(tx, &master.lookup(&token), tx.now())?.ok_or_else(no_invitation)?;
                apply(&mut user, change);
                store::update(tx, &user)?;
                store::set_password(tx, user.id, &hash)?;
                give(tx, &master, user.id, CredentialKind::Api, &given.api_key)?;
                give(tx, &master, user.id, CredentialKind::Upload, &given.upload_key)?;
                store::find(tx, user.id)?.ok_or_else(|| Code::Internal.into())
            })
            .await?;
        Ok(Person { user, api_key: Some(keys.api_key), upload_key: Some(keys.upload_key) })
    }

    /// Every user, oldest first.
    pub async fn users(&self) -> Result<Vec<User>> {
        self.db.read(store::all).await
    }

    /// A page of the users who fit, and how many fit.
    pub async fn people(&self, filter: Filter, page: Page) -> Result<(Vec<Person>, u64)> {
        let (sealed, total) = self
            .db
            .read(move |c| {
                let (users, total) = store::search(c, &filter, page)?;
                let sealed = users.into_iter().map(|user| with_keys(c, user)).collect::<Result<Vec<_>>>()?;
                Ok((sealed, total))
            })
            .await?;
        Ok((sealed.into_iter().map(|sealed| self.opened(sealed)).collect(), total))
    }

    /// One user and the present keys.
    pub async fn person(&self, user: i64) -> Result<Person> {
        let sealed = self.db.read(move |c| with_keys(c, store::find(c, user)?.ok_or_else(user_not_found)?)).await?;
        Ok(self.opened(sealed))
    }

    /// Who has this e-mail address.
    pub async fn by_email(&self, email: String) -> Result<User> {
        self.db.read(move |c| known(c, &email)).await
    }

    /// Changes what is said about a user.
    pub async fn change(&self, user: i64, change: Change) -> Result<Person> {
        self.change_with(user, change, None).await
    }

    /// The same and, if there is one, with another password, or neither.
    async fn change_with(&self, user: i64, change: Change, password_hash: Option<String>) -> Result<Person> {
        check(&change)?;
        let this = self.clone();
        self.db
            .write(move |tx| {
                let mut user = store::find(tx, user)?.ok_or_else(user_not_found)?;
                if let Some(email) = &change.email
                    && !email.eq_ignore_ascii_case(&user.email)
                {
                    unused(tx, email)?;
                }
                let before = (user.role, user.enabled);
                apply(&mut user, change);
                if before != (user.role, user.enabled) {
                    user.token_epoch += 1;
                }
                store::update(tx, &user)?;
                if let Some(hash) = password_hash {
                    store::set_password(tx, user.id, &hash)?;
                }
                somebody_in_charge(tx)?;
                this.changes(tx);
                Ok(())
            })
            .await?;
        self.person(user).await
    }

    /// Changes what people may change of themselves. An address or a password takes the present
    /// password; a new password ends the tokens given so far.
    pub async fn change_self(
        &self,
        user: i64,
        mut change: Change,
        old_password: Option<String>,
        new_password: Option<String>,
        from: Network,
    ) -> Result<Person> {
        change.role = None;
        change.enabled = None;
        if change.email.is_some() || new_password.is_some() {
            let old = old_password.ok_or_else(|| {
                Code::MissingParameter.because("old_password: a new password or address takes the present password")
            })?;
            self.prove(user, old, from).await?;
        }
        let hash = match new_password {
            Some(password) => Some(self.hashed(password).await?),
            None => None,
        };
        self.change_with(user, change, hash).await
    }

    /// Ends every token of a user.
    pub async fn log_out(&self, user: i64) -> Result<()> {
        let this = self.clone();
        self.db
            .write(move |tx| {
                store::revoke_tokens(tx, user)?;
                this.changes(tx);
                Ok(())
            })
            .await
    }

    /// Forgets a user, with all keys. What they handed in stays.
    pub async fn remove(&self, user: i64) -> Result<()> {
        let this = self.clone();
        self.db
            .write(move |tx| {
                store::find(tx, user)?.ok_or_else(user_not_found)?;
                store::delete(tx, user)?;
                somebody_in_charge(tx)?;
                this.changes(tx);
                Ok(())
            })
            .await
    }

    /// Sets a new password and ends the tokens given so far. An open invitation ends, too.
    pub async fn set_password(&self, email: String, password: String) -> Result<()> {
        let hash = self.hashed(password).await?;
        let this = self.clone();
        self.db
            .write(move |tx| {
                store::set_password(tx, known(tx, &email)?.id, &hash)?;
                this.changes(tx);
                Ok(())
            })
            .await
    }

    /// Lets a user in, or keeps a user out, keys and tokens included.
    pub async fn set_enabled(&self, email: String, enabled: bool) -> Result<()> {
        let user = self.by_email(email).await?;
        self.change(user.id, Change { enabled: Some(enabled), ..Change::default() }).await.map(drop)
    }

    fn new_invitation(&self) -> Result<Invitation> {
        let life = Duration::from_secs(self.config.invitation_seconds);
        Ok(Invitation { token: id::hex(&id::random::<16>()?), expires_at: self.clock.now().plus(life) })
    }

    async fn hashed(&self, password: String) -> Result<String> {
        if !(SHORTEST_PASSWORD..=LONGEST_PASSWORD).contains(&password.len()) {
            return Err(Code::InvalidRequest.because(format!(
                "a password has at least {SHORTEST_PASSWORD} characters, and at most {LONGEST_PASSWORD} bytes"
            )));
        }
        let _turn = self.hashing().await?;
        self.cpu.run(move || password::hash(&password)).await
    }

    /// A key that does not open any more is shown as none: it can be rotated.
    fn opened(&self, (user, api, upload): Sealed) -> Person {
        let open = |sealed: Option<Vec<u8>>| sealed.and_then(|sealed| self.master.open(&sealed).ok());
        Person { user, api_key: open(api), upload_key: open(upload) }
    }
}

/// A user and the present keys, sealed.
type Sealed = (User, Option<Vec<u8>>, Option<Vec<u8>>);

fn with_keys(c: &rusqlite::Connection, user: User) -> Result<Sealed> {
    let api = store::sealed(c, user.id, CredentialKind::Api)?;
    let upload = store::sealed(c, user.id, CredentialKind::Upload)?;
    Ok((user, api, upload))
}

fn apply(user: &mut User, change: Change) {
    fn put<T>(place: &mut T, new: Option<T>) {
        if let Some(new) = new {
            *place = new;
        }
    }
    put(&mut user.email, change.email);
    put(&mut user.first_name, change.first_name);
    put(&mut user.last_name, change.last_name);
    put(&mut user.locale, change.locale);
    put(&mut user.role, change.role);
    put(&mut user.enabled, change.enabled);
}

fn check(change: &Change) -> Result<()> {
    change.email.as_deref().map_or(Ok(()), check_email)?;
    change.first_name.as_deref().map_or(Ok(()), |text| check_name("first_name", text))?;
    change.last_name.as_deref().map_or(Ok(()), |text| check_name("last_name", text))?;
    change.locale.as_deref().map_or(Ok(()), check_locale)
}

fn check_email(email: &str) -> Result<()> {
    let bad = |c: char| c.is_whitespace() || c.is_control();
    let halves = email.rsplit_once('@');
    if halves.is_none_or(|(name, host)| name.is_empty() || host.is_empty()) || email.len() > 254 || email.contains(bad)
    {
        let shown: String = email.chars().take(254).collect();
        return Err(Code::InvalidRequest.because(format!("email: `{shown}` is not an e-mail address")));
    }
    Ok(())
}

fn check_name(what: &str, text: &str) -> Result<()> {
    if text.len() > LONGEST_NAME || text.contains(char::is_control) {
        return Err(Code::InvalidRequest.because(format!("{what}: at most {LONGEST_NAME} bytes on one line")));
    }
    Ok(())
}

fn check_locale(text: &str) -> Result<()> {
    let plain = |c: u8| c.is_ascii_alphanumeric() || c == b'-' || c == b'_';
    if !(2..=35).contains(&text.len()) || !text.bytes().all(plain) {
        return Err(Code::InvalidRequest.because("locale: a language tag such as `en` or `de-CH`"));
    }
    Ok(())
}

fn unused(tx: &Tx, email: &str) -> Result<()> {
    match store::by_email(tx, email)? {
        None => Ok(()),
        Some(_) => Err(Code::Conflict.because(format!("there is a user `{email}` already"))),
    }
}

/// Refuses the change that was just made when it leaves nobody who can administer the box.
fn somebody_in_charge(tx: &Tx) -> Result<()> {
    if store::administrators(tx)? > 0 {
        return Ok(());
    }
    Err(Code::Conflict.because("This is the last administrator who can log in: make another one first."))
}

fn no_invitation() -> crate::error::Error {
    Code::NotFound.because("This invitation is not known, was accepted already, or has expired. Ask for a new one.")
}
