//! What happened, as FileSpin's callbacks tell it, and the settings about that.
//!
//! Shapes: <https://developers.filespin.io/api-reference/tools/webhook-callback-post>. Most events
//! come with all data of the asset; what is gone is told in few words. The vendor writes the
//! sentence as `message` in one place and as `statusMsg` in another: both are sent.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;
use serde::Serialize;
use serde_json::Value;

use crate::assets::AssetId;
use crate::assets::Full;
use crate::journal::Entry;
use crate::journal::Event;
use crate::processing::RoundStatus;
use crate::processing::Step;
use crate::settings::webhook::Dialect;
use crate::settings::webhook::Events;
use crate::settings::webhook::PreprEvents;
use crate::settings::webhook::Webhook;
use crate::support::clock::Instant;
use crate::wire::filespin::AssetData;

/// The body of a callback.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum CallbackBody {
    Asset(Box<AssetEvent>),
    Small(SmallBody),
}

/// All data of the asset as it was when the event was told.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct AssetEvent {
    /// `file-saved`, `file-processed`, `file-data-updated` or `addon-processed`
    event: String,
    #[serde(flatten)]
    asset: AssetData,
}

/// What is told of contents that are gone or back, and the `callback` of a job that is over.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct SmallBody {
    /// `file-deleted`, `file-undeleted`; of a job, `file-processed`
    event: String,
    id: String,
    keys: Vec<String>,
    /// `OK`; of a job also `MAYBE` (some keys failed) or `ERROR`
    status: &'static str,
    message: String,
    #[serde(rename = "statusMsg")]
    status_message: String,
    /// Of a job: key and why it failed.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(default)]
    errors: BTreeMap<String, String>,
}

/// One line of the journal.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct ChangeData {
    /// Larger than that of every earlier one: a cursor.
    seq: i64,
    /// `YYYY-MM-DDTHH:MM:SSZ`
    at: String,
    event: String,
    asset_id: String,
    /// What a callback about this has as its body, made of what is known now.
    body: CallbackBody,
}

impl CallbackBody {
    /// Whether this event comes with all data of the asset.
    pub fn is_whole(event: &str) -> bool {
        event != Event::FileDeleted.word() && event != Event::FileUndeleted.word()
    }

    /// `full` is the asset, where there still is one and the event wants it.
    pub fn new(entry: &Entry, full: Option<&Full>) -> CallbackBody {
        match full {
            Some(full) if CallbackBody::is_whole(&entry.event) => {
                CallbackBody::Asset(Box::new(AssetEvent { event: entry.event.clone(), asset: AssetData::from(full) }))
            }
            _ if CallbackBody::is_whole(&entry.event) => {
                CallbackBody::Small(SmallBody::plain(&entry.event, entry.asset_id.to_string(), "The asset is gone."))
            }
            _ => CallbackBody::Small(SmallBody::of(entry)),
        }
    }

    /// What is sent to see whether anything arrives.
    pub fn test() -> CallbackBody {
        CallbackBody::Small(SmallBody::plain("test", String::new(), "This is a test."))
    }
}

impl SmallBody {
    fn plain(event: &str, id: String, message: &str) -> SmallBody {
        SmallBody {
            event: event.to_owned(),
            id,
            keys: Vec::new(),
            status: "OK",
            message: message.to_owned(),
            status_message: message.to_owned(),
            errors: BTreeMap::new(),
        }
    }

    /// What is on record as gone or back, so nothing of it has failed.
    fn of(entry: &Entry) -> SmallBody {
        let keys = entry.detail.get("keys").and_then(Value::as_array);
        let keys = keys.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect();
        SmallBody { keys, ..SmallBody::plain(&entry.event, entry.asset_id.to_string(), "") }
    }

    /// What a job says when it is over: what it was to make, and what of that was not made.
    pub fn processed(id: AssetId, steps: &[Step]) -> SmallBody {
        let failed = steps.iter().filter(|step| step.status == RoundStatus::Error);
        let errors: BTreeMap<_, _> = failed.map(|step| (step.key.clone(), step.message.clone())).collect();
        let status = match errors.len() {
            0 => "OK",
            some if some < steps.len() => "MAYBE",
            _ => "ERROR",
        };
        let message = errors.values().next().cloned().unwrap_or_default();
        let keys = steps.iter().map(|step| step.key.clone()).collect();
        let event = Event::FileProcessed.word();
        SmallBody { keys, status, errors, ..SmallBody::plain(event, id.to_string(), &message) }
    }
}

impl ChangeData {
    pub fn new(entry: &Entry, full: Option<&Full>) -> ChangeData {
        ChangeData {
            seq: entry.seq,
            at: entry.at.iso(),
            event: entry.event.clone(),
            asset_id: entry.asset_id.to_string(),
            body: CallbackBody::new(entry, full),
        }
    }

    pub fn seq(&self) -> i64 {
        self.seq
    }

    pub fn event(&self) -> &str {
        &self.event
    }
}

/// Who is told what.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct WebhookSettings {
    /// With commas between them.
    web_urls: String,
    callback_events: CallbackEvents,
    /// Ours: URLs that answered 410 and are told nothing until they are set again.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(default)]
    disabled_urls: Vec<DisabledUrl>,
}

#[derive(Clone, Debug, Serialize, JsonSchema)]
struct DisabledUrl {
    url: String,
    disabled_at: String,
}

/// The section `prepr_webhook`.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct PreprWebhookSettings {
    /// With commas between them.
    web_urls: String,
    events: PreprCallbackEvents,
    /// URLs that answered 410 and are told nothing until they are set again.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(default)]
    disabled_urls: Vec<DisabledUrl>,
}

