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
mod tests {
    use std::io::Read;
    use std::net::TcpListener;
    use std::net::TcpStream;
    use std::time::Duration;

    use rustls::CertificateError;
    use rustls::ClientConfig;
    use rustls::ClientConnection;
    use rustls::ProtocolVersion;
    use rustls::RootCertStore;
    use rustls::ServerConnection;
    use rustls::SupportedProtocolVersion;
    use rustls_pki_types::ServerName;
    use tempfile::TempDir;

    use super::*;
    use crate::support::clock::Instant;

    const TODAY: i64 = EARLIEST + 100 * DAY;

    fn own(dir: &Path, hostname: &str, addresses: &[&str]) -> Source {
        let addresses = addresses.iter().map(|a| a.parse().unwrap()).collect();
        Source::Own { dir: dir.to_owned(), hostname: hostname.to_owned(), addresses }
    }

    fn clock_at(seconds: i64) -> Clock {
        Clock::by_hand(Instant(seconds * 1000))
    }

    fn later(clock: &Clock, days: u64) {
        clock.advance(Duration::from_secs(days * 86_400));
    }

    fn leaf(dir: &Path) -> Facts {
        Facts::read(&CertificateDer::from_pem_file(dir.join("tls/leaf.pem")).unwrap()).unwrap()
    }

    fn root_pem(dir: &Path) -> String {
        fs::read_to_string(root_path(dir)).unwrap()
    }

