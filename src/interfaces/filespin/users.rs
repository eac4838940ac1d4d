//! Users, groups and invitations, for those who administer them.
//!
//! The shape of a user is the vendor's (<https://developers.filespin.io/reference/user-api>);
//! the addresses are ours, because theirs are not documented.

use actix_web::HttpResponse;
use actix_web::web::Data;
use actix_web::web::Json;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::accounts::Accounts;
use crate::accounts::Permission;
use crate::accounts::Role;
use crate::accounts::Scope;
use crate::accounts::Scopes;
use crate::accounts::model::Change;
use crate::accounts::model::Filter;
use crate::accounts::model::GROUP;
use crate::accounts::model::Introduction;
use crate::error::Code;
use crate::error::Result;
use crate::interfaces::filespin::account;
use crate::interfaces::filespin::account::Done;
use crate::interfaces::filespin::reply::Origin;
use crate::interfaces::filespin::reply::private;
use crate::interfaces::http::extract::JsonBody;
use crate::interfaces::http::extract::KeyId;
use crate::interfaces::http::extract::Pairs;
use crate::interfaces::http::extract::UserId;
use crate::interfaces::http::table::Body;
use crate::interfaces::http::table::Reply;
use crate::interfaces::http::table::Routes;
use crate::support::page::Page;
use crate::wire::filespin::users::GroupData;
use crate::wire::filespin::users::GroupList;
use crate::wire::filespin::users::InvitationData;
use crate::wire::filespin::users::KeyList;
use crate::wire::filespin::users::MadeToken;
use crate::wire::filespin::users::MadeUser;
use crate::wire::filespin::users::UserData;
use crate::wire::filespin::users::UserList;

pub fn mount(r: &mut Routes) {
    let admin = Permission::AdministerUsers;
    let unreadable = [Code::InvalidRequest, Code::TooLarge, Code::UploadIncomplete, Code::BodyTooSlow];
    r.get("/api/v1/users", admin, list, "Lists users, oldest first")
        .query([("offset", "Rows to skip"), ("limit", "Rows to answer: 50, at most 500")])
        .answers(200, Body::json::<UserList>())
        .refuses(&[Code::InvalidRequest]);
    r.post("/api/v1/users", admin, create, "Makes a user, or invites one by a link")
        .takes(Body::json::<NewUser>())
        .answers(200, Body::json::<MadeUser>())
        .refuses(&unreadable)
        .refuses(&[Code::MissingParameter, Code::Conflict, Code::FeatureUnavailable]);
    r.post("/api/v1/users/search", admin, search, "Finds users")
        .takes(Body::json::<Search>())
        .answers(200, Body::json::<UserList>())
        .refuses(&unreadable);
    r.get("/api/v1/users/{user_id}", admin, find, "A user")
        .answers(200, Body::json::<UserData>())
        .refuses(&[Code::UserNotFound]);
    for method in [Routes::patch, Routes::put] {
        method(r, "/api/v1/users/{user_id}", admin, update, "Changes what is given; the rest stays")
            .takes(Body::json::<UserUpdate>())
            .answers(200, Body::json::<UserData>())
            .refuses(&unreadable)
            .refuses(&[Code::UserNotFound, Code::Conflict, Code::FeatureUnavailable]);
    }
    r.delete("/api/v1/users/{user_id}", admin, remove, "Forgets a user and all keys; what they handed in stays")
        .answers(200, Body::json::<Done>())
        .refuses(&[Code::UserNotFound, Code::Conflict]);
    r.post("/api/v1/users/{user_id}/invitation", admin, invite, "Makes a new invitation; the old link ends")
        .answers(200, Body::json::<InvitationData>())
        .refuses(&[Code::UserNotFound, Code::Conflict]);
    r.post("/api/v1/users/{user_id}/logout", admin, log_out, "Ends every token of a user")
        .answers(200, Body::json::<Done>())
        .refuses(&[Code::UserNotFound]);
    r.delete("/api/v1/users/{user_id}/second_factor", admin, reset, "Ends a second factor whose device is lost")
        .answers(200, Body::json::<Done>())
        .refuses(&[Code::NotFound]);
    r.get("/api/v1/users/{user_id}/keys", admin, keys, "The keys of a user that are good now, without their texts")
        .answers(200, Body::json::<KeyList>())
        .refuses(&[Code::UserNotFound]);
    r.post("/api/v1/users/{user_id}/keys", admin, give_token, "Gives a user a token with scopes, for Prepr's API")
        .takes(Body::json::<NewToken>())
        .answers(200, Body::json::<MadeToken>())
        .refuses(&unreadable)
        .refuses(&[Code::UserNotFound]);
    r.delete("/api/v1/users/{user_id}/keys/{key_id}", admin, revoke, "Ends a key of a user now")
        .answers(200, Body::json::<Done>())
        .refuses(&[Code::UserNotFound, Code::KeyNotFound]);
    r.get("/api/v1/groups", Permission::ReadAsset, groups, "The groups: one, which is the whole box")
        .answers(200, Body::json::<GroupList>());
    r.get("/api/v1/groups/{group_id}", Permission::ReadAsset, group, "A group")
        .answers(200, Body::json::<GroupData>())
        .refuses(&[Code::NotFound]);
}

