//! How requests to a bucket travel: over connections of this house, not of another HTTP client.
//!
//! In: requests that OpenDAL has signed. Out: answers whose bodies come as they are read. The
//! address stands in the configuration, so it is called wherever it leads ([`Fetch::of_the_operator`]).
//!
//! Everything runs on the runtime it was opened on, also what HTTP workers ask for, so that a
//! connection does not end with the thread that began it. Whoever stops reading ends the
//! exchange, and a connection whose answer was read to its end is used again.
//!
//! Invariant: nothing is waited for without end: not for a connection, not for the head of an
//! answer, not for its next bytes. Nothing is tried again here, except on a connection that was
//! kept and turned out to be closed.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::task::Context;
use std::task::Poll;
use std::time::Duration;
use std::time::Instant;

use futures_util::Stream;
use hyper::Method;
use hyper::Request;
use hyper::Response;
use hyper::Uri;
use hyper::header;
use hyper::header::HeaderValue;
use opendal::Buffer;
use opendal::ErrorKind;
use opendal::HttpBody;
use opendal::HttpTransport;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use url::Url;

use crate::error::Result;
use crate::support::fetch::Answer;
use crate::support::fetch::Fetch;
use crate::support::fetch::Line;

const CONNECT_WITHIN: Duration = Duration::from_secs(10);
/// Until the head of the answer, from when the last of the request went out; and until the next of it goes.
const ANSWER_WITHIN: Duration = if cfg!(test) { Duration::from_millis(500) } else { Duration::from_secs(20) };
/// A body may pause this long.
const STALL: Duration = Duration::from_secs(30);
/// Servers close what is idle; a little before that it is thrown away here.
const KEPT: Duration = Duration::from_secs(15);
const MOST_KEPT: usize = 16;

/// Carries requests; cheap to clone.
#[derive(Clone)]
pub(super) struct Transport {
    runtime: Handle,
    fetch: Fetch,
    kept: Arc<Mutex<Vec<Kept>>>,
}

/// A connection that nobody uses.
struct Kept {
    line: Line,
    to: String,
    since: Instant,
}

type Head = Response<Option<u64>>;

impl Transport {
    /// Opens it on the current runtime.
    pub(super) fn open() -> Result<Transport> {
        Ok(Transport { runtime: Handle::current(), fetch: Fetch::of_the_operator()?, kept: Arc::default() })
    }

    async fn exchange(
        self,
        request: Request<Buffer>,
        head: oneshot::Sender<Result<Head, opendal::Error>>,
        body: mpsc::Sender<Result<Buffer, opendal::Error>>,
    ) {
        let range = request.headers().get(header::RANGE).cloned();
        let asked = self.ask(request).await.and_then(|asked| match range {
            Some(range) if !keeps_to(&asked.2, &range) => {
                Err(late("the answer is not of the range that was asked for"))
            }
            _ => Ok(asked),
        });
        let (to, mut line, mut answer) = match asked {
            Ok(asked) => asked,
            Err(e) => {
                let _ = head.send(Err(e));
                return;
            }
        };
        if head.send(told(&answer)).is_err() {
            return;
        }
        loop {
            match tokio::time::timeout(STALL, answer.chunk()).await {
                Ok(Ok(Some(bytes))) => {
                    if body.send(Ok(bytes.into())).await.is_err() {
                        return;
                    }
                }
                Ok(Ok(None)) => break,
                Ok(Err(e)) => return drop(body.send(Err(failed("reading the answer", e))).await),
                Err(_) => return drop(body.send(Err(late("the answer stopped coming"))).await),
            }
        }
        if tokio::time::timeout(Duration::from_millis(50), line.is_ready()).await == Ok(true) {
            let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
            if kept.len() < MOST_KEPT {
                kept.push(Kept { line, to, since: Instant::now() });
            }
        }
    }

