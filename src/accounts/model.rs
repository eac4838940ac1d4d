//! Users, roles and what a role may do.

use serde::Deserialize;
use serde::Serialize;

use crate::support::clock::Instant;

/// The only group: everybody on the box, and all its assets.
pub const GROUP: i64 = 1;

/// The contract's four roles; the numbers are on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Admin = 1,
    Manager = 2,
    Creator = 3,
    User = 4,
}

/// What a call asks of its caller. Every route states one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Permission {
    /// Nobody needs to be known: health, login, on-demand images.
    Anyone,
    /// Whoever is known, about themselves.
    OwnAccount,
    /// An upload key, from a page that may use it.
    HandIn,
    ReadAsset,
    /// To make, change and delete collections of one's own. Whoever may read does, but no token.
    OwnCollection,
    /// To sign links with one's own key, which outlive a token: so no token does.
    SignLink,
    CreateAsset,
    /// As `CreateAsset`; or an upload key.
    CreateAssetOrHandIn,
    /// The same for a further piece of an upload, of which there may be many in a minute; the route has to ask
    /// whose upload it is.
    ResumeUpload,
    EditAsset,
    /// As `EditAsset`; or an upload key, and then the route has to ask [`super::Accounts::may_describe`].
    EditAssetOrHandedIn,
    DistributeAsset,
    DeleteAsset,
    PurgeAsset,
    UpdateSettings,
    AdministerUsers,
    AdministerSchemas,
    AdministerAssets,
    /// What a token has to be for; whoever comes with an API key needs a role instead.
    Scope(Scope),
}

/// What a token is for. The words are those of Prepr's contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    Assets,
    AssetsPublish,
    AssetsDelete,
    Collections,
    CollectionsPublish,
    CollectionsDelete,
}

impl Scope {
    pub const ALL: [Scope; 6] = [
        Scope::Assets,
        Scope::AssetsPublish,
        Scope::AssetsDelete,
        Scope::Collections,
        Scope::CollectionsPublish,
        Scope::CollectionsDelete,
    ];

    pub fn word(self) -> &'static str {
        match self {
            Scope::Assets => "assets",
            Scope::AssetsPublish => "assets_publish",
            Scope::AssetsDelete => "assets_delete",
            Scope::Collections => "collections",
            Scope::CollectionsPublish => "collections_publish",
            Scope::CollectionsDelete => "collections_delete",
        }
    }

    pub fn from_word(word: &str) -> Option<Scope> {
        Scope::ALL.into_iter().find(|scope| scope.word() == word)
    }

    /// What a role has to allow for this.
    fn permission(self) -> Permission {
        match self {
            Scope::Assets | Scope::Collections => Permission::ReadAsset,
            Scope::AssetsPublish | Scope::CollectionsPublish => Permission::CreateAsset,
            Scope::AssetsDelete | Scope::CollectionsDelete => Permission::DeleteAsset,
        }
    }

    /// Who changes something is shown it, and so has to be let read, too.
    fn needs(self) -> &'static [Scope] {
        match self {
            Scope::AssetsPublish => &[Scope::Assets, Scope::AssetsPublish],
            Scope::CollectionsPublish => &[Scope::Collections, Scope::CollectionsPublish],
            Scope::Assets => &[Scope::Assets],
            Scope::AssetsDelete => &[Scope::AssetsDelete],
            Scope::Collections => &[Scope::Collections],
            Scope::CollectionsDelete => &[Scope::CollectionsDelete],
        }
    }
}

/// A set of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scopes(u8);

impl Scopes {
    pub fn has(self, scope: Scope) -> bool {
        self.0 & 1 << scope as u8 != 0
    }

    /// Whether a call that asks for this scope is let in.
    pub fn allow(self, scope: Scope) -> bool {
        scope.needs().iter().all(|needed| self.has(*needed))
    }

    /// With spaces between them, as they are kept; words that are none are left out.
    pub fn parse(text: &str) -> Scopes {
        text.split(' ').filter_map(Scope::from_word).collect()
    }
}

impl FromIterator<Scope> for Scopes {
    fn from_iter<I: IntoIterator<Item = Scope>>(scopes: I) -> Scopes {
        Scopes(scopes.into_iter().fold(0, |set, scope| set | 1 << scope as u8))
    }
}

impl std::fmt::Display for Scopes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let words: Vec<&str> = Scope::ALL.into_iter().filter(|scope| self.has(*scope)).map(Scope::word).collect();
        f.write_str(&words.join(" "))
    }
}

