//! A transaction as a room sees it: a connection that knows its instant and what to do once
//! the commit holds.
//!
//! A closure handed to `Db::write` gets a [`Tx`]. It stands in a savepoint of its own inside
//! a transaction that it may share with other closures; it never sees which.
//!
//! Invariant: what was asked for with [`Tx::wake`] or [`Tx::after_commit`] happens after the
//! data is on disk and before the caller is answered. When the closure fails, or the commit does, it is
//! dropped then instead.
//!
//! Not for use here: `BEGIN`, `COMMIT`, `ROLLBACK` and deferred constraints. The first three
//! end the neighbours' transaction too, and a deferred constraint is found only at the commit
//! that all share.

use std::cell::RefCell;
use std::ops::Deref;
use std::sync::Arc;

use rusqlite::Connection;
use tokio::sync::Notify;

use crate::support::clock::Instant;

pub(super) type AfterCommit = Box<dyn FnOnce() + Send>;

/// A write in progress.
pub struct Tx<'c> {
    conn: &'c Connection,
    now: Instant,
    after: RefCell<Vec<AfterCommit>>,
}

impl<'c> Tx<'c> {
    pub(super) fn new(conn: &'c Connection, now: Instant) -> Tx<'c> {
        Tx { conn, now, after: RefCell::default() }
    }

    /// The one instant of this write: all its rows carry the same.
    pub fn now(&self) -> Instant {
        self.now
    }

    /// Wakes all who wait on `who` at the time of the commit. Register first, then look.
    pub fn wake(&self, who: &Arc<Notify>) {
        let who = Arc::clone(who);
        self.after_commit(move || who.notify_waiters());
    }

    /// Does `then` after the commit and before the answer, on the writer's thread: it must be short and not block.
    pub fn after_commit(&self, then: impl FnOnce() + Send + 'static) {
        self.after.borrow_mut().push(Box::new(then));
    }

    pub(super) fn into_after(self) -> Vec<AfterCommit> {
        self.after.into_inner()
    }
}

impl Deref for Tx<'_> {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        self.conn
    }
}
