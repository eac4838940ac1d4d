//! One's own account: logging in and out, the password, keys, the second factor, accepting an
//! invitation.
//!
//! Shapes: <https://developers.filespin.io/reference/web-application-login-with-jwt> and
//! `authentication/jwt-validation`. Keys, second factor and invitations are ours.

use actix_web::HttpRequest;
use actix_web::HttpResponse;
use actix_web::web::Data;
use actix_web::web::Json;
use qrcodegen::QrCode;
use qrcodegen::QrCodeEcc;
use schemars::JsonSchema;
use serde::Deserialize;
use serde::Serialize;

use crate::accounts::Accounts;
use crate::accounts::Caller;
use crate::accounts::NewKey;
use crate::accounts::Permission;
use crate::accounts::model::Change;
use crate::accounts::model::CredentialKind;
use crate::accounts::model::Credentials;
use crate::error::Code;
use crate::interfaces::filespin::reply::private;
use crate::interfaces::http::caller::From;
use crate::interfaces::http::caller::bearer;
use crate::interfaces::http::extract::JsonBody;
use crate::interfaces::http::extract::KeyId;
use crate::interfaces::http::extract::Pairs;
use crate::interfaces::http::table::Body;
use crate::interfaces::http::table::Reply;
use crate::interfaces::http::table::Routes;
use crate::wire::filespin::users::KeyList;
use crate::wire::filespin::users::UserData;

/// Half a year: longer than anybody forgets to change a key.
const LONGEST_OLD_KEY_SECONDS: u64 = 183 * 24 * 3600;

pub fn mount(r: &mut Routes) {
    let own = Permission::OwnAccount;
    let unreadable = [Code::InvalidRequest, Code::TooLarge, Code::UploadIncomplete, Code::BodyTooSlow];
    for method in [Routes::get, Routes::post] {
        method(r, "/api/v1/login", Permission::Anyone, login, "Gives a bearer token for 24 hours")
            .takes(Body::json::<LogIn>())
            .answers(200, Body::json::<LoggedIn>())
            .refuses(&unreadable)
            .refuses(&[Code::SecondFactorRequired, Code::TooManyRequests]);
    }
    for method in [Routes::get, Routes::post] {
        method(r, "/api/v1/auth/validate", Permission::Anyone, validate, "Tells whether a token is valid")
            .query([("_jwt", "The token, when it is not in the Authorization header")])
            .answers(200, Body::json::<Valid>())
            .refuses(&[Code::InvalidRequest, Code::Forbidden]);
    }
    r.get("/api/v1/user", own, find, "Oneself").answers(200, Body::json::<UserData>());
    for method in [Routes::patch, Routes::put] {
        method(r, "/api/v1/user", own, update, "Changes what is given of oneself; the rest stays")
            .takes(Body::json::<SelfUpdate>())
            .answers(200, Body::json::<UserData>())
            .refuses(&unreadable)
            .refuses(&[Code::MissingParameter, Code::Conflict, Code::TooManyRequests]);
    }
    r.post("/api/v1/user/logout", own, log_out, "Ends every token of one's own, everywhere")
        .answers(200, Body::json::<Done>());
    r.get("/api/v1/user/keys", own, keys, "One's keys that are good now, without their texts")
        .answers(200, Body::json::<KeyList>());
    r.post("/api/v1/user/keys", own, rotate, "Gives a new key; the old one works for a stated time")
        .takes(Body::json::<Rotation>())
        .answers(200, Body::json::<Rotated>())
        .refuses(&unreadable)
        .refuses(&[Code::Conflict]);
    r.delete("/api/v1/user/keys/{key_id}", own, revoke, "Ends one of one's keys now")
        .answers(200, Body::json::<Done>())
        .refuses(&[Code::KeyNotFound]);
    r.get("/api/v1/user/second_factor", own, factor, "Whether logging in takes a code as well")
        .answers(200, Body::json::<Factor>());
    r.post("/api/v1/user/second_factor", own, enrol, "Makes a secret for an authenticator app")
        .takes(Body::json::<Password>())
        .answers(200, Body::json::<Enrolled>())
        .refuses(&unreadable)
        .refuses(&[Code::Conflict, Code::TooManyRequests]);
    r.post("/api/v1/user/second_factor/confirm", own, confirm, "Puts the second factor in force")
        .takes(Body::json::<Confirmation>())
        .answers(200, Body::json::<Confirmed>())
        .refuses(&unreadable)
        .refuses(&[Code::NotFound, Code::Conflict, Code::TooManyRequests]);
    r.post("/api/v1/user/second_factor/disable", own, disable, "Ends the second factor")
        .takes(Body::json::<BothFactors>())
        .answers(200, Body::json::<Done>())
        .refuses(&unreadable)
        .refuses(&[Code::NotFound, Code::SecondFactorRequired, Code::TooManyRequests]);
    r.post("/api/v1/user/invitation", Permission::Anyone, invited, "Whose invitation this is")
        .takes(Body::json::<Token>())
        .answers(200, Body::json::<Invited>())
        .refuses(&unreadable)
        .refuses(&[Code::NotFound]);
    r.post("/api/v1/user/invitation/accept", Permission::Anyone, accept, "Becomes a user by an invitation")
        .takes(Body::json::<Acceptance>())
        .answers(200, Body::json::<UserData>())
        .refuses(&unreadable)
        .refuses(&[Code::NotFound]);
}

