//! What is asked for many assets at once: deleting them, processing them, emptying the trash.
//!
//! Asking writes a round with one step and owes one job. The job goes through its assets a few at a
//! time; each lot is one transaction that also writes down how far it is, so that a job which is
//! taken up again goes on where it was, and nothing is done twice.
//!
//! An asset that refuses (archived, not ready, gone) is named in the outcome and stops nobody else.

use std::time::Duration;

use serde::Deserialize;
use serde::Serialize;
use serde_json::Map;
use serde_json::Value;

use crate::accounts::Caller;
use crate::assets;
use crate::assets::AssetId;
use crate::assets::ORIGINAL;
use crate::assets::store;
use crate::custody::Custody;
use crate::custody::Sweep;
use crate::error::Blame;
use crate::error::Code;
use crate::error::Error;
use crate::error::Result;
use crate::infra::db::Tx;
use crate::infra::jobs::Attempt;
use crate::infra::jobs::Job;
use crate::infra::jobs::JobId;
use crate::infra::jobs::Queue;
use crate::infra::jobs::Run;
use crate::processing::Bulk;
use crate::support::clock::Instant;

/// The contract's limits of one request.
pub const MOST_ASSETS: u32 = 1000;
const LONGEST_SPAN: Duration = Duration::from_hours(31 * 24);

/// How many processing keys one request may name: more than there are.
const MOST_KEYS: usize = 100;

/// How many assets one transaction is about: others want to write, too.
const LOT: usize = 50;

/// Which assets are meant.
#[derive(Clone, Debug)]
pub enum Selection {
    These(Vec<AssetId>),
    /// Those that were uploaded then, both ends included, the last one with its whole second.
    Uploaded {
        from: Instant,
        to: Instant,
    },
}

/// Does what one round asks for.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RunBulk {
    round: i64,
    user: i64,
    what: What,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
enum What {
    Delete {
        ids: Vec<AssetId>,
    },
    Process {
        ids: Vec<AssetId>,
        keys: Vec<String>,
    },
    /// All that was in the trash at that instant, or these of it.
    Purge {
        until: Instant,
        ids: Option<Vec<AssetId>>,
    },
}

impl What {
    fn kind(&self) -> Bulk {
        match self {
            What::Delete { .. } => Bulk::Delete,
            What::Process { .. } => Bulk::Process,
            What::Purge { .. } => Bulk::Purge,
        }
    }
}

impl Job for RunBulk {
    const KIND: &'static str = "custody.bulk";
    const QUEUE: Queue = Sweep::QUEUE_NAME;
    const MAX_ATTEMPTS: u32 = 8;
    const TIMEOUT: Duration = Duration::from_hours(6);
}

impl Selection {
    /// Itself, if it is not too much.
    fn checked(self) -> Result<Selection> {
        let wrong = |what: String| Err(Code::InvalidRequest.because(what));
        match &self {
            Selection::These(ids) if ids.len() > MOST_ASSETS as usize => {
                wrong(format!("At most {MOST_ASSETS} assets at a time."))
            }
            Selection::Uploaded { from, to } if to < from => wrong("The span ends before it begins.".to_owned()),
            Selection::Uploaded { from, to } if to.since(*from) > LONGEST_SPAN => {
                wrong("The span may have at most 31 days.".to_owned())
            }
            _ => Ok(self),
        }
    }

    fn ids(self, tx: &Tx) -> Result<Vec<AssetId>> {
        let (from, to) = match self {
            Selection::These(ids) => return Ok(ids),
            Selection::Uploaded { from, to } => (from, to),
        };
        let ids = store::uploaded_between(tx, from, to.end_of_second(), MOST_ASSETS + 1)?;
        if ids.len() > MOST_ASSETS as usize {
            return Err(Code::InvalidRequest
                .because(format!("More than {MOST_ASSETS} assets were uploaded in this span: choose a shorter one.")));
        }
        Ok(ids)
    }
}

