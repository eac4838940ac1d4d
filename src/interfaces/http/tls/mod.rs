//! The certificate that this box shows, and where it comes from.
//!
//! Either the operator gives files, or the box is its own authority: a root that devices may
//! be told to trust and a leaf for the box's names and addresses, in `DIR/tls/` as `root.pem
//! root.key leaf.pem leaf.key`. The root is limited (RFC 5280 §4.2.1.10) to `localhost`,
//! `.local`, the host's name and private addresses: who steals its key can play this box, but
//! no bank. What lies outside is left out of the leaf and reported.
//!
//! Invariant: a key is written before its certificate, so a pair torn by a crash is seen and
//! made anew; but a root without its key is never replaced, because devices trust it. A new
//! root certificate is made over the same key.
//!
//! A clock that stands before this software was written is not believed (a dead battery says
//! 1970). All of this uses the disk: call it where blocking is allowed.

use std::collections::BTreeSet;
use std::fs;
use std::fs::File;
use std::io::Write;
use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::Ipv6Addr;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::PoisonError;
use std::sync::RwLock;

use rcgen::BasicConstraints;
use rcgen::CertificateParams;
use rcgen::CidrSubnet;
use rcgen::DnType;
use rcgen::ExtendedKeyUsagePurpose;
use rcgen::GeneralSubtree;
use rcgen::IsCa;
use rcgen::Issuer;
use rcgen::KeyPair;
use rcgen::KeyUsagePurpose;
use rcgen::NameConstraints;
use rcgen::PublicKeyData;
use rcgen::SanType;
use rcgen::SerialNumber;
use ring::rand::SecureRandom;
use ring::rand::SystemRandom;
use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::server::ClientHello;
use rustls::server::ResolvesServerCert;
use rustls::sign::CertifiedKey;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject;
use time::OffsetDateTime;
use x509_parser::extensions::GeneralName;
use x509_parser::extensions::ParsedExtension;
use x509_parser::prelude::X509Certificate;
use zeroize::Zeroizing;

use crate::error::Code;
use crate::error::Error;
use crate::error::Result;
use crate::support::clock::Clock;

const DAY: i64 = 86_400;
const ROOT_DAYS: i64 = 3_653;
/// The longest that browsers take a leaf for.
const LEAF_DAYS: i64 = 397;
/// 2026-11-01: no honest clock stands before it.
const EARLIEST: i64 = 1_793_491_200;

/// Private, link-local, shared (RFC 6598) and loopback networks: address and prefix length.
const PRIVATE: [(IpAddr, u8); 9] = [
    (IpAddr::V4(Ipv4Addr::new(10, 0, 0, 0)), 8),
    (IpAddr::V4(Ipv4Addr::new(172, 16, 0, 0)), 12),
    (IpAddr::V4(Ipv4Addr::new(192, 168, 0, 0)), 16),
    (IpAddr::V4(Ipv4Addr::new(100, 64, 0, 0)), 10),
    (IpAddr::V4(Ipv4Addr::new(169, 254, 0, 0)), 16),
    (IpAddr::V4(Ipv4Addr::new(127, 0, 0, 0)), 8),
    (IpAddr::V6(Ipv6Addr::LOCALHOST), 128),
    (IpAddr::V6(Ipv6Addr::new(0xfc00, 0, 0, 0, 0, 0, 0, 0)), 7),
    (IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0)), 10),
];

/// Where the certificate comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// Our own authority under `dir/tls`. A leaf is for exactly these names, so give addresses
    /// that stay.
    Own { dir: PathBuf, hostname: String, addresses: Vec<IpAddr> },
    /// PEM files of the operator: the leaf first, then those between it and its root.
    Given { certificate: PathBuf, key: PathBuf },
}

/// What opening or refreshing found and did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// A new root was made: devices must be told to trust it.
    pub root_issued: bool,
    pub leaf_issued: bool,
    /// Names and addresses that the root may not speak for.
    pub left_out: Vec<String>,
    /// When the leaf ends, in seconds since 1970.
    pub leaf_ends_at: i64,
}

/// The certificate in force, shared with the servers that show it.
#[derive(Clone, Debug)]
pub struct Certificates {
    clock: Clock,
    shown: Arc<Shown>,
}

