//! The table of routes: a row for each endpoint.
//!
//! A row is method, path, permission, handler and one line of documentation; the OpenAPI
//! document is made from the same rows. The permission has no default and is checked before
//! any extractor runs, so the order in which actix resolves extractors does not matter.
//!
//! A dialect says once how it tells an [`Error`], in a body of its own or as [`tell`] does; handlers return `Result<_, Failure>` and use `?`.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::future::Ready;
use std::future::ready;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Context;
use std::task::Poll;
use std::time::Duration;

use actix_web::FromRequest;
use actix_web::Handler;
use actix_web::HttpMessage;
use actix_web::HttpResponse;
use actix_web::Responder;
use actix_web::ResponseError;
use actix_web::Route as ActixRoute;
use actix_web::body::BoxBody;
use actix_web::dev::Service;
use actix_web::dev::ServiceRequest;
use actix_web::dev::ServiceResponse;
use actix_web::dev::Transform;
use actix_web::guard;
use actix_web::http::Method;
use actix_web::http::StatusCode;
use actix_web::http::header;
use actix_web::web;
use schemars::JsonSchema;
use schemars::Schema;
use schemars::SchemaGenerator;
use serde::Serialize;
use serde_json::Value;
use serde_json::json;

use crate::accounts::Accounts;
use crate::accounts::Caller;
use crate::accounts::Permission;
use crate::error::Code;
use crate::error::Error;
use crate::interfaces::http::caller;
use crate::interfaces::http::caller::Allowance;
use crate::interfaces::http::observe::RequestId;
use crate::interfaces::http::throttle::Throttle;
use crate::settings::Settings;

/// When to try again, unless the error knows better.
const USUAL_WAIT: Duration = Duration::from_secs(2);

/// How a dialect tells an error: the body, given the request's id.
pub type Tell = fn(&Error, &str) -> Value;

/// What a refused call is told. `status` and `message` are FileSpin's, the rest is ours.
#[derive(Serialize, JsonSchema)]
pub struct Refusal {
    /// Always `ERROR`.
    status: String,
    /// A stable word, such as `ASSET_NOT_FOUND`.
    message: String,
    /// One sentence: what is wrong and what to do.
    detail: String,
    /// Finds the request in the log.
    request_id: String,
}

/// An error as a [`Refusal`].
pub fn tell(error: &Error, request_id: &str) -> Value {
    let refusal = Refusal {
        status: "ERROR".to_owned(),
        message: error.code.wire().to_owned(),
        detail: error.public().to_owned(),
        request_id: request_id.to_owned(),
    };
    serde_json::to_value(refusal).unwrap_or_else(|_| json!({ "status": "ERROR" }))
}

/// An [`Error`] on its way out of a handler.
pub struct Failure(pub Error);

/// What a handler returns.
pub type Reply<T> = Result<T, Failure>;

/// One endpoint.
#[derive(Clone)]
pub struct Row {
    pub method: Method,
    pub path: &'static str,
    pub permission: Permission,
    pub summary: &'static str,
    /// Query parameters: name and meaning.
    pub query: Vec<(&'static str, &'static str)>,
    /// Headers that mean something here, beside those of HTTP: name and meaning.
    pub headers: Vec<(&'static str, &'static str)>,
    pub takes: Option<Body>,
    /// Whether the body may be left out.
    pub body_is_optional: bool,
    pub answers: Vec<(u16, Body)>,
    pub refuses: Vec<Code>,
    mount: Arc<dyn Fn() -> ActixRoute + Send + Sync>,
}

/// What a body is.
#[derive(Clone, Copy)]
pub enum Body {
    Json(fn(&mut SchemaGenerator) -> Schema),
    /// Media type and what it holds.
    Other(&'static str, &'static str),
}

impl Body {
    pub fn json<T: JsonSchema>() -> Body {
        Body::Json(SchemaGenerator::subschema_for::<T>)
    }
}

/// A handler that a row can have.
pub trait Endpoint<Args>: Handler<Args, Output: Responder> + Send + Sync + Clone {}

impl<F: Handler<Args, Output: Responder> + Send + Sync + Clone, Args> Endpoint<Args> for F {}

/// The rows of one dialect.
pub struct Routes {
    tell: Tell,
    rows: Vec<Row>,
}

impl Routes {
    pub fn new(tell: Tell) -> Routes {
        Routes { tell, rows: Vec::new() }
    }

    pub fn rows(&self) -> &[Row] {
        &self.rows
    }