    async fn ask(&self, request: Request<Buffer>) -> Result<(String, Line, Answer), opendal::Error> {
        let wrong = |e| opendal::Error::new(ErrorKind::ConfigInvalid, "the address of the bucket").set_source(e);
        let url = Url::parse(&request.uri().to_string()).map_err(wrong)?;
        let to = url[..url::Position::BeforePath].to_owned();
        let (mut parts, body) = request.into_parts();
        let body = body.to_bytes();
        let host = &url[url::Position::BeforeHost..url::Position::AfterPort];
        parts.headers.insert(header::HOST, HeaderValue::from_str(host).map_err(|e| wrong_head(&e))?);
        let target = parts.uri.path_and_query().map_or("/", |target| target.as_str());
        parts.uri = target.parse::<Uri>().map_err(|e| wrong_head(&e))?;
        let again = || {
            let mut copy = Request::new(body.clone());
            copy.method_mut().clone_from(&parts.method);
            copy.uri_mut().clone_from(&parts.uri);
            copy.headers_mut().clone_from(&parts.headers);
            copy
        };
        if let Some(mut line) = self.take(&to) {
            match line.forward(again(), ANSWER_WITHIN).await {
                Some(Ok(answer)) => return Ok((to, line, answer)),
                // Closed meanwhile, most likely.
                Some(Err(_)) => {}
                None => return Err(late("no answer came")),
            }
        }
        let mut line = self.fetch.connect(&url, CONNECT_WITHIN).await.map_err(|e| failed("connecting", e))?;
        match line.forward(again(), ANSWER_WITHIN).await {
            Some(answer) => Ok((to, line, answer.map_err(|e| failed("asking", e))?)),
            None => Err(late("no answer came")),
        }
    }

    fn take(&self, to: &str) -> Option<Line> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.retain(|idle| idle.since.elapsed() < KEPT);
        let at = kept.iter().rposition(|idle| idle.to == to)?;
        Some(kept.swap_remove(at).line)
    }
}

impl HttpTransport for Transport {
    async fn fetch(&self, request: Request<Buffer>) -> Result<Response<HttpBody>, opendal::Error> {
        let is_head = request.method() == Method::HEAD;
        let (head, heard) = oneshot::channel();
        let (body, chunks) = mpsc::channel(4);
        let task = Task(self.runtime.spawn(self.clone().exchange(request, head, body)));
        let head = heard.await.map_err(|_| late("the exchange was cut off"))??;
        let size = head.body().filter(|_| !is_head);
        Ok(head.map(|_| HttpBody::new(Body { chunks, _task: task }, size)))
    }
}

fn told(answer: &Answer) -> Result<Head, opendal::Error> {
    let mut head = Response::builder().status(answer.status);
    if let Some(headers) = head.headers_mut() {
        headers.clone_from(answer.headers());
    }
    let length = answer.header("content-length").and_then(|length| length.parse().ok());
    head.body(length).map_err(|e| opendal::Error::new(ErrorKind::Unexpected, "the head of an answer").set_source(e))
}

/// Whether an answer that brings bytes brings those of `range`, as it is asked for. Somebody in between who has a page
/// of his own for everybody, or heeds no ranges, would else have it taken for the object.
fn keeps_to(answer: &Answer, range: &HeaderValue) -> bool {
    let asked = range.to_str().ok().and_then(|range| range.strip_prefix("bytes=")).unwrap_or_default();
    let is_whole = |length: u64| length.checked_sub(1).is_some_and(|last| asked == format!("0-{last}"));
    match answer.status {
        206 => {
            let told = answer.header("content-range").and_then(|told| told.strip_prefix("bytes "));
            told.and_then(|told| told.split_once('/')).is_some_and(|(told, _)| told == asked)
        }
        200..300 => answer.header("content-length").and_then(|length| length.parse().ok()).is_some_and(is_whole),
        _ => true,
    }
}

fn wrong_head(e: &impl std::fmt::Display) -> opendal::Error {
    opendal::Error::new(ErrorKind::Unexpected, format!("a request that cannot be written: {e}"))
}

fn failed(doing: &'static str, e: crate::error::Error) -> opendal::Error {
    opendal::Error::new(ErrorKind::Unexpected, doing).set_source(e).set_temporary()
}

fn late(what: &'static str) -> opendal::Error {
    opendal::Error::new(ErrorKind::Unexpected, what).set_temporary()
}

/// The bytes of an answer as they come.
struct Body {
    chunks: mpsc::Receiver<Result<Buffer, opendal::Error>>,
    _task: Task,
}

impl Stream for Body {
    type Item = Result<Buffer, opendal::Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.chunks.poll_recv(cx)
    }
}

/// An exchange under way; ends with whoever reads it.
struct Task(JoinHandle<()>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}