/// The section `prepr_webhook`, to be set.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
pub struct PreprWebhookUpdate {
    /// Up to three, with commas between them, or a list.
    pub web_urls: Urls,
    /// All, when they are left out.
    pub events: Option<PreprCallbackEvents>,
}

/// Which of Prepr's events are told; one that is left out is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PreprCallbackEvents {
    #[serde(default, rename = "asset.created")]
    created: bool,
    #[serde(default, rename = "asset.uploaded")]
    uploaded: bool,
    #[serde(default, rename = "asset.changed")]
    changed: bool,
    #[serde(default, rename = "asset.deleted")]
    deleted: bool,
}

impl PreprWebhookUpdate {
    pub fn wanted(&self) -> PreprEvents {
        let all = PreprEvents { created: true, uploaded: true, changed: true, deleted: true };
        self.events.map_or(all, |e| PreprEvents {
            created: e.created,
            uploaded: e.uploaded,
            changed: e.changed,
            deleted: e.deleted,
        })
    }
}

impl From<&Webhook> for PreprWebhookSettings {
    fn from(webhook: &Webhook) -> PreprWebhookSettings {
        let (urls, disabled_urls) = told_in(webhook, Dialect::Prepr);
        let PreprEvents { created, uploaded, changed, deleted } = webhook.prepr_events;
        let events = PreprCallbackEvents { created, uploaded, changed, deleted };
        PreprWebhookSettings { web_urls: urls, events, disabled_urls }
    }
}

/// The section `webhook`, to be set.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
pub struct WebhookUpdate {
    /// Up to three, with commas between them, or a list.
    pub web_urls: Urls,
    pub callback_events: CallbackEvents,
}

#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Urls {
    Joined(String),
    Listed(Vec<String>),
}

impl Urls {
    /// Each once, in their order.
    pub fn into_list(self) -> Vec<String> {
        let given = match self {
            Urls::Joined(text) => text.split(',').map(str::to_owned).collect(),
            Urls::Listed(urls) => urls,
        };
        let mut urls: Vec<String> = Vec::new();
        for url in given.iter().map(|url| url.trim()).filter(|url| !url.is_empty()) {
            if !urls.iter().any(|known| known == url) {
                urls.push(url.to_owned());
            }
        }
        urls
    }
}

/// Which events are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct CallbackEvents {
    #[serde(alias = "file_saved")]
    file_saved: bool,
    #[serde(alias = "file_processed")]
    file_processed: bool,
    #[serde(alias = "file_data_updated")]
    file_data_updated: bool,
    #[serde(alias = "file_deleted")]
    file_deleted: bool,
    #[serde(alias = "file_undeleted")]
    file_undeleted: bool,
    #[serde(alias = "addon_processed")]
    addon_processed: bool,
}

impl From<CallbackEvents> for Events {
    fn from(e: CallbackEvents) -> Events {
        Events {
            file_saved: e.file_saved,
            file_processed: e.file_processed,
            file_data_updated: e.file_data_updated,
            file_deleted: e.file_deleted,
            file_undeleted: e.file_undeleted,
            addon_processed: e.addon_processed,
        }
    }
}

impl From<Events> for CallbackEvents {
    fn from(e: Events) -> CallbackEvents {
        CallbackEvents {
            file_saved: e.file_saved,
            file_processed: e.file_processed,
            file_data_updated: e.file_data_updated,
            file_deleted: e.file_deleted,
            file_undeleted: e.file_undeleted,
            addon_processed: e.addon_processed,
        }
    }
}

impl From<&Webhook> for WebhookSettings {
    fn from(webhook: &Webhook) -> WebhookSettings {
        let (web_urls, disabled_urls) = told_in(webhook, Dialect::FileSpin);
        WebhookSettings { web_urls, callback_events: CallbackEvents::from(webhook.events), disabled_urls }
    }
}

/// Who is told in these words, and who of them asked to be told no more.
fn told_in(webhook: &Webhook, dialect: Dialect) -> (String, Vec<DisabledUrl>) {
    let receivers: Vec<_> = webhook.receivers.iter().filter(|r| r.dialect == dialect).collect();
    let urls: Vec<&str> = receivers.iter().map(|r| &*r.url).collect();
    let disabled = receivers.iter().filter_map(|r| {
        let disabled_at = r.disabled_at.map(Instant::iso)?;
        Some(DisabledUrl { url: r.url.clone(), disabled_at })
    });
    (urls.join(","), disabled.collect())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn told(event: &str, detail: Value) -> Value {
        let asset_id = "99d819953914402babbdeb68337ea6a3".parse().unwrap();
        let entry = Entry { seq: 7, at: Instant(0), asset_id, event: event.to_owned(), detail };
        serde_json::to_value(CallbackBody::new(&entry, None)).unwrap()
    }

    #[test]
    fn what_is_gone_is_told_in_few_words() {
        let id = "99d819953914402babbdeb68337ea6a3";
        assert_eq!(
            told("file-deleted", json!({"keys": ["deepzoom"]})),
            json!({"event": "file-deleted", "id": id, "keys": ["deepzoom"], "status": "OK", "message": "", "statusMsg": ""})
        );
        assert_eq!(told("file-undeleted", json!({}))["keys"], json!([]), "a detail without keys is no reason to fail");
        assert_eq!(told("file-saved", json!({}))["message"], "The asset is gone.");
    }

    #[test]
    fn urls_come_in_a_text_or_a_list() {
        let read = |value: Value| serde_json::from_value::<Urls>(value).unwrap().into_list();
        assert_eq!(read(json!(" https://a/x , https://b,,https://a/x")), ["https://a/x", "https://b"]);
        assert_eq!(read(json!(["https://a", ""])), ["https://a"]);
        assert!(read(json!("")).is_empty());
    }
}