/// A token to be made.
#[derive(Deserialize, JsonSchema)]
struct NewToken {
    /// What it is for.
    name: String,
    /// `assets`, `assets_publish`, `assets_delete`, `collections`, `collections_publish`, `collections_delete`
    scopes: Vec<String>,
}

/// A user to be made.
#[derive(Deserialize, JsonSchema)]
struct NewUser {
    email: Option<String>,
    /// Without one they are invited: the answer holds a link.
    password: Option<String>,
    #[serde(default)]
    first_name: String,
    #[serde(default)]
    last_name: String,
    /// 1 ADMIN, 2 MANAGER, 3 CREATOR, 4 USER
    role_id: Option<i64>,
    role_name: Option<String>,
    /// 1, the only one.
    group_id: Option<i64>,
    /// A language tag; `en` when absent.
    locale: Option<String>,
    /// `true` when absent.
    enabled: Option<bool>,
    #[serde(flatten)]
    fixed: Fixed,
}

/// What is to be different.
#[derive(Deserialize, JsonSchema)]
struct UserUpdate {
    email: Option<String>,
    first_name: Option<String>,
    last_name: Option<String>,
    role_id: Option<i64>,
    role_name: Option<String>,
    group_id: Option<i64>,
    locale: Option<String>,
    enabled: Option<bool>,
    /// Refused: it is its owner's, at `/api/v1/user`.
    password: Option<String>,
    #[serde(flatten)]
    fixed: Fixed,
}

/// What a user has that is the same for everybody, and may only be said as it is.
#[derive(Deserialize, JsonSchema)]
struct Fixed {
    /// `true`: the one group holds all assets of the box.
    group_asset_access: Option<bool>,
    /// None: this box has no add-ons.
    addons: Option<Vec<String>>,
}

/// What all found users have in common.
#[derive(Deserialize, JsonSchema)]
struct Search {
    /// Part of an e-mail address or a name.
    keyword: Option<String>,
    email: Option<String>,
    role_id: Option<i64>,
    enabled: Option<bool>,
    /// `REQUESTED` or `REGISTERED`
    invite_status: Option<String>,
    offset: Option<u32>,
    limit: Option<u32>,
}

async fn list(accounts: Data<Accounts>, query: Pairs) -> Reply<HttpResponse> {
    let page = Page::new(query.number("offset")?, query.number("limit")?, 50, 500);
    let (people, total) = accounts.people(Filter::default(), page).await?;
    Ok(private(&UserList::new(&people, total, page.offset, page.limit)))
}

async fn search(accounts: Data<Accounts>, body: JsonBody<Search>) -> Reply<HttpResponse> {
    let Search { keyword, email, role_id, enabled, invite_status, offset, limit } = body.0;
    let invited = match invite_status.as_deref() {
        None => None,
        Some("REQUESTED") => Some(true),
        Some("REGISTERED") => Some(false),
        Some(_) => return Err(Code::InvalidRequest.because("invite_status: REQUESTED or REGISTERED").into()),
    };
    let page = Page::new(offset, limit, 50, 500);
    let filter = Filter { keyword, email, role: role(role_id, None)?, enabled, invited };
    let (people, total) = accounts.people(filter, page).await?;
    Ok(private(&UserList::new(&people, total, page.offset, page.limit)))
}

async fn create(accounts: Data<Accounts>, origin: Origin, body: JsonBody<NewUser>) -> Reply<HttpResponse> {
    let NewUser { email, password, first_name, last_name, role_id, role_name, group_id, locale, enabled, fixed } =
        body.0;
    in_group(group_id)?;
    fixed.judge()?;
    let missing = |what: &'static str| Code::MissingParameter.because(what);
    let said = Introduction {
        email: email.ok_or_else(|| missing("email"))?,
        first_name,
        last_name,
        locale: locale.unwrap_or_else(|| "en".to_owned()),
        role: role(role_id, role_name.as_deref())?.ok_or_else(|| missing("role_id"))?,
        enabled: enabled.unwrap_or(true),
        password,
    };
    let (person, invitation) = accounts.introduce_person(said).await?;
    Ok(private(&MadeUser::new(&person, invitation.as_ref(), &origin.0)))
}

