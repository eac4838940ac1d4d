//! The tables `user`, `credential`, `handed_in`, `invitation`, `second_factor` and `recovery_code`.

use rusqlite::Connection;
use rusqlite::OptionalExtension;
use rusqlite::Row;
use rusqlite::named_params;
use rusqlite::params;

use crate::accounts::model::CredentialKind;
use crate::accounts::model::Filter;
use crate::accounts::model::NewUser;
use crate::accounts::model::Role;
use crate::accounts::model::Scopes;
use crate::accounts::model::User;
use crate::error::Result;
use crate::infra::db::Tx;
use crate::support::clock::Instant;
use crate::support::page::Page;

const COLUMNS: &str = "user.id, email, access_id, first_name, last_name, locale, role, password_hash, enabled, \
                       token_epoch, user.created_at";

/// A key that is good now, sealed.
pub struct Kept {
    pub id: i64,
    pub kind: CredentialKind,
    pub sealed: Vec<u8>,
    pub created_at: Instant,
    pub expires_at: Option<Instant>,
    pub label: Option<String>,
    pub scopes: Option<Scopes>,
}

/// A row of `second_factor`.
pub struct SecondFactor {
    pub sealed: Vec<u8>,
    pub confirmed: bool,
    pub last_step: i64,
}

pub fn count(c: &Connection) -> Result<i64> {
    Ok(c.query_row("SELECT count(*) FROM user", [], |r| r.get(0))?)
}

/// Administrators who can log in.
pub fn administrators(c: &Connection) -> Result<i64> {
    let mut count =
        c.prepare_cached("SELECT count(*) FROM user WHERE role = 1 AND enabled = 1 AND password_hash IS NOT NULL")?;
    Ok(count.query_row([], |r| r.get(0))?)
}

pub fn insert(tx: &Tx, user: &NewUser<'_>) -> Result<i64> {
    tx.prepare_cached(
        "INSERT INTO user (email, access_id, first_name, last_name, locale, role, password_hash, created_at, enabled) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
    )?
    .execute(params![
        user.email,
        user.access_id,
        user.first_name,
        user.last_name,
        user.locale,
        user.role as i64,
        user.password_hash,
        tx.now(),
        user.enabled
    ])?;
    Ok(tx.last_insert_rowid())
}

/// Everything that can be changed of a user, but the password.
pub fn update(tx: &Tx, user: &User) -> Result<()> {
    tx.prepare_cached(
        "UPDATE user SET email = ?2, first_name = ?3, last_name = ?4, locale = ?5, role = ?6, enabled = ?7, \
         token_epoch = ?8 WHERE id = ?1",
    )?
    .execute(params![
        user.id,
        user.email,
        user.first_name,
        user.last_name,
        user.locale,
        user.role as i64,
        user.enabled,
        user.token_epoch
    ])?;
    Ok(())
}

