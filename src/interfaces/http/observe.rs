//! Every request: its id, its log line, its figures, and the headers that all answers carry.
//!
//! The id comes from the caller's `X-Request-Id` when it is a plain word, else it is made
//! here; it is in the log, in error bodies and in the answer's header. Reading on-demand
//! images and contents is logged at `debug` only: a wall asks for thousands a minute.

use std::cell::Cell;
use std::fmt::Write;
use std::future::Ready;
use std::future::ready;
use std::sync::Arc;
use std::sync::atomic::AtomicI64;
use std::sync::atomic::AtomicU64;
use std::time::Duration;
use std::time::Instant;

use actix_web::FromRequest;
use actix_web::HttpMessage;
use actix_web::HttpRequest;
use actix_web::HttpResponse;
use actix_web::body::BoxBody;
use actix_web::body::MessageBody;
use actix_web::dev::Payload;
use actix_web::dev::ServiceRequest;
use actix_web::dev::ServiceResponse;
use actix_web::http::Method;
use actix_web::http::header;
use actix_web::middleware::Next;
use actix_web::web;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::interfaces::http::caller;
use crate::settings::Settings;
use crate::settings::auth::host_of;

/// Where pages hand in with an upload key.
pub const PICKER: &str = "/api/v1/upload";

/// Where uploads in pieces live (tus). What its protocol asks of every answer is done here.
pub const RESUMABLE: &str = "/files";

/// The version of that protocol.
pub const TUS_VERSION: &str = "1.0.0";

const METHOD_OVERRIDE: &str = "x-http-method-override";

/// Names a request in the log and in the answer.
#[derive(Clone, Debug)]
pub struct RequestId(pub Arc<str>);

impl RequestId {
    pub fn of(request: &HttpRequest) -> RequestId {
        request.extensions().get::<RequestId>().cloned().unwrap_or_else(|| RequestId("".into()))
    }

    fn given_or_new(request: &ServiceRequest) -> RequestId {
        let given = request.headers().get("x-request-id").and_then(|v| v.to_str().ok());
        let plain =
            |id: &&str| (1..=64).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        RequestId(given.filter(plain).map_or_else(next_id, Arc::from))
    }
}

/// Unique in this process and, by its random start, most likely among processes.
fn next_id() -> Arc<str> {
    thread_local!(static NEXT: Cell<u64> = Cell::new(crate::support::id::random::<8>().map_or(0, u64::from_le_bytes)));
    let number = NEXT.with(|next| next.replace(next.get().wrapping_add(1)));
    let mut text = String::with_capacity(16);
    let _ = write!(text, "{number:016x}");
    text.into()
}

impl FromRequest for RequestId {
    type Error = actix_web::Error;
    type Future = Ready<Result<RequestId, actix_web::Error>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        ready(Ok(RequestId::of(request)))
    }
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Labels {
    route: String,
    method: String,
    status: u16,
}

/// The figures of requests, as Prometheus reads them.
#[derive(Clone)]
pub struct Figures {
    requests: Family<Labels, Counter>,
    seconds: Histogram,
    under_way: Gauge,
    received_bytes: Counter<u64, AtomicU64>,
}

impl Figures {
    pub fn new(registry: &mut Registry) -> Figures {
        let figures = Figures {
            requests: Family::default(),
            seconds: Histogram::new([0.001, 0.005, 0.02, 0.1, 0.5, 2.0, 10.0, 60.0]),
            under_way: Gauge::<i64, AtomicI64>::default(),
            received_bytes: Counter::default(),
        };
        registry.register("http_requests", "Requests answered", figures.requests.clone());
        registry.register("http_request_seconds", "Time to the head of the answer", figures.seconds.clone());
        registry.register("http_requests_under_way", "Requests being answered", figures.under_way.clone());
        registry.register("upload_received_bytes", "Bytes of files received", figures.received_bytes.clone());
        figures
    }

    /// Bytes of a file have come in.
    pub fn received(&self, bytes: u64) {
        self.received_bytes.inc_by(bytes);
    }
}

/// Origins whose pages may call.
#[derive(Clone)]
pub struct Cors {
    pub origins: Vec<String>,
}

