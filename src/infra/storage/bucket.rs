//! A bucket: objects on a server that speaks S3, through OpenDAL.
//!
//! Objects have the same names there as on the disk. An upload is read from a file in parts of
//! one size, as R2 wants them, and says whether the server's entity tag is the one that these
//! bytes have. The tag is MD5 for most servers, and something else for some that encrypt;
//! whoever finds it strange reads the object back.
//!
//! Reading is by range, and goes on where it was when a connection breaks, a few times.
//!
//! Invariant: only bytes of the SHA-256 that they are said to have get a name, so a file that has
//! rotted never replaces an object. It is compared in memory, before the one request that sends a
//! single part, or that joins several. For a single part nothing else has to be hashed: SHA-256
//! costs a third of MD5, and its tag is the MD5 that was taken together with the SHA-256 when the
//! bytes came. (Content-MD5 would cost nothing, and prove nothing of a server that ignores it.)
//! An upload that failed leaves nothing that has a name. Credentials come from the configuration
//! alone: no environment, no file of somebody's home, no metadata service.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::time::Duration;

use bytes::Bytes;
use opendal::BufferStream;
use opendal::ErrorKind;
use opendal::HttpTransporter;
use opendal::OperationContext;
use opendal::Operator;
use opendal::Writer;
use opendal::services::S3;
use ring::digest;

use crate::error::Code;
use crate::error::Error;
use crate::error::Result;
use crate::infra::storage::Backend;
use crate::infra::storage::ObjectPath;
use crate::infra::storage::post_policy;
use crate::infra::storage::post_policy::Terms;
use crate::infra::storage::sigv4::Signer;
use crate::infra::storage::transport::Transport;
use crate::support::checksum;
use crate::support::clock::Instant;
use crate::support::cpu::Cpu;
use crate::support::id;
use crate::support::secret::Secret;

use futures_util::StreamExt;

/// The parts of an upload; a file of one is sent in one request.
const PART_BYTES: u64 = 8 << 20;
/// No server takes more than ten thousand.
const MOST_PARTS: u64 = 9_000;
/// Parts under way at once.
const PARTS_AT_ONCE: usize = 2;
/// Giving an upload up must not hold anybody up.
const GIVEN_UP_WITHIN: Duration = Duration::from_secs(10);
/// Uploads that are still to be given up.
const MOST_UNENDED: usize = 16;
/// How often reading goes on after it broke, without a byte in between.
const TRIES: u32 = 4;
/// Reading ends when for so long nothing comes, however often it is tried.
const SILENCE: Duration = Duration::from_secs(20);
/// Hosts that stand behind a bucket's name in addresses that their consoles show.
const KNOWN_HOSTS: [&str; 3] = [".amazonaws.com", ".cloudflarestorage.com", ".digitaloceanspaces.com"];

/// The most that S3 takes in one request, and so by a form.
const MOST_FORM_BYTES: u64 = 5 << 30;

/// The longest that S3 signs for.
pub const LONGEST_LINK: Duration = Duration::from_hours(7 * 24);

/// Where a bucket is, and who we are there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    pub backend: Backend,
    pub endpoint: String,
    pub region: String,
    pub bucket: String,
    pub access_key: Secret,
    pub secret_key: Secret,
}

/// A bucket that objects can be kept in; cheap to clone.
#[derive(Clone)]
pub struct Bucket {
    backend: Backend,
    name: Arc<str>,
    operator: Operator,
    /// Who signs forms for it, and where they are POSTed to.
    signer: Arc<Signer>,
    door: Arc<str>,
    /// Uploads whose parts could not be removed when they failed.
    unended: Arc<Mutex<Vec<Writer>>>,
}

/// What sends one file straight into a bucket, without us.
pub struct Form {
    pub url: String,
    /// The file comes behind them.
    pub fields: Vec<(&'static str, String)>,
}

/// What the bytes of a file are known to be, in hex.
pub struct Known<'a> {
    pub sha256: &'a str,
    pub md5: Option<&'a str>,
}