impl Permission {
    /// The contract's ten, in its order.
    pub const GRANTED: [Permission; 10] = [
        Permission::CreateAsset,
        Permission::DeleteAsset,
        Permission::PurgeAsset,
        Permission::EditAsset,
        Permission::ReadAsset,
        Permission::DistributeAsset,
        Permission::UpdateSettings,
        Permission::AdministerUsers,
        Permission::AdministerSchemas,
        Permission::AdministerAssets,
    ];

    /// The contract's word, or ours.
    pub fn word(self) -> &'static str {
        match self {
            Permission::Anyone => "ANYONE",
            Permission::OwnAccount => "OWN_ACCOUNT",
            Permission::HandIn => "UPLOAD_KEY",
            Permission::ReadAsset | Permission::OwnCollection | Permission::SignLink => "READ_ASSET",
            Permission::CreateAsset | Permission::CreateAssetOrHandIn | Permission::ResumeUpload => "CREATE_ASSET",
            Permission::EditAsset | Permission::EditAssetOrHandedIn => "EDIT_ASSET",
            Permission::DistributeAsset => "DISTRIBUTE_ASSET",
            Permission::DeleteAsset => "DELETE_UNDELETE_ASSET",
            Permission::PurgeAsset => "PURGE_ASSET",
            Permission::UpdateSettings => "UPDATE_SETTINGS",
            Permission::AdministerUsers => "USER_ADMIN",
            Permission::AdministerSchemas => "SCHEMA_ADMIN",
            Permission::AdministerAssets => "ASSET_ADMIN",
            Permission::Scope(scope) => scope.word(),
        }
    }

    /// Whether an upload key is looked for on this route; anywhere else it is nothing.
    pub fn takes_upload_keys(self) -> bool {
        matches!(
            self,
            Permission::HandIn
                | Permission::EditAssetOrHandedIn
                | Permission::CreateAssetOrHandIn
                | Permission::ResumeUpload
        )
    }
}

impl Role {
    pub const ALL: [Role; 4] = [Role::Admin, Role::Manager, Role::Creator, Role::User];

    pub fn from_number(number: i64) -> Option<Role> {
        Role::ALL.into_iter().find(|r| *r as i64 == number)
    }

    pub fn from_word(word: &str) -> Option<Role> {
        Role::ALL.into_iter().find(|r| r.word().eq_ignore_ascii_case(word))
    }

    pub fn word(self) -> &'static str {
        match self {
            Role::Admin => "ADMIN",
            Role::Manager => "MANAGER",
            Role::Creator => "CREATOR",
            Role::User => "USER",
        }
    }

    pub fn may(self, what: Permission) -> bool {
        match what {
            Permission::Anyone
            | Permission::OwnAccount
            | Permission::ReadAsset
            | Permission::OwnCollection
            | Permission::SignLink => true,
            // That is for who brings an upload key, which is less than a role.
            Permission::HandIn => false,
            Permission::DistributeAsset
            | Permission::CreateAsset
            | Permission::CreateAssetOrHandIn
            | Permission::ResumeUpload
            | Permission::EditAsset
            | Permission::EditAssetOrHandedIn => self != Role::User,
            Permission::DeleteAsset => matches!(self, Role::Admin | Role::Manager),
            Permission::PurgeAsset
            | Permission::UpdateSettings
            | Permission::AdministerUsers
            | Permission::AdministerSchemas
            | Permission::AdministerAssets => self == Role::Admin,
            Permission::Scope(scope) => self.may(scope.permission()),
        }
    }

    /// What it may do, of what the contract names.
    pub fn permissions(self) -> impl Iterator<Item = Permission> {
        Permission::GRANTED.into_iter().filter(move |what| self.may(*what))
    }
}

/// Whoever asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Caller {
    Nobody,
    Known {
        user_id: i64,
        role: Role,
    },
    /// A page with an upload key, on behalf of whose key it is: it hands in and reads nothing.
    UploadKey {
        user_id: i64,
        role: Role,
        key_id: i64,
    },
    /// A program with a token: what its user may, as far as the token is for it.
    Token {
        user_id: i64,
        role: Role,
        key_id: i64,
        scopes: Scopes,
    },
}

impl Caller {
    pub fn of(user: &User) -> Caller {
        Caller::Known { user_id: user.id, role: user.role }
    }

