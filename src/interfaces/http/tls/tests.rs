//! Certificates of the box's own, and those that are given, as a client sees them.

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
        Certificates::open(&own(dir.path(), "venue", &["8.8.8.8", "10.0.0.2", "0.0.0.0"]), clock_at(TODAY)).unwrap();
    assert_eq!(report.left_out, ["8.8.8.8"]);
    assert!(leaf(dir.path()).names.contains(&Name::Ip("10.0.0.2".parse().unwrap())));
    let (_, moved) = Certificates::open(&own(dir.path(), "arena.example.com", &[]), clock_at(TODAY)).unwrap();
    assert_eq!((moved.root_issued, moved.left_out), (false, vec!["arena.example.com".to_owned()]));
    assert!(leaf(dir.path()).names.contains(&Name::Dns("arena.local".to_owned())));
}

#[test]
fn odd_host_names_do_no_harm() {
    for (hostname, name) in [("", "cloakroom"), ("my box", "cloakroom"), ("größe", "cloakroom"), ("A.B-c.", "a.b-c")]
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
    let given = Source::Given { certificate: dir.path().join("tls/leaf.pem"), key: dir.path().join("tls/leaf.key") };
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
