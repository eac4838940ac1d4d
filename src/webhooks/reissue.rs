//! Telling again what was told of assets that arrived in a span of time.
//!
//! For every such asset the newest entry of each event is told anew, under new ids, with what is
//! known now, as far as the settings want that event. A job does it page by page: the next page
//! is owed in the transaction of the one before, so no crash tells anything twice.

use std::time::Duration;

use serde::Deserialize;
use serde::Serialize;

use crate::assets;
use crate::error::Code;
use crate::error::Result;
use crate::infra::jobs::Attempt;
use crate::infra::jobs::Enqueue;
use crate::infra::jobs::Job;
use crate::infra::jobs::Queue;
use crate::infra::jobs::Run;
use crate::journal;
use crate::support::clock::Instant;
use crate::webhooks::Webhooks;

/// The longest span.
const MOST: Duration = Duration::from_hours(7 * 24);

/// Assets in one transaction.
const PAGE: u32 = 50;

/// Tells again what happened to assets that arrived in a span of time.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ReissueCallbacks {
    from: Instant,
    to: Instant,
    /// The last asset that was dealt with: when it arrived, and its number.
    after: (Instant, i64),
}

impl ReissueCallbacks {
    /// Where this and other errands in the network wait.
    pub const QUEUE_NAME: Queue = Queue("net");
}

impl Job for ReissueCallbacks {
    const KIND: &'static str = "webhooks.reissue";
    const QUEUE: Queue = ReissueCallbacks::QUEUE_NAME;
    const MAX_ATTEMPTS: u32 = 5;
    const TIMEOUT: Duration = Duration::from_mins(1);
}

impl Webhooks {
    /// Begins to tell again what happened to assets that arrived in this span, both ends included, the
    /// last one with its whole second.
    pub async fn reissue(&self, from: Instant, to: Instant) -> Result<()> {
        if to < from {
            return Err(Code::InvalidRequest.because("end_date lies before start_date"));
        }
        if to.since(from) > MOST {
            return Err(Code::InvalidRequest.because("start_date and end_date may lie 7 days apart at most"));
        }
        let this = self.clone();
        let job = ReissueCallbacks { from, to: to.end_of_second(), after: (from, i64::MIN) };
        self.0.db.write(move |tx| this.0.jobs.enqueue(tx, &job, Enqueue::default()).map(drop)).await
    }
}

impl Run<ReissueCallbacks> for Webhooks {
    async fn run(&self, job: ReissueCallbacks, at: &Attempt) -> Result<()> {
        let (this, at) = (self.clone(), at.clone());
        self.0
            .db
            .write(move |tx| {
                let webhook = this.0.settings.webhook(tx)?;
                let arrived = assets::store::arrived(tx, (job.from, job.to), job.after, PAGE)?;
                for (_, id) in &arrived {
                    for entry in journal::store::last_of_each(tx, *id)? {
                        this.owe_entry(tx, &webhook, &entry)?;
                    }
                }
                if let Some((after, _)) = arrived.last().filter(|_| arrived.len() == PAGE as usize) {
                    let next = ReissueCallbacks { after: *after, ..job };
                    this.0.jobs.enqueue(tx, &next, Enqueue::default())?;
                }
                at.complete(tx)
            })
            .await
    }
}