impl Cors {
    fn allowed(&self, request: &ServiceRequest) -> Option<header::HeaderValue> {
        let origin = request.headers().get(header::ORIGIN)?;
        let is_authorized = || {
            let settings = request.app_data::<web::Data<Settings>>()?;
            let host = host_of(origin.to_str().ok()?);
            settings.now().auth.admits(host.as_deref()).then(|| origin.clone())
        };
        if uses_upload_key(request) {
            // Named, so that a page elsewhere learns nothing of what an upload key is answered.
            return is_authorized();
        }
        // A browser that asks before a call does not say which key will come in a header.
        if *request.method() == Method::OPTIONS
            && is_resumable(request.path())
            && let Some(origin) = is_authorized()
        {
            return Some(origin);
        }
        if self.origins.iter().any(|o| o == "*") {
            return Some(header::HeaderValue::from_static("*"));
        }
        self.origins.iter().any(|o| o.as_bytes() == origin.as_bytes()).then(|| origin.clone())
    }
}

/// Whether the authorised domains decide, and not the origins of the configuration.
fn uses_upload_key(request: &ServiceRequest) -> bool {
    request.path() == PICKER || caller::upload_key(request.request()).is_some()
}

/// Whether an upload in pieces is meant, or all of them.
fn is_resumable(path: &str) -> bool {
    path.strip_prefix(RESUMABLE).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// The method that is meant, where a client cannot send it.
fn meant(request: &ServiceRequest) -> Option<Method> {
    let word = request.headers().get(METHOD_OVERRIDE).filter(|_| is_resumable(request.path()))?;
    [Method::OPTIONS, Method::HEAD, Method::POST, Method::PATCH, Method::DELETE]
        .into_iter()
        .find(|method| word.as_bytes().eq_ignore_ascii_case(method.as_str().as_bytes()))
}

/// The middleware around everything.
pub async fn observe(
    mut request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, actix_web::Error> {
    let began = Instant::now();
    let id = RequestId::given_or_new(&request);
    if let Some(meant) = meant(&request) {
        request.head_mut().method = meant;
    }
    let figures = request.app_data::<web::Data<Figures>>().cloned();
    let allowed = request.app_data::<web::Data<Cors>>().and_then(|cors| cors.allowed(&request));
    request.extensions_mut().insert(id.clone());
    if let Some(figures) = &figures {
        figures.under_way.inc();
    }
    let _count = Leaving(figures.as_ref().map(|f| f.under_way.clone()));
    let asks_for_options = *request.method() == Method::OPTIONS;
    let resumable = is_resumable(request.path());
    let mut answer = next.call(request).await?.map_into_boxed_body();
    if asks_for_options {
        answer = match answer.status().as_u16() {
            404 | 405 => preflight(answer),
            200..300 => permitted(answer),
            _ => answer,
        };
    }
    let status = answer.status().as_u16();
    let took = began.elapsed();
    if let Some(figures) = &figures {
        let route = answer.request().match_pattern().unwrap_or_else(|| "-".to_owned());
        let method = answer.request().method().as_str().to_owned();
        figures.requests.get_or_create(&Labels { route, method, status }).inc();
        figures.seconds.observe(took.as_secs_f64());
    }
    log(&answer, &id, status, took);
    common_headers(&mut answer, &id, allowed);
    if resumable {
        resumable_headers(&mut answer);
    }
    Ok(answer)
}

struct Leaving(Option<Gauge>);

impl Drop for Leaving {
    fn drop(&mut self) {
        if let Some(under_way) = &self.0 {
            under_way.dec();
        }
    }
}

fn log(answer: &ServiceResponse, id: &RequestId, status: u16, took: Duration) {
    let request = answer.request();
    let duration_ms = took.as_secs_f64() * 1000.0;
    // The path alone: queries carry signatures.
    if *request.method() == Method::GET && status < 400 {
        tracing::debug!(request.id = %id.0, method = %request.method(), path = request.path(), status, duration_ms, "request");
    } else {
        tracing::info!(request.id = %id.0, method = %request.method(), path = request.path(), status, duration_ms, "request");
    }
}

fn common_headers(answer: &mut ServiceResponse, id: &RequestId, allowed: Option<header::HeaderValue>) {
    use header::HeaderName;
    use header::HeaderValue;
    let headers = answer.headers_mut();
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(HeaderName::from_static("cross-origin-opener-policy"), HeaderValue::from_static("same-origin"));
    if let Ok(value) = HeaderValue::from_str(&id.0) {
        headers.insert(HeaderName::from_static("x-request-id"), value);
    }
    if let Some(origin) = allowed {
        let any = origin == "*";
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.insert(
            header::ACCESS_CONTROL_EXPOSE_HEADERS,
            HeaderValue::from_static(
                "Content-Length, Content-Range, Content-Disposition, ETag, X-Request-Id, Retry-After, \
                 Idempotent-Replayed",
            ),
        );
        if !any {
            headers.append(header::VARY, HeaderValue::from_static("Origin"));
        }
    }
}

/// What the protocol of uploads in pieces wants in every answer.
fn resumable_headers(answer: &mut ServiceResponse) {
    use header::HeaderName;
    use header::HeaderValue;
    const EXPOSED: &str = "Location, Retry-After, X-Request-Id, Tus-Resumable, Tus-Version, Tus-Max-Size, \
                           Tus-Extension, Tus-Checksum-Algorithm, Upload-Offset, Upload-Length, Upload-Expires, \
                           Upload-Metadata, Upload-Concat, Upload-Defer-Length, Cloakroom-Asset-Id, \
                           Idempotent-Replayed";
    let is_refused_version = answer.status().as_u16() == 412;
    let headers = answer.headers_mut();
    headers.insert(HeaderName::from_static("tus-resumable"), HeaderValue::from_static(TUS_VERSION));
    if is_refused_version {
        headers.insert(HeaderName::from_static("tus-version"), HeaderValue::from_static(TUS_VERSION));
    }
    if headers.contains_key(header::ACCESS_CONTROL_ALLOW_ORIGIN) {
        headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(EXPOSED));
    }
}

/// The answer of a route to OPTIONS, with what a browser wants to know.
fn permitted(mut answer: ServiceResponse<BoxBody>) -> ServiceResponse<BoxBody> {
    use header::HeaderValue;
    const HEADERS: &str = "Authorization, Content-Type, X-FileSpin-Api-Key, X-FileSpin-Upload-Key, \
                           X-Requested-With, X-Request-Id, X-HTTP-Method-Override, Tus-Resumable, Upload-Length, \
                           Upload-Offset, Upload-Metadata, Upload-Defer-Length, Upload-Concat, Upload-Checksum, \
                           Idempotency-Key";
    let headers = answer.headers_mut();
    for (name, value) in [
        (header::ACCESS_CONTROL_ALLOW_METHODS, "GET, HEAD, POST, PATCH, DELETE"),
        (header::ACCESS_CONTROL_ALLOW_HEADERS, HEADERS),
        (header::ACCESS_CONTROL_MAX_AGE, "86400"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    answer
}

/// A browser asks before it sends a key to another origin. No route answers OPTIONS, but the table's
/// refusal knows what else the address answers.
fn preflight(refusal: ServiceResponse<BoxBody>) -> ServiceResponse<BoxBody> {
    let allow = refusal.headers().get(header::ALLOW).cloned();
    let allow = allow.unwrap_or(header::HeaderValue::from_static("GET, HEAD, OPTIONS"));
    let answer = HttpResponse::NoContent()
        .insert_header((header::ACCESS_CONTROL_ALLOW_METHODS, "GET, HEAD, POST, PUT, PATCH, DELETE"))
        .insert_header((
            header::ACCESS_CONTROL_ALLOW_HEADERS,
            "Authorization, Content-Type, Range, If-Range, If-None-Match, X-FileSpin-Api-Key, \
             X-FileSpin-Upload-Key, X-Requested-With, X-Request-Id, Idempotency-Key",
        ))
        .insert_header((header::ACCESS_CONTROL_MAX_AGE, "86400"))
        .insert_header((header::ALLOW, allow))
        .finish();
    ServiceResponse::new(refusal.into_parts().0, answer)
}
