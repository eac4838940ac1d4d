//! What can go wrong, told twice: to the caller and to the operator.
//!
//! An [`Error`] is a [`Code`] from the one catalogue below, a sentence for the caller
//! (`detail`) and, when there is one, the underlying `source` for the log. A dialect turns
//! the code into its own status and body; the job engine reads `retry` to choose between
//! backing off and giving up. There is no second taxonomy.
//!
//! Invariant: unless the blame is the caller's, the caller sees only the code's plain
//! sentence, never a path, an SQL text or a library's message.
//!
//! Style: a sentence for the caller begins with a capital letter and ends with a full stop; one about a
//! field begins with its name (`resize: must be …`). What a code's own sentence says is not said
//! again: `Code::AssetNotFound.into()`.
//!
//! Conversions with `?` choose a code by the *kind* of the foreign error, never by its text.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

pub type BoxError = Box<dyn std::error::Error + Send + Sync>;
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Whose fault it is, and so who is told what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blame {
    /// The request can be mended by whoever sent it: `detail` is shown.
    Caller,
    /// Disk, network or load: the caller is told to try again.
    World,
    /// A defect of ours: the caller gets the request id.
    Us,
}

/// Whether owed work that failed with this code is tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    Never,
    Backoff,
}

macro_rules! codes {
    ($($(#[doc = $doc:literal])+ $variant:ident = $wire:literal, $http:literal, $blame:ident, $retry:ident;)+) => {
        /// Every code a caller can meet. The wire words are stable; scripts match on them.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Code { $($(#[doc = $doc])+ $variant,)+ }

        impl Code {
            pub const ALL: &'static [Code] = &[$(Code::$variant,)+];

            /// The stable word on the wire.
            pub fn wire(self) -> &'static str { match self { $(Code::$variant => $wire,)+ } }
            /// The HTTP status that dialects use unless they say otherwise.
            pub fn http(self) -> u16 { match self { $(Code::$variant => $http,)+ } }
            pub fn blame(self) -> Blame { match self { $(Code::$variant => Blame::$blame,)+ } }
            pub fn retry(self) -> Retry { match self { $(Code::$variant => Retry::$retry,)+ } }
            /// One plain sentence: what it means and what to do next.
            pub fn help(self) -> &'static str { match self { $(Code::$variant => concat!($($doc),+).trim_ascii(),)+ } }
        }
    };
}

codes! {
    /// The request is not understood; the message says which part.
    InvalidRequest = "INVALID_REQUEST", 400, Caller, Never;
    /// A parameter that this call needs was not given.
    MissingParameter = "MISSING_MANDATORY_PARAMETERS", 400, Caller, Never;
    /// The upload holds no file.
    NoFile = "NO_FILE", 400, Caller, Never;
    /// The file is empty.
    EmptyFile = "EMPTY_FILE", 400, Caller, Never;
    /// The body ended early. Send it again.
    UploadIncomplete = "UPLOAD_INCOMPLETE", 400, Caller, Never;
    /// An asset with this id exists already.
    AssetIdExists = "ASSET_ID_EXISTS", 400, Caller, Never;
    /// The file has another size or checksum than was announced. Send it again.
    ContentMismatch = "CONTENT_MISMATCH", 400, Caller, Never;
    /// The box does not call this address: only http and https, only open ports, and private networks only where the operator allows them.
    UrlNotAllowed = "URL_NOT_ALLOWED", 400, Caller, Never;
    /// The asset is still being saved. Try again in a moment.
    AssetNotReady = "ASSET_NOT_READY", 400, Caller, Backoff;
    /// The asset could not be read as what it claims to be; its errors say why.
    AssetInvalid = "ASSET_INVALID", 400, Caller, Never;
    /// The asset is archived and can only be read.
    AssetArchived = "ASSET_ARCHIVED", 400, Caller, Never;
    /// The asset's data would be too long.
    DataTooLarge = "DATA_TOO_LARGE", 400, Caller, Never;
    /// The schema is not a JSON Schema that this box accepts; the message says why.
    InvalidSchema = "INVALID_SCHEMA", 400, Caller, Never;
    /// The collection holds no asset that could be downloaded.
    EmptyCollection = "EMPTY_COLLECTION", 400, Caller, Never;
    /// The box does not know who is calling: send a valid API key or token.
    Unauthorized = "UNAUTHORIZED", 401, Caller, Never;
    /// The password is right, but this account also needs a one-time code: send it as `otp`.
    SecondFactorRequired = "SECOND_FACTOR_REQUIRED", 401, Caller, Never;
    /// You are known, but your role may not do this.
    Forbidden = "FORBIDDEN", 403, Caller, Never;
    /// The form does not match its policy, or the policy has expired or is not from this box.
    PolicyRefused = "POLICY_REFUSED", 403, Caller, Never;
    /// There is nothing at this address.
    NotFound = "NOT_FOUND", 404, Caller, Never;
    /// No asset has this id.
    AssetNotFound = "ASSET_NOT_FOUND", 404, Caller, Never;
    /// The asset has no content under this key.
    ContentNotFound = "CONTENT_NOT_FOUND", 404, Caller, Never;
    /// No user has this id.
    UserNotFound = "USER_NOT_FOUND", 404, Caller, Never;
    /// No key has this id.
    KeyNotFound = "KEY_NOT_FOUND", 404, Caller, Never;
    /// No schema has this id.
    SchemaNotFound = "SCHEMA_NOT_FOUND", 404, Caller, Never;
    /// No search has this id; old ones are forgotten. Search again.
    SearchNotFound = "SEARCH_NOT_FOUND", 404, Caller, Never;
    /// No collection of yours has this id.
    CollectionNotFound = "COLLECTION_NOT_FOUND", 404, Caller, Never;
    /// No upload of yours has this address.
    UploadNotFound = "UPLOAD_NOT_FOUND", 404, Caller, Never;
    /// No job has this id.
    JobNotFound = "JOB_NOT_FOUND", 404, Caller, Never;
    /// No callback has this id.
    CallbackNotFound = "CALLBACK_NOT_FOUND", 404, Caller, Never;
    /// No image can be made from this content.
    NoImage = "NO_IMAGE", 404, Caller, Never;
    /// This address does not support that method.
    MethodNotAllowed = "METHOD_NOT_ALLOWED", 405, Caller, Never;
    /// The body came too slowly or stopped coming. Send it again.
    BodyTooSlow = "BODY_TOO_SLOW", 408, Caller, Never;
    /// Somebody else changed this at the same time. Read it again and retry.
    Conflict = "CONFLICT", 409, Caller, Never;
    /// A call with this Idempotency-Key is still being worked on. Try again in a moment.
    KeyInUse = "IDEMPOTENCY_KEY_IN_USE", 409, Caller, Backoff;
    /// Assets name this schema, so it cannot be deleted.
    SchemaInUse = "SCHEMA_IN_USE", 409, Caller, Never;
    /// This piece does not begin where the upload ended. Ask for the offset and send from there.
    OffsetMismatch = "OFFSET_MISMATCH", 409, Caller, Never;
    /// The upload expired or was given up. Start anew.
    UploadGone = "UPLOAD_GONE", 410, Caller, Never;
    /// The request must name version 1.0.0 of the tus protocol in Tus-Resumable.
    TusVersion = "TUS_VERSION_NOT_SUPPORTED", 412, Caller, Never;
    /// The body is larger than this call accepts.
    TooLarge = "TOO_LARGE", 413, Caller, Never;
    /// The body's type or encoding is not accepted here.
    UnsupportedMedia = "UNSUPPORTED_MEDIA_TYPE", 415, Caller, Never;
    /// The byte range lies outside the content.
    RangeNotSatisfiable = "RANGE_NOT_SATISFIABLE", 416, Caller, Never;
    /// This Idempotency-Key was used for another request before. Use a new one.
    KeyReused = "IDEMPOTENCY_KEY_REUSED", 422, Caller, Never;
    /// This box does not offer that.
    FeatureUnavailable = "FEATURE_UNAVAILABLE", 422, Caller, Never;
    /// The picture is damaged, or larger than this box decodes.
    BadImage = "BAD_IMAGE", 422, Caller, Never;
    /// The film or recording is damaged, of a kind that this box cannot decode, or beyond its limits.
    BadVideo = "BAD_VIDEO", 422, Caller, Never;
    /// Another request is writing to this upload. Ask for its offset in a moment and go on from there.
    UploadLocked = "UPLOAD_LOCKED", 423, Caller, Backoff;
    /// Too many requests. Slow down.
    TooManyRequests = "TOO_MANY_REQUESTS", 429, Caller, Backoff;
    /// The bytes do not match their checksum and were thrown away. Send them again.
    ChecksumMismatch = "CHECKSUM_MISMATCH", 460, Caller, Never;
    /// An unexpected failure of this box. The request id finds it in the log.
    Internal = "INTERNAL_ERROR", 500, Us, Backoff;
    /// Another server did not answer as it should. Try again later.
    Unreachable = "UNREACHABLE", 502, World, Backoff;
    /// The box is busy. Try again after the time in Retry-After.
    Busy = "BUSY", 503, World, Backoff;
    /// The storage does not answer. Nothing was lost; try again.
    StorageUnavailable = "STORAGE_UNAVAILABLE", 503, World, Backoff;
    /// The bytes of a piece came too slowly, stopped coming or ended early. Ask for the offset of the upload and go on from there.
    UploadInterrupted = "UPLOAD_INTERRUPTED", 503, Caller, Backoff;
    /// Media cannot be decoded on this box until its operator has looked at it.
    MediaUnavailable = "MEDIA_UNAVAILABLE", 503, World, Backoff;
    /// The disk is full. Nothing was kept; free some space and send it again.
    DiskFull = "DISK_FULL", 507, World, Backoff;
}

impl Code {
    /// An error with a sentence for the caller.
    pub fn because(self, detail: impl Into<Cow<'static, str>>) -> Error {
        Error { code: self, detail: detail.into(), source: None, again_after: None }
    }

    /// An error that keeps what caused it, for the log.
    pub fn from(self, doing: impl Into<Cow<'static, str>>, source: impl Into<BoxError>) -> Error {
        Error { code: self, detail: doing.into(), source: Some(source.into()), again_after: None }
    }
}

/// A failure: its code, a sentence, and what lies beneath.
#[derive(Debug)]
pub struct Error {
    pub code: Code,
    /// What was being done, or what is wrong with the request.
    pub detail: Cow<'static, str>,
    pub source: Option<BoxError>,
    /// When trying again makes sense, if that is known.
    pub again_after: Option<Duration>,
}

impl Error {
    /// The same failure for somebody else who waited for the same work. The source was logged
    /// with the first.
    pub fn again(shared: &Error) -> Error {
        Error { code: shared.code, detail: shared.detail.clone(), source: None, again_after: shared.again_after }
    }

    /// The same, with the time after which to try again.
    #[must_use]
    pub fn again_after(self, wait: Duration) -> Error {
        Error { again_after: Some(wait), ..self }
    }

    /// The sentence that may be said aloud.
    pub fn public(&self) -> &str {
        match self.code.blame() {
            Blame::Caller if !self.detail.is_empty() => &self.detail,
            _ => self.code.help(),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code.wire(), self.detail)?;
        let mut cause = self.source.as_deref().map(|s| s as &dyn std::error::Error);
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_deref().map(|s| s as &(dyn std::error::Error + 'static))
    }
}

impl From<Code> for Error {
    fn from(code: Code) -> Self {
        code.because("")
    }
}

impl From<std::io::Error> for Error {
    fn from(error: std::io::Error) -> Self {
        use std::io::ErrorKind;
        match error.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => Code::DiskFull.from("writing to disk", error),
            _ => Code::StorageUnavailable.from("using the disk", error),
        }
    }
}

impl From<rusqlite::Error> for Error {
    fn from(error: rusqlite::Error) -> Self {
        use rusqlite::ErrorCode;
        let code = match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => Code::DiskFull,
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked | ErrorCode::OperationInterrupted) => Code::Busy,
            Some(ErrorCode::SystemIoFailure | ErrorCode::ReadOnly | ErrorCode::CannotOpen) => Code::StorageUnavailable,
            _ => Code::Internal,
        };
        code.from("using the database", error)
    }
}

impl From<opendal::Error> for Error {
    fn from(error: opendal::Error) -> Self {
        let code = match error.kind() {
            opendal::ErrorKind::NotFound => Code::ContentNotFound,
            _ => Code::StorageUnavailable,
        };
        code.from("using the object store", error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wire_words_are_unique() {
        let mut words: Vec<_> = Code::ALL.iter().map(|c| c.wire()).collect();
        words.sort_unstable();
        let all = words.len();
        words.dedup();
        assert_eq!(words.len(), all);
    }

    #[test]
    fn the_documents_have_a_row_for_each() {
        let table = include_str!("../docs/errors.md");
        for code in Code::ALL {
            let row = format!("| {} | `{}` | {} |\n", code.http(), code.wire(), code.help());
            assert!(table.contains(&row), "docs/errors.md lacks:\n{row}");
        }
    }

    #[test]
    fn only_the_caller_sees_details() {
        assert_eq!(Code::InvalidRequest.because("resize: not a number").public(), "resize: not a number");
        let inner = Code::Internal.from("reading /var/lib/secret", std::io::Error::other("sqlite: no such table"));
        assert!(!inner.public().contains("secret"));
        assert!(inner.to_string().contains("no such table"));
    }

    #[test]
    fn a_full_disk_is_known_by_its_kind() {
        let full = std::io::Error::from_raw_os_error(28);
        assert_eq!(Error::from(full).code, Code::DiskFull);
    }
}
