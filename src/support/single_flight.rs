//! Many ask, one works, all get the answer.
//!
//! The first to ask for a key starts the work; whoever asks while it is under way waits for
//! the same answer. The work is a task of its own on the given runtime, so a visitor who
//! leaves does not fail the others; when all have left, it is dropped where it stands, so
//! that nobody keeps a box busy by asking and hanging up.
//!
//! Invariant: a key is known exactly while its work is under way. It is forgotten *before*
//! the answer is handed out, so nobody who has seen an answer can be given it again.
//! Followers watch a value, not an event, so there is no instant at which a wake-up is lost.
//!
//! It keeps no answers (that is a cache's business) and sets no time limit (the work's own
//! business). Work that panics, or whose runtime stops, is an error for all who wait.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;

use tokio::runtime::Handle;
use tokio::sync::watch;
use tracing::Instrument;
use tracing::Span;

use crate::error::Code;
use crate::error::Result;

type Answer<V> = watch::Receiver<Option<V>>;
type Answers<V> = Arc<watch::Sender<Option<V>>>;
type Flights<K, V> = Arc<Mutex<HashMap<K, Answers<V>>>>;

/// Work under way, by key; cheap to clone.
pub struct SingleFlight<K, V> {
    runtime: Handle,
    flights: Flights<K, V>,
}

impl<K, V> Clone for SingleFlight<K, V> {
    fn clone(&self) -> Self {
        SingleFlight { runtime: self.runtime.clone(), flights: Arc::clone(&self.flights) }
    }
}

impl<K, V> SingleFlight<K, V>
where
    K: Clone + Eq + Hash + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    /// Work will run on `runtime`, whatever runtime its askers live on.
    pub fn new(runtime: Handle) -> Self {
        SingleFlight { runtime, flights: Arc::default() }
    }

    /// The answer for `key`: that of the work under way, or of `work`, started now.
    ///
    /// `work` is dropped unused when somebody else's is already under way. An `Err` means that
    /// the work panicked or was cut off; what the work itself has to say belongs into `V`.
    pub async fn run<F, W>(&self, key: K, work: F) -> Result<V>
    where
        F: FnOnce() -> W + Send + 'static,
        W: Future<Output = V> + Send + 'static,
    {
        let mut answer = self.join(key, work);
        match answer.wait_for(Option::is_some).await.as_deref() {
            Ok(Some(value)) => Ok(value.clone()),
            _ => Err(Code::Internal.because("work shared by several requests ended without an answer")),
        }
    }

    /// How many keys are being worked on.
    pub fn under_way(&self) -> usize {
        lock(&self.flights).len()
    }

    fn join<F, W>(&self, key: K, work: F) -> Answer<V>
    where
        F: FnOnce() -> W + Send + 'static,
        W: Future<Output = V> + Send + 'static,
    {
        let (landing, answer) = {
            let mut flights = lock(&self.flights);
            if let Some(answers) = flights.get(&key) {
                return answers.subscribe();
            }
            let (answers, answer) = watch::channel(None);
            let answers = Arc::new(answers);
            flights.insert(key.clone(), Arc::clone(&answers));
            (Landing { key, flights: Arc::clone(&self.flights), answers, is_forgotten: false }, answer)
        };
        // Outside the lock: a runtime that is shutting down drops the task right here, and
        // dropping it takes the lock to forget the key.
        self.runtime.spawn(
            async move {
                // Owned by the task from its first poll on, so a panic in `work` drops it too.
                let mut landing = landing;
                tokio::select! {
                    value = work() => landing.hand_out(value),
                    () = landing.abandoned() => landing.is_forgotten = true,
                }
            }
            .instrument(Span::current()),
        );
        answer
    }
}

/// Forgets the key when the work ends, however it ends; then the answer goes out.
struct Landing<K: Eq + Hash, V> {
    key: K,
    flights: Flights<K, V>,
    answers: Answers<V>,
    /// From then on the key may belong to the next flight.
    is_forgotten: bool,
}

impl<K: Eq + Hash, V> Landing<K, V> {
    fn hand_out(&mut self, value: V) {
        lock(&self.flights).remove(&self.key);
        self.is_forgotten = true;
        self.answers.send_replace(Some(value));
    }

    /// Resolves when nobody waits any more, with the key forgotten.
    async fn abandoned(&self) {
        loop {
            self.answers.closed().await;
            if self.forget_if_alone() {
                return;
            }
        }
    }

    /// Joining takes the lock, too: whoever joined before this is counted.
    fn forget_if_alone(&self) -> bool {
        let mut flights = lock(&self.flights);
        let alone = self.answers.receiver_count() == 0;
        if alone {
            flights.remove(&self.key);
        }
        alone
    }
}

impl<K: Eq + Hash, V> Drop for Landing<K, V> {
    fn drop(&mut self) {
        if !self.is_forgotten {
            lock(&self.flights).remove(&self.key);
        }
    }
}

