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
//! answer, not for its next bytes. Two things are tried again here. A part of an upload is, for
//! some minutes: it is the same however often it is sent, and all that was sent before it would
//! be lost with it. And what a kept connection fails to carry goes over a fresh one, because it
//! says nothing of the bucket that a line which nobody used has died meanwhile.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::task::Context;
use std::task::Poll;
use std::time::Duration;
use std::time::Instant;

use bytes::Bytes;
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
const ANSWER_WITHIN: Duration = Duration::from_secs(if cfg!(test) { 5 } else { 20 });
/// The same on a connection that was kept, of what can be asked again.
const KEPT_ANSWER_WITHIN: Duration = Duration::from_secs(if cfg!(test) { 1 } else { 4 });
/// The same where the server joins an upload's parts: some copy them.
const JOINED_WITHIN: Duration = Duration::from_mins(3);
/// A body may pause this long.
const STALL: Duration = Duration::from_secs(15);
/// A part that failed is tried again after this, counted from when it was begun; doubled each time.
const FIRST_PAUSE: Duration = if cfg!(test) { Duration::from_millis(1) } else { Duration::from_secs(1) };
const LONGEST_PAUSE: Duration = FIRST_PAUSE.saturating_mul(8);
/// The signature of a request is good for a little longer.
const SIGNED_FOR: Duration = Duration::from_mins(14);
/// For so long from its first failure, however slow the line.
const TRIED_FOR: Duration = FIRST_PAUSE.saturating_mul(300);
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

/// What is asked, as far as it matters how it travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Changes nothing, or the same however often, and brings no bytes: it can be asked at once again.
    Light,
    /// A part of an upload.
    Part,
    /// The end of an upload in parts.
    Join,
    Other,
}

impl Kind {
    fn of<T>(request: &Request<T>) -> Kind {
        let query = request.uri().query().unwrap_or_default();
        let names = |name| query.split('&').any(|pair| pair.split_once('=').is_some_and(|(found, _)| found == name));
        match *request.method() {
            Method::GET | Method::HEAD | Method::DELETE => Kind::Light,
            Method::PUT if names("partNumber") => Kind::Part,
            Method::POST if names("uploadId") => Kind::Join,
            _ => Kind::Other,
        }
    }

    fn answered_within(self) -> Duration {
        if self == Kind::Join { JOINED_WITHIN } else { ANSWER_WITHIN }
    }

    /// The longest pause in an answer: who joins parts may say that they are at it, and go on saying so.
    fn stall(self) -> Duration {
        if self == Kind::Join { JOINED_WITHIN } else { STALL }
    }
}

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
        let (range, stall) = (request.headers().get(header::RANGE).cloned(), Kind::of(&request).stall());
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
            match tokio::time::timeout(stall, answer.chunk()).await {
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
            let mut kept = self.kept();
            if kept.len() < MOST_KEPT {
                kept.push(Kept { line, to, since: Instant::now() });
            }
        }
    }

    async fn ask(&self, request: Request<Buffer>) -> Result<(String, Line, Answer), opendal::Error> {
        let kind = Kind::of(&request);
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
        let (signed, mut first_failure, mut pause) = (Instant::now(), None, FIRST_PAUSE);
        loop {
            let began = Instant::now();
            let asked = self.ask_once(&url, &to, &again, kind).await;
            if kind != Kind::Part
                || !is_momentary(&asked)
                || first_failure.get_or_insert_with(Instant::now).elapsed() > TRIED_FOR
                || signed.elapsed() > SIGNED_FOR
            {
                return asked.map(|(line, answer)| (to, line, answer));
            }
            if pause == FIRST_PAUSE {
                let why =
                    asked.map_or_else(|e| e.to_string(), |(_, answer)| format!("the answer is {}", answer.status));
                tracing::warn!(to, why, "a part of an upload failed: it is sent again for some minutes");
            }
            tokio::time::sleep(pause.saturating_sub(began.elapsed())).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    async fn ask_once(
        &self,
        url: &Url,
        to: &str,
        request: &impl Fn() -> Request<Bytes>,
        kind: Kind,
    ) -> Result<(Line, Answer), opendal::Error> {
        if let Some(mut line) = self.take(to) {
            let within = if kind == Kind::Light { KEPT_ANSWER_WITHIN } else { kind.answered_within() };
            match line.forward(request(), within).await {
                Some(Ok(answer)) => return Ok((line, answer)),
                // Closed meanwhile, most likely.
                Some(Err(_)) => {}
                None => {
                    // The others went the same way.
                    self.kept().retain(|idle| idle.to != to);
                    if kind != Kind::Light {
                        return Err(late("no answer came"));
                    }
                }
            }
        }
        let mut line = self.fetch.connect(url, CONNECT_WITHIN).await.map_err(|e| failed("connecting", e))?;
        match line.forward(request(), kind.answered_within()).await {
            Some(answer) => Ok((line, answer.map_err(|e| failed("asking", e))?)),
            None => Err(late("no answer came")),
        }
    }

    fn take(&self, to: &str) -> Option<Line> {
        let mut kept = self.kept();
        kept.retain(|idle| idle.since.elapsed() < KEPT);
        let at = kept.iter().rposition(|idle| idle.to == to)?;
        Some(kept.swap_remove(at).line)
    }

    fn kept(&self) -> MutexGuard<'_, Vec<Kept>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
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

/// Whether what failed may well succeed in a moment.
fn is_momentary(asked: &Result<(Line, Answer), opendal::Error>) -> bool {
    match asked {
        Ok((_, answer)) => matches!(answer.status, 429 | 500 | 502..=504),
        Err(e) => e.is_temporary(),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_may_take_long_is_waited_for_long_and_only_parts_are_tried_again() {
        for (method, target, kind) in [
            ("GET", "/b/key", Kind::Light),
            ("HEAD", "/b/key?partNumber=1", Kind::Light),
            ("DELETE", "/b/key?uploadId=u", Kind::Light),
            ("PUT", "/b/key", Kind::Other),
            ("PUT", "/b/key?x=partNumber", Kind::Other),
            ("PUT", "/b/key?partNumber=3&uploadId=u", Kind::Part),
            ("POST", "/b/key?uploads", Kind::Other),
            ("POST", "/b/key?uploadId=u", Kind::Join),
        ] {
            let request = Request::builder().method(method).uri(format!("http://a{target}")).body(()).unwrap();
            assert_eq!(Kind::of(&request), kind, "{method} {target}");
            let is_long = kind.answered_within() > ANSWER_WITHIN && kind.stall() > STALL;
            assert_eq!(is_long, kind == Kind::Join, "{method} {target}");
        }
    }
}
