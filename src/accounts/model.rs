//! Users, roles and what a role may do.

use crate::support::clock::Instant;

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
    ReadAsset,
    CreateAsset,
    EditAsset,
    DistributeAsset,
    DeleteAsset,
    PurgeAsset,
    UpdateSettings,
    AdministerUsers,
    AdministerSchemas,
}

impl Permission {
    /// The contract's word.
    pub fn word(self) -> &'static str {
        match self {
            Permission::Anyone => "ANYONE",
            Permission::ReadAsset => "READ_ASSET",
            Permission::CreateAsset => "CREATE_ASSET",
            Permission::EditAsset => "EDIT_ASSET",
            Permission::DistributeAsset => "DISTRIBUTE_ASSET",
            Permission::DeleteAsset => "DELETE_UNDELETE_ASSET",
            Permission::PurgeAsset => "PURGE_ASSET",
            Permission::UpdateSettings => "UPDATE_SETTINGS",
            Permission::AdministerUsers => "USER_ADMIN",
            Permission::AdministerSchemas => "SCHEMA_ADMIN",
        }
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
            Permission::Anyone | Permission::ReadAsset => true,
            Permission::DistributeAsset | Permission::CreateAsset | Permission::EditAsset => self != Role::User,
            Permission::DeleteAsset => matches!(self, Role::Admin | Role::Manager),
            Permission::PurgeAsset
            | Permission::UpdateSettings
            | Permission::AdministerUsers
            | Permission::AdministerSchemas => self == Role::Admin,
        }
    }
}

/// Whoever asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Caller {
    Nobody,
    Known { user_id: i64, role: Role },
}

impl Caller {
    pub fn of(user: &User) -> Caller {
        Caller::Known { user_id: user.id, role: user.role }
    }

    pub fn may(&self, what: Permission) -> bool {
        match self {
            Caller::Nobody => what == Permission::Anyone,
            Caller::Known { role, .. } => role.may(what),
        }
    }

    /// The user behind the call; 0 is nobody.
    pub fn user_id(&self) -> i64 {
        match self {
            Caller::Nobody => 0,
            Caller::Known { user_id, .. } => *user_id,
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
    pub role: Role,
    pub password_hash: String,
    pub enabled: bool,
    pub token_epoch: i64,
    pub created_at: Instant,
}

/// A user before it has a number.
pub struct NewUser<'a> {
    pub email: &'a str,
    pub access_id: &'a str,
    pub role: Role,
    pub password_hash: &'a str,
}

/// The two kinds of key a user has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CredentialKind {
    /// Full access in the user's role; signs links.
    Api,
    /// Visible in browsers: may upload, reads nothing.
    Upload,
}

impl CredentialKind {
    pub fn word(self) -> &'static str {
        match self {
            CredentialKind::Api => "api",
            CredentialKind::Upload => "upload",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_may_what_the_roles_below_it_may() {
        use Permission::AdministerUsers;
        use Permission::Anyone;
        use Permission::CreateAsset;
        use Permission::DeleteAsset;
        use Permission::DistributeAsset;
        use Permission::EditAsset;
        use Permission::PurgeAsset;
        use Permission::ReadAsset;
        use Permission::UpdateSettings;
        let all = [
            Anyone,
            ReadAsset,
            CreateAsset,
            EditAsset,
            DistributeAsset,
            DeleteAsset,
            PurgeAsset,
            UpdateSettings,
            AdministerUsers,
        ];
        for pair in Role::ALL.windows(2) {
            for what in all {
                assert!(pair[0].may(what) || !pair[1].may(what), "{pair:?} {what:?}");
            }
        }
        assert!(!Role::User.may(CreateAsset));
        assert!(!Caller::Nobody.may(ReadAsset));
    }
}