impl Certificates {
    /// Loads the certificate, making it first if it is our own and absent or due.
    pub fn open(source: &Source, clock: Clock) -> Result<(Certificates, Report)> {
        let (key, report) = load(source, clock.now().unix_seconds())?;
        Ok((Certificates { clock, shown: Arc::new(Shown(RwLock::new(key))) }, report))
    }

    /// Loads it again, renewing it if it is due or the names have changed. Running servers
    /// show it from the next handshake on; on an error they go on showing the old one.
    pub fn refresh(&self, source: &Source) -> Result<Report> {
        let (key, report) = load(source, self.clock.now().unix_seconds())?;
        *self.shown.0.write().unwrap_or_else(PoisonError::into_inner) = key;
        Ok(report)
    }

    /// TLS 1.2 and 1.3, HTTP/1.1 only, no client certificates.
    pub fn server_config(&self) -> Result<ServerConfig> {
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
            .map_err(|e| Code::Internal.from("setting up TLS", e))?
            .with_no_client_auth()
            .with_cert_resolver(Arc::<Shown>::clone(&self.shown));
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(config)
    }
}

/// Where our own root certificate lies, for handing it to devices.
pub fn root_path(dir: &Path) -> PathBuf {
    dir.join("tls/root.pem")
}

#[derive(Debug)]
struct Shown(RwLock<Arc<CertifiedKey>>);

impl ResolvesServerCert for Shown {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner)))
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn load(source: &Source, now: i64) -> Result<(Arc<CertifiedKey>, Report)> {
    match source {
        Source::Given { certificate, key } => {
            let key = certified(certificate, key)?;
            let leaf_ends_at = key.cert.first().and_then(|leaf| Facts::read(leaf).ok()).map_or(0, |leaf| leaf.ends_at);
            Ok((Arc::new(key), Report { leaf_ends_at, ..Report::default() }))
        }
        Source::Own { dir, hostname, addresses } => {
            let authority = Authority::at(dir, hostname)?;
            let (key, report) = authority.keep(addresses, now)?;
            Ok((Arc::new(key), report))
        }
    }
}

/// Reads a certificate chain and its key; refuses a pair that does not match.
fn certified(certificate: &Path, key: &Path) -> Result<CertifiedKey> {
    let text = read(certificate)?;
    let chain: Vec<_> =
        CertificateDer::pem_slice_iter(text.as_bytes()).collect::<Result<_, _>>().map_err(broken(certificate))?;
    if chain.is_empty() {
        return Err(Code::Internal.because(format!("{} holds no certificate", certificate.display())));
    }
    let private = PrivateKeyDer::from_pem_slice(read_key(key)?.as_bytes()).map_err(broken(key))?;
    let what = format!("{} with {}", certificate.display(), key.display());
    CertifiedKey::from_der(chain, private, &provider()).map_err(|e| Code::Internal.from(what, e))
}

/// Our own root and leaf, and the folder they live in.
struct Authority {
    folder: PathBuf,
    hostname: String,
}

