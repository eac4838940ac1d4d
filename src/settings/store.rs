//! The table `setting`.

use rusqlite::Connection;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::Code;
use crate::error::Result;
use crate::infra::db::Tx;
use crate::settings::model::Values;
use crate::settings::webhook::Webhook;

/// Everything; what was never chosen has its default.
pub fn all(c: &Connection) -> Result<Values> {
    Ok(Values {
        images: get(c, "images")?,
        videos: get(c, "videos")?,
        watermark: get(c, "watermark")?,
        auth: get(c, "auth")?,
        addons: get(c, "addons")?,
        webhook: webhook(c)?,
    })
}

pub fn webhook(c: &Connection) -> Result<Webhook> {
    get(c, "webhook")
}

pub fn put(tx: &Tx, values: &Values) -> Result<()> {
    set(tx, "images", &values.images)?;
    set(tx, "videos", &values.videos)?;
    set(tx, "watermark", &values.watermark)?;
    set(tx, "auth", &values.auth)?;
    set(tx, "addons", &values.addons)?;
    set(tx, "webhook", &values.webhook)
}

fn get<T: DeserializeOwned + Default>(c: &Connection, name: &str) -> Result<T> {
    let mut found = c.prepare_cached("SELECT value FROM setting WHERE name = ?1")?;
    let mut rows = found.query([name])?;
    let Some(row) = rows.next()? else { return Ok(T::default()) };
    let text: String = row.get(0)?;
    serde_json::from_str(&text).map_err(|e| Code::Internal.from(format!("reading the setting `{name}`"), e))
}

fn set(tx: &Tx, name: &str, value: &impl Serialize) -> Result<()> {
    let text =
        serde_json::to_string(value).map_err(|e| Code::Internal.from(format!("writing the setting `{name}`"), e))?;
    tx.prepare_cached("INSERT OR REPLACE INTO setting (name, value, changed_at) VALUES (?1, ?2, ?3)")?.execute((
        name,
        text,
        tx.now(),
    ))?;
    Ok(())
}