/// An object as the server tells of it.
pub struct Told {
    pub size_bytes: u64,
    pub tag: Option<String>,
}

impl Bucket {
    /// Knows a bucket; nothing is asked of it yet.
    pub fn open(at: &Address) -> Result<Bucket> {
        let wrong = |what: &str| Err(Code::InvalidRequest.because(format!("storage: {what}")));
        if at.bucket.is_empty() || at.access_key.is_empty() || at.secret_key.is_empty() {
            return wrong("a bucket needs `bucket`, `access_key` and `secret_key`");
        }
        let (region, endpoint) = match (at.backend, &*at.region, &*at.endpoint) {
            (Backend::R2, _, "") => return wrong("r2 needs `endpoint`: https://ACCOUNT.r2.cloudflarestorage.com"),
            (Backend::R2, "", endpoint) => ("auto", endpoint.to_owned()),
            (_, "", "") => return wrong("s3 needs `region`, or the `endpoint` of another server that speaks S3"),
            (_, "", endpoint) => ("us-east-1", endpoint.to_owned()),
            (_, region, "") => (region, format!("https://s3.{region}.amazonaws.com")),
            (_, region, endpoint) => (region, endpoint.to_owned()),
        };
        if !endpoint.starts_with("https://") && !endpoint.starts_with("http://") {
            return wrong("`endpoint` has to begin with https:// or http://");
        }
        // OpenDAL cuts the bucket's name off, wherever that leads then.
        let named = format!("//{}.", at.bucket);
        let endpoint = match endpoint.split_once(&named) {
            Some((scheme, host)) if host.starts_with("s3.") || KNOWN_HOSTS.iter().any(|known| host.contains(known)) => {
                return wrong(&format!("write `endpoint` without the bucket's name: {scheme}//{host}"));
            }
            Some((scheme, host)) => format!("{scheme}{named}{}.{host}", at.bucket),
            None => endpoint,
        };
        let service = S3::default()
            .bucket(&at.bucket)
            .endpoint(&endpoint)
            .region(region)
            .access_key_id(at.access_key.expose())
            .secret_access_key(at.secret_key.expose())
            .disable_config_load()
            .disable_ec2_metadata();
        let context = OperationContext::new().with_http_transport(HttpTransporter::new(Transport::open()?));
        let operator = Operator::new(service)?.with_context(context);
        // A certificate for `*.s3.…` does not hold for a name with dots.
        let door = if at.endpoint.is_empty() && !at.bucket.contains('.') {
            endpoint.replacen("://", &format!("://{}.", at.bucket), 1)
        } else {
            format!("{}/{}", endpoint.trim_end_matches('/'), at.bucket)
        };
        let signer = Signer {
            access_key: at.access_key.expose().to_owned(),
            secret: at.secret_key.clone(),
            region: region.to_owned(),
        };
        Ok(Bucket {
            backend: at.backend,
            name: at.bucket.as_str().into(),
            operator,
            signer: Arc::new(signer),
            door: door.into(),
            unended: Arc::default(),
        })
    }