    pub fn may(&self, what: Permission) -> bool {
        match self {
            Caller::Nobody => what == Permission::Anyone,
            Caller::Known { role, .. } => role.may(what),
            Caller::UploadKey { role, .. } => {
                what == Permission::Anyone || (what.takes_upload_keys() && role.may(Permission::CreateAsset))
            }
            Caller::Token { role, scopes, .. } => match what {
                Permission::Anyone => true,
                Permission::ReadAsset => scopes.has(Scope::Assets),
                Permission::Scope(scope) => scopes.allow(scope) && role.may(what),
                _ => false,
            },
        }
    }

    /// The user behind the call; 0 is nobody.
    pub fn user_id(&self) -> i64 {
        match self {
            Caller::Nobody => 0,
            Caller::Known { user_id, .. } | Caller::UploadKey { user_id, .. } | Caller::Token { user_id, .. } => {
                *user_id
            }
        }
    }
}

/// What a row of `user` holds.
#[derive(Clone, Debug)]
pub struct User {
    pub id: i64,
    pub email: String,
    /// Public: names the signer in signed links.
    pub access_id: String,
    pub first_name: String,
    pub last_name: String,
    pub locale: String,
    pub role: Role,
    /// Absent until an invitation is accepted.
    pub password_hash: Option<String>,
    pub enabled: bool,
    pub token_epoch: i64,
    pub created_at: Instant,
}

/// A user and the texts of the present keys.
#[derive(Clone, Debug)]
pub struct Person {
    pub user: User,
    pub api_key: Option<String>,
    pub upload_key: Option<String>,
}

/// A user before it has a number.
pub struct NewUser<'a> {
    pub email: &'a str,
    pub access_id: &'a str,
    pub first_name: &'a str,
    pub last_name: &'a str,
    pub locale: &'a str,
    pub role: Role,
    pub enabled: bool,
    pub password_hash: Option<&'a str>,
}

/// What is said about somebody who is to become a user.
#[derive(Clone, Debug)]
pub struct Introduction {
    pub email: String,
    pub first_name: String,
    pub last_name: String,
    pub locale: String,
    pub role: Role,
    /// They may come in, once they are users.
    pub enabled: bool,
    /// Without one they are invited.
    pub password: Option<String>,
}

/// What is to be different about a user; absent stays.
#[derive(Clone, Debug, Default)]
pub struct Change {
    pub email: Option<String>,
    pub first_name: Option<String>,
    pub last_name: Option<String>,
    pub locale: Option<String>,
    pub role: Option<Role>,
    pub enabled: Option<bool>,
}

/// The way in for somebody who was invited: shown once, then only its hash remains.
#[derive(Clone, Debug)]
pub struct Invitation {
    pub token: String,
    pub expires_at: Instant,
}

/// Which users are asked for.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Part of an e-mail address or a name.
    pub keyword: Option<String>,
    pub email: Option<String>,
    pub role: Option<Role>,
    pub enabled: Option<bool>,
    /// Whether an invitation is still open.
    pub invited: Option<bool>,
}

/// What logging in takes.
#[derive(Clone, Debug)]
pub struct Credentials {
    pub email: String,
    pub password: String,
    /// The code of a second factor, or a recovery code.
    pub otp: Option<String>,
}

/// The kinds of key a user has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CredentialKind {
    /// Full access in the user's role; signs links.
    Api,
    /// Visible in browsers: may upload, reads nothing.
    Upload,
    /// One of any number, each for a program, limited by scopes.
    Token,
}

impl CredentialKind {
    pub const ALL: [CredentialKind; 3] = [CredentialKind::Api, CredentialKind::Upload, CredentialKind::Token];

    pub fn word(self) -> &'static str {
        match self {
            CredentialKind::Api => "api",
            CredentialKind::Upload => "upload",
            CredentialKind::Token => "token",
        }
    }

    pub fn from_word(word: &str) -> Option<CredentialKind> {
        CredentialKind::ALL.into_iter().find(|kind| kind.word() == word)
    }
}

/// A key that is good now, without its text.
#[derive(Clone, Debug)]
pub struct Key {
    pub id: i64,
    pub kind: CredentialKind,
    /// Its first four characters, to tell it from others.
    pub hint: String,
    /// Of a token: what it is for, and all that it may.
    pub label: Option<String>,
    pub scopes: Option<Scopes>,
    pub created_at: Instant,
    /// Set when a newer one has taken over.
    pub expires_at: Option<Instant>,
}

