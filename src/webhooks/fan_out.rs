//! From the journal to deliveries.
//!
//! Invariant: the cursor moves in the transaction that owes what lies before it, so every entry
//! is owed to every URL exactly once. The commit is flushed: the ids of deliveries must not
//! change any more once a request has gone out under them.

use std::pin::pin;
use std::time::Duration;

use crate::error::Result;
use crate::infra::db::Tx;
use crate::journal;
use crate::webhooks::CONSUMER;
use crate::webhooks::Webhooks;

/// Entries in one transaction.
const PAGE: u32 = 100;

/// How late an entry can be if a wake-up was lost.
const LONGEST_IDLE: Duration = Duration::from_secs(30);

impl Webhooks {
    pub(super) async fn fan_out(self) {
        let changed = self.0.journal.changed();
        let mut stopping = self.0.stopping.subscribe();
        while !*stopping.borrow_and_update() {
            let mut woken = pin!(changed.notified());
            woken.as_mut().enable();
            let idle = match self.fan_out_some().await {
                Ok(PAGE) => continue,
                Ok(_) => LONGEST_IDLE,
                Err(error) => {
                    tracing::error!(%error, "receivers could not be told what happened");
                    Duration::from_secs(1)
                }
            };
            tokio::select! {
                () = woken => {}
                () = tokio::time::sleep(idle) => {}
                _ = stopping.changed() => {}
            }
        }
    }

    /// How many entries were dealt with.
    pub(super) async fn fan_out_some(&self) -> Result<u32> {
        if self.0.settings.now().webhook.active().next().is_none() {
            return Ok(0);
        }
        let nothing_new = |c: &_| Ok(journal::store::latest(c)? <= journal::store::cursor(c, CONSUMER)?);
        if self.0.db.read(nothing_new).await? {
            return Ok(0);
        }
        let this = self.clone();
        self.0.db.write(move |tx| this.owe_entries(tx)).await
    }

    fn owe_entries(&self, tx: &Tx) -> Result<u32> {
        let webhook = self.0.settings.webhook(tx)?;
        if webhook.active().next().is_none() {
            return Ok(0);
        }
        let entries = journal::store::after(tx, journal::store::cursor(tx, CONSUMER)?, PAGE)?;
        for entry in &entries {
            self.owe_entry(tx, &webhook, entry)?;
        }
        if let Some(last) = entries.last() {
            journal::store::set_cursor(tx, CONSUMER, last.seq)?;
        }
        Ok(entries.len() as u32)
    }
}