#[derive(Deserialize, JsonSchema)]
struct LogIn {
    email: String,
    password: String,
    /// Ours: the code of an authenticator app or a recovery code, for accounts with a second factor.
    otp: Option<String>,
}

#[derive(Serialize, JsonSchema)]
struct LoggedIn {
    user_id: i64,
    user_email: String,
    username: String,
    /// Send it as `Authorization: Bearer …`.
    jwt: String,
    role_id: i64,
    role_name: &'static str,
    uploadkey: String,
    notifications: Vec<String>,
}

#[derive(Serialize, JsonSchema)]
struct Valid {
    status: &'static str,
    message: &'static str,
    user_id: i64,
}

/// What was asked for is done.
#[derive(Serialize, JsonSchema)]
pub struct Done {
    /// `OK`
    status: &'static str,
    message: &'static str,
}

impl Done {
    pub fn said(message: &'static str) -> Json<Done> {
        Json(Done { status: "OK", message })
    }
}

/// What is to be different.
#[derive(Deserialize, JsonSchema)]
struct SelfUpdate {
    first_name: Option<String>,
    last_name: Option<String>,
    locale: Option<String>,
    /// Takes `old_password`.
    email: Option<String>,
    /// Takes `old_password`, and ends every token given so far.
    password: Option<String>,
    old_password: Option<String>,
}

#[derive(Deserialize, JsonSchema)]
struct Rotation {
    /// `api` or `upload`
    kind: String,
    /// A text of one's own; made up when absent.
    key: Option<String>,
    /// How long the old key works, in seconds; 0 ends it at once. A day, unless the box is configured otherwise.
    valid_old_seconds: Option<u64>,
}

#[derive(Serialize, JsonSchema)]
struct Rotated {
    kind: String,
    key: String,
}

#[derive(Serialize, JsonSchema)]
struct Factor {
    enabled: bool,
    recovery_codes_left: u32,
}

#[derive(Deserialize, JsonSchema)]
struct Password {
    password: String,
}

/// What an authenticator app takes. It counts from the first right code on.
#[derive(Serialize, JsonSchema)]
struct Enrolled {
    /// Base32.
    secret: String,
    otpauth_uri: String,
    /// The same as a QR code.
    qr_svg: String,
}

#[derive(Deserialize, JsonSchema)]
struct Confirmation {
    /// The code that the app shows now.
    otp: String,
}

