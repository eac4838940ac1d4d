//! Rows that are asked for thousands of times a second, remembered between two changes.
//!
//! A write that changes what is remembered says so inside its transaction. From there until the write
//! has ended nothing is remembered of it, so that whoever has seen any of what it wrote is not
//! shown what was before, nor remembers it for others. A write may end without a commit, or by a panic.
//!
//! Time bounds what another program may have changed.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::Hash;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::time::Duration;

use crate::infra::db::Tx;

/// Values by their keys; cheap to clone.
pub struct Memory<K, V> {
    known: moka::sync::Cache<K, V>,
    changing: Arc<Mutex<Changing<K>>>,
}

/// A look into the database that has begun.
#[derive(Clone, Copy)]
pub struct Look {
    moves: u64,
}

/// The changes by writes that have not ended.
struct Changing<K> {
    /// How many change everything.
    all: u32,
    /// How many change what this key stands for.
    each: HashMap<K, u32>,
    /// Counts beginnings and ends: what was read before one is not remembered after it.
    moves: u64,
}

/// One change, until it is dropped.
struct Change<K: Hash + Eq> {
    changing: Arc<Mutex<Changing<K>>>,
    /// `None`: of everything.
    key: Option<K>,
}

impl<K, V> Memory<K, V>
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    /// Remembers so many at most, and each for so long at most.
    pub fn new(most: u64, life: Duration) -> Memory<K, V> {
        let known = moka::sync::Cache::builder().max_capacity(most).time_to_live(life).build();
        let changing = Changing { all: 0, each: HashMap::new(), moves: 0 };
        Memory { known, changing: Arc::new(Mutex::new(changing)) }
    }

    pub fn get(&self, key: &K) -> Option<V> {
        self.known.get(key)
    }

    /// To be taken before anything that the value is made of is read, the time of day too.
    pub fn look(&self) -> Look {
        Look { moves: locked(&self.changing).moves }
    }

    /// Remembers what a look has found, unless there was a change since.
    pub fn remember(&self, look: Look, key: K, value: V) {
        let changing = locked(&self.changing);
        if changing.moves == look.moves && changing.all == 0 && !changing.each.contains_key(&key) {
            self.known.insert(key, value);
        }
    }

    /// The next who asks looks again.
    pub fn forget(&self, key: &K) {
        self.known.invalidate(key);
    }

    /// This write changes what the key stands for.
    pub fn changes(&self, tx: &Tx, key: K) {
        self.begin(tx, Some(key));
    }

    /// This write changes everything.
    pub fn changes_all(&self, tx: &Tx) {
        self.begin(tx, None);
    }

    fn begin(&self, tx: &Tx, key: Option<K>) {
        let mut changing = locked(&self.changing);
        changing.moves += 1;
        if let Some(key) = &key {
            *changing.each.entry(key.clone()).or_default() += 1;
            self.known.invalidate(key);
        } else {
            changing.all += 1;
            self.known.invalidate_all();
        }
        drop(changing);
        let change = Change { changing: Arc::clone(&self.changing), key };
        tx.after_commit(move || drop(change));
    }
}

impl<K, V> Clone for Memory<K, V> {
    fn clone(&self) -> Memory<K, V> {
        Memory { known: self.known.clone(), changing: Arc::clone(&self.changing) }
    }
}

impl<K: Hash + Eq> Drop for Change<K> {
    fn drop(&mut self) {
        let mut changing = locked(&self.changing);
        // Who read before the commit may want to remember after it.
        changing.moves += 1;
        match self.key.take() {
            None => changing.all -= 1,
            Some(key) => {
                if let Entry::Occupied(mut left) = changing.each.entry(key) {
                    *left.get_mut() -= 1;
                    if *left.get() == 0 {
                        left.remove();
                    }
                }
            }
        }
    }
}

fn locked<K>(changing: &Mutex<Changing<K>>) -> MutexGuard<'_, Changing<K>> {
    changing.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;
    use crate::error::Code;
    use crate::infra::db::Db;
    use crate::support::clock::Clock;

    const SCHEMA: &str = "CREATE TABLE t (id INTEGER PRIMARY KEY, word TEXT NOT NULL) STRICT;";

    struct Bench {
        db: Db,
        words: Memory<i64, String>,
    }

    impl Bench {
        async fn new() -> Bench {
            let db = Db::temporary(SCHEMA, Clock::system()).unwrap();
            db.write(|tx| Ok(tx.execute_batch("INSERT INTO t VALUES (1, 'old'), (2, 'other')")?)).await.unwrap();
            Bench { db, words: Memory::new(10, Duration::from_hours(1)) }
        }

        /// As a room does it.
        async fn word(&self, id: i64) -> String {
            if let Some(known) = self.words.get(&id) {
                return known;
            }
            let look = self.words.look();
            let read = self.db.read(move |c| Ok(c.query_row("SELECT word FROM t WHERE id = ?1", [id], |r| r.get(0))?));
            let word: String = read.await.unwrap();
            self.words.remember(look, id, word.clone());
            word
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn who_has_seen_a_commit_is_not_shown_what_was_before() {
        for everything in [false, true] {
            let bench = Bench::new().await;
            assert_eq!(bench.word(1).await, "old");
            let look = bench.words.look();
            let (committed, is_committed) = mpsc::channel();
            let (go_on, goes_on) = mpsc::channel::<()>();
            let writing = tokio::spawn({
                let (db, words) = (bench.db.clone(), bench.words.clone());
                async move {
                    db.write(move |tx| {
                        tx.after_commit(move || {
                            committed.send(()).unwrap();
                            goes_on.recv().unwrap();
                        });
                        if everything {
                            words.changes_all(tx);
                        } else {
                            words.changes(tx, 1);
                        }
                        Ok(tx.execute("UPDATE t SET word = 'new' WHERE id = 1", [])?)
                    })
                    .await
                }
            });
            tokio::task::block_in_place(|| is_committed.recv()).unwrap();
            // Others see the commit by now; its own caller does not know of it yet.
            assert_eq!(bench.word(1).await, "new");
            bench.words.remember(look, 1, "old".to_owned());
            assert_eq!(bench.words.get(&1), None);
            bench.word(2).await;
            assert_eq!(bench.words.get(&2).is_none(), everything, "what is not changed may be remembered");
            go_on.send(()).unwrap();
            writing.await.unwrap().unwrap();
            bench.words.remember(look, 1, "old".to_owned());
            assert_eq!(bench.word(1).await, "new");
            assert_eq!(bench.words.get(&1).as_deref(), Some("new"));
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_change_ends_with_its_write_whatever_becomes_of_that() {
        let bench = Bench::new().await;
        for panics in [false, true] {
            let words = bench.words.clone();
            let failed = bench.db.write(move |tx| {
                words.changes(tx, 1);
                words.changes_all(tx);
                assert!(!panics, "as a room might");
                Err::<(), _>(Code::Conflict.into())
            });
            assert!(failed.await.is_err());
            assert_eq!(bench.word(1).await, "old");
            assert_eq!(bench.words.get(&1).as_deref(), Some("old"));
        }
        assert!(locked(&bench.words.changing).each.is_empty());
    }
}
