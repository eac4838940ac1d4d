//! The second factor of password logins: enrol, confirm, ask, disable.
//!
//! It counts from the first right code on: whoever fails to set up their app is not locked
//! out. A code is right once, whatever the clock does; the step it belonged to is written in
//! the transaction that accepts it. Ten recovery codes stand in for a lost device.
//!
//! API keys are not asked for a code: a program has no pocket to keep a phone in.

use std::sync::Arc;

use crate::accounts::Accounts;
use crate::accounts::model::User;
use crate::accounts::seal::MasterKey;
use crate::accounts::store;
use crate::accounts::totp;
use crate::error::Code;
use crate::error::Error;
use crate::error::Result;
use crate::infra::db::Tx;
use crate::support::id;
use crate::support::rate::Network;

/// What stands above the code in the app.
const ISSUER: &str = "Cloakroom";

const RECOVERY_CODES: usize = 10;

/// What an authenticator app needs, shown once.
pub struct Enrolment {
    pub secret: String,
    pub uri: String,
}

/// Whether an account asks for codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SecondFactorState {
    pub enabled: bool,
    pub recovery_codes_left: u32,
}

impl Accounts {
    /// How it stands with the second factor of a user.
    pub async fn second_factor(&self, user: i64) -> Result<SecondFactorState> {
        let state = move |c: &rusqlite::Connection| {
            let enabled = store::second_factor(c, user)?.is_some_and(|factor| factor.confirmed);
            let recovery_codes_left = if enabled { store::recovery_codes_left(c, user)? } else { 0 };
            Ok(SecondFactorState { enabled, recovery_codes_left })
        };
        self.db.read(move |c| state(c)).await
    }

    /// Makes a secret. It is not asked for before it was confirmed.
    pub async fn enrol(&self, user: i64, password: String, from: Network) -> Result<Enrolment> {
        let user = self.prove(user, password, from).await?;
        let secret = totp::secret()?;
        let sealed = self.master.seal(&secret)?;
        self.db
            .write(move |tx| {
                if store::second_factor(tx, user.id)?.is_some_and(|factor| factor.confirmed) {
                    return Err(Code::Conflict.because("There is a second factor already: disable it first."));
                }
                store::put_second_factor(tx, user.id, &sealed)
            })
            .await?;
        Ok(Enrolment { uri: totp::uri(ISSUER, &user.email, &secret), secret })
    }

    /// Puts it in force with a first right code. The recovery codes are shown once.
    pub async fn confirm(&self, user: i64, code: String) -> Result<Vec<String>> {
        let codes = (0..RECOVERY_CODES).map(|_| recovery_code()).collect::<Result<Vec<_>>>()?;
        let lookups: Vec<[u8; 32]> = codes.iter().map(|code| lookup(&self.master, user, code)).collect();
        let master = Arc::clone(&self.master);
        self.attempts.code(user)?;
        self.db
            .write(move |tx| {
                let factor = store::second_factor(tx, user)?.ok_or_else(not_enrolled)?;
                if factor.confirmed {
                    return Err(Code::Conflict.because("The second factor is in force already."));
                }
                let step = totp::verify(&master.open(&factor.sealed)?, &tidied(&code), tx.now(), factor.last_step)
                    .ok_or_else(|| {
                        Code::InvalidRequest.because("otp: this code is not valid now; check the device's clock")
                    })?;
                store::step_second_factor(tx, user, step)?;
                store::put_recovery_codes(tx, user, &lookups)
            })
            .await?;
        self.attempts.right_code(user);
        Ok(codes)
    }

    /// Ends it, for somebody who has both factors.
    pub async fn disable_second_factor(&self, user: i64, password: String, code: String, from: Network) -> Result<()> {
        let user = self.prove(user, password, from).await?;
        let there = self.db.read(move |c| store::second_factor(c, user.id)).await?.ok_or_else(not_enrolled)?;
        if there.confirmed {
            self.pass(&user, Some(code)).await?;
        }
        self.db.write(move |tx| store::drop_second_factor(tx, user.id).map(drop)).await
    }

    /// Ends it for somebody who lost everything: the command line's and an administrator's.
    pub async fn reset_second_factor(&self, user: i64) -> Result<()> {
        let gone = self.db.write(move |tx| store::drop_second_factor(tx, user)).await?;
        if gone { Ok(()) } else { Err(not_enrolled()) }
    }

    /// Asks for the code of an account that has a second factor.
    pub(super) async fn pass(&self, user: &User, code: Option<String>) -> Result<()> {
        let id = user.id;
        let asks = self.db.read(move |c| store::second_factor(c, id)).await?.is_some_and(|factor| factor.confirmed);
        if !asks {
            return Ok(());
        }
        let Some(code) = code.filter(|code| !code.is_empty()) else {
            return Err(Code::SecondFactorRequired.because("Send the code of your authenticator app as `otp`."));
        };
        self.attempts.code(id)?;
        let master = Arc::clone(&self.master);
        self.db.write(move |tx| spend(tx, &master, id, &code)).await?;
        self.attempts.right_code(id);
        Ok(())
    }
}

fn spend(tx: &Tx, master: &MasterKey, user: i64, code: &str) -> Result<()> {
    let wrong = || Code::Unauthorized.because("This code is not right, or was used already.");
    let factor = store::second_factor(tx, user)?.ok_or_else(wrong)?;
    let code = tidied(code);
    if let Some(step) = totp::verify(&master.open(&factor.sealed)?, &code, tx.now(), factor.last_step) {
        return store::step_second_factor(tx, user, step);
    }
    if store::use_recovery_code(tx, user, &lookup(master, user, &code))? { Ok(()) } else { Err(wrong()) }
}

/// Fifty bits, in two groups.
fn recovery_code() -> Result<String> {
    let text = totp::base32(&id::random::<7>()?);
    let (first, second) = (text.chars().take(5), text.chars().skip(5).take(5));
    Ok(first.chain(['-']).chain(second).collect())
}

/// As people type it: with spaces, dashes and small letters.
fn tidied(code: &str) -> String {
    code.chars().filter(char::is_ascii_alphanumeric).take(64).map(|c| c.to_ascii_uppercase()).collect()
}

fn lookup(master: &MasterKey, user: i64, code: &str) -> [u8; 32] {
    master.lookup(&format!("recovery {user} {}", tidied(code)))
}

fn not_enrolled() -> Error {
    Code::NotFound.because("This account has no second factor.")
}