    fn mode(path: PathBuf) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o7777
    }

    struct Met {
        version: ProtocolVersion,
        alpn: Option<Vec<u8>>,
        leaf: CertificateDer<'static>,
    }

    /// Shakes hands over a loopback socket, trusting only the root in `dir`.
    fn meet(
        certificates: &Certificates,
        trusted: &Path,
        name: &str,
        versions: &[&'static SupportedProtocolVersion],
    ) -> Result<Met, rustls::Error> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = listener.local_addr().unwrap();
        let config = Arc::new(certificates.server_config().unwrap());
        let server = std::thread::spawn(move || {
            let (mut socket, _) = listener.accept().unwrap();
            let mut tls = ServerConnection::new(config).unwrap();
            let mut stream = rustls::Stream::new(&mut tls, &mut socket);
            // A client that refuses us ends the connection: its error is the one looked at.
            let _ = stream.write_all(b"hello");
            tls.send_close_notify();
            let _ = tls.write_tls(&mut socket);
        });
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(root_path(trusted)).unwrap()).unwrap();
        let mut config = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let mut tls = ClientConnection::new(Arc::new(config), ServerName::try_from(name.to_owned()).unwrap()).unwrap();
        let mut socket = TcpStream::connect(at).unwrap();
        let mut heard = [0; 5];
        let outcome = rustls::Stream::new(&mut tls, &mut socket).read_exact(&mut heard);
        drop(socket);
        server.join().unwrap();
        match outcome {
            Ok(()) => Ok(Met {
                version: tls.protocol_version().unwrap(),
                alpn: tls.alpn_protocol().map(<[u8]>::to_vec),
                leaf: tls.peer_certificates().unwrap()[0].clone().into_owned(),
            }),
            Err(error) => Err(error.into_inner().unwrap().downcast_ref::<rustls::Error>().unwrap().clone()),
        }
    }

    const BOTH: &[&SupportedProtocolVersion] = &[&rustls::version::TLS13, &rustls::version::TLS12];

    #[test]
    fn a_device_that_trusts_the_root_trusts_the_box() {
        let dir = tempfile::tempdir().unwrap();
        let source = own(dir.path(), "Venue", &["192.168.7.5", "fd00::5"]);
        let (certificates, report) = Certificates::open(&source, Clock::system()).unwrap();
        assert!(report.root_issued && report.leaf_issued && report.left_out.is_empty(), "{report:?}");
        for name in ["localhost", "venue", "venue.local", "127.0.0.1", "::1", "192.168.7.5", "fd00::5"] {
            let met = meet(&certificates, dir.path(), name, BOTH).unwrap_or_else(|e| panic!("{name}: {e}"));
            assert_eq!((met.version, met.alpn.as_deref()), (ProtocolVersion::TLSv1_3, Some(&b"http/1.1"[..])));
        }
        let old = meet(&certificates, dir.path(), "venue", &[&rustls::version::TLS12]).unwrap();
        assert_eq!(old.version, ProtocolVersion::TLSv1_2);
        assert!(meet(&certificates, dir.path(), "example.com", BOTH).is_err());
        assert!(meet(&certificates, dir.path(), "192.168.7.6", BOTH).is_err());
    }

    #[test]
    fn a_device_that_trusts_another_root_does_not() {
        let (ours, theirs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (certificates, _) = Certificates::open(&own(ours.path(), "venue", &[]), Clock::system()).unwrap();
        Certificates::open(&own(theirs.path(), "venue", &[]), Clock::system()).unwrap();
        assert!(meet(&certificates, theirs.path(), "venue", BOTH).is_err());
    }

    #[test]
    fn a_stolen_root_cannot_play_a_bank() {
        let dir = tempfile::tempdir().unwrap();
        let source = own(dir.path(), "venue", &[]);
        let (certificates, _) = Certificates::open(&source, Clock::system()).unwrap();
        let authority = Authority::at(dir.path(), "venue").unwrap();
        let (pem, root) = authority.found_root().unwrap().unwrap();
        let issuer = Issuer::from_ca_cert_pem(&pem, authority.root_key().unwrap()).unwrap();
        let names = BTreeSet::from([Name::Dns("bank.example".to_owned()), Name::Dns("venue".to_owned())]);
        let now = Clock::system().now().unix_seconds();
        authority.issue_leaf(&issuer, &root, &names, now).unwrap();
        let forged = certified(&authority.path("leaf.pem"), &authority.path("leaf.key")).unwrap();
        *certificates.shown.0.write().unwrap() = Arc::new(forged);
        let refused = meet(&certificates, dir.path(), "bank.example", BOTH).err().unwrap();
        let rustls::Error::InvalidCertificate(CertificateError::Other(why)) = refused else { panic!("{refused}") };
        assert!(format!("{why:?}").contains("NameConstraintViolation"), "{why:?}");
    }

    #[test]
    fn names_outside_the_root_are_left_out_and_reported() {
        let dir = tempfile::tempdir().unwrap();
        let (_, report) =
            Certificates::open(&own(dir.path(), "venue", &["8.8.8.8", "10.0.0.2", "0.0.0.0"]), clock_at(TODAY))
                .unwrap();
        assert_eq!(report.left_out, ["8.8.8.8"]);
        assert!(leaf(dir.path()).names.contains(&Name::Ip("10.0.0.2".parse().unwrap())));
        let (_, moved) = Certificates::open(&own(dir.path(), "arena.example.com", &[]), clock_at(TODAY)).unwrap();
        assert_eq!((moved.root_issued, moved.left_out), (false, vec!["arena.example.com".to_owned()]));
        assert!(leaf(dir.path()).names.contains(&Name::Dns("arena.local".to_owned())));
    }

    #[test]
    fn odd_host_names_do_no_harm() {
        for (hostname, name) in
            [("", "cloakroom"), ("my box", "cloakroom"), ("größe", "cloakroom"), ("A.B-c.", "a.b-c")]
        {
            let dir = tempfile::tempdir().unwrap();
            Certificates::open(&own(dir.path(), hostname, &[]), clock_at(TODAY)).unwrap();
            assert!(leaf(dir.path()).names.contains(&Name::Dns(name.to_owned())), "{hostname:?}");
        }
        let dir = tempfile::tempdir().unwrap();
        let long = format!("{}.{}", "a".repeat(63), "b".repeat(63));
        Certificates::open(&own(dir.path(), &long, &[]), clock_at(TODAY)).unwrap();
    }

    #[test]
    fn files_are_as_private_as_they_should_be() {
        let dir = tempfile::tempdir().unwrap();
        Certificates::open(&own(dir.path(), "venue", &[]), clock_at(TODAY)).unwrap();
        let tls = dir.path().join("tls");
        assert_eq!(mode(tls.clone()), 0o700);
        for (name, want) in [("root.key", 0o600), ("leaf.key", 0o600), ("root.pem", 0o644), ("leaf.pem", 0o644)] {
            assert_eq!(mode(tls.join(name)), want, "{name}");
        }
        assert_eq!(fs::read_dir(&tls).unwrap().count(), 4, "no leftovers");
    }

    #[test]
    fn the_leaf_is_renewed_at_two_thirds_of_its_life_and_not_before() {
        let dir = tempfile::tempdir().unwrap();
        let (source, clock) = (own(dir.path(), "venue", &[]), clock_at(TODAY));
        let (certificates, report) = Certificates::open(&source, clock.clone()).unwrap();
        let first = leaf(dir.path());
        assert_eq!(first.ends_at - first.begins_at, LEAF_DAYS * DAY);
        assert_eq!(report.leaf_ends_at, first.ends_at);
        let root = root_pem(dir.path());
        later(&clock, 262);
        assert_eq!(certificates.refresh(&source).unwrap(), Report { leaf_ends_at: first.ends_at, ..Report::default() });
        later(&clock, 3);
        let report = certificates.refresh(&source).unwrap();
        assert!(report.leaf_issued && !report.root_issued);
        assert_ne!(leaf(dir.path()).public_key, first.public_key);
        assert_eq!(root_pem(dir.path()), root);
    }

    #[test]
    fn a_running_server_shows_the_new_leaf() {
        let dir = tempfile::tempdir().unwrap();
        let (certificates, _) = Certificates::open(&own(dir.path(), "venue", &[]), Clock::system()).unwrap();
        let before = meet(&certificates, dir.path(), "venue", BOTH).unwrap().leaf;
        assert!(certificates.refresh(&own(dir.path(), "venue", &["10.1.1.1"])).unwrap().leaf_issued);
        let after = meet(&certificates, dir.path(), "10.1.1.1", BOTH).unwrap().leaf;
        assert_ne!(before, after);
    }

    #[test]
    fn the_root_lasts_ten_years_and_its_successor_has_the_same_key() {
        let dir = tempfile::tempdir().unwrap();
        let (source, clock) = (own(dir.path(), "venue", &[]), clock_at(TODAY));
        let (certificates, _) = Certificates::open(&source, clock.clone()).unwrap();
        let facts = || Authority::at(dir.path(), "venue").unwrap().found_root().unwrap().unwrap().1;
        let first = facts();
        assert_eq!(first.ends_at - first.begins_at, ROOT_DAYS * DAY);
        later(&clock, 3_200);
        assert!(!certificates.refresh(&source).unwrap().root_issued);
        later(&clock, 200);
        let (before, report) = (root_pem(dir.path()), certificates.refresh(&source).unwrap());
        assert!(report.root_issued && !report.leaf_issued, "the same key vouches for the leaf under both roots");
        assert_ne!(root_pem(dir.path()), before);
        assert_eq!(facts().public_key, first.public_key);
    }

    #[test]
    fn a_clock_that_says_1970_is_not_believed() {
        let dir = tempfile::tempdir().unwrap();
        let source = own(dir.path(), "venue", &[]);
        Certificates::open(&source, clock_at(0)).unwrap();
        assert_eq!(leaf(dir.path()).begins_at, EARLIEST - DAY);
        Certificates::open(&source, clock_at(TODAY + 1000 * DAY)).unwrap();
        let (good, root) = (leaf(dir.path()), root_pem(dir.path()));
        let (_, report) = Certificates::open(&source, clock_at(0)).unwrap();
        assert!(!report.leaf_issued && !report.root_issued, "what was issued by a good clock is kept");
        Certificates::open(&own(dir.path(), "venue", &["10.0.0.1"]), clock_at(0)).unwrap();
        assert_eq!(leaf(dir.path()).begins_at, good.begins_at);
        assert_eq!(root_pem(dir.path()), root);
    }

    fn opened() -> (TempDir, Source) {
        let dir = tempfile::tempdir().unwrap();
        let source = own(dir.path(), "venue", &[]);
        Certificates::open(&source, clock_at(TODAY)).unwrap();
        (dir, source)
    }

    #[test]
    fn a_crash_between_two_files_is_mended() {
        for (lost, root_again) in [("leaf.key", false), ("leaf.pem", false), ("root.pem", true)] {
            let (dir, source) = opened();
            fs::remove_file(dir.path().join("tls").join(lost)).unwrap();
            let (_, report) = Certificates::open(&source, clock_at(TODAY)).unwrap();
            assert_eq!((report.root_issued, report.leaf_issued), (root_again, !root_again), "{lost}");
        }
        let ((dir, source), (other, _)) = (opened(), opened());
        fs::copy(other.path().join("tls/leaf.key"), dir.path().join("tls/leaf.key")).unwrap();
        assert!(Certificates::open(&source, clock_at(TODAY)).unwrap().1.leaf_issued, "key of another leaf");
        for file in ["leaf.key", "leaf.pem"] {
            fs::copy(other.path().join("tls").join(file), dir.path().join("tls").join(file)).unwrap();
        }
        assert!(Certificates::open(&source, clock_at(TODAY)).unwrap().1.leaf_issued, "leaf of another root");
    }

    #[test]
    fn a_root_without_its_key_is_left_to_the_operator() {
        let ((dir, source), (other, _)) = (opened(), opened());
        let key = dir.path().join("tls/root.key");
        fs::copy(other.path().join("tls/root.key"), &key).unwrap();
        let error = Certificates::open(&source, clock_at(TODAY)).unwrap_err().to_string();
        assert!(error.contains("restore root.key"), "{error}");
        fs::remove_file(&key).unwrap();
        assert!(Certificates::open(&source, clock_at(TODAY)).is_err());
    }

    #[test]
    fn keys_that_everybody_can_read_are_refused() {
        let (dir, source) = opened();
        let open = |path: &str| fs::set_permissions(dir.path().join(path), fs::Permissions::from_mode(0o644)).unwrap();
        open("tls/root.key");
        let error = Certificates::open(&source, clock_at(TODAY)).unwrap_err().to_string();
        assert!(error.contains("everybody may read it"), "{error}");
        open("tls/leaf.key");
        let given =
            Source::Given { certificate: dir.path().join("tls/leaf.pem"), key: dir.path().join("tls/leaf.key") };
        assert!(Certificates::open(&given, clock_at(TODAY)).unwrap_err().to_string().contains("everybody may read it"));
    }

    #[test]
    fn given_files_are_shown_and_must_match() {
        let (dir, other) = (tempfile::tempdir().unwrap(), opened().0);
        Certificates::open(&own(dir.path(), "venue", &[]), Clock::system()).unwrap();
        let at = |dir: &TempDir, name: &str| dir.path().join("tls").join(name);
        let given = Source::Given { certificate: at(&dir, "leaf.pem"), key: at(&dir, "leaf.key") };
        let (certificates, report) = Certificates::open(&given, Clock::system()).unwrap();
        assert_eq!(report, Report { leaf_ends_at: leaf(dir.path()).ends_at, ..Report::default() });
        meet(&certificates, dir.path(), "venue", BOTH).unwrap();
        for (certificate, key) in [
            (at(&dir, "leaf.pem"), at(&other, "leaf.key")),
            (at(&dir, "leaf.key"), at(&dir, "leaf.key")),
            (at(&dir, "leaf.pem"), at(&dir, "leaf.pem")),
            (at(&dir, "none.pem"), at(&dir, "leaf.key")),
        ] {
            let odd = Source::Given { certificate, key };
            assert!(Certificates::open(&odd, Clock::system()).is_err(), "{odd:?}");
        }
        assert!(certificates.refresh(&own(Path::new("/proc/nowhere"), "venue", &[])).is_err());
        meet(&certificates, dir.path(), "venue", BOTH).unwrap();
    }
}
