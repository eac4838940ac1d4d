//! `Idempotency-Key`: creating calls that may be sent again without harm.
//!
//! In: a call, and a print of what it asks for: path, names and digests of files, fields. Out: the
//! first answer, word for word and with `Idempotent-Replayed: true`, or leave to go on. The files of
//! an upload that is sent again are read and compared, not kept. What is kept, and for how long, is
//! `ingest::once`. An answer that could not be noted is given all the same: what it speaks of is there.

use std::future::Ready;
use std::future::ready;

use actix_web::FromRequest;
use actix_web::HttpRequest;
use actix_web::HttpResponse;
use actix_web::dev::Payload;
use actix_web::http::header;
use ring::digest;
use serde::Serialize;

use crate::accounts::Caller;
use crate::error::Code;
use crate::error::Result;
use crate::ingest::Answered;
use crate::ingest::Ingest;
use crate::ingest::Once;
use crate::ingest::Repeat;
use crate::ingest::after_keeping;
use crate::interfaces::http::parts::Part;
use crate::interfaces::http::parts::Parts;
use crate::interfaces::http::table::Failure;
use crate::support::id::hex;

pub const HEADERS: [(&str, &str); 1] =
    [("Idempotency-Key", "A word of the caller's choice: for a day the same call with it is answered the same")];

pub const REFUSALS: &[Code] = &[Code::KeyInUse, Code::KeyReused];

/// A call that may be one of several.
pub struct Call {
    key: Option<String>,
    path: String,
}

/// What becomes of it.
pub enum Begun {
    /// It is to be made, and noted if it has a key.
    New(Option<Once>),
    /// It was made.
    Made(Answered),
}

impl FromRequest for Call {
    type Error = Failure;
    type Future = Ready<Result<Call, Failure>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let key = request.headers().get("idempotency-key");
        ready(Ok(Call {
            key: key.map(|value| value.to_str().unwrap_or_default().to_owned()),
            path: request.path().to_owned(),
        }))
    }
}

impl Call {
    /// One that has no key, or whose key is not heard.
    pub fn without_key() -> Call {
        Call { key: None, path: String::new() }
    }

    pub async fn begin(&self, ingest: &Ingest, caller: &Caller) -> Result<Begun> {
        let Some(key) = &self.key else { return Ok(Begun::New(None)) };
        Ok(match ingest.repeat(caller, key).await? {
            Repeat::First(once) => Begun::New(Some(once)),
            Repeat::Again(before) => Begun::Made(before),
        })
    }

    /// Whether it may be one of several.
    pub fn has_key(&self) -> bool {
        self.key.is_some()
    }

    /// What is asked for where.
    pub fn print(&self, body: &str) -> String {
        format!("{} {body}", self.path)
    }

    /// The same for a body that was understood.
    pub fn print_of(&self, body: &impl Serialize) -> Result<String> {
        let text = serde_json::to_vec(body).map_err(|e| Code::Internal.from("writing down a request", e))?;
        Ok(self.print(&hex(digest::digest(&digest::SHA256, &text).as_ref())))
    }
}

/// What a form holds, in a few characters.
pub struct BodyPrint(digest::Context);

impl Default for BodyPrint {
    fn default() -> BodyPrint {
        BodyPrint(digest::Context::new(&digest::SHA256))
    }
}

impl BodyPrint {
    pub fn file(&mut self, name: &str, sha256: &str) {
        self.0.update(format!("file {} {name} {sha256}\n", name.len()).as_bytes());
    }

    pub fn field(&mut self, name: &str, text: &str) {
        self.0.update(format!("field {} {name} {} {text}\n", name.len(), text.len()).as_bytes());
    }

    pub fn end(self) -> String {
        hex(self.0.finish().as_ref())
    }

    /// Of a form that nobody keeps, with the fields that are heard.
    pub async fn read(mut self, mut parts: Parts, is_heard: impl Fn(&str) -> bool) -> Result<String> {
        while let Some(part) = parts.next().await? {
            match part {
                Part::File(mut file) => {
                    let mut content = digest::Context::new(&digest::SHA256);
                    while let Some(chunk) = parts.chunk(&mut file).await? {
                        content.update(&chunk);
                    }
                    self.file(&file.name, &hex(content.finish().as_ref()));
                }
                Part::Field { name, text } if is_heard(&name) => self.field(&name, &text),
                Part::Field { .. } => {}
            }
        }
        Ok(self.end())
    }
}

/// The answer to a call that was just made; noted if it may come again.
pub async fn first(ingest: &Ingest, once: Option<Once>, body: &impl Serialize) -> Result<HttpResponse> {
    let text = serde_json::to_string(body).map_err(|e| Code::Internal.from("writing an answer", e))?;
    if let Some(once) = once {
        after_keeping(ingest.answered(&once, text.clone()).await);
    }
    Ok(json(text))
}

/// The answer that was given before, if it was noted.
pub fn noted(before: &Answered) -> Option<HttpResponse> {
    before.answer.clone().map(|text| replayed(json(text)))
}

/// One like it.
pub fn made_up(body: &impl Serialize) -> HttpResponse {
    replayed(HttpResponse::Ok().json(body))
}

/// Says of an answer that it was made before.
pub fn replayed(mut answer: HttpResponse) -> HttpResponse {
    answer
        .headers_mut()
        .insert(header::HeaderName::from_static("idempotent-replayed"), header::HeaderValue::from_static("true"));
    answer
}

fn json(text: String) -> HttpResponse {
    HttpResponse::Ok().content_type("application/json").body(text)
}