#[derive(Serialize, JsonSchema)]
struct Confirmed {
    status: &'static str,
    /// Each stands in for a code once. They are shown this once.
    recovery_codes: Vec<String>,
}

#[derive(Deserialize, JsonSchema)]
struct BothFactors {
    password: String,
    /// A code or a recovery code.
    otp: String,
}

#[derive(Deserialize, JsonSchema)]
struct Token {
    /// What stands behind `#` in the link.
    token: String,
}

#[derive(Serialize, JsonSchema)]
struct Invited {
    email: String,
    first_name: String,
    last_name: String,
    role_name: &'static str,
}

#[derive(Deserialize, JsonSchema)]
struct Acceptance {
    token: String,
    /// At least 8 characters.
    password: String,
    first_name: Option<String>,
    last_name: Option<String>,
    locale: Option<String>,
}

async fn login(accounts: Data<Accounts>, from: From, body: JsonBody<LogIn>) -> Reply<HttpResponse> {
    let LogIn { email, password, otp } = body.0;
    let login = accounts.login(Credentials { email, password, otp }, from.0).await?;
    let username = format!("{} {}", login.user.first_name, login.user.last_name).trim().to_owned();
    Ok(private(&LoggedIn {
        user_id: login.user.id,
        user_email: login.user.email,
        username,
        jwt: login.token,
        role_id: login.user.role as i64,
        role_name: login.user.role.word(),
        uploadkey: login.upload_key.unwrap_or_default(),
        notifications: Vec::new(),
    }))
}

/// Asks about the token, not about the caller: the one in the query if there is one, else the one in
/// the header. Who asks with a key of their own learns nothing from that key.
async fn validate(accounts: Data<Accounts>, request: HttpRequest, query: Pairs) -> Reply<Json<Valid>> {
    let caller = match (query.get("_jwt"), bearer(request.headers())) {
        (Some(token), _) => accounts.by_token(token).await?,
        (None, Some(token)) => accounts.by_bearer(&token).await?,
        (None, None) => return Err(Code::Unauthorized.because("Send a token to validate.").into()),
    };
    Ok(Json(Valid { status: "OK", message: "The token is valid.", user_id: caller.user_id() }))
}

async fn find(accounts: Data<Accounts>, caller: Caller) -> Reply<HttpResponse> {
    Ok(private(&UserData::from(&accounts.person(caller.user_id()).await?)))
}

async fn update(
    accounts: Data<Accounts>,
    caller: Caller,
    from: From,
    body: JsonBody<SelfUpdate>,
) -> Reply<HttpResponse> {
    let SelfUpdate { first_name, last_name, locale, email, password, old_password } = body.0;
    let change = Change { email, first_name, last_name, locale, ..Change::default() };
    let person = accounts.change_self(caller.user_id(), change, old_password, password, from.0).await?;
    Ok(private(&UserData::from(&person)))
}

async fn log_out(accounts: Data<Accounts>, caller: Caller) -> Reply<Json<Done>> {
    accounts.log_out(caller.user_id()).await?;
    Ok(Done::said("Every token has ended."))
}

async fn keys(accounts: Data<Accounts>, caller: Caller) -> Reply<Json<KeyList>> {
    key_list(&accounts, caller.user_id()).await
}

/// The keys of a user.
pub async fn key_list(accounts: &Accounts, user: i64) -> Reply<Json<KeyList>> {
    Ok(Json(KeyList::new(accounts.list_keys(user).await?)))
}

async fn rotate(accounts: Data<Accounts>, caller: Caller, body: JsonBody<Rotation>) -> Reply<HttpResponse> {
    let Rotation { kind, key, valid_old_seconds } = body.0;
    let known = CredentialKind::from_word(&kind)
        .filter(|kind| *kind != CredentialKind::Token)
        .ok_or_else(|| Code::InvalidRequest.because("kind: has to be `api` or `upload`"))?;
    let valid_old = old_key_life(&accounts, valid_old_seconds)?;
    let key = accounts.rotate(caller.user_id(), known, NewKey::of(key), valid_old).await?;
    Ok(private(&Rotated { kind, key }))
}

