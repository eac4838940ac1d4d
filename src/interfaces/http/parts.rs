//! Multipart bodies, as plain parts: a file is a stream with a name, a field is a text.
//!
//! actix ends here: what is handed on is bytes. Limits are checked as the parts come, so that no body
//! holds more memory than its fields may have; one that ends early or comes too slowly fails the whole
//! upload.

use actix_multipart::Field;
use actix_multipart::Multipart;
use actix_web::FromRequest;
use actix_web::HttpRequest;
use actix_web::dev::Payload;
use actix_web::http::header;
use actix_web::http::header::HeaderMap;
use actix_web::web;
use bytes::Bytes;
use futures_util::StreamExt;
use std::future::Ready;
use std::future::ready;

use crate::error::Code;
use crate::error::Error;
use crate::error::Result;
use crate::ingest::Intake;
use crate::ingest::Taken;
use crate::interfaces::http::observe::Figures;
use crate::interfaces::http::pace::Pace;
use crate::interfaces::http::pace::Watch;
use crate::interfaces::http::table::Failure;

/// The longest text of a field that is not a file.
const MAX_FIELD_BYTES: usize = 64 * 1024;
/// What the fields of a body may have together, with their names.
const MAX_FIELDS_BYTES: usize = 256 * 1024;
/// RFC 2046 §5.1.1.
const MAX_BOUNDARY_BYTES: usize = 70;

/// A multipart body.
pub struct Parts {
    multipart: Multipart,
    watch: Watch,
    /// What the whole body was announced to have.
    pub declared_bytes: u64,
    came_bytes: u64,
    left: usize,
    left_fields_bytes: usize,
    /// What its files may have together.
    most_bytes: u64,
    /// Fields that are files whether they bring a name or not.
    files: &'static [&'static str],
}

/// One part of it.
pub enum Part {
    File(Box<FilePart>),
    Field { name: String, text: String },
}

/// A file, not read yet.
pub struct FilePart {
    /// The form field; any name is accepted.
    pub field: String,
    /// What the sender calls the file.
    pub name: String,
    body: Field,
}

impl FromRequest for Parts {
    type Error = Failure;
    type Future = Ready<Result<Parts, Failure>>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        ready(open(request, payload).map_err(Failure))
    }
}

fn open(request: &HttpRequest, payload: &mut Payload) -> Result<Parts> {
    let text = |name| request.headers().get(name).and_then(|v: &header::HeaderValue| v.to_str().ok());
    let kind = text(header::CONTENT_TYPE).unwrap_or_default();
    let is_form = |(kind, _): &(&str, &str)| kind.trim().eq_ignore_ascii_case("multipart/form-data");
    let (_, parameters) = kind.split_once(';').filter(is_form).ok_or_else(|| {
        Code::NoFile.because("The upload holds no file: send it as multipart/form-data with at least one file part.")
    })?;
    if parameters.split("boundary=").nth(1).is_none_or(|b| b.is_empty() || b.len() > MAX_BOUNDARY_BYTES + 2) {
        return Err(Code::InvalidRequest.because("The multipart boundary is missing or longer than 70 characters."));
    }
    // In a spelling that its reader knows: others may have a blank before the semicolon.
    let kind = header::HeaderValue::from_str(&format!("multipart/form-data;{parameters}"));
    let kind = kind.map_err(|e| Code::Internal.from("reading a content type", e))?;
    let pace = request.app_data::<web::Data<Pace>>().map(|p| p.as_ref().clone()).unwrap_or_default();
    Ok(Parts {
        multipart: Multipart::new(&HeaderMap::from_iter([(header::CONTENT_TYPE, kind)]), payload.take()),
        watch: pace.watch(),
        declared_bytes: text(header::CONTENT_LENGTH).and_then(|v| v.parse().ok()).unwrap_or(0),
        came_bytes: 0,
        left: usize::MAX,
        left_fields_bytes: MAX_FIELDS_BYTES,
        most_bytes: u64::MAX,
        files: &[],
    })
}

impl Parts {
    /// How much of what was announced is still to come.
    pub fn announced_bytes(&self) -> u64 {
        self.declared_bytes.saturating_sub(self.came_bytes)
    }

    /// Allows at most this many parts.
    pub fn at_most(mut self, parts: usize) -> Parts {
        self.left = parts;
        self
    }

    /// Allows fields of at most this size together.
    pub fn fields_at_most(mut self, bytes: usize) -> Parts {
        self.left_fields_bytes = bytes;
        self
    }

