//! Giving what was made its place, known to the sweep until it is done.
//!
//! A job that is cancelled ends at once, but not what it has begun on another thread: a file may still
//! appear a while later. Invariant: from when it is begun until it can have no effect any more, it is
//! under way ([`Placing::is_under_way`]), also while it waits for a thread.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;

use crate::error::Result;
use crate::infra::storage::Storage;
use crate::support::cpu::Cpu;

/// Cheap to clone.
#[derive(Clone)]
pub struct Placing {
    cpu: Cpu,
    storage: Storage,
    under_way: Arc<AtomicUsize>,
}

/// Counted while it lives.
struct Counted(Arc<AtomicUsize>);

impl Placing {
    pub fn new(cpu: Cpu, storage: Storage) -> Placing {
        Placing { cpu, storage, under_way: Arc::default() }
    }

    /// Does what gives files their places.
    pub async fn place<T: Send + 'static>(
        &self,
        moves: impl FnOnce(&Storage) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.under_way.fetch_add(1, Ordering::SeqCst);
        let (counted, storage) = (Counted(Arc::clone(&self.under_way)), self.storage.clone());
        self.cpu
            .run(move || {
                let _counted = counted;
                moves(&storage)
            })
            .await
    }

    /// Whether files are being given their places, of whatever asset.
    pub fn is_under_way(&self) -> bool {
        self.under_way.load(Ordering::SeqCst) > 0
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}