/// The map is never left half changed, so a poisoned lock is as good as any.
fn lock<K, V>(flights: &Mutex<HashMap<K, Answers<V>>>) -> MutexGuard<'_, HashMap<K, Answers<V>>> {
    flights.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::future::pending;
    use std::future::poll_fn;
    use std::pin::Pin;
    use std::sync::atomic::AtomicUsize;
    use std::sync::atomic::Ordering;
    use std::task::Poll;

    use tokio::sync::Barrier;
    use tokio::sync::Notify;
    use tokio::sync::oneshot;
    use tokio::task::JoinSet;

    use super::*;

    /// Polls once, so that the question has been asked although no answer is there yet.
    async fn ask<F: Future>(question: F) -> Pin<Box<F>> {
        let mut question = Box::pin(question);
        poll_fn(|cx| {
            assert!(question.as_mut().poll(cx).is_pending(), "answered too early");
            Poll::Ready(())
        })
        .await;
        question
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn one_works_and_all_get_the_answer() {
        let single = SingleFlight::new(Handle::current());
        let (worked, gate) = (Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
        let all_have_asked = Arc::new(Barrier::new(201));
        let mut askers = JoinSet::new();
        for _ in 0..200 {
            let (single, worked, gate) = (single.clone(), Arc::clone(&worked), Arc::clone(&gate));
            let all_have_asked = Arc::clone(&all_have_asked);
            askers.spawn(async move {
                let work = move || async move {
                    worked.fetch_add(1, Ordering::SeqCst);
                    gate.notified().await;
                    Arc::new("answer".to_owned())
                };
                let question = ask(single.run("key", work)).await;
                all_have_asked.wait().await;
                question.await.unwrap()
            });
        }
        all_have_asked.wait().await;
        assert_eq!(single.under_way(), 1);
        gate.notify_one();
        let answers = askers.join_all().await;
        assert_eq!(answers.len(), 200);
        assert!(answers.iter().all(|a| Arc::ptr_eq(a, &answers[0])));
        assert_eq!(worked.load(Ordering::SeqCst), 1);
        assert_eq!(single.under_way(), 0);
    }

    #[tokio::test]
    async fn a_leader_who_leaves_fails_nobody() {
        let single = SingleFlight::new(Handle::current());
        let (open, gate) = oneshot::channel::<u32>();
        let leader = ask(single.run(1, move || async move { gate.await.unwrap() })).await;
        let follower = ask(single.run(1, || async { unreachable!("somebody works already") })).await;
        drop(leader);
        open.send(42).unwrap();
        assert_eq!(follower.await.unwrap(), 42);
    }

    #[tokio::test]
    async fn work_that_everybody_left_is_dropped() {
        let single: SingleFlight<u8, u8> = SingleFlight::new(Handle::current());
        let (gone, dropped) = oneshot::channel::<()>();
        let work = move || async move {
            let _gone = gone;
            pending().await
        };
        let first = ask(single.run(1, work)).await;
        let second = ask(single.run(1, || async { unreachable!("somebody works already") })).await;
        drop(first);
        tokio::task::yield_now().await;
        assert_eq!(single.under_way(), 1, "one still waits");
        drop(second);
        assert!(dropped.await.is_err());
        assert_eq!(single.run(1, || async { 5 }).await.unwrap(), 5, "the key is free again");
    }

    #[tokio::test]
    async fn whoever_asks_after_the_answer_gets_a_fresh_one() {
        let single = SingleFlight::new(Handle::current());
        for n in 0..100 {
            assert_eq!(single.run("key", move || async move { n }).await.unwrap(), n);
        }
    }

    #[tokio::test]
    async fn other_keys_do_not_wait() {
        let single = SingleFlight::new(Handle::current());
        let stuck = ask(single.run("stuck", pending::<u32>)).await;
        assert_eq!(single.run("free", || async { 7 }).await.unwrap(), 7);
        assert_eq!(single.under_way(), 1);
        drop(stuck);
    }

    #[tokio::test]
    async fn a_panic_is_an_error_for_all_and_the_key_is_free_again() {
        let single = SingleFlight::new(Handle::current());
        let (open, gate) = oneshot::channel::<()>();
        let work = move || async move {
            gate.await.unwrap();
            panic!("as planned");
        };
        let leader = ask(single.run("key", work)).await;
        let follower = ask(single.run("key", || async { unreachable!() })).await;
        open.send(()).unwrap();
        assert_eq!(leader.await.unwrap_err().code, Code::Internal);
        assert_eq!(follower.await.unwrap_err().code, Code::Internal);
        assert_eq!(single.run("key", || async { 3 }).await.unwrap(), 3);
    }

    #[tokio::test]
    async fn a_panic_before_the_first_await_is_one_too() {
        let single: SingleFlight<u8, u8> = SingleFlight::new(Handle::current());
        let work = || -> std::future::Ready<u8> { panic!("as planned") };
        assert_eq!(single.run(0, work).await.unwrap_err().code, Code::Internal);
        assert_eq!(single.under_way(), 0);
    }

    #[tokio::test]
    async fn a_runtime_that_has_stopped_is_an_error_not_a_wait() {
        let other = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
        let single = SingleFlight::new(other.handle().clone());
        let waiting = ask(single.run("before", pending::<u32>)).await;
        other.shutdown_background();
        assert!(waiting.await.is_err());
        assert!(single.run("after", || async { 1 }).await.is_err());
        assert_eq!(single.under_way(), 0);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn no_answer_is_lost_in_the_rush() {
        let single = SingleFlight::new(Handle::current());
        let mut askers = JoinSet::new();
        for n in 0..5_000_u32 {
            let single = single.clone();
            askers.spawn(async move { (n % 7, single.run(n % 7, move || async move { n % 7 }).await.unwrap()) });
        }
        for (asked, answered) in askers.join_all().await {
            assert_eq!(asked, answered);
        }
        assert_eq!(single.under_way(), 0);
    }
}
