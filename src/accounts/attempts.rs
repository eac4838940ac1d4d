//! How often passwords and codes may be tried.
//!
//! A try takes a token from the bucket of its address and from that of its address and
//! account together; a right password gives both back. No bucket belongs to an account alone,
//! so nobody can lock somebody else out. The codes of a second factor are the exception: who
//! gets that far knows the password, and six digits are few.
//!
//! Unknown accounts are counted like known ones. The address is the peer's: the box stands
//! behind no proxy, and a header that names another address is not believed.

use std::time::Duration;

use crate::accounts::model::Config;
use crate::error::Code;
use crate::error::Error;
use crate::error::Result;
use crate::support::rate::Buckets;
use crate::support::rate::Network;

const MINUTE: Duration = Duration::from_mins(1);

/// Wrong codes that one account takes at once; then one a minute.
const CODES: u32 = 5;

pub struct Attempts {
    by_account: Buckets<(String, Network)>,
    by_address: Buckets<Network>,
    codes: Buckets<i64>,
}

impl Attempts {
    pub fn new(config: &Config) -> Attempts {
        Attempts {
            by_account: Buckets::new(config.logins_per_account, MINUTE / config.logins_per_account.max(1)),
            by_address: Buckets::new(config.logins_per_address, MINUTE),
            codes: Buckets::new(CODES, MINUTE),
        }
    }

    /// A password is about to be tried.
    pub fn password(&self, email: &str, from: Network) -> Result<()> {
        self.by_address.take(from).map_err(refusal)?;
        self.by_account.take((account(email), from)).map_err(refusal)
    }

    /// It was right.
    pub fn right(&self, email: &str, from: Network) {
        self.by_address.give_back(&from);
        self.by_account.give_back(&(account(email), from));
    }

    /// A code is about to be tried.
    pub fn code(&self, user: i64) -> Result<()> {
        self.codes.take(user).map_err(refusal)
    }

    /// It was right.
    pub fn right_code(&self, user: i64) {
        self.codes.give_back(&user);
    }
}

/// As the database compares addresses, and no longer than one can be.
fn account(email: &str) -> String {
    email.chars().take(254).collect::<String>().to_ascii_lowercase()
}

fn refusal(wait: Duration) -> Error {
    Code::TooManyRequests.because("Too many attempts to log in. Try again later.").again_after(wait)
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn tries_are_counted_by_address_and_nobody_locks_somebody_else_out() {
        let attempts = Attempts::new(&Config::default());
        let [home, elsewhere] = [1, 2].map(|n| Network::of(IpAddr::V4(Ipv4Addr::new(192, 0, 2, n))));
        for who in ["admin", "nobody"] {
            for _ in 0..5 {
                attempts.password(who, home).unwrap();
            }
            let wait = attempts.password(who, home).unwrap_err().again_after.unwrap();
            assert!(wait <= Duration::from_secs(12), "{who}: {wait:?}");
        }
        assert!(attempts.password("Admin", home).is_err(), "spelled otherwise");
        for _ in 0..30 {
            attempts.password("admin", elsewhere).unwrap();
            attempts.right("admin", elsewhere);
        }
        // Twelve and one were tried from here; the address has a few left, whatever the account.
        let tries = (13..100).find(|n| attempts.password(&format!("x{n}"), home).is_err());
        assert_eq!(tries, Some(20));
    }
}