    pub fn backend(&self) -> Backend {
        self.backend
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether it answers and lets us do what is needed: a small object is put there, read and removed.
    pub async fn check(&self) -> Result<()> {
        let key = format!("cloakroom-looks-whether-it-may-{}", id::hex(&id::random::<8>()?));
        let said = Bytes::from_static(b"?");
        self.operator.write(&key, said.clone()).await.map_err(|e| self.unfit("putting", e))?;
        let read = self.operator.read(&key).await;
        self.operator.delete(&key).await.map_err(|e| self.unfit("removing", e))?;
        match read {
            Ok(read) if read.to_bytes() == said => Ok(()),
            Err(e) if e.kind() != ErrorKind::NotFound => Err(self.unfit("reading", e)),
            _ => Err(Code::StorageUnavailable
                .because(format!("bucket {}: what is put there is not found again as it was", self.name))),
        }
    }

    /// Asks for an object; `None` when it is not there.
    pub async fn find(&self, key: &ObjectPath) -> Result<Option<Told>> {
        match self.operator.stat(key.as_str()).await {
            Ok(meta) => Ok(Some(Told { size_bytes: meta.content_length(), tag: bare(meta.etag()) })),
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
            Err(e) => Err(self.failed("asking for an object", e)),
        }
    }

    /// Sends a file that is what it is known to be; `pace` is asked after each part. The entity tag that S3 gives to
    /// these bytes, if it is the one that the server gave.
    pub async fn send(
        &self,
        cpu: &Cpu,
        key: &ObjectPath,
        file: Arc<File>,
        known: &Known<'_>,
        pace: &Pace,
    ) -> Result<Option<String>> {
        let size_bytes = file.metadata()?.len();
        let part_bytes = PART_BYTES.max(size_bytes.div_ceil(MOST_PARTS).next_multiple_of(1 << 20));
        let known_tag = known.md5.filter(|_| size_bytes <= part_bytes);
        let writer = self.operator.writer_with(key.as_str()).concurrent(PARTS_AT_ONCE).await;
        let mut writer = writer.map_err(|e| self.unsent("beginning an upload", e))?;
        let mut is_ended = false;
        let sent = async {
            let (mut sha256, mut tags, mut at) = (digest::Context::new(&digest::SHA256), Vec::new(), 0);
            while at < size_bytes {
                let (file, is_tagged) = (Arc::clone(&file), known_tag.is_none());
                // Two at a time, because the MD5 of two costs little more than that of one.
                let ends = [at + part_bytes, at + 2 * part_bytes].map(|end| end.min(size_bytes));
                let read = cpu.run(move || {
                    let [one, other] = [(at, ends[0]), (ends[0], ends[1])].map(|(from, to)| {
                        let mut part = vec![0; (to - from) as usize];
                        file.read_exact_at(&mut part, from).map(|()| part)
                    });
                    let (one, other) = (one?, other?);
                    sha256.update(&one);
                    sha256.update(&other);
                    let tags = if is_tagged { checksum::md5_of_both(&one, &other) } else { [[0; 16]; 2] };
                    Ok((sha256, tags.into_iter().zip([one, other])))
                });
                let (digested, parts) = read.await?;
                sha256 = digested;
                for (tag, part) in parts.filter(|(_, part)| !part.is_empty()) {
                    let part_bytes = part.len() as u64;
                    tags.push(tag);
                    writer.write(Bytes::from(part)).await.map_err(|e| self.unsent("sending an object", e))?;
                    pace.spent(part_bytes).await;
                }
                at = ends[1];
            }
            if id::hex(sha256.finish().as_ref()) != known.sha256 {
                return Err(
                    Code::Internal.because(format!("the file of {key:?} on this disk is not what was taken in"))
                );
            }
            let expected = known_tag.map_or_else(|| joined(&tags), str::to_owned);
            let tag = match writer.close().await {
                Ok(told) => {
                    is_ended = true;
                    bare(told.etag())
                }
                // The parts may have been joined, and the answer lost.
                Err(e) if tags.len() > 1 => match self.find(key).await {
                    Ok(Some(told)) if told.size_bytes == size_bytes && told.tag.as_ref() == Some(&expected) => told.tag,
                    _ => return Err(self.unsent("ending an upload", e)),
                },
                Err(e) => return Err(self.unsent("ending an upload", e)),
            };
            Ok(tag.filter(|tag| *tag == expected))
        };
        let sent = sent.await;
        self.give_up((!is_ended).then_some(writer)).await;
        sent
    }

    /// Removes the parts of an upload that failed; with one that did not, those of earlier ones.
    async fn give_up(&self, failed: Option<Writer>) {
        let mut left = match failed {
            Some(writer) => vec![writer],
            None => std::mem::take(&mut *self.unended()),
        };
        while let Some(mut writer) = left.pop() {
            match tokio::time::timeout(GIVEN_UP_WITHIN, writer.abort()).await {
                Ok(Ok(())) => {}
                Ok(Err(e)) if e.kind() == ErrorKind::NotFound => {}
                _ => {
                    left.push(writer);
                    break;
                }
            }
        }
        let mut unended = self.unended();
        unended.extend(left);
        unended.truncate(MOST_UNENDED);
    }

    fn unended(&self) -> MutexGuard<'_, Vec<Writer>> {
        self.unended.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads a part of an object.
    pub fn read(&self, key: &ObjectPath, bytes: Range<u64>) -> Incoming {
        Incoming { bucket: self.clone(), key: key.clone(), left: bytes, stream: None, tries: 0, silence: SILENCE }
    }

    /// Removes an object; it need not exist.
    pub async fn delete(&self, key: &ObjectPath) -> Result<()> {
        match self.operator.delete(key.as_str()).await {
            Err(e) if e.kind() != ErrorKind::NotFound => Err(self.failed("removing an object", e)),
            _ => Ok(()),
        }
    }

    /// A form that sends a file to this key, until then. <https://docs.aws.amazon.com/AmazonS3/latest/API/RESTObjectPOST.html>
    pub fn form(&self, key: &ObjectPath, most_bytes: u64, expires_at: Instant, now: Instant) -> Result<Form> {
        let sizes = 1..=most_bytes.min(MOST_FORM_BYTES);
        let terms = Terms { bucket: &self.name, key: key.as_str(), sizes, expires_at, free: &[] };
        Ok(Form { url: self.door.to_string(), fields: post_policy::form(&self.signer, &terms, now)? })
    }

    /// An address that shows an object to whoever has it, for a while.
    pub async fn link(
        &self,
        key: &ObjectPath,
        life: Duration,
        disposition: &str,
        content_type: &str,
    ) -> Result<String> {
        let signed = self
            .operator
            .presign_read_with(key.as_str(), life.min(LONGEST_LINK))
            .override_content_disposition(disposition)
            .override_content_type(content_type);
        Ok(signed.await.map_err(|e| self.failed("signing a link", e))?.uri().to_string())
    }

    /// What is not found when something is sent is the bucket, or the upload that was begun: never the object.
    fn unsent(&self, doing: &str, e: opendal::Error) -> Error {
        Code::StorageUnavailable.from(format!("bucket {}: {doing}", self.name), e)
    }

    /// Why it cannot be used, in words for whoever has set it up.
    fn unfit(&self, doing: &str, e: opendal::Error) -> Error {
        let why = match e.kind() {
            ErrorKind::PermissionDenied => format!("{doing} an object is refused"),
            // Nothing else can be missing where an object is put.
            ErrorKind::NotFound | ErrorKind::ConfigInvalid => "it does not exist".to_owned(),
            _ => format!("{doing} an object failed"),
        };
        Code::StorageUnavailable.from(format!("bucket {}: {why}", self.name), e)
    }

    fn failed(&self, doing: &str, e: opendal::Error) -> Error {
        let what = format!("bucket {}: {doing}", self.name);
        match e.kind() {
            ErrorKind::NotFound => Code::ContentNotFound.from(what, e),
            _ => Code::StorageUnavailable.from(what, e),
        }
    }
}

/// An entity tag without what HTTP puts around it.
fn bare(tag: Option<&str>) -> Option<String> {
    tag.map(|tag| tag.trim_matches('"').to_ascii_lowercase())
}

/// S3's entity tag of an upload in these parts.
fn joined(tags: &[[u8; 16]]) -> String {
    match tags {
        [only] => id::hex(only),
        all => format!("{}-{}", id::hex(&checksum::md5(all.as_flattened())), all.len()),
    }
}

/// An object as it comes.
pub struct Incoming {
    bucket: Bucket,
    key: ObjectPath,
    left: Range<u64>,
    stream: Option<Box<BufferStream>>,
    tries: u32,
    silence: Duration,
}

impl Incoming {
    /// Waits no longer than that for the next of it, where somebody waits for an answer.
    pub fn within(self, silence: Duration) -> Incoming {
        Incoming { silence, ..self }
    }

