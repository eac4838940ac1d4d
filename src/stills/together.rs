//! Pictures of one source that are wanted at the same time.
//!
//! Decoding is nine tenths of a thumbnail. A page that shows a photo in four sizes asks for
//! all of them at once; the first goes to a worker, and those that come while none is free
//! wait as one request, which decodes once.
//!
//! Invariant: whoever asks is answered, also when the asker who came first has gone; when all
//! have gone, the work stops.

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
use crate::stills::Picture;
use crate::stills::Sources;
use crate::stills::Stills;

/// More than this at once would hold a worker too long.
const MOST: usize = 8;

/// Who waits for a worker, by the name of the sources.
#[derive(Clone, Default)]
pub struct Gathering {
    waiting: Arc<Mutex<HashMap<String, Vec<Asked>>>>,
}

struct Asked {
    order: Order,
    answer: oneshot::Sender<Result<Picture>>,
}

impl Gathering {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Vec<Asked>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Joins those who wait for this name; true for the first of them.
    fn join(&self, name: &str, asked: Asked) -> bool {
        let mut waiting = self.lock();
        let group = waiting.entry(name.to_owned()).or_default();
        group.push(asked);
        group.len() == 1
    }

    /// Takes those who are served next, without those who have left, and says whether others
    /// stay behind.
    fn take(&self, name: &str) -> (Vec<Asked>, bool) {
        let mut waiting = self.lock();
        let mut group = waiting.remove(name).unwrap_or_default();
        group.retain(|asked| !asked.answer.is_closed());
        let rest = group.split_off(group.len().min(MOST));
        let others = !rest.is_empty();
        if others {
            waiting.insert(name.to_owned(), rest);
        }
        (group, others)
    }
}

impl Stills {
    /// Makes a picture for somebody who waits; `name` is equal exactly for equal sources.
    pub async fn render_together(&self, name: &str, sources: Sources, order: Order) -> Result<Picture> {
        let (answer, mine) = oneshot::channel();
        if self.gathering.join(name, Asked { order, answer }) {
            self.clone().serve(name.to_owned(), sources);
        }
        mine.await.unwrap_or_else(|_| Err(Code::Busy.because("the service is stopping")))
    }

    /// A task of its own: whoever came first may leave without failing the others.
    fn serve(self, name: String, sources: Sources) {
        tokio::spawn(async move {
            let seat = self.workers.seat(Class::Interactive).await;
            let (group, others) = self.gathering.take(&name);
            if others {
                self.clone().serve(name, sources.clone());
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