pub fn delete(tx: &Tx, user: i64) -> Result<()> {
    tx.execute("DELETE FROM user WHERE id = ?1", [user])?;
    Ok(())
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

/// A page of those who fit, oldest first, and how many fit.
pub fn search(c: &Connection, filter: &Filter, page: Page) -> Result<(Vec<User>, u64)> {
    const FITS: &str = "(:keyword IS NULL OR email LIKE :keyword ESCAPE '\\' OR first_name LIKE :keyword ESCAPE '\\' \
         OR last_name LIKE :keyword ESCAPE '\\' OR first_name || ' ' || last_name LIKE :keyword ESCAPE '\\') \
         AND (:email IS NULL OR email = :email) AND (:role IS NULL OR role = :role) \
         AND (:enabled IS NULL OR enabled = :enabled) \
         AND (:invited IS NULL OR (password_hash IS NULL) = :invited)";
    let keyword = filter.keyword.as_ref().map(|text| {
        let plain = text.replace('\\', "\\\\").replace('%', "\\%").replace('_', "\\_");
        format!("%{plain}%")
    });
    let role = filter.role.map(|role| role as i64);
    let mut rows =
        c.prepare_cached(&format!("SELECT {COLUMNS} FROM user WHERE {FITS} ORDER BY id LIMIT :limit OFFSET :offset"))?;
    let users = rows
        .query_map(
            named_params! {
                ":keyword": keyword, ":email": filter.email, ":role": role, ":enabled": filter.enabled,
                ":invited": filter.invited, ":limit": page.limit, ":offset": page.offset,
            },
            read,
        )?
        .collect::<rusqlite::Result<_>>()?;
    let total: i64 = c.prepare_cached(&format!("SELECT count(*) FROM user WHERE {FITS}"))?.query_row(
        named_params! {
            ":keyword": keyword, ":email": filter.email, ":role": role, ":enabled": filter.enabled,
            ":invited": filter.invited,
        },
        |r| r.get(0),
    )?;
    Ok((users, total.cast_unsigned()))
}

/// The user who holds this key now, the key's number and its scopes.
pub fn by_credential(
    c: &Connection,
    kind: CredentialKind,
    lookup: &[u8; 32],
    now: Instant,
) -> Result<Option<(User, i64, Scopes)>> {
    let mut found = c.prepare_cached(&format!(
        "SELECT {COLUMNS}, credential.id, ifnull(scopes, '') FROM credential JOIN user ON user.id = credential.user_id \
         WHERE lookup = ?1 AND kind = ?2 AND (expires_at IS NULL OR expires_at > ?3)"
    ))?;
    let read = |r: &Row<'_>| Ok((read(r)?, r.get(11)?, Scopes::parse(&r.get::<_, String>(12)?)));
    Ok(found.query_row(params![lookup, kind.word(), now], read).optional()?)
}

/// The enabled user whose access id this is, and every API key that is good now, sealed.
pub fn signer(c: &Connection, access_id: &str, now: Instant) -> Result<Option<(User, Vec<Vec<u8>>)>> {
    let found = c
        .prepare_cached(&format!("SELECT {COLUMNS} FROM user WHERE access_id = ?1 AND enabled = 1"))?
        .query_row([access_id], read)
        .optional()?;
    let Some(user) = found else { return Ok(None) };
    let keys = credentials(c, user.id, now)?.into_iter().filter(|key| key.kind == CredentialKind::Api);
    let sealed = keys.map(|key| key.sealed).collect();
    Ok(Some((user, sealed)))
}

/// The sealed text of a user's newest key of this kind.
pub fn sealed(c: &Connection, user: i64, kind: CredentialKind) -> Result<Option<Vec<u8>>> {
    let mut found = c.prepare_cached(
        "SELECT sealed FROM credential WHERE user_id = ?1 AND kind = ?2 AND expires_at IS NULL ORDER BY id DESC LIMIT 1",
    )?;
    Ok(found.query_row(params![user, kind.word()], |r| r.get(0)).optional()?)
}

/// A user's keys that are good now, oldest first.
pub fn credentials(c: &Connection, user: i64, now: Instant) -> Result<Vec<Kept>> {
    let mut rows = c.prepare_cached(
        "SELECT id, kind, sealed, created_at, expires_at, label, scopes FROM credential \
         WHERE user_id = ?1 AND (expires_at IS NULL OR expires_at > ?2) ORDER BY id",
    )?;
    let read = |r: &Row<'_>| {
        let kind: String = r.get(1)?;
        Ok(Kept {
            id: r.get(0)?,
            kind: CredentialKind::from_word(&kind).unwrap_or(CredentialKind::Upload),
            sealed: r.get(2)?,
            created_at: r.get(3)?,
            expires_at: r.get(4)?,
            label: r.get(5)?,
            scopes: r.get::<_, Option<String>>(6)?.map(|text| Scopes::parse(&text)),
        })
    };
    let keys = rows.query_map(params![user, now], read)?.collect::<rusqlite::Result<_>>()?;
    Ok(keys)
}

/// Whose key this is, of which kind, dead ones included: a text belongs to one key only.
pub fn owner(c: &Connection, lookup: &[u8; 32]) -> Result<Option<(i64, String)>> {
    let mut found = c.prepare_cached("SELECT user_id, kind FROM credential WHERE lookup = ?1")?;
    Ok(found.query_row([lookup], |r| Ok((r.get(0)?, r.get(1)?))).optional()?)
}