    /// The next bytes; `None` when all that was asked for is there.
    pub async fn next(&mut self) -> Result<Option<Bytes>> {
        match tokio::time::timeout(self.silence, self.go_on()).await {
            Ok(next) => next,
            Err(_) => Err(Code::StorageUnavailable.because(format!("bucket {}: nothing more came", self.bucket.name))),
        }
    }

    async fn go_on(&mut self) -> Result<Option<Bytes>> {
        while !self.left.is_empty() {
            let error = match self.step().await {
                Ok(bytes) if bytes.is_empty() => None,
                Ok(bytes) => {
                    self.tries = 0;
                    self.left.start += bytes.len() as u64;
                    return Ok(Some(bytes));
                }
                Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::PermissionDenied) => {
                    return Err(self.bucket.failed("reading an object", e));
                }
                Err(e) => Some(e),
            };
            self.stream = None;
            self.tries += 1;
            if self.tries >= TRIES {
                return Err(match error {
                    Some(e) => self.bucket.failed("reading an object", e),
                    None => {
                        Code::StorageUnavailable.because(format!("bucket {}: an object ended early", self.bucket.name))
                    }
                });
            }
            tokio::time::sleep(Duration::from_millis(100 << self.tries)).await;
        }
        Ok(None)
    }

    /// What comes next, at most what is wanted; nothing when the connection ended.
    async fn step(&mut self) -> Result<Bytes, opendal::Error> {
        let stream = match &mut self.stream {
            Some(stream) => stream,
            none => {
                let reader = self.bucket.operator.reader(self.key.as_str()).await?;
                none.insert(Box::new(reader.into_stream(self.left.clone()).await?))
            }
        };
        let mut bytes = stream.next().await.transpose()?.map(|buffer| buffer.to_bytes()).unwrap_or_default();
        bytes.truncate(usize::try_from(self.left.end - self.left.start).unwrap_or(usize::MAX));
        Ok(bytes)
    }
}

