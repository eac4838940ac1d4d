//! Users, groups and keys as FileSpin's API spells them.
//!
//! The shape of a user is the vendor's (<https://developers.filespin.io/reference/user-api>);
//! those of keys are ours.

use schemars::JsonSchema;
use serde::Serialize;

use crate::accounts::model::GROUP;
use crate::accounts::model::Invitation;
use crate::accounts::model::Key;
use crate::accounts::model::Permission;
use crate::accounts::model::Person;
use crate::support::clock::Instant;

/// What the one group is called.
const GROUP_NAME: &str = "Everybody";

/// A user.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct UserData {
    id: i64,
    /// Names the signer in signed links.
    access_id: String,
    /// Absent until an invitation is accepted.
    apikey: Option<String>,
    email: String,
    first_name: String,
    last_name: String,
    enabled: bool,
    /// `REQUESTED` until an invitation is accepted, then `REGISTERED`.
    invite_status: &'static str,
    role_id: i64,
    role_name: &'static str,
    group_id: i64,
    locale: String,
    /// What the role may do, such as `CREATE_ASSET`.
    permissions: Vec<&'static str>,
    #[serde(rename = "uploadKey")]
    upload_key: Option<String>,
    /// Always true: the group holds all assets of the box.
    group_asset_access: bool,
    /// Always empty: this box has no add-ons.
    addons: Vec<String>,
}

/// A page of users.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct UserList {
    users: Vec<UserData>,
    count: usize,
    total: u64,
    offset: u32,
    limit: u32,
}

/// A user who was just made.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct MadeUser {
    #[serde(flatten)]
    user: UserData,
    /// Ours: there when they were given no password.
    #[serde(skip_serializing_if = "Option::is_none")]
    invitation: Option<InvitationData>,
}

/// A link by which somebody becomes a user. It is shown once and works once.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct InvitationData {
    link: String,
    /// What `POST /api/v1/user/invitation/accept` takes.
    token: String,
    expires_at: String,
}

/// A group.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct GroupData {
    group_id: i64,
    name: &'static str,
}

/// All groups.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct GroupList {
    groups: Vec<GroupData>,
}

/// A key that is good now, without its text.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct KeyData {
    key_id: i64,
    /// `api`, `upload` or `token`
    kind: &'static str,
    /// Its first four characters.
    hint: String,
    /// Of a token: what it is for, and what it may.
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    scopes: Option<Vec<String>>,
    created_at: String,
    /// Absent for the present key: it is good until another takes over.
    expires_at: Option<String>,
}

/// A token as it is made: its text is shown this once.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct MadeToken {
    pub key_id: i64,
    pub name: String,
    pub scopes: Vec<String>,
    pub token: String,
}

/// Keys that are good now.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct KeyList {
    keys: Vec<KeyData>,
}

impl From<&Person> for UserData {
    fn from(person: &Person) -> UserData {
        let user = &person.user;
        UserData {
            id: user.id,
            access_id: user.access_id.clone(),
            apikey: person.api_key.clone(),
            email: user.email.clone(),
            first_name: user.first_name.clone(),
            last_name: user.last_name.clone(),
            enabled: user.enabled,
            invite_status: if user.password_hash.is_some() { "REGISTERED" } else { "REQUESTED" },
            role_id: user.role as i64,
            role_name: user.role.word(),
            group_id: GROUP,
            locale: user.locale.clone(),
            permissions: user.role.permissions().map(Permission::word).collect(),
            upload_key: person.upload_key.clone(),
            group_asset_access: true,
            addons: Vec::new(),
        }
    }
}

impl UserList {
    pub fn new(people: &[Person], total: u64, offset: u32, limit: u32) -> UserList {
        let users: Vec<_> = people.iter().map(UserData::from).collect();
        UserList { count: users.len(), users, total, offset, limit }
    }
}

impl MadeUser {
    pub fn new(person: &Person, invitation: Option<&Invitation>, origin: &str) -> MadeUser {
        MadeUser {
            user: UserData::from(person),
            invitation: invitation.map(|invitation| InvitationData::new(invitation, origin)),
        }
    }
}

impl InvitationData {
    /// The token stands behind `#`, where neither logs nor other sites see it.
    pub fn new(invitation: &Invitation, origin: &str) -> InvitationData {
        InvitationData {
            link: format!("{origin}/invitation#{}", invitation.token),
            token: invitation.token.clone(),
            expires_at: invitation.expires_at.iso(),
        }
    }
}

impl GroupData {
    pub fn only() -> GroupData {
        GroupData { group_id: GROUP, name: GROUP_NAME }
    }
}

impl GroupList {
    pub fn only() -> GroupList {
        GroupList { groups: vec![GroupData::only()] }
    }
}

impl KeyList {
    pub fn new(keys: Vec<Key>) -> KeyList {
        let shown = |key: Key| KeyData {
            key_id: key.id,
            kind: key.kind.word(),
            hint: key.hint,
            name: key.label,
            scopes: key.scopes.map(|scopes| scopes.to_string().split(' ').map(str::to_owned).collect()),
            created_at: key.created_at.iso(),
            expires_at: key.expires_at.map(Instant::iso),
        };
        KeyList { keys: keys.into_iter().map(shown).collect() }
    }
}