/// How accounts are guarded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Failed logins that one account takes from one address in a minute.
    pub logins_per_account: u32,
    /// Failed logins that one address may make at once; then one a minute.
    pub logins_per_address: u32,
    /// A key that was replaced works for so long, unless the caller says otherwise.
    pub old_key_seconds: u64,
    /// How long an invitation can be accepted.
    pub invitation_seconds: u64,
    /// Calls with upload keys that one address may make in a minute.
    pub upload_key_calls_per_minute: u32,
    /// The largest body that comes in by an upload key.
    pub upload_key_max_bytes: u64,
    /// What came in by an upload key may be described by it for so long.
    pub upload_key_describe_seconds: u64,
    /// Calls that one token or key may make of Prepr's API in a minute.
    pub token_calls_per_minute: u32,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            logins_per_account: 5,
            logins_per_address: 20,
            old_key_seconds: 24 * 3600,
            invitation_seconds: 7 * 24 * 3600,
            upload_key_calls_per_minute: 120,
            upload_key_max_bytes: 4 << 30,
            upload_key_describe_seconds: 3600,
            token_calls_per_minute: 3000,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_hold_what_the_contract_lists() {
        let words = |role: Role| role.permissions().map(Permission::word).collect::<Vec<_>>();
        assert_eq!(words(Role::User), ["READ_ASSET"]);
        assert_eq!(words(Role::Creator), ["CREATE_ASSET", "EDIT_ASSET", "READ_ASSET", "DISTRIBUTE_ASSET"]);
        assert_eq!(
            words(Role::Manager),
            ["CREATE_ASSET", "DELETE_UNDELETE_ASSET", "EDIT_ASSET", "READ_ASSET", "DISTRIBUTE_ASSET"]
        );
        assert_eq!(words(Role::Admin).len(), 10);
        for pair in Role::ALL.windows(2) {
            for what in Permission::GRANTED {
                assert!(pair[0].may(what) || !pair[1].may(what), "{pair:?} {what:?}");
            }
        }
        assert!(Role::User.may(Permission::OwnAccount));
        assert!(!Caller::Nobody.may(Permission::ReadAsset));
        assert!(!Caller::Nobody.may(Permission::OwnAccount));
    }

    #[test]
    fn an_upload_key_hands_in_and_nothing_else() {
        let with = |role| Caller::UploadKey { user_id: 7, role, key_id: 3 };
        for role in Role::ALL {
            assert_eq!(with(role).may(Permission::HandIn), role != Role::User, "{role:?}");
            assert_eq!(with(role).may(Permission::EditAssetOrHandedIn), role != Role::User, "{role:?}");
            assert!(!with(role).may(Permission::OwnAccount));
            for what in Permission::GRANTED {
                assert!(!with(role).may(what), "{role:?} {what:?}");
            }
            assert!(!Caller::Known { user_id: 7, role }.may(Permission::HandIn), "a role is not an upload key");
        }
    }

    #[test]
    fn a_token_may_what_its_scopes_and_its_user_may() {
        let with = |role, text| Caller::Token { user_id: 7, role, key_id: 3, scopes: Scopes::parse(text) };
        let publish = Permission::Scope(Scope::AssetsPublish);
        assert!(with(Role::Creator, "assets assets_publish").may(publish));
        assert!(!with(Role::Creator, "assets").may(publish));
        assert!(!with(Role::Creator, "assets_publish").may(publish), "who publishes is shown the asset");
        assert!(!with(Role::User, "assets assets_publish").may(publish), "no token does more than its user");
        assert!(with(Role::User, "assets").may(Permission::ReadAsset));
        assert!(!with(Role::Admin, "collections").may(Permission::ReadAsset));
        for what in [Permission::OwnCollection, Permission::SignLink] {
            assert!(Role::ALL.into_iter().all(|role| role.may(what)), "{what:?}");
            let all = Scope::ALL.into_iter().collect();
            assert!(!Caller::Token { user_id: 7, role: Role::Admin, key_id: 3, scopes: all }.may(what), "{what:?}");
        }
        let all = Scope::ALL.into_iter().collect::<Scopes>();
        assert_eq!(Scopes::parse(&format!("{all} nonsense")), all);
        let admin = with(Role::Admin, &all.to_string());
        assert!(Permission::GRANTED.into_iter().all(|what| what == Permission::ReadAsset || !admin.may(what)));
        assert!(!admin.may(Permission::OwnAccount) && !admin.may(Permission::HandIn));
        assert!(Scope::ALL.into_iter().all(|scope| admin.may(Permission::Scope(scope))));
    }
}