pub fn insert_credential(tx: &Tx, user: i64, kind: CredentialKind, lookup: &[u8; 32], sealed: &[u8]) -> Result<()> {
    tx.prepare_cached(
        "INSERT INTO credential (user_id, kind, lookup, sealed, created_at) VALUES (?1, ?2, ?3, ?4, ?5)",
    )?
    .execute(params![user, kind.word(), lookup, sealed, tx.now()])?;
    Ok(())
}

/// How many tokens a user has.
pub fn tokens(c: &Connection, user: i64) -> Result<u32> {
    let mut count = c.prepare_cached("SELECT count(*) FROM credential WHERE user_id = ?1 AND kind = 'token'")?;
    Ok(count.query_row([user], |r| r.get(0))?)
}

/// Gives a user a token; its number.
pub fn insert_token(tx: &Tx, user: i64, lookup: &[u8; 32], sealed: &[u8], label: &str, scopes: Scopes) -> Result<i64> {
    tx.prepare_cached(
        "INSERT INTO credential (user_id, kind, lookup, sealed, created_at, label, scopes) \
         VALUES (?1, 'token', ?2, ?3, ?4, ?5, ?6)",
    )?
    .execute(params![user, lookup, sealed, tx.now(), label, scopes.to_string()])?;
    Ok(tx.last_insert_rowid())
}

/// Lets the present keys of this kind run out at `at`, and forgets those that have.
pub fn expire(tx: &Tx, user: i64, kind: CredentialKind, at: Instant) -> Result<()> {
    tx.prepare_cached("DELETE FROM credential WHERE user_id = ?1 AND expires_at <= ?2")?
        .execute(params![user, tx.now()])?;
    // One that was to end later ends with the others: whoever rotates with no time left means all of them.
    tx.prepare_cached(
        "UPDATE credential SET expires_at = min(ifnull(expires_at, ?3), ?3) WHERE user_id = ?1 AND kind = ?2",
    )?
    .execute(params![user, kind.word(), at])?;
    Ok(())
}

/// Makes a key of before the present one again.
pub fn revive(tx: &Tx, lookup: &[u8; 32]) -> Result<()> {
    tx.prepare_cached("UPDATE credential SET expires_at = NULL WHERE lookup = ?1")?.execute([lookup])?;
    Ok(())
}

/// Whether there was such a key of this user.
pub fn revoke(tx: &Tx, user: i64, key: i64) -> Result<bool> {
    Ok(tx.execute("DELETE FROM credential WHERE id = ?1 AND user_id = ?2", [key, user])? > 0)
}

/// Forgets what came in by this key long ago.
pub fn forget_handed_in(tx: &Tx, key: i64, older_than: Instant) -> Result<()> {
    tx.prepare_cached("DELETE FROM handed_in WHERE credential_id = ?1 AND at < ?2")?
        .execute(params![key, older_than])?;
    Ok(())
}

/// Noted once, and only as long as there is such a key.
pub fn hand_in(tx: &Tx, asset: &str, key: i64) -> Result<()> {
    tx.prepare_cached(
        "INSERT OR IGNORE INTO handed_in (asset_id, credential_id, at) SELECT ?1, id, ?3 FROM credential WHERE id = ?2",
    )?
    .execute(params![asset, key, tx.now()])?;
    Ok(())
}

/// When this asset came in by this key.
pub fn handed_in(c: &Connection, asset: &str, key: i64) -> Result<Option<Instant>> {
    let mut found = c.prepare_cached("SELECT at FROM handed_in WHERE asset_id = ?1 AND credential_id = ?2")?;
    Ok(found.query_row(params![asset, key], |r| r.get(0)).optional()?)
}

/// Sets a password; tokens of before and an open invitation end.
pub fn set_password(tx: &Tx, user: i64, hash: &str) -> Result<()> {
    tx.execute("UPDATE user SET password_hash = ?2, token_epoch = token_epoch + 1 WHERE id = ?1", params![user, hash])?;
    tx.execute("DELETE FROM invitation WHERE user_id = ?1", [user])?;
    Ok(())
}

