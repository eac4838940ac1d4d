//! Blocking work off the HTTP workers: bounded, shared, on one pool.
//!
//! actix gives every HTTP worker a single-threaded runtime with a blocking pool of its own,
//! neither bounded by us nor shared. Everything that blocks runs on the one multi-threaded
//! runtime instead, through the [`Cpu`] that was opened on it.
//!
//! Invariant: a closure that panics fails its caller with [`Code::Internal`]; nobody else notices.

use std::sync::Arc;

use tokio::runtime::Handle;
use tokio::sync::Semaphore;

use crate::error::Code;
use crate::error::Result;

/// A bounded pool for blocking work; cheap to clone.
#[derive(Clone)]
pub struct Cpu {
    handle: Handle,
    slots: Arc<Semaphore>,
}

impl Cpu {
    /// Opens the pool on the current runtime, with at most `slots` closures at once.
    pub fn open(slots: usize) -> Cpu {
        Cpu { handle: Handle::current(), slots: Arc::new(Semaphore::new(slots)) }
    }

    /// The runtime on which owned work lives.
    pub fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Runs `work` where it may block.
    pub async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
        let slot = Arc::clone(&self.slots).acquire_owned().await;
        let running = self.handle.spawn_blocking(move || {
            let _slot = slot;
            work()
        });
        running.await.map_err(|e| Code::Internal.from("blocking work", e))?
    }

    /// Runs `work` where it may block, and nobody waits for it.
    pub fn spawn(&self, work: impl FnOnce() + Send + 'static) {
        let this = self.clone();
        self.handle.spawn(async move {
            let done = this.run(move || {
                work();
                Ok(())
            });
            if let Err(error) = done.await {
                tracing::error!(%error, "work that nobody waits for failed");
            }
        });
    }
}