impl Authority {
    fn at(dir: &Path, hostname: &str) -> Result<Authority> {
        let folder = dir.join("tls");
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder).map_err(disk("making", &folder))?;
        sync(dir)?;
        let plain = hostname.to_ascii_lowercase();
        let plain = plain.trim_matches(['.', '-']);
        let is_name = !plain.is_empty()
            && plain.len() <= 253
            && plain.split('.').all(|label| {
                (1..=63).contains(&label.len()) && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            });
        Ok(Authority { folder, hostname: if is_name { plain.to_owned() } else { "cloakroom".to_owned() } })
    }

    /// The leaf that is good now, made if need be.
    fn keep(&self, addresses: &[IpAddr], now: i64) -> Result<(CertifiedKey, Report)> {
        let found_root = self.found_root()?;
        let found_leaf = certified(&self.path("leaf.pem"), &self.path("leaf.key"));
        let leaf = found_leaf.as_ref().ok().and_then(|key| Facts::read(key.cert.first()?).ok());
        let now = believed(now, [found_root.as_ref().map(|(_, facts)| facts), leaf.as_ref()]);

        let mut report = Report::default();
        let usable = found_root.filter(|(_, root)| root.begins_at <= now && now + LEAF_DAYS * DAY <= root.ends_at);
        let (issuer, root) = if let Some((pem, root)) = usable {
            let key = self.root_key()?;
            (Issuer::from_ca_cert_pem(&pem, key).map_err(making("the issuer"))?, root)
        } else {
            report.root_issued = true;
            self.issue_root(now)?
        };

        let (names, left_out) = root.split(wanted(&self.hostname, addresses));
        report.left_out = left_out;
        let key = match (found_leaf, leaf) {
            (Ok(key), Some(leaf)) if leaf.is_good(now, &names, &root) => key,
            _ => {
                report.leaf_issued = true;
                self.issue_leaf(&issuer, &root, &names, now)?;
                certified(&self.path("leaf.pem"), &self.path("leaf.key"))?
            }
        };
        report.leaf_ends_at = key.cert.first().and_then(|leaf| Facts::read(leaf).ok()).map_or(0, |leaf| leaf.ends_at);
        Ok((key, report))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// The root certificate on disk, if there is one; its key must be there and be its key.
    fn found_root(&self) -> Result<Option<(String, Facts)>> {
        let path = self.path("root.pem");
        if !path.try_exists().map_err(disk("looking for", &path))? {
            return Ok(None);
        }
        let pem = read(&path)?;
        let der = CertificateDer::from_pem_slice(pem.as_bytes()).map_err(broken(&path))?;
        let facts = Facts::read(&der)?;
        if self.root_key()?.subject_public_key_info() != facts.public_key {
            let advice =
                "its key beside it is another's: restore root.key, or delete both and let devices trust the new root";
            return Err(Code::Internal.because(format!("{}: {advice}", path.display())));
        }
        Ok(Some((pem, facts)))
    }

    fn root_key(&self) -> Result<KeyPair> {
        let path = self.path("root.key");
        KeyPair::from_pem(&read_key(&path)?).map_err(broken(&path))
    }

    fn issue_root(&self, now: i64) -> Result<(Issuer<'static, KeyPair>, Facts)> {
        let path = self.path("root.key");
        let key = if path.try_exists().map_err(disk("looking for", &path))? {
            self.root_key()?
        } else {
            let key = KeyPair::generate().map_err(making("a key"))?;
            self.write("root.key", Zeroizing::new(key.serialize_pem()).as_bytes(), 0o600)?;
            key
        };
        let mut params = blank(now - DAY, now + (ROOT_DAYS - 1) * DAY)?;
        // A common name ends at 64 characters (RFC 5280, appendix A).
        let shown: String = self.hostname.chars().take(48).collect();
        params.distinguished_name.push(DnType::CommonName, format!("Cloakroom root {shown}"));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let names = ["localhost", "local", &self.hostname].map(|name| GeneralSubtree::DnsName(name.to_owned()));
        let networks = PRIVATE.map(|(at, bits)| GeneralSubtree::IpAddress(CidrSubnet::from_addr_prefix(at, bits)));
        params.name_constraints = Some(NameConstraints {
            permitted_subtrees: [names.to_vec(), networks.to_vec()].concat(),
            excluded_subtrees: vec![],
        });
        let certificate = params.self_signed(&key).map_err(making("the root"))?;
        self.write("root.pem", certificate.pem().as_bytes(), 0o644)?;
        Ok((Issuer::new(params, key), Facts::read(certificate.der())?))
    }

    fn issue_leaf(&self, issuer: &Issuer<'_, KeyPair>, root: &Facts, names: &BTreeSet<Name>, now: i64) -> Result<()> {
        let key = KeyPair::generate().map_err(making("a key"))?;
        let mut params = blank(now - DAY, (now + (LEAF_DAYS - 1) * DAY).min(root.ends_at))?;
        let shown: String = self.hostname.chars().take(64).collect();
        params.distinguished_name.push(DnType::CommonName, shown);
        params.subject_alt_names = names.iter().map(Name::san).collect::<Result<_>>()?;
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        let certificate = params.signed_by(&key, issuer).map_err(making("the leaf"))?;
        self.write("leaf.key", Zeroizing::new(key.serialize_pem()).as_bytes(), 0o600)?;
        self.write("leaf.pem", certificate.pem().as_bytes(), 0o644)
    }

    /// Replaces a file whole: readers and crashes see the old one or the new one.
    fn write(&self, name: &str, bytes: &[u8], mode: u32) -> Result<()> {
        let path = self.path(name);
        let whole = || {
            let mut file =
                tempfile::Builder::new().permissions(fs::Permissions::from_mode(0o600)).tempfile_in(&self.folder)?;
            file.write_all(bytes)?;
            file.as_file().set_permissions(fs::Permissions::from_mode(mode))?;
            file.as_file().sync_all()?;
            file.persist(&path).map_err(|e| e.error)
        };
        whole().map_err(disk("writing", &path))?;
        sync(&self.folder)
    }
}

