//! What handlers take from a request, refused in our own words when it does not fit.

use std::future::Future;
use std::future::Ready;
use std::future::ready;
use std::pin::Pin;
use std::str::FromStr;

use actix_web::FromRequest;
use actix_web::HttpRequest;
use actix_web::dev::Payload;
use actix_web::http::header;
use actix_web::web;
use futures_util::StreamExt;
use serde::de::DeserializeOwned;

use crate::assets::AssetId;
use crate::error::Code;
use crate::error::Result;
use crate::interfaces::http::Config;
use crate::interfaces::http::pace::Pace;
use crate::interfaces::http::table::Failure;

/// The largest JSON body that is read.
pub const MAX_JSON_BYTES: usize = 256 * 1024;

/// The `{id}` of the path as an asset id. Anything else cannot be an asset: 404.
pub struct Id(pub AssetId);

impl FromRequest for Id {
    type Error = Failure;
    type Future = Ready<Result<Id, Failure>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let text = request.match_info().get("id").unwrap_or_default();
        let missing = || Code::AssetNotFound.because("No asset has this id: an id is 32 lower-case hex digits.");
        ready(AssetId::from_str(text).map(Id).map_err(|()| Failure(missing())))
    }
}

/// Query pairs, decoded, in the order they came.
pub struct Pairs(pub Vec<(String, String)>);

impl Pairs {
    /// The last value of a name.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().rev().find(|(n, _)| n == name).map(|(_, value)| &**value)
    }

    /// A whole number, or a sentence about why not.
    pub fn number(&self, name: &str) -> Result<Option<u32>> {
        self.get(name)
            .map(|text| {
                text.parse().map_err(|_| {
                    Code::InvalidRequest.because(format!("{name}: `{text}` is not a whole number up to 4294967295"))
                })
            })
            .transpose()
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (&**name, &**value))
    }
}

impl FromRequest for Pairs {
    type Error = Failure;
    type Future = Ready<Result<Pairs, Failure>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let decoded = web::Query::<Vec<(String, String)>>::from_query(request.query_string());
        ready(
            decoded
                .map(|pairs| Pairs(pairs.into_inner()))
                .map_err(|e| Failure(Code::InvalidRequest.because(format!("the query string is not understood: {e}")))),
        )
    }
}

/// A JSON body of at most `MAX_JSON_BYTES`, whatever its declared type.
pub struct JsonBody<T>(pub T);

impl<T: DeserializeOwned + 'static> FromRequest for JsonBody<T> {
    type Error = Failure;
    type Future = Pin<Box<dyn Future<Output = Result<JsonBody<T>, Failure>>>>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let body = body(request, payload);
        Box::pin(async move { Ok(JsonBody(parsed(&body.await?)?)) })
    }
}

/// The same for a call that may come without a body.
pub struct MaybeJson<T>(pub Option<T>);

impl<T: DeserializeOwned + 'static> FromRequest for MaybeJson<T> {
    type Error = Failure;
    type Future = Pin<Box<dyn Future<Output = Result<MaybeJson<T>, Failure>>>>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let body = body(request, payload);
        Box::pin(async move {
            let body = body.await?;
            if body.is_empty() { Ok(MaybeJson(None)) } else { Ok(MaybeJson(Some(parsed(&body)?))) }
        })
    }
}

fn parsed<T: DeserializeOwned>(body: &[u8]) -> Result<T> {
    serde_json::from_slice(body)
        .map_err(|e| Code::InvalidRequest.because(format!("The body is not the JSON this call takes: {e}.")))
}

/// A body of at most `MAX_JSON_BYTES`, read to its end.
pub fn body(request: &HttpRequest, payload: &mut Payload) -> impl Future<Output = Result<Vec<u8>>> + use<> {
    let declared = request.headers().get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse().ok());
    let pace = request.app_data::<web::Data<Pace>>().map(|p| p.as_ref().clone());
    let mut payload = payload.take();
    async move {
        let too_large = || Code::TooLarge.because(format!("A JSON body may have at most {MAX_JSON_BYTES} bytes."));
        if declared.is_some_and(|length: usize| length > MAX_JSON_BYTES) {
            return Err(too_large());
        }
        let mut watch = pace.unwrap_or_default().watch();
        let mut body = Vec::new();
        while let Some(chunk) = watch.next(payload.next()).await? {
            let chunk = chunk.map_err(|e| {
                Code::UploadIncomplete.from("The body ended early.", std::io::Error::other(e.to_string()))
            })?;
            watch.came(chunk.len());
            if body.len() + chunk.len() > MAX_JSON_BYTES {
                return Err(too_large());
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }
}

/// The origin under which the caller reached us, or the configured one.
pub struct Origin(pub String);

impl FromRequest for Origin {
    type Error = Failure;
    type Future = Ready<Result<Origin, Failure>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let configured = request.app_data::<web::Data<Config>>().map(|c| c.public_url.trim_end_matches('/').to_owned());
        let origin = configured.filter(|url| !url.is_empty()).unwrap_or_else(|| {
            let seen = request.connection_info();
            format!("{}://{}", seen.scheme(), seen.host())
        });
        ready(Ok(Origin(origin)))
    }
}

/// Numbers in the path. Anything else cannot be one that somebody gave: 404.
macro_rules! numbers {
    ($($(#[$doc:meta])+ $name:ident = $parameter:literal, $missing:ident, $sentence:literal;)+) => {$(
        $(#[$doc])+
        pub struct $name(pub i64);

        impl FromRequest for $name {
            type Error = Failure;
            type Future = Ready<Result<$name, Failure>>;

            fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
                let text = request.match_info().get($parameter).unwrap_or_default();
                ready(text.parse().map($name).map_err(|_| Failure(Code::$missing.because($sentence))))
            }
        }
    )+};
}

numbers! {
    /// The `{user_id}` of the path.
    UserId = "user_id", UserNotFound, "No user has this id.";
    /// The `{key_id}` of the path.
    KeyId = "key_id", KeyNotFound, "No key has this id.";
    /// The `{job_id}` of the path.
    JobId = "job_id", JobNotFound, "No job has this id.";
    /// The `{schema_id}` of the path.
    SchemaId = "schema_id", SchemaNotFound, "No schema has this id: an id is a whole number.";
    /// The `{collection_id}` of the path.
    CollectionId = "collection_id", CollectionNotFound, "No collection has this id: an id is a whole number.";
}