async fn find(accounts: Data<Accounts>, user: UserId) -> Reply<HttpResponse> {
    Ok(private(&UserData::from(&accounts.person(user.0).await?)))
}

async fn update(accounts: Data<Accounts>, user: UserId, body: JsonBody<UserUpdate>) -> Reply<HttpResponse> {
    let UserUpdate { email, first_name, last_name, role_id, role_name, group_id, locale, enabled, password, fixed } =
        body.0;
    in_group(group_id)?;
    fixed.judge()?;
    if password.is_some() {
        return Err(Code::InvalidRequest
            .because(
                "password: only its owner changes it, at /api/v1/user; for one who has forgotten it, the command \
                 line of the box sets another: cloakroom user password",
            )
            .into());
    }
    let role = role(role_id, role_name.as_deref())?;
    let change = Change { email, first_name, last_name, locale, role, enabled };
    Ok(private(&UserData::from(&accounts.change(user.0, change).await?)))
}

async fn remove(accounts: Data<Accounts>, user: UserId) -> Reply<Json<Done>> {
    accounts.remove(user.0).await?;
    Ok(Done::said("The user is forgotten."))
}

async fn invite(accounts: Data<Accounts>, origin: Origin, user: UserId) -> Reply<HttpResponse> {
    Ok(private(&InvitationData::new(&accounts.invite_again(user.0).await?, &origin.0)))
}

async fn log_out(accounts: Data<Accounts>, user: UserId) -> Reply<Json<Done>> {
    accounts.person(user.0).await?;
    accounts.log_out(user.0).await?;
    Ok(Done::said("Every token of this user has ended."))
}

async fn reset(accounts: Data<Accounts>, user: UserId) -> Reply<Json<Done>> {
    accounts.reset_second_factor(user.0).await?;
    Ok(Done::said("The second factor is gone."))
}

async fn keys(accounts: Data<Accounts>, user: UserId) -> Reply<Json<KeyList>> {
    account::key_list(&accounts, user.0).await
}

async fn give_token(accounts: Data<Accounts>, user: UserId, body: JsonBody<NewToken>) -> Reply<HttpResponse> {
    let NewToken { name, scopes } = body.0;
    let known = |word: &String| {
        Scope::from_word(word).ok_or_else(|| Code::InvalidRequest.because("scopes: `assets`, `assets_publish`, …"))
    };
    let granted = scopes.iter().map(known).collect::<Result<Scopes>>()?;
    let (key_id, token) = accounts.give_token(user.0, name.clone(), granted).await?;
    Ok(private(&MadeToken { key_id, name, scopes, token }))
}

async fn revoke(accounts: Data<Accounts>, user: UserId, key: KeyId) -> Reply<Json<Done>> {
    accounts.revoke(user.0, key.0).await?;
    Ok(Done::said("The key has ended."))
}

async fn groups() -> Json<GroupList> {
    Json(GroupList::only())
}

async fn group(path: actix_web::web::Path<String>) -> Reply<Json<GroupData>> {
    if path.as_str() == GROUP.to_string() {
        return Ok(Json(GroupData::only()));
    }
    Err(Code::NotFound.because("There is one group, 1.").into())
}

fn role(number: Option<i64>, word: Option<&str>) -> Result<Option<Role>> {
    let unknown = || Code::InvalidRequest.because("role_id: 1 (ADMIN), 2 (MANAGER), 3 (CREATOR) or 4 (USER)");
    match (number, word) {
        (None, None) => Ok(None),
        (Some(number), None) => Role::from_number(number).map(Some).ok_or_else(unknown),
        (None, Some(word)) => Role::from_word(word).map(Some).ok_or_else(unknown),
        (Some(number), Some(word)) => {
            Role::from_number(number).filter(|role| Role::from_word(word) == Some(*role)).map(Some).ok_or_else(|| {
                Code::InvalidRequest.because("role_id and role_name do not name the same role: send one of them")
            })
        }
    }
}

impl Fixed {
    /// Nothing that cannot be so is taken as if it were.
    fn judge(&self) -> Result<()> {
        if self.group_asset_access == Some(false) {
            return Err(Code::FeatureUnavailable
                .because("group_asset_access: there is one group, which holds all assets of the box."));
        }
        if self.addons.as_ref().is_some_and(|addons| !addons.is_empty()) {
            return Err(Code::FeatureUnavailable.because("addons: this box has none."));
        }
        Ok(())
    }
}

fn in_group(number: Option<i64>) -> Result<()> {
    match number {
        None | Some(GROUP) => Ok(()),
        Some(_) => Err(Code::InvalidRequest.because("group_id: there is one group, 1")),
    }
}
