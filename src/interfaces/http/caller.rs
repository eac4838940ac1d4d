//! Who calls: an API key, a bearer token, an upload key, or nobody; and from where.
//!
//! Where a route asks for a scope, any of them may stand as the token in `Authorization`, with or
//! without the word before it, or in `?access_token=`; whoever lacks the scope is told 401, and
//! everybody how many calls are left.
//!
//! An upload key is looked for only on the routes that take one, and never lessens what another
//! key may do. It is public, so three more things are asked of such a call: that the page it comes from may
//! use upload keys, that its address does not call too often, and that the user behind the
//! key is allowed to hand in.

use std::future::Ready;
use std::future::ready;
use std::net::IpAddr;
use std::net::Ipv4Addr;

use actix_web::FromRequest;
use actix_web::HttpMessage;
use actix_web::HttpRequest;
use actix_web::dev::Payload;
use actix_web::http::header;
use actix_web::http::header::HeaderMap;
use actix_web::http::header::HeaderName;
use actix_web::web::Query;

use crate::accounts::Accounts;
use crate::accounts::Caller;
use crate::accounts::Permission;
use crate::accounts::Scope;
use crate::error::Code;
use crate::error::Result;
use crate::interfaces::http::table::Failure;
use crate::settings::Settings;
use crate::settings::auth::host_of;
use crate::support::rate::Network;

const API_KEY: &str = "x-filespin-api-key";

/// Where a token may stand in the query of a route that asks for a scope.
pub const ACCESS_TOKEN: &str = "access_token";

/// Where an upload key may stand in the query, and, for programs, in a header.
pub const UPLOAD_KEY: &str = "upload_key";
const UPLOAD_KEY_HEADER: &str = "x-filespin-upload-key";

/// Finds the caller and checks that they may do what the route asks.
///
/// A wrong key is refused even where nobody needs to be known: whoever sends a key wants to
/// learn that it does not work.
pub async fn admit(
    accounts: &Accounts,
    settings: &Settings,
    request: &HttpRequest,
    asked: Permission,
) -> Result<Caller> {
    // Looked for only where it counts: most requests are for pictures, and have a query.
    let key = if asked.takes_upload_keys() { upload_key(request) } else { None };
    if let Permission::Scope(scope) = asked {
        return admit_scoped(accounts, request, scope).await;
    }
    let caller = match key {
        // Whoever brings more than an upload key is let do more than that.
        Some(key) if asked == Permission::HandIn || !has_credentials(request.headers()) => {
            let caller = match accounts.by_upload_key(&key).await {
                // The upload was counted when it began.
                Ok(caller) if asked == Permission::ResumeUpload => caller,
                found => {
                    accounts.pace_upload_key(network(request))?;
                    found?
                }
            };
            if !settings.now().auth.admits(page(request.headers()).as_deref()) {
                return Err(Code::Forbidden.because("This page may not use upload keys: its domain is not authorised."));
            }
            caller
        }
        _ => identify(accounts, request.headers()).await?,
    };
    if caller.may(asked) {
        return Ok(caller);
    }
    match (caller, asked) {
        (Caller::Nobody, Permission::HandIn) => Err(Code::Unauthorized.because("Send an upload_key.")),
        (Caller::Nobody, _) => {
            Err(Code::Unauthorized.because("Send an X-FileSpin-Api-Key header or Authorization: Bearer token."))
        }
        (Caller::UploadKey { .. }, _) => {
            Err(Code::Forbidden.because("The user behind this upload key may not hand anything in."))
        }
        (Caller::Known { .. }, Permission::HandIn) => Err(Code::Forbidden.because("This takes an upload_key.")),
        (Caller::Known { .. }, _) => {
            Err(Code::Forbidden.because(format!("Your role may not do this: it asks for {}.", asked.word())))
        }
        (Caller::Token { .. }, _) => Err(Code::Forbidden.because("This token's scopes do not allow this call.")),
    }
}

async fn admit_scoped(accounts: &Accounts, request: &HttpRequest, scope: Scope) -> Result<Caller> {
    let caller = match scoped_token(request) {
        Some(token) => accounts.by_any(&token).await?,
        None => identify(accounts, request.headers()).await?,
    };
    if caller == Caller::Nobody {
        return Err(Code::Unauthorized.because("Send a token: Authorization: Bearer TOKEN, or ?access_token=TOKEN."));
    }
    let (limit, left) = accounts.pace_token(&caller);
    request.extensions_mut().insert(Allowance { limit, remaining: *left.as_ref().unwrap_or(&0) });
    left?;
    if caller.may(Permission::Scope(scope)) {
        return Ok(caller);
    }
    Err(Code::Unauthorized.because(format!("This takes a token with the scope {}.", scope.word())))
}

/// The token in `Authorization`, whatever stands before it, or in the query.
fn scoped_token(request: &HttpRequest) -> Option<String> {
    if let Some(value) = text(request.headers(), "authorization") {
        let bearer = value.split_once(' ').filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
        return Some(bearer.map_or(&*value, |(_, token)| token.trim()).to_owned());
    }
    if request.headers().contains_key(API_KEY) {
        return None;
    }
    let pairs = Query::<Vec<(String, String)>>::from_query(request.query_string()).ok()?.into_inner();
    pairs.into_iter().rev().find(|(name, _)| name == ACCESS_TOKEN).map(|(_, token)| token)
}

/// How many calls a caller may make in a minute, and how many are left.
#[derive(Clone, Copy)]
pub struct Allowance {
    limit: u32,
    remaining: u32,
}

