//! `/livez`, `/readyz`, `/metrics`: what a supervisor and a technician ask.
//!
//! Live means that this process answers. Ready means that an upload would be kept: a write
//! commits, the disk has room and flushes, and pictures can be decoded.

use std::fmt::Write;
use std::sync::Mutex;

use actix_web::HttpResponse;
use actix_web::http::header;
use actix_web::web::Data;
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use serde::Serialize;

use crate::error::Code;
use crate::error::Result;
use crate::films::Films;
use crate::homes::Counts;
use crate::homes::Homes;
use crate::infra::db::Db;
use crate::infra::storage::Storage;
use crate::infra::workers::Workers;
use crate::interfaces::http::table::Reply;
use crate::news::News;
use crate::webhooks::Webhooks;

/// What readiness depends on.
#[derive(Clone)]
pub struct Vitals {
    pub db: Db,
    pub storage: Storage,
    pub homes: Homes,
    pub workers: Workers,
    pub films: Films,
    pub news: News,
    pub webhooks: Webhooks,
}

#[derive(Serialize)]
struct Check {
    name: &'static str,
    ok: bool,
    #[serde(skip_serializing_if = "String::is_empty")]
    message: String,
}

pub async fn live() -> HttpResponse {
    HttpResponse::Ok().insert_header((header::CACHE_CONTROL, "no-store")).content_type("text/plain").body("ok\n")
}

pub async fn ready(vitals: Data<Vitals>) -> HttpResponse {
    let checks = vitals.check().await;
    let ok = checks.iter().all(|c| c.ok);
    let mut answer = if ok { HttpResponse::Ok() } else { HttpResponse::ServiceUnavailable() };
    answer.insert_header((header::CACHE_CONTROL, "no-store"));
    answer.json(serde_json::json!({ "ready": ok, "checks": checks }))
}

pub async fn metrics(registry: Data<Mutex<Registry>>, vitals: Data<Vitals>) -> Reply<HttpResponse> {
    let figures = vitals.figures().await?;
    let mut text = String::new();
    let registry = registry.lock().map_err(|_| Code::Internal.because("the figures are locked"))?;
    encode(&mut text, &registry).map_err(|e| Code::Internal.from("writing the figures", e))?;
    drop(registry);
    let text = text.replace("# EOF\n", "") + &figures + "# EOF\n";
    Ok(HttpResponse::Ok().content_type("application/openmetrics-text; version=1.0.0; charset=utf-8").body(text))
}

impl Vitals {
    async fn check(&self) -> Vec<Check> {
        let check = |name, outcome: Result<()>| match outcome {
            Ok(()) => Check { name, ok: true, message: String::new() },
            Err(e) => Check { name, ok: false, message: e.code.help().to_owned() },
        };
        let storage = if self.storage.is_degraded() {
            Err(Code::StorageUnavailable.into())
        } else if self.storage.has_room() {
            Ok(())
        } else {
            Err(Code::DiskFull.into())
        };
        let mut database = check("database", self.db.ping_write().await);
        if self.db.is_degraded() {
            "The disk failed beneath a commit. Nothing is written until the box is restarted: look at the disk first."
                .clone_into(&mut database.message);
        }
        let mut checks = vec![database, check("storage", storage), check("media", self.workers.available())];
        checks.extend(self.bucket().await);
        checks
    }

    /// A bucket that does not answer keeps nobody from uploading, so it is a note and no more.
    async fn bucket(&self) -> Option<Check> {
        if !self.homes.has_bucket() {
            return None;
        }
        let mut message = String::new();
        if let Ok(Counts { waiting, waiting_bytes, last_error, .. }) = self.homes.counts().await {
            if waiting > 0 {
                let _ = write!(
                    message,
                    "{waiting} originals ({waiting_bytes} bytes) wait to be moved to where they belong"
                );
            }
            if let Some((ago, _)) = last_error {
                let comma = if message.is_empty() { "" } else { "; " };
                let _ = write!(message, "{comma}the last attempt failed {} s ago: the log says why", ago.as_secs());
            }
        }
        Some(Check { name: "bucket", ok: true, message })
    }