impl Custody {
    /// Owes the deletion of assets; the round's number. `input` is what is told of it.
    pub async fn delete_many(&self, caller: &Caller, which: Selection, input: Map<String, Value>) -> Result<i64> {
        self.ask(caller, Bulk::Delete, input, which.checked()?, |ids| What::Delete { ids }).await
    }

    /// Owes the processing of assets, each in a round of its own.
    pub async fn process_many(
        &self,
        caller: &Caller,
        which: Selection,
        keys: Vec<String>,
        input: Map<String, Value>,
    ) -> Result<i64> {
        if keys.len() > MOST_KEYS {
            return Err(Code::InvalidRequest.because(format!("At most {MOST_KEYS} keys at a time.")));
        }
        self.ask(caller, Bulk::Process, input, which.checked()?, |ids| What::Process { ids, keys }).await
    }

    /// Owes the emptying of the trash, or that these leave it for good.
    pub async fn purge(&self, caller: &Caller, ids: Option<Vec<AssetId>>, input: Map<String, Value>) -> Result<i64> {
        let until = self.db.clock().now();
        let which = Selection::These(ids.clone().unwrap_or_default()).checked()?;
        self.ask(caller, Bulk::Purge, input, which, move |_| What::Purge { until, ids }).await
    }

    async fn ask(
        &self,
        caller: &Caller,
        kind: Bulk,
        input: Map<String, Value>,
        which: Selection,
        what: impl FnOnce(Vec<AssetId>) -> What + Send + 'static,
    ) -> Result<i64> {
        let (this, user) = (self.clone(), caller.user_id());
        self.db
            .write(move |tx| {
                let what = what(which.ids(tx)?);
                this.processing.open_bulk(tx, user, kind, &input, |round| RunBulk { round, user, what })
            })
            .await
    }

    /// One lot; whether it was the last.
    fn lot(&self, tx: &Tx, job: &RunBulk, total: usize, started: Instant, at: &Attempt) -> Result<bool> {
        let kind = job.what.kind();
        let mut outcome = Outcome::read(&self.processing.outcome(tx, job.round)?);
        let is_last = match &job.what {
            What::Delete { ids } => {
                outcome.each(ids, |id, _| self.delete_within(tx, job.user, id, &[ORIGINAL.to_owned()]).map(|_| ()))?
            }
            What::Process { ids, keys } => outcome.each(ids, |id, outcome| {
                let asset = assets::full(tx, id)?.asset;
                if let Some(round) = self.processing.ask_within(tx, &asset, job.user, keys)? {
                    outcome.jobs.insert(id.to_string(), round.into());
                }
                Ok(())
            })?,
            What::Purge { ids: Some(ids), .. } => {
                let mut gone = Gone::default();
                let is_last = outcome.each(ids, |id, _| {
                    let is_gone = self.forget(tx, id, &mut gone)?;
                    if is_gone { Ok(()) } else { Err(Code::AssetNotFound.because("It is not in the trash.")) }
                })?;
                self.follow_up(tx, gone)?;
                is_last
            }
            What::Purge { until, ids: None } => self.empty(tx, *until, total, &mut outcome)?,
        };
        let percent = (100 * outcome.done).checked_div(outcome.total).unwrap_or(100);
        self.processing.bulk_moved(
            tx,
            job.round,
            kind,
            u8::try_from(percent).unwrap_or(100),
            &outcome.written(kind),
        )?;
        if is_last {
            self.processing.end_bulk(tx, job.round, kind, started, None)?;
            at.complete(tx)?;
        }
        Ok(is_last)
    }

    /// Empties the next lot of the trash; whether it is empty.
    fn empty(&self, tx: &Tx, until: Instant, total: usize, outcome: &mut Outcome) -> Result<bool> {
        if outcome.done == 0 {
            outcome.total = total;
        }
        let ids = store::trashed(tx, until, LOT as u32)?;
        let mut gone = Gone::default();
        for id in &ids {
            self.forget(tx, *id, &mut gone)?;
        }
        outcome.done += gone.assets.len();
        self.follow_up(tx, gone)?;
        Ok(ids.len() < LOT)
    }

