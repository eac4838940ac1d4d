//! Which runner does which kind of job.
//!
//! A kind is registered once, with its numbers and the room that does it; the types end
//! here, the engine sees text in and a result out. Arguments that do not parse are a failure
//! that no repetition mends: the job is discarded at once.

use std::collections::HashMap;
use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use crate::error::Code;
use crate::error::Error;
use crate::error::Result;
use crate::infra::jobs::Attempt;
use crate::infra::jobs::Job;
use crate::infra::jobs::Run;
use crate::infra::jobs::model::Backoff;
use crate::infra::jobs::model::Queue;

pub(super) type Work<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// A runner, its job type gone.
pub(super) trait Runner: Send + Sync {
    fn run(self: Arc<Self>, args: String, at: Attempt) -> Work<Result<()>>;
    fn gave_up(self: Arc<Self>, args: String, error: Arc<Error>) -> Work<()>;
}

/// A kind, as the engine needs it.
#[derive(Clone)]
pub(super) struct Entry {
    pub kind: &'static str,
    pub queue: Queue,
    pub max_attempts: u32,
    pub timeout: Duration,
    pub backoff: Backoff,
    pub runner: Arc<dyn Runner>,
}

impl Entry {
    pub(super) fn new<J: Job>(runner: Arc<impl Run<J>>) -> Entry {
        Entry {
            kind: J::KIND,
            queue: J::QUEUE,
            max_attempts: J::MAX_ATTEMPTS,
            timeout: J::TIMEOUT,
            backoff: J::BACKOFF,
            runner: Arc::new(Typed { runner, job: PhantomData::<fn() -> J> }),
        }
    }
}

/// All kinds.
#[derive(Default)]
pub(super) struct Registry(HashMap<&'static str, Entry>);

impl Registry {
    pub(super) fn add(&mut self, entry: Entry) {
        self.0.insert(entry.kind, entry);
    }

    pub(super) fn get(&self, kind: &str) -> Option<Entry> {
        self.0.get(kind).cloned()
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Entry> {
        self.0.values()
    }
}

struct Typed<J, R> {
    runner: Arc<R>,
    job: PhantomData<fn() -> J>,
}

impl<J: Job, R: Run<J>> Runner for Typed<J, R> {
    fn run(self: Arc<Self>, args: String, at: Attempt) -> Work<Result<()>> {
        Box::pin(async move { self.runner.run(parse::<J>(&args)?, &at).await })
    }

    fn gave_up(self: Arc<Self>, args: String, error: Arc<Error>) -> Work<()> {
        Box::pin(async move {
            match parse::<J>(&args) {
                Ok(job) => self.runner.gave_up(job, &error).await,
                Err(e) => tracing::error!(job.kind = J::KIND, error = %e, "nobody can be told of a job given up"),
            }
        })
    }
}

fn parse<J: Job>(args: &str) -> Result<J> {
    serde_json::from_str(args).map_err(|e| Code::InvalidRequest.from(format!("the arguments of a {} job", J::KIND), e))
}