    /// Figures that are read when asked for, rather than counted.
    async fn figures(&self) -> Result<String> {
        let free = self.storage.free_bytes().unwrap_or(0);
        let media = self.workers.counts();
        let films = self.films.counts();
        let db = self.db.stats();
        let callbacks = self.webhooks.counts().await?;
        let homes = self.homes.counts().await?;
        let gauges = [
            ("storage_free_bytes", "Free on the disk, less what uploads under way were promised", free),
            ("bucket_objects_waiting", "Originals that wait to be moved to where they belong", homes.waiting),
            ("bucket_bytes_waiting", "Their bytes", homes.waiting_bytes),
            ("bucket_removals_waiting", "Objects that are to be removed from buckets", homes.leftovers),
            ("bucket_copies_bytes", "Copies on this disk of originals that lie in a bucket", homes.copies_bytes),
            (
                "bucket_last_error_age_seconds",
                "Since the last failure to move an original; 0 when one was moved since, or none failed",
                homes.last_error.as_ref().map_or(0, |(ago, _)| ago.as_secs().max(1)),
            ),
            ("media_workers_running", "Sandboxed media workers alive", media.running as u64),
            ("media_requests_waiting", "Requests waiting for a media worker", media.waiting as u64),
            ("video_workers_running", "Sandboxed video workers alive", films.running as u64),
            ("callbacks_waiting", "Callbacks that are owed to receivers", callbacks.waiting),
            ("feed_listeners", "Connections that listen to the feed", self.news.listeners() as u64),
        ];
        let counters = [
            ("media_workers_restarted", "Media workers replaced after a crash", media.restarts),
            ("media_workers_killed", "Media workers killed for taking too long or because nobody waited", media.killed),
            ("video_errands_finished", "Errands of video workers that were answered", films.finished),
            ("video_errands_failed", "Errands of video workers that crashed, hung or were called off", films.failed),
            ("callbacks_delivered", "Callbacks that a receiver took", callbacks.delivered),
            ("callback_attempts_failed", "Attempts at callbacks that failed", callbacks.failed),
            ("callbacks_given_up", "Callbacks whose last attempt failed", callbacks.given_up),
            ("bucket_objects_moved", "Originals that were moved", homes.moved),
            ("bucket_bytes_moved", "Their bytes", homes.moved_bytes),
            ("bucket_moves_failed", "Attempts to move an original that failed", homes.failed),
            ("database_writes", "Write transactions asked for", db.writes),
            ("database_commits", "Commits made for them", db.batches),
            ("database_commits_failed", "Commits that failed: the disk needs a look", db.failed_commits),
        ];
        let gauges = gauges.map(|(name, help, value)| {
            format!("# HELP cloakroom_{name} {help}.\n# TYPE cloakroom_{name} gauge\ncloakroom_{name} {value}\n")
        });
        let counters = counters.map(|(name, help, value)| {
            format!(
                "# HELP cloakroom_{name} {help}.\n# TYPE cloakroom_{name} counter\ncloakroom_{name}_total {value}\n"
            )
        });
        Ok(gauges.concat() + &counters.concat() + &self.encoders())
    }

    /// Which encoders work, once that is known.
    fn encoders(&self) -> String {
        let Some(survey) = self.films.surveyed() else { return String::new() };
        let works = survey.encoders.iter().map(|name| (name, 1));
        let fails = survey.failing.iter().map(|(name, _)| (name, 0));
        let mut text = "# HELP cloakroom_video_encoder H.264 encoders that are here, 1 if one works.\n\
                        # TYPE cloakroom_video_encoder gauge\n"
            .to_owned();
        for (name, works) in works.chain(fails) {
            let _ = writeln!(text, "cloakroom_video_encoder{{encoder=\"{name}\"}} {works}");
        }
        text
    }
}