/// How long a replaced key is to work.
pub fn old_key_life(accounts: &Accounts, asked_seconds: Option<u64>) -> crate::error::Result<std::time::Duration> {
    let seconds = asked_seconds.unwrap_or(accounts.config().old_key_seconds);
    if seconds > LONGEST_OLD_KEY_SECONDS {
        return Err(Code::InvalidRequest.because(format!("valid_old_seconds: at most {LONGEST_OLD_KEY_SECONDS}")));
    }
    Ok(std::time::Duration::from_secs(seconds))
}

async fn revoke(accounts: Data<Accounts>, caller: Caller, key: KeyId) -> Reply<Json<Done>> {
    accounts.revoke(caller.user_id(), key.0).await?;
    Ok(Done::said("The key has ended."))
}

async fn factor(accounts: Data<Accounts>, caller: Caller) -> Reply<Json<Factor>> {
    let state = accounts.second_factor(caller.user_id()).await?;
    Ok(Json(Factor { enabled: state.enabled, recovery_codes_left: state.recovery_codes_left }))
}

async fn enrol(accounts: Data<Accounts>, caller: Caller, from: From, body: JsonBody<Password>) -> Reply<HttpResponse> {
    let enrolment = accounts.enrol(caller.user_id(), body.0.password, from.0).await?;
    let qr_svg = svg(&enrolment.uri)?;
    Ok(private(&Enrolled { secret: enrolment.secret, otpauth_uri: enrolment.uri, qr_svg }))
}

async fn confirm(accounts: Data<Accounts>, caller: Caller, body: JsonBody<Confirmation>) -> Reply<HttpResponse> {
    let recovery_codes = accounts.confirm(caller.user_id(), body.0.otp).await?;
    Ok(private(&Confirmed { status: "OK", recovery_codes }))
}

async fn disable(
    accounts: Data<Accounts>,
    caller: Caller,
    from: From,
    body: JsonBody<BothFactors>,
) -> Reply<Json<Done>> {
    let BothFactors { password, otp } = body.0;
    accounts.disable_second_factor(caller.user_id(), password, otp, from.0).await?;
    Ok(Done::said("Logging in takes the password alone."))
}

async fn invited(accounts: Data<Accounts>, body: JsonBody<Token>) -> Reply<HttpResponse> {
    let user = accounts.invited(&body.0.token).await?;
    Ok(private(&Invited {
        email: user.email,
        first_name: user.first_name,
        last_name: user.last_name,
        role_name: user.role.word(),
    }))
}

async fn accept(accounts: Data<Accounts>, body: JsonBody<Acceptance>) -> Reply<HttpResponse> {
    let Acceptance { token, password, first_name, last_name, locale } = body.0;
    let change = Change { first_name, last_name, locale, ..Change::default() };
    Ok(private(&UserData::from(&accounts.accept(token, password, change).await?)))
}

/// A QR code as one path, with the quiet zone that scanners want.
fn svg(text: &str) -> crate::error::Result<String> {
    use std::fmt::Write;
    const QUIET: i32 = 4;
    let code = QrCode::encode_text(text, QrCodeEcc::Medium).map_err(|e| Code::Internal.from("making a QR code", e))?;
    let side = code.size() + 2 * QUIET;
    let mut path = String::new();
    for y in 0..code.size() {
        for x in (0..code.size()).filter(|x| code.get_module(*x, y)) {
            let _ = write!(path, "M{} {}h1v1h-1z", x + QUIET, y + QUIET);
        }
    }
    Ok(format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {side} {side}\" shape-rendering=\"crispEdges\">\
         <rect width=\"{side}\" height=\"{side}\" fill=\"#fff\"/><path d=\"{path}\"/></svg>"
    ))
}
