//! Login and token validation.

use actix_web::HttpResponse;
use actix_web::http::header;
use actix_web::web::Data;
use actix_web::web::Json;
use schemars::JsonSchema;
use serde::Deserialize;
use serde::Serialize;

use crate::accounts::Accounts;
use crate::accounts::Caller;
use crate::accounts::Permission;
use crate::error::Code;
use crate::interfaces::http::extract::JsonBody;
use crate::interfaces::http::extract::Pairs;
use crate::interfaces::http::table::Body;
use crate::interfaces::http::table::Reply;
use crate::interfaces::http::table::Routes;

pub fn mount(r: &mut Routes) {
    r.post("/api/v1/login", Permission::Anyone, login, "Gives a bearer token for 24 hours")
        .takes(Body::json::<Credentials>())
        .answers(200, Body::json::<LoggedIn>())
        .refuses(&[Code::InvalidRequest, Code::TooLarge]);
    for method in [Routes::get, Routes::post] {
        method(r, "/api/v1/auth/validate", Permission::Anyone, validate, "Tells whether a token is valid")
            .query([("_jwt", "The token, when it is not in the Authorization header")])
            .answers(200, Body::json::<Valid>());
    }
}

#[derive(Deserialize, JsonSchema)]
struct Credentials {
    email: String,
    password: String,
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

async fn login(accounts: Data<Accounts>, body: JsonBody<Credentials>) -> Reply<HttpResponse> {
    let login = accounts.login(body.0.email, body.0.password).await?;
    let username = format!("{} {}", login.user.first_name, login.user.last_name).trim().to_owned();
    let answer = LoggedIn {
        user_id: login.user.id,
        user_email: login.user.email,
        username,
        jwt: login.token,
        role_id: login.user.role as i64,
        role_name: login.user.role.word(),
        uploadkey: login.upload_key.unwrap_or_default(),
        notifications: Vec::new(),
    };
    Ok(HttpResponse::Ok().insert_header((header::CACHE_CONTROL, "no-store")).json(answer))
}

/// The door has checked a token in the header; one in the query is checked here.
async fn validate(accounts: Data<Accounts>, caller: Caller, query: Pairs) -> Reply<Json<Valid>> {
    let caller = match (caller, query.get("_jwt")) {
        (Caller::Nobody, Some(token)) => accounts.by_token(token).await?,
        (Caller::Nobody, None) => return Err(Code::Unauthorized.because("Send a token to validate.").into()),
        (known, _) => known,
    };
    Ok(Json(Valid { status: "OK", message: "The token is valid.", user_id: caller.user_id() }))
}