    pub fn get<F: Endpoint<Args>, Args: FromRequest + 'static>(
        &mut self,
        path: &'static str,
        permission: Permission,
        handler: F,
        summary: &'static str,
    ) -> &mut Row {
        self.add(Method::GET, path, permission, handler, summary)
    }

    pub fn post<F: Endpoint<Args>, Args: FromRequest + 'static>(
        &mut self,
        path: &'static str,
        permission: Permission,
        handler: F,
        summary: &'static str,
    ) -> &mut Row {
        self.add(Method::POST, path, permission, handler, summary)
    }

    pub fn patch<F: Endpoint<Args>, Args: FromRequest + 'static>(
        &mut self,
        path: &'static str,
        permission: Permission,
        handler: F,
        summary: &'static str,
    ) -> &mut Row {
        self.add(Method::PATCH, path, permission, handler, summary)
    }

    pub fn put<F: Endpoint<Args>, Args: FromRequest + 'static>(
        &mut self,
        path: &'static str,
        permission: Permission,
        handler: F,
        summary: &'static str,
    ) -> &mut Row {
        self.add(Method::PUT, path, permission, handler, summary)
    }

    pub fn delete<F: Endpoint<Args>, Args: FromRequest + 'static>(
        &mut self,
        path: &'static str,
        permission: Permission,
        handler: F,
        summary: &'static str,
    ) -> &mut Row {
        self.add(Method::DELETE, path, permission, handler, summary)
    }

    /// What a path says about itself; browsers that ask before a call are answered by `observe` besides.
    pub fn options<F: Endpoint<Args>, Args: FromRequest + 'static>(
        &mut self,
        path: &'static str,
        permission: Permission,
        handler: F,
        summary: &'static str,
    ) -> &mut Row {
        self.add(Method::OPTIONS, path, permission, handler, summary)
    }

    fn add<F: Endpoint<Args>, Args: FromRequest + 'static>(
        &mut self,
        method: Method,
        path: &'static str,
        permission: Permission,
        handler: F,
        summary: &'static str,
    ) -> &mut Row {
        let (verb, tell) = (method.clone(), self.tell);
        let mount = move || {
            let route = if verb == Method::GET {
                ActixRoute::new().guard(guard::Any(guard::Get()).or(guard::Head()))
            } else {
                ActixRoute::new().method(verb.clone())
            };
            route.to(handler.clone()).wrap(Door { permission, tell })
        };
        let row = Row {
            method,
            path,
            permission,
            summary,
            query: Vec::new(),
            headers: Vec::new(),
            takes: None,
            body_is_optional: false,
            answers: Vec::new(),
            refuses: Vec::new(),
            mount: Arc::new(mount),
        };
        self.rows.push(row);
        #[expect(clippy::unwrap_used, reason = "a row was just pushed")]
        self.rows.last_mut().unwrap()
    }

    /// Puts the rows into the application, one resource for each path.
    pub fn mount(&self, app: &mut web::ServiceConfig) {
        let mut paths: BTreeMap<&str, Vec<&Row>> = BTreeMap::new();
        for row in &self.rows {
            paths.entry(row.path).or_default().push(row);
        }
        for (path, rows) in paths {
            let mut resource = web::resource(path);
            for row in &rows {
                resource = resource.route((row.mount)());
            }
            let allow = allowed(&rows);
            let tell = self.tell;
            let refusal = move |id: RequestId| {
                let error = Code::MethodNotAllowed.because(format!("This address answers {allow}."));
                let allow = allow.clone();
                async move { refuse(tell, &error, &id.0).customize().insert_header((header::ALLOW, allow)) }
            };
            app.service(resource.default_service(web::to(refusal)));
        }
    }
}

fn allowed(rows: &[&Row]) -> String {
    let mut verbs: Vec<&str> = rows.iter().map(|r| r.method.as_str()).collect();
    if verbs.contains(&"GET") {
        verbs.push("HEAD");
    }
    if !verbs.contains(&"OPTIONS") {
        verbs.push("OPTIONS");
    }
    verbs.join(", ")
}

impl Row {
    pub fn query(&mut self, parameters: impl IntoIterator<Item = (&'static str, &'static str)>) -> &mut Row {
        self.query.extend(parameters);
        self
    }

    pub fn headers(&mut self, headers: impl IntoIterator<Item = (&'static str, &'static str)>) -> &mut Row {
        self.headers.extend(headers);
        self
    }

    pub fn takes(&mut self, body: Body) -> &mut Row {
        self.takes = Some(body);
        self
    }

    /// The same for a body that may be left out.
    pub fn may_take(&mut self, body: Body) -> &mut Row {
        self.body_is_optional = true;
        self.takes(body)
    }

    pub fn answers(&mut self, status: u16, body: Body) -> &mut Row {
        self.answers.push((status, body));
        self
    }

    /// Codes beyond those that every route may answer.
    pub fn refuses(&mut self, codes: &[Code]) -> &mut Row {
        self.refuses.extend(codes);
        self
    }
}

impl<E: Into<Error>> From<E> for Failure {
    fn from(error: E) -> Failure {
        Failure(error.into())
    }
}

impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl ResponseError for Failure {
    fn status_code(&self) -> StatusCode {
        StatusCode::from_u16(self.0.code.http()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// Only a failure that reaches no door of the table is told this way.
    fn error_response(&self) -> HttpResponse<BoxBody> {
        HttpResponse::new(self.status_code())
    }
}

/// A refusal as a dialect tells it.
pub fn refuse(tell: Tell, error: &Error, request_id: &str) -> HttpResponse {
    let status = StatusCode::from_u16(error.code.http()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut answer = HttpResponse::build(status);
    answer.insert_header((header::CACHE_CONTROL, "no-store"));
    if matches!(error.code.http(), 429 | 503) {
        let wait = error.again_after.unwrap_or(USUAL_WAIT);
        let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
        answer.insert_header((header::RETRY_AFTER, seconds.max(1).to_string()));
    }
    if error.code.http() == 401 {
        answer.insert_header((header::WWW_AUTHENTICATE, "Bearer realm=\"cloakroom\""));
    }
    answer.json(tell(error, request_id))
}

/// Stands before a handler: settles the caller, refuses encoded bodies, tells failures.
struct Door {
    permission: Permission,
    tell: Tell,
}

impl<S> Transform<S, ServiceRequest> for Door
where
    S: Service<ServiceRequest, Response = ServiceResponse, Error = actix_web::Error> + 'static,
{
    type Response = ServiceResponse;
    type Error = actix_web::Error;
    type Transform = Guarded<S>;
    type InitError = ();
    type Future = Ready<Result<Guarded<S>, ()>>;

    fn new_transform(&self, inner: S) -> Self::Future {
        ready(Ok(Guarded { inner: Rc::new(inner), permission: self.permission, tell: self.tell }))
    }
}

struct Guarded<S> {
    inner: Rc<S>,
    permission: Permission,
    tell: Tell,
}

impl<S> Service<ServiceRequest> for Guarded<S>
where
    S: Service<ServiceRequest, Response = ServiceResponse, Error = actix_web::Error> + 'static,
{
    type Response = ServiceResponse;
    type Error = actix_web::Error;
    type Future = Pin<Box<dyn Future<Output = Result<ServiceResponse, actix_web::Error>>>>;

    fn poll_ready(&self, cx: &mut Context<'_>) -> Poll<Result<(), actix_web::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&self, request: ServiceRequest) -> Self::Future {
        let (inner, permission, tell) = (Rc::clone(&self.inner), self.permission, self.tell);
        Box::pin(async move {
            let http = request.request().clone();
            match check(&request, permission).await {
                Ok(caller) => {
                    request.extensions_mut().insert(caller);
                }
                Err(error) => {
                    let mut answer = told(tell, &error, &http);
                    Allowance::tell(&http, answer.headers_mut());
                    return Ok(request.into_response(answer));
                }
            }
            // A handler's `Err` has already become an answer; tell it in the dialect.
            let mut answer = match inner.call(request).await {
                Ok(answer) => match answer.response().error() {
                    Some(error) => {
                        let refusal = tell_any(tell, error, &http);
                        ServiceResponse::new(http.clone(), refusal)
                    }
                    None => answer,
                },
                Err(error) => {
                    let refusal = tell_any(tell, &error, &http);
                    ServiceResponse::new(http.clone(), refusal)
                }
            };
            Allowance::tell(&http, answer.headers_mut());
            Ok(answer)
        })
    }
}

async fn check(request: &ServiceRequest, permission: Permission) -> Result<Caller, Error> {
    let encoding = request.headers().get(header::CONTENT_ENCODING);
    if encoding.is_some_and(|e| !e.as_bytes().eq_ignore_ascii_case(b"identity")) {
        // A body of a few hundred bytes can unpack into gigabytes; nothing we take gains from packing.
        return Err(Code::UnsupportedMedia.because("Send the body without Content-Encoding."));
    }
    let accounts = request.app_data::<web::Data<Accounts>>().ok_or(Code::Internal)?;
    let settings = request.app_data::<web::Data<Settings>>().ok_or(Code::Internal)?;
    let caller = caller::admit(accounts, settings, request.request(), permission).await?;
    // Where a scope is asked for, tokens were counted already.
    let is_paced = matches!((permission, &caller), (Permission::Scope(_), Caller::Token { .. }));
    if permission != Permission::Anyone
        && !is_paced
        && let Some(throttle) = request.app_data::<web::Data<Throttle>>()
    {
        throttle.call(&caller)?;
    }
    Ok(caller)
}

fn told(tell: Tell, error: &Error, request: &actix_web::HttpRequest) -> HttpResponse {
    let id = RequestId::of(request);
    let throttle = request.app_data::<web::Data<Throttle>>();
    let slower = throttle.and_then(|throttle| throttle.failed(caller::network(request), error));
    let error = slower.as_ref().unwrap_or(error);
    match error.code.blame() {
        crate::error::Blame::Caller => tracing::debug!(request.id = %id.0, %error, "refused"),
        crate::error::Blame::World => tracing::warn!(request.id = %id.0, %error, "could not be served"),
        crate::error::Blame::Us => tracing::error!(request.id = %id.0, %error, "failed"),
    }
    refuse(tell, error, &id.0)
}

fn tell_any(tell: Tell, error: &actix_web::Error, request: &actix_web::HttpRequest) -> HttpResponse {
    if let Some(Failure(error)) = error.as_error::<Failure>() {
        return told(tell, error, request);
    }
    let foreign = match error.as_response_error().status_code().as_u16() {
        413 => Code::TooLarge.because(error.to_string()),
        status if (400..500).contains(&status) => Code::InvalidRequest.because(error.to_string()),
        _ => Code::Internal.because(error.to_string()),
    };
    told(tell, &foreign, request)
}