/// A name that a certificate speaks for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Name {
    Dns(String),
    Ip(IpAddr),
}

impl Name {
    fn san(&self) -> Result<SanType> {
        match self {
            Name::Dns(name) => Ok(SanType::DnsName(name.as_str().try_into().map_err(making("a name"))?)),
            Name::Ip(address) => Ok(SanType::IpAddress(*address)),
        }
    }

    fn text(&self) -> String {
        match self {
            Name::Dns(name) => name.clone(),
            Name::Ip(address) => address.to_string(),
        }
    }
}

fn wanted(hostname: &str, addresses: &[IpAddr]) -> BTreeSet<Name> {
    let first = hostname.split('.').next().unwrap_or(hostname);
    let names = ["localhost".to_owned(), hostname.to_owned(), format!("{first}.local")].map(Name::Dns);
    let loopback = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
    let addresses = addresses.iter().copied().filter(|a| !a.is_unspecified() && !a.is_multicast()).chain(loopback);
    names.into_iter().chain(addresses.map(|a| Name::Ip(a.to_canonical()))).collect()
}

/// What we need to know of a certificate.
struct Facts {
    begins_at: i64,
    ends_at: i64,
    names: BTreeSet<Name>,
    subject: Vec<u8>,
    issuer: Vec<u8>,
    /// The whole SubjectPublicKeyInfo.
    public_key: Vec<u8>,
    key_id: Option<Vec<u8>>,
    issuer_key_id: Option<Vec<u8>>,
    may_speak_for: Vec<Subtree>,
}

/// A part of the name space that a root may speak for.
enum Subtree {
    Dns(String),
    Ip(IpAddr, IpAddr),
}

impl Facts {
    fn read(der: &CertificateDer<'_>) -> Result<Facts> {
        let (_, x509) = x509_parser::parse_x509_certificate(der).map_err(making("sense of a certificate"))?;
        let mut facts = Facts {
            begins_at: x509.validity().not_before.timestamp(),
            ends_at: x509.validity().not_after.timestamp(),
            names: BTreeSet::new(),
            subject: x509.subject().as_raw().to_vec(),
            issuer: x509.issuer().as_raw().to_vec(),
            public_key: x509.public_key().raw.to_vec(),
            key_id: None,
            issuer_key_id: None,
            may_speak_for: Vec::new(),
        };
        facts.read_extensions(&x509);
        Ok(facts)
    }

    fn read_extensions(&mut self, x509: &X509Certificate<'_>) {
        for extension in x509.extensions() {
            match extension.parsed_extension() {
                ParsedExtension::SubjectAlternativeName(alternatives) => {
                    self.names = alternatives.general_names.iter().filter_map(name_of).collect();
                }
                ParsedExtension::SubjectKeyIdentifier(id) => self.key_id = Some(id.0.to_vec()),
                ParsedExtension::AuthorityKeyIdentifier(id) => {
                    self.issuer_key_id = id.key_identifier.as_ref().map(|id| id.0.to_vec());
                }
                ParsedExtension::NameConstraints(constraints) => {
                    let permitted = constraints.permitted_subtrees.iter().flatten();
                    self.may_speak_for = permitted.filter_map(|subtree| subtree_of(&subtree.base)).collect();
                }
                _ => {}
            }
        }
    }