pub fn revoke_tokens(tx: &Tx, user: i64) -> Result<()> {
    tx.execute("UPDATE user SET token_epoch = token_epoch + 1 WHERE id = ?1", [user])?;
    Ok(())
}

/// An invitation; the one of before ends.
pub fn invite(tx: &Tx, user: i64, lookup: &[u8; 32], expires_at: Instant) -> Result<()> {
    tx.execute(
        "INSERT OR REPLACE INTO invitation (user_id, lookup, expires_at) VALUES (?1, ?2, ?3)",
        params![user, lookup, expires_at],
    )?;
    Ok(())
}

/// Who is invited by this token.
pub fn invited(c: &Connection, lookup: &[u8; 32], now: Instant) -> Result<Option<User>> {
    let mut found = c.prepare_cached(&format!(
        "SELECT {COLUMNS} FROM invitation JOIN user ON user.id = invitation.user_id \
         WHERE lookup = ?1 AND expires_at > ?2 AND enabled = 1 AND password_hash IS NULL"
    ))?;
    Ok(found.query_row(params![lookup, now], read).optional()?)
}

pub fn second_factor(c: &Connection, user: i64) -> Result<Option<SecondFactor>> {
    let mut found =
        c.prepare_cached("SELECT sealed, confirmed_at IS NOT NULL, last_step FROM second_factor WHERE user_id = ?1")?;
    let read = |r: &Row<'_>| Ok(SecondFactor { sealed: r.get(0)?, confirmed: r.get(1)?, last_step: r.get(2)? });
    Ok(found.query_row([user], read).optional()?)
}

pub fn put_second_factor(tx: &Tx, user: i64, sealed: &[u8]) -> Result<()> {
    tx.execute("INSERT OR REPLACE INTO second_factor (user_id, sealed) VALUES (?1, ?2)", params![user, sealed])?;
    Ok(())
}

/// A code of this step was right.
pub fn step_second_factor(tx: &Tx, user: i64, step: i64) -> Result<()> {
    tx.execute(
        "UPDATE second_factor SET last_step = ?2, confirmed_at = ifnull(confirmed_at, ?3) WHERE user_id = ?1",
        params![user, step, tx.now()],
    )?;
    Ok(())
}

pub fn put_recovery_codes(tx: &Tx, user: i64, lookups: &[[u8; 32]]) -> Result<()> {
    tx.execute("DELETE FROM recovery_code WHERE user_id = ?1", [user])?;
    for lookup in lookups {
        tx.prepare_cached("INSERT INTO recovery_code (user_id, lookup) VALUES (?1, ?2)")?
            .execute(params![user, lookup])?;
    }
    Ok(())
}

/// Whether this code was there and unused; now it is used.
pub fn use_recovery_code(tx: &Tx, user: i64, lookup: &[u8; 32]) -> Result<bool> {
    let used = tx.execute(
        "UPDATE recovery_code SET used_at = ?3 WHERE user_id = ?1 AND lookup = ?2 AND used_at IS NULL",
        params![user, lookup, tx.now()],
    )?;
    Ok(used > 0)
}

pub fn recovery_codes_left(c: &Connection, user: i64) -> Result<u32> {
    let mut count = c.prepare_cached("SELECT count(*) FROM recovery_code WHERE user_id = ?1 AND used_at IS NULL")?;
    Ok(count.query_row([user], |r| r.get(0))?)
}

/// Whether there was one.
pub fn drop_second_factor(tx: &Tx, user: i64) -> Result<bool> {
    tx.execute("DELETE FROM recovery_code WHERE user_id = ?1", [user])?;
    Ok(tx.execute("DELETE FROM second_factor WHERE user_id = ?1", [user])? > 0)
}

fn read(r: &Row<'_>) -> rusqlite::Result<User> {
    Ok(User {
        id: r.get(0)?,
        email: r.get(1)?,
        access_id: r.get(2)?,
        first_name: r.get(3)?,
        last_name: r.get(4)?,
        locale: r.get(5)?,
        role: Role::from_number(r.get(6)?).unwrap_or(Role::User),
        password_hash: r.get(7)?,
        enabled: r.get(8)?,
        token_epoch: r.get(9)?,
        created_at: r.get(10)?,
    })
}