    /// Forgets one asset of the trash; false when it is not there.
    fn forget(&self, tx: &Tx, id: AssetId, gone: &mut Gone) -> Result<bool> {
        let makers = self.processing.makers(tx, id, None)?;
        let Some(last) = store::forget(tx, id)? else { return Ok(false) };
        gone.makers.extend(makers);
        gone.assets.push((id, last));
        self.assets.changes(tx, id);
        Ok(true)
    }

    fn follow_up(&self, tx: &Tx, gone: Gone) -> Result<()> {
        let Gone { assets: gone, makers } = gone;
        if gone.is_empty() { Ok(()) } else { self.owe(tx, &Sweep::Assets { gone, makers }) }
    }
}

impl Run<RunBulk> for Custody {
    async fn run(&self, job: RunBulk, at: &Attempt) -> Result<()> {
        let started = self.db.clock().now();
        let total = match &job.what {
            // Counting takes time with a full trash, so it is not done while others wait to write.
            What::Purge { until, ids: None } => {
                let until = *until;
                self.db.read(move |c| store::count_trashed(c, until)).await?.0 as usize
            }
            What::Delete { ids } | What::Process { ids, .. } | What::Purge { ids: Some(ids), .. } => ids.len(),
        };
        loop {
            let (this, job, at) = (self.clone(), job.clone(), at.clone());
            if self.db.write(move |tx| this.lot(tx, &job, total, started, &at)).await? {
                return Ok(());
            }
        }
    }

    async fn gave_up(&self, job: RunBulk, error: &Error) {
        let (this, round, sentence) = (self.clone(), job.round, error.public().to_owned());
        let ended = self
            .db
            .write(move |tx| this.processing.end_bulk(tx, job.round, job.what.kind(), tx.now(), Some(&sentence)))
            .await;
        if let Err(e) = ended {
            tracing::error!(round, error = %e, "a failed job about many assets could not be recorded");
        }
    }
}

/// Assets that were forgotten in one lot: what is left to do.
#[derive(Default)]
struct Gone {
    assets: Vec<(AssetId, u32)>,
    makers: Vec<JobId>,
}

/// What has come of it so far.
#[derive(Default)]
struct Outcome {
    total: usize,
    done: usize,
    errors: Map<String, Value>,
    jobs: Map<String, Value>,
}

impl Outcome {
    fn read(written: &Map<String, Value>) -> Outcome {
        let number = |name: &str| written.get(name).and_then(Value::as_u64).unwrap_or(0) as usize;
        let map = |name: &str| written.get(name).and_then(Value::as_object).cloned().unwrap_or_default();
        Outcome { total: number("total"), done: number("done"), errors: map("errors"), jobs: map("jobs") }
    }

    /// Does the next lot of these; whether none is left.
    fn each(&mut self, ids: &[AssetId], mut doing: impl FnMut(AssetId, &mut Outcome) -> Result<()>) -> Result<bool> {
        self.total = ids.len();
        for id in ids.iter().skip(self.done).take(LOT) {
            match doing(*id, self) {
                Ok(()) => {}
                Err(e) if e.code.blame() == Blame::Caller => self.refused(*id, &e),
                Err(e) => return Err(e),
            }
            self.done += 1;
        }
        Ok(self.done >= self.total)
    }

    fn written(self, kind: Bulk) -> Map<String, Value> {
        let mut map = Map::new();
        map.insert("total".to_owned(), self.total.into());
        map.insert("done".to_owned(), self.done.into());
        map.insert("errors".to_owned(), self.errors.into());
        if kind == Bulk::Process {
            map.insert("jobs".to_owned(), self.jobs.into());
        }
        map
    }

    fn refused(&mut self, id: AssetId, error: &Error) {
        self.errors.insert(id.to_string(), error.code.wire().into());
    }
}