    /// Whether this leaf may be shown a while longer.
    fn is_good(&self, now: i64, names: &BTreeSet<Name>, root: &Facts) -> bool {
        let due_at = self.begins_at + (self.ends_at - self.begins_at) / 3 * 2;
        let is_ours = self.issuer == root.subject && self.issuer_key_id.is_some() && self.issuer_key_id == root.key_id;
        self.begins_at <= now && now < due_at && self.names == *names && is_ours
    }

    /// What of `names` this root may speak for, and the text of the rest.
    fn split(&self, names: BTreeSet<Name>) -> (BTreeSet<Name>, Vec<String>) {
        let may = |name: &Name| self.may_speak_for.iter().any(|subtree| subtree.holds(name));
        let (inside, outside): (BTreeSet<_>, BTreeSet<_>) = names.into_iter().partition(may);
        (inside, outside.iter().map(Name::text).collect())
    }
}

impl Subtree {
    fn holds(&self, name: &Name) -> bool {
        match (self, name) {
            (Subtree::Dns(tree), Name::Dns(name)) => {
                name.strip_suffix(tree).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
            }
            (Subtree::Ip(IpAddr::V4(at), IpAddr::V4(mask)), Name::Ip(IpAddr::V4(name))) => {
                name.to_bits() & mask.to_bits() == at.to_bits()
            }
            (Subtree::Ip(IpAddr::V6(at), IpAddr::V6(mask)), Name::Ip(IpAddr::V6(name))) => {
                name.to_bits() & mask.to_bits() == at.to_bits()
            }
            _ => false,
        }
    }
}

fn name_of(general: &GeneralName<'_>) -> Option<Name> {
    match general {
        GeneralName::DNSName(name) => Some(Name::Dns((*name).to_owned())),
        GeneralName::IPAddress(bytes) => address(bytes).map(Name::Ip),
        _ => None,
    }
}

fn subtree_of(general: &GeneralName<'_>) -> Option<Subtree> {
    match general {
        GeneralName::DNSName(name) => Some(Subtree::Dns((*name).to_owned())),
        GeneralName::IPAddress(bytes) => {
            let (at, mask) = bytes.split_at_checked(bytes.len() / 2)?;
            Some(Subtree::Ip(address(at)?, address(mask)?))
        }
        _ => None,
    }
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok()
}

/// The time to go by: the clock's, unless it cannot be right.
fn believed(now: i64, known: [Option<&Facts>; 2]) -> i64 {
    if now >= EARLIEST {
        return now;
    }
    let issued_at = known.into_iter().flatten().map(|facts| facts.begins_at + DAY);
    issued_at.fold(EARLIEST, i64::max)
}

/// A certificate to be, with a random serial number: a root that follows another over the
/// same key must not carry the same number, or browsers refuse both.
fn blank(begins_at: i64, ends_at: i64) -> Result<CertificateParams> {
    let at = |seconds| OffsetDateTime::from_unix_timestamp(seconds).map_err(making("a date"));
    let mut serial = [0; 16];
    SystemRandom::new().fill(&mut serial).map_err(|_| Code::Internal.because("the system gives no random numbers"))?;
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    (params.not_before, params.not_after) = (at(begins_at)?, at(ends_at)?);
    Ok(params)
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).map_err(disk("reading", path))
}

/// Reads a private key, unless everybody else on the machine may do so, too.
fn read_key(path: &Path) -> Result<Zeroizing<String>> {
    let mode = fs::metadata(path).map_err(disk("reading", path))?.permissions().mode();
    if mode & 0o007 != 0 {
        let path = path.display();
        return Err(Code::Internal
            .because(format!("{path} holds a private key, but everybody may read it: chmod o-rwx {path}")));
    }
    read(path).map(Zeroizing::new)
}

fn sync(folder: &Path) -> Result<()> {
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(disk("flushing", folder))
}

fn disk(doing: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Error {
    move |error| Code::StorageUnavailable.from(format!("{doing} {}", path.display()), error)
}

fn broken<E: std::error::Error + Send + Sync + 'static>(path: &Path) -> impl FnOnce(E) -> Error {
    move |error| Code::Internal.from(format!("reading {}", path.display()), error)
}

fn making<E: std::error::Error + Send + Sync + 'static>(what: &'static str) -> impl FnOnce(E) -> Error {
    move |error| Code::Internal.from(format!("making {what}"), error)
}

#[cfg(test)]
mod tests;