    /// Allows files of at most this size together.
    pub fn files_at_most(&mut self, bytes: u64) {
        self.most_bytes = bytes;
    }

    /// Takes these fields, in capital letters or not, for files also when they bring no name.
    pub fn files(mut self, fields: &'static [&'static str]) -> Parts {
        self.files = fields;
        self
    }

    /// The next part. A [`FilePart`] has to be read to its end before the next one is asked for.
    pub async fn next(&mut self) -> Result<Option<Part>> {
        let Some(field) = self.field().await? else { return Ok(None) };
        let disposition = field.content_disposition();
        let file_name = disposition.and_then(|d| {
            d.get_filename_ext()
                .and_then(|ext| String::from_utf8(ext.value.clone()).ok())
                .or_else(|| d.get_filename().map(str::to_owned))
        });
        let field_name = field.name().unwrap_or_default().to_owned();
        let is_file = |known: &&str| known.eq_ignore_ascii_case(&field_name);
        let file_name = file_name.or_else(|| self.files.iter().any(is_file).then(String::new));
        if let Some(name) = file_name {
            return Ok(Some(Part::File(Box::new(FilePart { field: field_name, name, body: field }))));
        }
        self.count_field(field_name.len())?;
        let text = self.text(field).await?;
        Ok(Some(Part::Field { name: field_name, text }))
    }

    /// Reads a file to its end, into an intake.
    pub async fn pour(&mut self, mut file: Box<FilePart>, mut intake: Intake, figures: &Figures) -> Result<Taken> {
        while let Some(chunk) = self.chunk(&mut file).await? {
            figures.received(chunk.len() as u64);
            intake.write(chunk).await?;
        }
        intake.finish().await
    }

    /// Reads to the end of the body and keeps nothing of it.
    pub async fn skip(&mut self) -> Result<()> {
        while let Some(mut field) = self.field().await? {
            while let Some(chunk) = self.watch.next(field.next()).await? {
                self.watch.came(chunk.map_err(|e| broken(&e))?.len());
            }
        }
        Ok(())
    }

    /// The next bytes of a file; `None` at its end.
    pub async fn chunk(&mut self, file: &mut FilePart) -> Result<Option<Bytes>> {
        let chunk = self.watch.next(file.body.next()).await?.transpose().map_err(|e| broken(&e))?;
        let bytes = chunk.as_ref().map_or(0, Bytes::len);
        self.watch.came(bytes);
        self.came_bytes += bytes as u64;
        if self.came_bytes > self.most_bytes {
            return Err(Code::TooLarge.because(format!("At most {} bytes are taken here.", self.most_bytes)));
        }
        Ok(chunk)
    }

    async fn field(&mut self) -> Result<Option<Field>> {
        let Some(field) = self.watch.next(self.multipart.next()).await? else { return Ok(None) };
        let field = field.map_err(|e| broken(&e))?;
        self.left = self.left.checked_sub(1).ok_or_else(|| Code::TooLarge.because("The upload has too many parts."))?;
        Ok(Some(field))
    }

    /// Fields are collected: all of them together have a size.
    fn count_field(&mut self, bytes: usize) -> Result<()> {
        let left = self.left_fields_bytes.checked_sub(bytes);
        self.left_fields_bytes = left.ok_or_else(|| Code::TooLarge.because("The fields of the form are too large."))?;
        Ok(())
    }

    async fn text(&mut self, mut field: Field) -> Result<String> {
        let mut text = Vec::new();
        while let Some(chunk) = self.watch.next(field.next()).await? {
            let chunk = chunk.map_err(|e| broken(&e))?;
            self.watch.came(chunk.len());
            self.count_field(chunk.len())?;
            if text.len() + chunk.len() > MAX_FIELD_BYTES {
                return Err(Code::TooLarge.because(format!("A field may have at most {MAX_FIELD_BYTES} bytes.")));
            }
            text.extend_from_slice(&chunk);
        }
        String::from_utf8(text).map_err(|_| Code::InvalidRequest.because("A field of the upload is not UTF-8."))
    }
}

fn broken(error: &actix_multipart::MultipartError) -> Error {
    use actix_multipart::MultipartError;
    match error {
        MultipartError::Incomplete | MultipartError::Payload(_) => {
            Code::UploadIncomplete.because("The upload ended before it was complete; nothing was kept. Send it again.")
        }
        other => Code::InvalidRequest.because(format!("The multipart body is not understood: {other}.")),
    }
}
