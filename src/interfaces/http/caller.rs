//! Who calls: an API key, a bearer token, or nobody.

use std::future::Ready;
use std::future::ready;

use actix_web::FromRequest;
use actix_web::HttpMessage;
use actix_web::HttpRequest;
use actix_web::dev::Payload;
use actix_web::http::header::HeaderMap;

use crate::accounts::Accounts;
use crate::accounts::Caller;
use crate::accounts::Permission;
use crate::error::Code;
use crate::error::Result;
use crate::interfaces::http::table::Failure;

const API_KEY: &str = "x-filespin-api-key";

/// Finds the caller and checks that they may do what the route asks.
///
/// A wrong key is refused even where nobody needs to be known: whoever sends a key wants to
/// learn that it does not work.
pub async fn admit(accounts: &Accounts, headers: &HeaderMap, asked: Permission) -> Result<Caller> {
    let caller = identify(accounts, headers).await?;
    if caller.may(asked) {
        Ok(caller)
    } else if caller == Caller::Nobody {
        Err(Code::Unauthorized.because("Send an X-FileSpin-Api-Key header or Authorization: Bearer token."))
    } else {
        Err(Code::Forbidden.because(format!("Your role may not do this: it asks for {}.", asked.word())))
    }
}

async fn identify(accounts: &Accounts, headers: &HeaderMap) -> Result<Caller> {
    let text = |name: &str| headers.get(name).map(|value| value.to_str().unwrap_or_default().trim().to_owned());
    if let Some(key) = text(API_KEY) {
        return accounts.by_api_key(&key).await;
    }
    match text("authorization") {
        None => Ok(Caller::Nobody),
        Some(value) => match value.split_once(' ') {
            Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => accounts.by_token(token.trim()).await,
            _ => Err(Code::Unauthorized.because("The Authorization header has to be `Bearer TOKEN`.")),
        },
    }
}

impl FromRequest for Caller {
    type Error = Failure;
    type Future = Ready<Result<Caller, Failure>>;

    /// The row of the table has put the caller there.
    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        ready(Ok(request.extensions().get::<Caller>().cloned().unwrap_or(Caller::Nobody)))
    }
}
