//! The tables `user` and `credential`.

use rusqlite::Connection;
use rusqlite::OptionalExtension;
use rusqlite::Row;
use rusqlite::params;

use crate::accounts::model::CredentialKind;
use crate::accounts::model::NewUser;
use crate::accounts::model::Role;
use crate::accounts::model::User;
use crate::error::Result;
use crate::infra::db::Tx;
use crate::support::clock::Instant;

const COLUMNS: &str =
    "user.id, email, access_id, first_name, last_name, role, password_hash, enabled, token_epoch, user.created_at";

pub fn count(c: &Connection) -> Result<i64> {
    Ok(c.query_row("SELECT count(*) FROM user", [], |r| r.get(0))?)
}

pub fn insert(tx: &Tx, user: &NewUser<'_>) -> Result<i64> {
    tx.prepare_cached(
        "INSERT INTO user (email, access_id, role, password_hash, created_at) VALUES (?1, ?2, ?3, ?4, ?5)",
    )?
    .execute(params![user.email, user.access_id, user.role as i64, user.password_hash, tx.now()])?;
    Ok(tx.last_insert_rowid())
}

pub fn find(c: &Connection, id: i64) -> Result<Option<User>> {
    Ok(c.prepare_cached(&format!("SELECT {COLUMNS} FROM user WHERE id = ?1"))?.query_row([id], read).optional()?)
}

pub fn by_email(c: &Connection, email: &str) -> Result<Option<User>> {
    Ok(c.prepare_cached(&format!("SELECT {COLUMNS} FROM user WHERE email = ?1"))?
        .query_row([email], read)
        .optional()?)
}

pub fn all(c: &Connection) -> Result<Vec<User>> {
    let mut rows = c.prepare_cached(&format!("SELECT {COLUMNS} FROM user ORDER BY id"))?;
    let users = rows.query_map([], read)?.collect::<rusqlite::Result<_>>()?;
    Ok(users)
}

/// The enabled user who holds this key now.
pub fn by_credential(c: &Connection, kind: CredentialKind, lookup: &[u8; 32], now: Instant) -> Result<Option<User>> {
    let mut found = c.prepare_cached(&format!(
        "SELECT {COLUMNS} FROM credential JOIN user ON user.id = credential.user_id \
         WHERE lookup = ?1 AND kind = ?2 AND enabled = 1 AND (expires_at IS NULL OR expires_at > ?3)"
    ))?;
    Ok(found.query_row(params![lookup, kind.word(), now], read).optional()?)
}

/// The enabled user whose access id this is, and every API key that is good now, sealed.
pub fn signer(c: &Connection, access_id: &str, now: Instant) -> Result<Option<(User, Vec<Vec<u8>>)>> {
    let found = c
        .prepare_cached(&format!("SELECT {COLUMNS} FROM user WHERE access_id = ?1 AND enabled = 1"))?
        .query_row([access_id], read)
        .optional()?;
    let Some(user) = found else { return Ok(None) };
    let mut rows = c.prepare_cached(
        "SELECT sealed FROM credential WHERE user_id = ?1 AND kind = 'api' AND (expires_at IS NULL OR expires_at > ?2)",
    )?;
    let sealed = rows.query_map(params![user.id, now], |r| r.get(0))?.collect::<rusqlite::Result<_>>()?;
    Ok(Some((user, sealed)))
}

/// The sealed text of a user's newest key of this kind.
pub fn sealed(c: &Connection, user: i64, kind: CredentialKind) -> Result<Option<Vec<u8>>> {
    let mut found = c.prepare_cached(
        "SELECT sealed FROM credential WHERE user_id = ?1 AND kind = ?2 AND expires_at IS NULL ORDER BY id DESC LIMIT 1",
    )?;
    Ok(found.query_row(params![user, kind.word()], |r| r.get(0)).optional()?)
}

pub fn insert_credential(tx: &Tx, user: i64, kind: CredentialKind, lookup: &[u8; 32], sealed: &[u8]) -> Result<()> {
    tx.prepare_cached(
        "INSERT INTO credential (user_id, kind, lookup, sealed, created_at) VALUES (?1, ?2, ?3, ?4, ?5)",
    )?
    .execute(params![user, kind.word(), lookup, sealed, tx.now()])?;
    Ok(())
}

/// Lets the present keys of this kind run out at `at`.
pub fn expire(tx: &Tx, user: i64, kind: CredentialKind, at: Instant) -> Result<()> {
    tx.prepare_cached("UPDATE credential SET expires_at = ?3 WHERE user_id = ?1 AND kind = ?2 AND expires_at IS NULL")?
        .execute(params![user, kind.word(), at])?;
    Ok(())
}

pub fn set_password(tx: &Tx, user: i64, hash: &str) -> Result<()> {
    tx.execute("UPDATE user SET password_hash = ?2, token_epoch = token_epoch + 1 WHERE id = ?1", params![user, hash])?;
    Ok(())
}

pub fn set_enabled(tx: &Tx, user: i64, enabled: bool) -> Result<()> {
    tx.execute("UPDATE user SET enabled = ?2, token_epoch = token_epoch + 1 WHERE id = ?1", params![user, enabled])?;
    Ok(())
}

fn read(r: &Row<'_>) -> rusqlite::Result<User> {
    Ok(User {
        id: r.get(0)?,
        email: r.get(1)?,
        access_id: r.get(2)?,
        first_name: r.get(3)?,
        last_name: r.get(4)?,
        role: Role::from_number(r.get(5)?).unwrap_or(Role::User),
        password_hash: r.get(6)?,
        enabled: r.get(7)?,
        token_epoch: r.get(8)?,
        created_at: r.get(9)?,
    })
}
