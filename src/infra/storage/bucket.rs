//! A bucket: objects on a server that speaks S3, through OpenDAL.
//!
//! Objects have the same names there as on the disk. An upload is read from a file in parts of
//! one size, as R2 wants them, and says what was read: its SHA-256, and whether the server's
//! entity tag is the one that these bytes have. The tag is MD5 for most servers, and something
//! else for some that encrypt; whoever finds it strange reads the object back.
//!
//! Reading is by range, and goes on where it was when a connection breaks, a few times.
//!
//! Invariant: an upload that failed leaves nothing that has a name. Credentials come from the
//! configuration alone: no environment, no file of somebody's home, no metadata service.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use opendal::BufferStream;
use opendal::HttpTransporter;
use opendal::OperationContext;
use opendal::Operator;
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
/// How often reading goes on after it broke, without a byte in between.
const TRIES: u32 = 4;

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
}

/// What sends one file straight into a bucket, without us.
pub struct Form {
    pub url: String,
    /// The file comes behind them.
    pub fields: Vec<(&'static str, String)>,
}

/// What was sent.
pub struct Sent {
    /// Of the bytes as they were read from the file, in hex.
    pub sha256: String,
    /// The entity tag that S3 gives to these bytes, if it is the one that the server gave.
    pub tag: Option<String>,
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
        let name = at.bucket.as_str().into();
        Ok(Bucket { backend: at.backend, name, operator, signer: Arc::new(signer), door: door.into() })
    }

    pub fn backend(&self) -> Backend {
        self.backend
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether it answers and lets us in; the object asked for need not be there.
    pub async fn check(&self) -> Result<()> {
        self.find(&ObjectPath::new("cloakroom-looks-whether-it-may-read")?).await.map(|_| ())
    }

    /// Asks for an object; `None` when it is not there.
    pub async fn find(&self, key: &ObjectPath) -> Result<Option<Told>> {
        match self.operator.stat(key.as_str()).await {
            Ok(meta) => Ok(Some(Told { size_bytes: meta.content_length(), tag: bare(meta.etag()) })),
            Err(e) if e.kind() == opendal::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(self.failed("asking for an object", e)),
        }
    }

    /// Sends a file; `pace` is asked after each part.
    pub async fn send(&self, cpu: &Cpu, key: &ObjectPath, file: Arc<File>, pace: &Pace) -> Result<Sent> {
        let size_bytes = file.metadata()?.len();
        let part_bytes = PART_BYTES.max(size_bytes.div_ceil(MOST_PARTS).next_multiple_of(1 << 20));
        let writer = self.operator.writer_with(key.as_str()).chunk(part_bytes as usize).concurrent(PARTS_AT_ONCE);
        let mut writer = writer.await.map_err(|e| self.unsent("beginning an upload", e))?;
        let sent = async {
            let (mut sha256, mut tags, mut at) = (digest::Context::new(&digest::SHA256), Vec::new(), 0);
            while at < size_bytes {
                let (file, wanted) = (Arc::clone(&file), part_bytes.min(size_bytes - at));
                let read = cpu.run(move || {
                    let mut part = vec![0; wanted as usize];
                    file.read_exact_at(&mut part, at)?;
                    sha256.update(&part);
                    let tag = checksum::md5(&part);
                    Ok((sha256, tag, Bytes::from(part)))
                });
                let (digested, tag, part) = read.await?;
                sha256 = digested;
                tags.push(tag);
                writer.write(part).await.map_err(|e| self.unsent("sending an object", e))?;
                at += wanted;
                pace.spent(wanted).await;
            }
            let told = writer.close().await.map_err(|e| self.unsent("ending an upload", e))?;
            let tag = bare(told.etag()).filter(|tag| *tag == expected(&tags));
            Ok(Sent { sha256: id::hex(sha256.finish().as_ref()), tag })
        };
        let sent = sent.await;
        if sent.is_err() {
            let _ = tokio::time::timeout(Duration::from_secs(10), writer.abort()).await;
        }
        sent
    }

    /// Reads a part of an object.
    pub fn read(&self, key: &ObjectPath, bytes: Range<u64>) -> Incoming {
        Incoming { bucket: self.clone(), key: key.clone(), left: bytes, stream: None, tries: 0 }
    }

    /// Removes an object; it need not exist.
    pub async fn delete(&self, key: &ObjectPath) -> Result<()> {
        match self.operator.delete(key.as_str()).await {
            Err(e) if e.kind() != opendal::ErrorKind::NotFound => Err(self.failed("removing an object", e)),
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

    fn failed(&self, doing: &str, e: opendal::Error) -> Error {
        let what = format!("bucket {}: {doing}", self.name);
        match e.kind() {
            opendal::ErrorKind::NotFound => Code::ContentNotFound.from(what, e),
            _ => Code::StorageUnavailable.from(what, e),
        }
    }
}

/// An entity tag without what HTTP puts around it.
fn bare(tag: Option<&str>) -> Option<String> {
    tag.map(|tag| tag.trim_matches('"').to_ascii_lowercase())
}

/// S3's entity tag of an upload in these parts.
fn expected(tags: &[[u8; 16]]) -> String {
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
    stream: Option<BufferStream>,
    tries: u32,
}

impl Incoming {
    /// The next bytes; `None` when all that was asked for is there.
    pub async fn next(&mut self) -> Result<Option<Bytes>> {
        while !self.left.is_empty() {
            let error = match self.step().await {
                Ok(bytes) if bytes.is_empty() => None,
                Ok(bytes) => {
                    self.tries = 0;
                    self.left.start += bytes.len() as u64;
                    return Ok(Some(bytes));
                }
                Err(e) if matches!(e.kind(), opendal::ErrorKind::NotFound | opendal::ErrorKind::PermissionDenied) => {
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
                none.insert(reader.into_stream(self.left.clone()).await?)
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
