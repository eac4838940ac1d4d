//! What happened, told in Prepr's words.
//!
//! What comes in by Prepr's API is announced in the transaction that takes it in, and an upload in
//! phases once more when it is whole. What came in otherwise counts as created when it was looked at.

use serde_json::Value;

use crate::accounts::Accounts;
use crate::assets;
use crate::catalogue;
use crate::error::Code;
use crate::error::Result;
use crate::infra::db::Conn;
use crate::ingest::phases;
use crate::journal::Entry;
use crate::support::clock::Instant;
use crate::support::id;
use crate::wire::prepr;
use crate::wire::prepr::Pending;
use crate::wire::prepr::PreprAsset;
use crate::wire::prepr::PreprEvent;

const CREATED: &str = "asset.created";
const UPLOADED: &str = "asset.uploaded";
const CHANGED: &str = "asset.changed";
const DELETED: &str = "asset.deleted";

/// What this is called; `None` for what is not told.
pub fn event(c: &Conn, entry: &Entry) -> Result<Option<&'static str>> {
    let is_original = |name: &str| {
        let keys = entry.detail.get(name).and_then(Value::as_array);
        keys.is_some_and(|keys| keys.iter().any(|key| key == assets::ORIGINAL))
    };
    Ok(match &*entry.event {
        "asset-uploaded" => Some(UPLOADED),
        "asset-changed" | "file-data-updated" => Some(CHANGED),
        "file-saved" if entry.detail.get("revision").and_then(Value::as_u64) > Some(1) => Some(CHANGED),
        "file-saved" if catalogue::store::caption(c, entry.asset_id)?.announced => None,
        "asset-created" | "file-saved" => Some(CREATED),
        "file-deleted" if is_original("keys") => Some(DELETED),
        "file-undeleted" if is_original("keys") => Some(CREATED),
        _ => None,
    })
}

/// The body of a webhook about this.
pub fn body(c: &Conn, entry: &Entry, event: &'static str, origin: &str) -> Result<PreprEvent> {
    let (payload, updater) = match assets::store::find(c, entry.asset_id)? {
        Some(asset) => {
            let updater = asset.updater_id;
            let full = assets::Full { conversions: Vec::new(), asset };
            (Some(PreprAsset::new(&catalogue::store::entry(c, full)?, origin)), updater)
        }
        None => match phases::store::find(c, entry.asset_id)? {
            Some(row) => {
                let pending =
                    Pending { id: row.id, at: row.created_at, name: row.name, label: row.label, draft: &row.draft };
                (Some(PreprAsset::pending(&pending)), row.user_id)
            }
            None => (None, 0),
        },
    };
    let payload = match payload {
        Some(asset) => serde_json::to_value(asset).map_err(|e| Code::Internal.from("writing down an event", e))?,
        None => serde_json::json!({ "id": prepr::uuid(&entry.asset_id.to_string()) }),
    };
    let user = entry.detail.get("by").and_then(Value::as_i64).unwrap_or(updater);
    let performed_by = Accounts::email_within(c, user)?.unwrap_or_default();
    Ok(PreprEvent::new(event_id()?, entry.at, event, payload, performed_by))
}

/// What is sent to see whether anything arrives.
pub fn test(now: Instant) -> Result<PreprEvent> {
    Ok(PreprEvent::new(event_id()?, now, "test", serde_json::json!({}), String::new()))
}

fn event_id() -> Result<String> {
    Ok(prepr::uuid(&id::hex(&id::random::<16>()?)))
}