impl Allowance {
    /// Says so in an answer, if the call was counted.
    pub fn tell(request: &HttpRequest, headers: &mut HeaderMap) {
        let Some(allowance) = request.extensions().get::<Allowance>().copied() else { return };
        headers.insert(HeaderName::from_static("x-prepr-ratelimit-limit"), allowance.limit.into());
        headers.insert(HeaderName::from_static("x-prepr-ratelimit-remaining"), allowance.remaining.into());
    }
}

async fn identify(accounts: &Accounts, headers: &HeaderMap) -> Result<Caller> {
    if let Some(key) = text(headers, API_KEY) {
        return accounts.by_api_key(&key).await;
    }
    match bearer(headers) {
        Some(token) => accounts.by_bearer(&token).await,
        None if headers.contains_key(header::AUTHORIZATION) => {
            Err(Code::Unauthorized.because("The Authorization header has to be `Bearer TOKEN`."))
        }
        None => Ok(Caller::Nobody),
    }
}

/// The token in `Authorization: Bearer TOKEN`.
pub fn bearer(headers: &HeaderMap) -> Option<String> {
    let value = text(headers, header::AUTHORIZATION.as_str())?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim().to_owned())
}

fn has_credentials(headers: &HeaderMap) -> bool {
    headers.contains_key(API_KEY) || headers.contains_key(header::AUTHORIZATION)
}

/// The upload key that a request brings.
pub fn upload_key(request: &HttpRequest) -> Option<String> {
    if let Some(key) = text(request.headers(), UPLOAD_KEY_HEADER) {
        return Some(key);
    }
    if !request.query_string().contains(UPLOAD_KEY) {
        return None;
    }
    let pairs = Query::<Vec<(String, String)>>::from_query(request.query_string()).ok()?.into_inner();
    pairs.into_iter().rev().find(|(name, _)| name == UPLOAD_KEY).map(|(_, key)| key)
}

/// The host of the page that calls: from `Origin`, else from `Referer`. `Origin: null` is no page.
fn page(headers: &HeaderMap) -> Option<String> {
    let named = text(headers, header::ORIGIN.as_str()).or_else(|| text(headers, header::REFERER.as_str()))?;
    host_of(&named)
}

/// Where a call comes from. Headers of proxies are not believed.
pub fn network(request: &HttpRequest) -> Network {
    Network::of(request.peer_addr().map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |peer| peer.ip()))
}

/// A header's text; one that is none cannot be right, but is not absent either.
fn text(headers: &HeaderMap, name: &str) -> Option<String> {
    headers.get(name).map(|value| value.to_str().unwrap_or_default().trim().to_owned())
}

impl FromRequest for Caller {
    type Error = Failure;
    type Future = Ready<Result<Caller, Failure>>;

    /// The row of the table has put the caller there.
    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        ready(Ok(request.extensions().get::<Caller>().cloned().unwrap_or(Caller::Nobody)))
    }
}

/// Where the call comes from, for those who count.
pub struct From(pub Network);

impl FromRequest for From {
    type Error = Failure;
    type Future = Ready<Result<From, Failure>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        ready(Ok(From(network(request))))
    }
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;
    use crate::accounts;
    use crate::accounts::MasterKey;
    use crate::accounts::Role;
    use crate::assets::Assets;
    use crate::infra::db::Db;
    use crate::settings::Auth;
    use crate::support::clock::Clock;
    use crate::support::cpu::Cpu;

    #[actix_web::test]
    async fn an_upload_key_counts_where_it_is_taken_and_lessens_nothing() {
        let clock = Clock::system();
        let db = Db::temporary(crate::app::SCHEMA, clock.clone()).unwrap();
        let settings = Settings::open(db.clone(), Assets::new(db.clone())).await.unwrap();
        let auth = Auth { authorized_domains: vec!["example.com".to_owned()], ..Auth::default() };
        let this = settings.clone();
        db.write(move |tx| this.edit(tx, |values| values.auth = auth)).await.unwrap();
        let config = accounts::Config::default();
        let master = MasterKey::derive(&[1; 32]).unwrap();
        let accounts = Accounts::new(config, db, clock, Cpu::open(2), master);
        let (user, keys) = accounts.create("a@b.c".into(), "a password".into(), Role::Creator, None).await.unwrap();

        let ask = async |asked, with_api_key: bool, origin: Option<&'static str>| {
            let mut request = TestRequest::with_uri(&format!("/x?upload_key={}", keys.upload_key));
            if with_api_key {
                request = request.insert_header((API_KEY, keys.api_key.clone()));
            }
            if let Some(origin) = origin {
                request = request.insert_header((header::ORIGIN, origin));
            }
            let outcome = admit(&accounts, &settings, &request.to_http_request(), asked).await;
            outcome.map_err(|e| e.code)
        };
        let page = Some("https://www.example.com");
        for asked in [Permission::HandIn, Permission::EditAssetOrHandedIn] {
            let Ok(Caller::UploadKey { user_id, .. }) = ask(asked, false, page).await else { panic!("{asked:?}") };
            assert_eq!(user_id, user.id);
            assert_eq!(ask(asked, false, Some("https://example.org")).await, Err(Code::Forbidden));
            assert_eq!(ask(asked, false, None).await, Err(Code::Forbidden));
        }
        let editor = ask(Permission::EditAssetOrHandedIn, true, None).await;
        assert_eq!(editor, Ok(Caller::of(&user)), "an editor stays one, wherever they call from");
        assert!(matches!(ask(Permission::HandIn, true, page).await, Ok(Caller::UploadKey { .. })));
        for asked in Permission::GRANTED {
            assert_eq!(ask(asked, false, page).await, Err(Code::Unauthorized), "{asked:?}");
        }
        assert_eq!(ask(Permission::Anyone, false, page).await, Ok(Caller::Nobody));
    }
}
