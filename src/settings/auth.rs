//! Where the pages stand that may use upload keys: the section `auth`. The keys themselves are
//! a user's, in `accounts`.
//!
//! The list is a fence and no lock: a page's origin is what a browser says of it, and other
//! programs say what they like. It keeps a key that was read out of one site from being used
//! on another by that site's visitors.

use serde::Deserialize;
use serde::Serialize;

use crate::error::Code;
use crate::error::Error;
use crate::error::Result;

/// The contract's limit.
const MOST_DOMAINS: usize = 10;

const LONGEST_DROPBOX_TEXT: usize = 200;

/// Who may use upload keys, and credentials for cloud sources of the widget.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Auth {
    /// Host names in small letters; each covers its subdomains. None: every page may.
    pub authorized_domains: Vec<String>,
    /// Kept for the vendor's programs; nothing depends on them.
    pub dropbox_app_key: String,
    /// Sealed by the accounts, as numbers; empty when none was given.
    pub dropbox_app_secret: Vec<u8>,
}

impl Auth {
    /// Itself, tidied, if it makes sense.
    pub fn checked(self) -> Result<Auth> {
        if self.authorized_domains.len() > MOST_DOMAINS {
            return Err(Code::InvalidRequest.because(format!("authorized_domains: at most {MOST_DOMAINS}")));
        }
        if self.dropbox_app_key.len() > LONGEST_DROPBOX_TEXT || self.dropbox_app_secret.len() > 2 * LONGEST_DROPBOX_TEXT
        {
            return Err(Code::InvalidRequest
                .because(format!("dropbox_app_key, dropbox_app_secret: at most {LONGEST_DROPBOX_TEXT} bytes")));
        }
        let mut domains = Vec::new();
        for text in &self.authorized_domains {
            let domain = domain(text).ok_or_else(|| not_a_domain(text))?;
            if !domains.contains(&domain) {
                domains.push(domain);
            }
        }
        Ok(Auth { authorized_domains: domains, ..self })
    }

    /// Whether a page on this host may use upload keys; `None` is a program that names no page.
    pub fn admits(&self, host: Option<&str>) -> bool {
        let covers = |domain: &String, host: &str| match host.strip_suffix(&**domain) {
            Some("") => true,
            // A subdomain; an address and a name without a dot have none.
            Some(rest) => rest.ends_with('.') && domain.contains('.') && !is_address(domain),
            None => false,
        };
        self.authorized_domains.is_empty()
            || host.is_some_and(|host| self.authorized_domains.iter().any(|domain| covers(domain, host)))
    }
}

/// The host of an `Origin` or `Referer`, in small letters and without a dot at its end;
/// `None` when it names no host, such as `null`.
pub fn host_of(url: &str) -> Option<String> {
    let (scheme, rest) = url.trim().split_once("://")?;
    if !scheme.eq_ignore_ascii_case("http") && !scheme.eq_ignore_ascii_case("https") {
        return None;
    }
    let authority = rest.split(['/', '?', '#', '\\']).next()?;
    // Browsers send no user names here.
    if authority.contains('@') {
        return None;
    }
    let (host, port) = match authority.strip_prefix('[') {
        Some(long) => long.split_once(']')?,
        None => authority.split_once(':').map_or((authority, ""), |(host, _)| (host, "")),
    };
    if !port.is_empty() && !port.starts_with(':') {
        return None;
    }
    plain(host)
}

/// A domain as an administrator writes it: bare, or with `https://` before and a slash behind.
fn domain(text: &str) -> Option<String> {
    let text = text.trim();
    let bare = text.split_once("://").map_or(text, |(_, rest)| rest);
    plain(bare.strip_suffix('/').unwrap_or(bare))
}

fn plain(host: &str) -> Option<String> {
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    let is_name = host.split('.').all(|label| {
        let letters = label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
        (1..=63).contains(&label.len()) && letters && !label.starts_with('-') && !label.ends_with('-')
    });
    (host.len() <= 253 && (is_name || is_address(&host))).then_some(host)
}

fn is_address(text: &str) -> bool {
    text.parse::<std::net::IpAddr>().is_ok()
}

fn not_a_domain(text: &str) -> Error {
    let shown: String = text.chars().take(253).collect();
    Code::InvalidRequest.because(format!(
        "authorized_domains: `{shown}` is not a host name such as `example.com`, without port or path; one with other \
         letters is written as `xn--…`"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn auth(domains: &[&str]) -> Auth {
        let authorized_domains = domains.iter().map(|d| (*d).to_owned()).collect();
        Auth { authorized_domains, ..Auth::default() }
    }

    #[test]
    fn a_domain_covers_its_subdomains_and_nothing_like_it() {
        let auth = auth(&["Example.com", "https://box.local/", "printer", "10.0.0.5"]).checked().unwrap();
        assert_eq!(auth.authorized_domains, ["example.com", "box.local", "printer", "10.0.0.5"]);
        for (origin, admitted) in [
            ("https://example.com", true),
            ("http://EXAMPLE.com:8443", true),
            ("https://example.com.", true),
            ("https://www.example.com", true),
            ("https://a.b.example.com", true),
            ("http://printer:631", true),
            ("http://10.0.0.5", true),
            ("https://evil-example.com", false),
            ("https://example.com.evil.org", false),
            ("https://example.org", false),
            ("https://example.com@evil.org", false),
            ("https://evil.org/example.com", false),
            ("https://evil.org\\.example.com", false),
            ("https://evil.org?.example.com", false),
            ("https://evil.org#.example.com", false),
            ("http://a.printer", false),
            ("http://1.10.0.0.5", false),
            ("https://xexample.com", false),
            ("https://.example.com", false),
            ("https://exa%6dple.com", false),
            ("file://example.com", false),
            ("null", false),
            ("", false),
        ] {
            assert_eq!(auth.admits(host_of(origin).as_deref()), admitted, "{origin}");
        }
        assert!(!auth.admits(None), "a program that names no page");
        assert!(Auth::default().admits(None) && Auth::default().admits(Some("anything.example")));
    }

    #[test]
    fn hosts_are_read_as_browsers_write_them() {
        assert_eq!(host_of("http://[2001:DB8::1]:80").as_deref(), Some("2001:db8::1"));
        assert_eq!(host_of("http://[::1]x"), None);
        assert_eq!(host_of("https://a.example/some/page?x=1").as_deref(), Some("a.example"));
    }

    #[test]
    fn only_names_are_kept() {
        for bad in ["", "*.example.com", "example.com:80", "a b", "example.com/x", "münchen.de", "-a.de", "a..b"] {
            assert_eq!(auth(&[bad]).checked().unwrap_err().code, Code::InvalidRequest, "{bad}");
        }
        let many: Vec<String> = (0..11).map(|n| format!("d{n}.example")).collect();
        assert!(auth(&many.iter().map(|d| &**d).collect::<Vec<_>>()).checked().is_err());
    }
}