/// How fast bytes may go.
#[derive(Default)]
pub struct Pace {
    bytes_per_second: u64,
    next: tokio::sync::Mutex<Option<tokio::time::Instant>>,
}

impl Pace {
    /// At most so many; 0: as fast as it goes.
    pub fn new(bytes_per_second: u64) -> Pace {
        Pace { bytes_per_second, next: tokio::sync::Mutex::default() }
    }

    /// These have gone: returns when the next may.
    pub async fn spent(&self, bytes: u64) {
        if self.bytes_per_second == 0 {
            return;
        }
        let now = tokio::time::Instant::now();
        let cost = Duration::from_secs_f64(bytes as f64 / self.bytes_per_second as f64);
        let until = {
            let mut next = self.next.lock().await;
            let begins = next.map_or(now, |next| next.max(now));
            *next.insert(begins + cost)
        };
        tokio::time::sleep_until(until).await;
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::infra::storage::double::Double;
    use crate::infra::storage::double::Manner;

    const KEY: &str = "originals/ab/cd.1";
    const LARGE_BYTES: usize = (24 << 20) + 12345;

    fn address(endpoint: &str, bucket: &str) -> Address {
        Address {
            backend: Backend::S3,
            endpoint: endpoint.to_owned(),
            region: String::new(),
            bucket: bucket.to_owned(),
            access_key: Secret::new("us"),
            secret_key: Secret::new("hush"),
        }
    }

    fn bytes(count: usize) -> Vec<u8> {
        (0..count).map(|n| (n * 7 + n / 251) as u8).collect()
    }

    fn sha256(bytes: &[u8]) -> String {
        id::hex(digest::digest(&digest::SHA256, bytes).as_ref())
    }

    async fn send(bucket: &Bucket, bytes: &[u8], sha256: &str, md5: Option<&str>) -> Result<Option<String>> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        let known = Known { sha256, md5 };
        bucket.send(&Cpu::open(2), &ObjectPath::new(KEY).unwrap(), Arc::new(file), &known, &Pace::default()).await
    }

