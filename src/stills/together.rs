//! Pictures of one source that are wanted at the same time.
//!
//! Decoding is nine tenths of a thumbnail. A page that shows a photo in four sizes asks for
//! all of them at once; the first goes to a worker, and those that come while none is free
//! wait as one request, which decodes once.
//!
//! Invariant: whoever asks is answered, also when the asker who came first has gone; when all
//! have gone, the work stops. Those who wait together have the very same files open: a name may
//! lead to another file by now, and the same photo is asked for with and without a watermark.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;

use tokio::sync::oneshot;

use crate::error::Code;
use crate::error::Error;
use crate::error::Result;
use crate::infra::workers::Class;
use crate::media::Request;
use crate::media::imaging::Order;
use crate::stills::Identity;
use crate::stills::Picture;
use crate::stills::Sources;
use crate::stills::Stills;

/// More than this at once would hold a worker too long.
const MOST: usize = 8;

/// Who waits for a worker, by the sources. The first of a group keeps them open until it is served,
/// so that no other file is taken for one of them.
#[derive(Clone, Default)]
pub struct Gathering {
    waiting: Arc<Mutex<HashMap<Identity, Vec<Asked>>>>,
}

struct Asked {
    order: Order,
    answer: oneshot::Sender<Result<Picture>>,
}

impl Gathering {
    fn lock(&self) -> MutexGuard<'_, HashMap<Identity, Vec<Asked>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Joins those who wait for pictures of these sources; true for the first of them.
    fn join(&self, sources: &Sources, asked: Asked) -> bool {
        let mut waiting = self.lock();
        let group = waiting.entry(sources.identity).or_default();
        group.push(asked);
        group.len() == 1
    }

    /// Takes those who are served next, without those who have left, and says whether others
    /// stay behind.
    fn take(&self, sources: &Sources) -> (Vec<Asked>, bool) {
        let mut waiting = self.lock();
        let mut group = waiting.remove(&sources.identity).unwrap_or_default();
        group.retain(|asked| !asked.answer.is_closed());
        let rest = group.split_off(group.len().min(MOST));
        let others = !rest.is_empty();
        if others {
            waiting.insert(sources.identity, rest);
        }
        (group, others)
    }
}

impl Stills {
    /// Makes a picture for somebody who waits.
    pub async fn render_together(&self, sources: Sources, order: Order) -> Result<Picture> {
        let (answer, mine) = oneshot::channel();
        if self.gathering.join(&sources, Asked { order, answer }) {
            self.clone().serve(sources);
        }
        mine.await.unwrap_or_else(|_| Err(Code::Busy.because("the service is stopping")))
    }

    /// A task of its own: whoever came first may leave without failing the others.
    fn serve(self, sources: Sources) {
        tokio::spawn(async move {
            let seat = self.workers.seat(Class::Interactive).await;
            let (group, others) = self.gathering.take(&sources);
            if others {
                self.clone().serve(sources.clone());
            }
            let (orders, mut answers): (Vec<_>, Vec<_>) = group.into_iter().map(|a| (a.order, a.answer)).unzip();
            if answers.is_empty() {
                return;
            }
            let made = match seat {
                Ok(seat) => {
                    let request = Request::Render { orders, limits: self.limits.clone() };
                    tokio::select! {
                        made = self.run(seat, request, &sources) => made,
                        () = all_gone(&mut answers) => return,
                    }
                }
                Err(e) => Err(e),
            };
            hand_out(made, answers);
        });
    }
}

async fn all_gone(answers: &mut [oneshot::Sender<Result<Picture>>]) {
    for answer in answers {
        answer.closed().await;
    }
}

fn hand_out(made: Result<Vec<Result<Picture>>>, answers: Vec<oneshot::Sender<Result<Picture>>>) {
    let shared = match made {
        Ok(pictures) if pictures.len() == answers.len() => {
            for (answer, picture) in answers.into_iter().zip(pictures) {
                // Whoever left meanwhile needs none.
                let _ = answer.send(picture);
            }
            return;
        }
        Ok(_) => super::missing(),
        Err(e) => e,
    };
    let shared = Arc::new(shared);
    for answer in answers {
        let _ = answer.send(Err(Error::again(&shared)));
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;
    use crate::media::imaging::OutputFormat;
    use crate::media::imaging::Recipe;

    #[test]
    fn only_those_who_have_the_same_files_open_wait_together() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let put = |name: &str| {
            std::fs::write(at("new"), name).unwrap();
            std::fs::rename(at("new"), at(name)).unwrap();
        };
        let open = |mark: Option<&str>| {
            let file = |name: &str| File::open(at(name)).unwrap();
            Sources::new(file("picture"), mark.map(file)).unwrap()
        };
        ["picture", "mark", "other mark"].into_iter().for_each(put);
        let plain = open(None);
        let marked = open(Some("mark"));
        let otherwise_marked = open(Some("other mark"));
        // Made again: the name is the same, and what it leads to is not.
        put("picture");
        let made_again = open(None);

        let gathering = Gathering::default();
        // Whoever has gone is not served.
        let mut waiting = Vec::new();
        let mut joins = |sources: &Sources| {
            let (answer, mine) = oneshot::channel();
            waiting.push(mine);
            let order = Order::new(Recipe::default(), OutputFormat::Jpeg);
            gathering.join(sources, Asked { order, answer })
        };
        let groups = [&plain, &marked, &otherwise_marked, &made_again];
        for sources in groups {
            assert!(joins(sources), "the first of its group");
        }
        assert!(!joins(&made_again) && !joins(&open(None)));
        assert!(!joins(&plain.clone()));
        let sizes = groups.map(|sources| gathering.take(sources).0.len());
        assert_eq!(sizes, [2, 1, 1, 3]);
    }
}