    async fn send_well(bucket: &Bucket, bytes: &[u8]) -> Result<Option<String>> {
        send(bucket, bytes, &sha256(bytes), Some(&id::hex(&checksum::md5(bytes)))).await
    }

    fn asked(double: &Double, what: &[&str]) -> usize {
        double.log().iter().filter(|line| what.iter().all(|part| line.contains(part))).count()
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn what_has_rotted_here_replaces_nothing_there() {
        let double = Double::start();
        let bucket = Bucket::open(&address(&double.endpoint, "things")).unwrap();
        for size in [1000, LARGE_BYTES] {
            let mut body = bytes(size);
            assert!(send_well(&bucket, &body).await.unwrap().is_some());
            let right = sha256(&body);
            body[size / 2] ^= 1;
            for md5 in [None, Some("0123456789abcdef0123456789abcdef")] {
                assert_eq!(send(&bucket, &body, &right, md5).await.unwrap_err().code, Code::Internal, "{size}");
            }
            body[size / 2] ^= 1;
            assert!(double.object(&format!("things/{KEY}")).unwrap() == body, "{size}");
        }
        assert_eq!(double.parts(), 0, "and leaves nothing");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn the_tag_of_one_part_is_the_md5_that_is_known_and_that_of_several_is_of_theirs() {
        let double = Double::start();
        let bucket = Bucket::open(&address(&double.endpoint, "things")).unwrap();
        for size in [0, 1, 8 << 20] {
            let body = bytes(size);
            let md5 = id::hex(&checksum::md5(&body));
            assert_eq!(send(&bucket, &body, &sha256(&body), Some(&md5)).await.unwrap(), Some(md5.clone()), "{size}");
            assert_eq!(send(&bucket, &body, &sha256(&body), Some("else")).await.unwrap(), None, "{size}");
            let tag = send(&bucket, &body, &sha256(&body), None).await.unwrap();
            assert_eq!(tag, Some(md5).filter(|_| size > 0), "{size}");
        }
        for (size, parts) in [((8 << 20) + 1, 2), (16 << 20, 2), ((16 << 20) + 1, 3), (LARGE_BYTES, 4)] {
            let body = bytes(size);
            let tag = send(&bucket, &body, &sha256(&body), Some("else")).await.unwrap().unwrap();
            assert!(tag.ends_with(&format!("-{parts}")), "{size}: {tag}");
            assert!(double.object(&format!("things/{KEY}")).unwrap() == body, "{size}");
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_part_that_failed_is_sent_again_and_nothing_else_is() {
        let double = Double::start();
        let bucket = Bucket::open(&address(&double.endpoint, "things")).unwrap();
        double.behave(Manner::Stumbles);
        let body = bytes(LARGE_BYTES);
        assert!(send_well(&bucket, &body).await.unwrap().is_some());
        assert!(double.object(&format!("things/{KEY}")).unwrap() == body);
        assert_eq!(asked(&double, &["POST ", "?uploads"]), 1, "{:?}", double.log());
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn what_was_joined_is_there_though_nobody_heard_so() {
        let double = Double::start();
        let bucket = Bucket::open(&address(&double.endpoint, "things")).unwrap();
        double.behave(Manner::LosesTheEnd);
        let body = bytes(LARGE_BYTES);
        assert!(send_well(&bucket, &body).await.unwrap().is_some());
        assert_eq!(asked(&double, &["POST ", "?uploads"]), 1, "{:?}", double.log());
        double.behave(Manner::Forbids);
        assert_eq!(send_well(&bucket, &body).await.unwrap_err().code, Code::StorageUnavailable);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn an_upload_that_could_not_be_given_up_is_given_up_later() {
        let double = Double::start();
        let bucket = Bucket::open(&address(&double.endpoint, "things")).unwrap();
        double.behave(Manner::OnlyAdds);
        let mut rotten = bytes(LARGE_BYTES);
        let right = sha256(&rotten);
        rotten[0] ^= 1;
        assert!(send(&bucket, &rotten, &right, None).await.is_err());
        double.behave(Manner::Well);
        let mut given_up = vec![asked(&double, &["DELETE ", "uploadId="])];
        for _ in 0..2 {
            send_well(&bucket, b"x").await.unwrap();
            assert_eq!(double.parts(), 0);
            given_up.push(asked(&double, &["DELETE ", "uploadId="]));
        }
        assert!(0 < given_up[0] && given_up[0] < given_up[1] && given_up[1] == given_up[2], "{given_up:?}");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_kept_line_that_has_died_stands_for_nothing() {
        let double = Double::start();
        let bucket = Bucket::open(&address(&double.endpoint, "things")).unwrap();
        let key = ObjectPath::new(KEY).unwrap();
        send_well(&bucket, b"x").await.unwrap();
        double.behave(Manner::DeafWhenKept);
        // Whether a line is kept depends on who comes first; until three were, and were found dead.
        let deadline = std::time::Instant::now() + Duration::from_mins(1);
        let mut found = 0;
        while asked(&double, &["HEAD "]) < found + 3 {
            assert_eq!(bucket.find(&key).await.unwrap().unwrap().size_bytes, 1);
            found += 1;
            assert!(std::time::Instant::now() < deadline, "no line was kept");
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn silence_ends_reading_however_often_it_may_be_tried() {
        let double = Double::start();
        let bucket = Bucket::open(&address(&double.endpoint, "things")).unwrap();
        double.behave(Manner::Silent);
        let mut incoming = bucket.read(&ObjectPath::new(KEY).unwrap(), 0..10).within(Duration::from_millis(100));
        assert_eq!(incoming.next().await.unwrap_err().code, Code::StorageUnavailable);
        assert!(asked(&double, &["GET "]) <= 1, "{:?}", double.log());
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_check_does_what_the_box_needs_and_says_what_it_may_not() {
        let double = Double::start();
        let bucket = Bucket::open(&address(&double.endpoint, "things")).unwrap();
        bucket.check().await.unwrap();
        assert_eq!(double.names(), Vec::<String>::new());
        for (manner, why) in [
            (Manner::Misses, "bucket things: it does not exist"),
            (Manner::Forbids, "bucket things: putting an object is refused"),
            (Manner::OnlyAdds, "bucket things: removing an object is refused"),
            (Manner::Forgets, "bucket things: what is put there is not found again as it was"),
            (Manner::Corrupts, "bucket things: what is put there is not found again as it was"),
            (Manner::Unavailable, "bucket things: putting an object failed"),
        ] {
            double.behave(manner);
            assert_eq!(bucket.check().await.unwrap_err().detail, why, "{manner:?}");
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn requests_go_to_the_endpoint_that_is_named() {
        let key = ObjectPath::new(KEY).unwrap();
        for (endpoint, bucket, place) in [
            ("https://minio.example.org:9000", "minio", "https://minio.example.org:9000/minio/"),
            ("https://storage.googleapis.com", "storage", "https://storage.googleapis.com/storage/"),
            ("http://s3.example.org", "photos", "http://s3.example.org/photos/"),
            ("http://photos-2.example.org", "photos", "http://photos-2.example.org/photos/"),
        ] {
            let bucket = Bucket::open(&address(endpoint, bucket)).unwrap();
            let link = bucket.link(&key, Duration::from_mins(1), "inline", "image/png").await.unwrap();
            assert!(link.starts_with(&format!("{place}{KEY}?")), "{link}");
        }
        for (endpoint, right) in [
            ("https://photos.s3.eu-central-1.amazonaws.com", "https://s3.eu-central-1.amazonaws.com"),
            ("https://photos.s3.fr-par.scw.cloud/", "https://s3.fr-par.scw.cloud/"),
            ("https://photos.abc.r2.cloudflarestorage.com", "https://abc.r2.cloudflarestorage.com"),
        ] {
            let wrong = Bucket::open(&address(endpoint, "photos")).err().unwrap();
            assert!(wrong.detail.ends_with(&format!("without the bucket's name: {right}")), "{wrong}");
        }
    }
}
