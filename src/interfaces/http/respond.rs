//! Content on its way out: validators, ranges, names, and bodies that read a file by
//! descriptor.
//!
//! A file body asks the page cache first (`preadv2` with `RWF_NOWAIT`): what is in memory is
//! sent from the HTTP worker without a hop, what is not is read on the blocking pool, so a
//! slow disk never holds up the other connections of that worker.

use std::cell::RefCell;
use std::fs::File;
use std::io::IoSliceMut;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Context;
use std::task::Poll;

use actix_web::HttpRequest;
use actix_web::HttpResponse;
use actix_web::HttpResponseBuilder;
use actix_web::body::BodySize;
use actix_web::body::MessageBody;
use actix_web::http::Method;
use actix_web::http::StatusCode;
use actix_web::http::header;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use percent_encoding::AsciiSet;
use percent_encoding::NON_ALPHANUMERIC;
use percent_encoding::utf8_percent_encode;
use rustix::io::Errno;
use rustix::io::ReadWriteFlags;

use crate::collections::Archive;
use crate::delivery::Content;
use crate::delivery::Shown;
use crate::delivery::Text;
use crate::delivery::transcodes::Part;
use crate::error::Result;
use crate::homes::Away;
use crate::homes::Reading;
use crate::homes::Source;
use crate::interfaces::http::extract::Pairs;
use crate::support::clock::Instant;
use crate::support::cpu::Cpu;
use crate::support::id;
use crate::support::mime;
use crate::support::range;
use crate::support::range::Piece;
use crate::support::range::Ranges;
use crate::support::zip;

/// How much of a file is read at once: small enough to stay in the processor's cache until
/// it has been copied to the socket.
const READ_BYTES: u64 = 64 * 1024;

/// How many buffers a thread keeps for the next read.
const SPARE_BUFFERS: usize = 16;

/// What content of strangers may do in a browser: nothing but be looked at.
const CONTENT_POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; media-src 'self'; sandbox";

/// May be kept by shared caches, but a replaced original shows after five minutes at most.
const PUBLIC: &str = "public, max-age=300, must-revalidate";
const PRIVATE: &str = "private, no-store";
/// Leads to what may be made again: asked for anew by every visitor.
const BRIEF: &str = "public, max-age=10, must-revalidate";
/// Never means other bytes.
const SETTLED: &str = "public, max-age=31536000, immutable";

/// `inline` or `attachment`, as the caller asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disposition {
    /// Shown in the browser when that is safe for its type.
    Display,
    Download,
}

impl Disposition {
    /// What `delivery` asks for.
    pub fn asked(query: &Pairs) -> Disposition {
        if query.get("delivery") == Some("download") { Disposition::Download } else { Disposition::Display }
    }
}

/// An on-demand image.
pub fn image(request: &HttpRequest, shown: &Shown, download: Option<String>) -> HttpResponse {
    let image = &shown.image;
    let mut answer = HttpResponse::Ok();
    answer
        .insert_header((header::ETAG, &*image.etag))
        .insert_header((header::CACHE_CONTROL, if shown.public { PUBLIC } else { PRIVATE }))
        .insert_header((header::VARY, "Accept"));
    if not_modified(request, &image.etag) {
        return answer.status(StatusCode::NOT_MODIFIED).finish();
    }
    content_headers(&mut answer, image.content_type);
    if let Some(stem) = download {
        let name = format!("{stem}.{}", image.extension);
        answer.insert_header((header::CONTENT_DISPOSITION, disposition("attachment", &name)));
    }
    answer.body(image.bytes.clone())
}

/// A short text that was made for this answer.
pub fn document(request: &HttpRequest, text: String, content_type: &'static str, public: bool) -> HttpResponse {
    written(request, text, content_type, if public { PUBLIC } else { PRIVATE }, None)
}

/// A playlist, or cues.
pub fn text(request: &HttpRequest, text: Text) -> HttpResponse {
    let Text { text, content_type, public, modified_at } = text;
    written(request, text, content_type, if public { BRIEF } else { PRIVATE }, Some(modified_at))
}

fn written(
    request: &HttpRequest,
    text: String,
    content_type: &'static str,
    cache: &'static str,
    modified_at: Option<Instant>,
) -> HttpResponse {
    let etag = format!("\"{}\"", id::hex(ring::digest::digest(&ring::digest::SHA256, text.as_bytes()).as_ref()));
    let mut answer = HttpResponse::Ok();
    answer.insert_header((header::ETAG, &*etag)).insert_header((header::CACHE_CONTROL, cache));
    if let Some(at) = modified_at {
        answer.insert_header((header::LAST_MODIFIED, http_date(at.unix_seconds())));
    }
    if not_modified(request, &etag) {
        return answer.status(StatusCode::NOT_MODIFIED).finish();
    }
    content_headers(&mut answer, content_type);
    answer.body(text)
}

/// A stored content, whole or in ranges.
pub async fn content(request: &HttpRequest, cpu: &Cpu, content: &Content, how: Disposition) -> Result<HttpResponse> {
    sent(request, cpu, content, how, PUBLIC).await
}

/// A file of a conversion that has many.
pub async fn part(request: &HttpRequest, cpu: &Cpu, part: &Part, how: Disposition) -> Result<HttpResponse> {
    sent(request, cpu, &part.content, how, if part.is_settled { SETTLED } else { PUBLIC }).await
}

/// `cache` is for what everybody may see.
async fn sent(
    request: &HttpRequest,
    cpu: &Cpu,
    content: &Content,
    how: Disposition,
    cache: &'static str,
) -> Result<HttpResponse> {
    let size = content.size_bytes;
    let modified = http_date(content.modified_at.unix_seconds());
    let mut answer = HttpResponse::Ok();
    answer
        .insert_header((header::ETAG, &*content.etag))
        .insert_header((header::LAST_MODIFIED, &*modified))
        .insert_header((header::ACCEPT_RANGES, "bytes"))
        .insert_header((header::CACHE_CONTROL, if content.public { cache } else { PRIVATE }));
    if not_modified(request, &content.etag) || not_modified_since(request, &modified) {
        return Ok(answer.status(StatusCode::NOT_MODIFIED).finish());
    }
    let (content_type, safe) = mime::served(&content.content_type);
    let inline = safe && how == Disposition::Display;
    content_headers(&mut answer, content_type);
    let kind = if inline { "inline" } else { "attachment" };
    answer.insert_header((header::CONTENT_DISPOSITION, disposition(kind, &content.name)));

    let is_read = *request.method() == Method::GET;
    match asked_ranges(request, &content.etag, &modified, size) {
        Ranges::Full => Ok(answer.body(FileBody::new(content, cpu, 0..size).begun(is_read).await?)),
        Ranges::Unsatisfiable => {
            answer.insert_header((header::CONTENT_RANGE, range::unsatisfied(size)));
            answer.insert_header((header::CACHE_CONTROL, "no-store"));
            Ok(answer.status(StatusCode::RANGE_NOT_SATISFIABLE).finish())
        }
        Ranges::Satisfiable(ranges) => {
            answer.status(StatusCode::PARTIAL_CONTENT);
            if let [only] = &*ranges {
                answer.insert_header((header::CONTENT_RANGE, range::content_range(only, size)));
                return Ok(answer.body(FileBody::new(content, cpu, only.clone()).begun(is_read).await?));
            }
            let boundary = id::hex(&id::random::<16>()?);
            let parts = range::Multipart::new(ranges, size, content_type, boundary);
            answer.insert_header((header::CONTENT_TYPE, parts.content_type()));
            Ok(answer.body(FileBody::pieces(content, cpu, &parts).begun(is_read).await?))
        }
    }
}

fn asked_ranges(request: &HttpRequest, etag: &str, modified: &str, size_bytes: u64) -> Ranges {
    let text = |name| request.headers().get(name).and_then(|v: &header::HeaderValue| v.to_str().ok());
    let Some(asked) = text(header::RANGE).filter(|_| *request.method() == Method::GET) else { return Ranges::Full };
    match text(header::IF_RANGE) {
        Some(condition) if !range::if_range_holds(condition, Some(etag), Some(modified)) => Ranges::Full,
        _ => range::parse(asked, size_bytes),
    }
}

/// An archive, whole or from where a download broke off. Several ranges at once are answered
/// with the whole.
pub async fn archive(request: &HttpRequest, cpu: &Cpu, archive: &Archive, name: &str) -> Result<HttpResponse> {
    let size = archive.layout.size_bytes;
    let modified = http_date(archive.modified_at.unix_seconds());
    let mut answer = HttpResponse::Ok();
    answer
        .insert_header((header::ETAG, &*archive.etag))
        .insert_header((header::LAST_MODIFIED, &*modified))
        .insert_header((header::ACCEPT_RANGES, "bytes"))
        .insert_header((header::CACHE_CONTROL, PRIVATE));
    if not_modified(request, &archive.etag) {
        return Ok(answer.status(StatusCode::NOT_MODIFIED).finish());
    }
    content_headers(&mut answer, "application/zip");
    answer.insert_header((header::CONTENT_DISPOSITION, format!("attachment; filename=\"{name}\"")));
    let is_read = *request.method() == Method::GET;
    match asked_ranges(request, &archive.etag, &modified, size) {
        Ranges::Unsatisfiable => {
            answer.insert_header((header::CONTENT_RANGE, range::unsatisfied(size)));
            answer.insert_header((header::CACHE_CONTROL, "no-store"));
            Ok(answer.status(StatusCode::RANGE_NOT_SATISFIABLE).finish())
        }
        Ranges::Satisfiable(ranges) if ranges.len() == 1 => {
            let only = ranges.into_iter().next().unwrap_or_default();
            answer.insert_header((header::CONTENT_RANGE, range::content_range(&only, size)));
            answer.status(StatusCode::PARTIAL_CONTENT);
            Ok(answer.body(FileBody::archive(archive, cpu, only).begun(is_read).await?))
        }
        Ranges::Full | Ranges::Satisfiable(_) => {
            Ok(answer.body(FileBody::archive(archive, cpu, 0..size).begun(is_read).await?))
        }
    }
}

fn content_headers(answer: &mut HttpResponseBuilder, content_type: &str) {
    answer
        .insert_header((header::CONTENT_TYPE, content_type))
        .insert_header((header::CONTENT_SECURITY_POLICY, CONTENT_POLICY))
        .insert_header(("cross-origin-resource-policy", "cross-origin"));
}

/// `If-None-Match` (RFC 9110 §13.1.2), compared weakly.
fn not_modified(request: &HttpRequest, etag: &str) -> bool {
    let known = request.headers().get(header::IF_NONE_MATCH).and_then(|v| v.to_str().ok());
    known.is_some_and(|known| {
        known.trim() == "*" || known.split(',').any(|tag| tag.trim().trim_start_matches("W/") == etag)
    })
}

/// `If-Modified-Since` (RFC 9110 §13.1.3), which counts only without the above. The date has to
/// be the very one that we gave: that is what clients send, and nothing has to be parsed.
fn not_modified_since(request: &HttpRequest, modified: &str) -> bool {
    let headers = request.headers();
    !headers.contains_key(header::IF_NONE_MATCH)
        && headers.get(header::IF_MODIFIED_SINCE).is_some_and(|since| since.as_bytes() == modified.as_bytes())
}

/// RFC 6266: an ASCII name for old clients, the real one in UTF-8.
pub fn disposition(kind: &str, name: &str) -> String {
    /// RFC 8187 `attr-char`.
    const KEPT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
    let plain: String = name
        .chars()
        .map(|c| match c {
            '"' | '\\' | '/' | ':' => '_',
            c if c.is_ascii_graphic() || c == ' ' => c,
            _ => '_',
        })
        .collect();
    let full: String = name.chars().map(|c| if matches!(c, '/' | '\\') || c.is_control() { '_' } else { c }).collect();
    format!("{kind}; filename=\"{plain}\"; filename*=UTF-8''{}", utf8_percent_encode(&full, KEPT))
}

/// RFC 9110 §5.6.7.
fn http_date(unix_seconds: i64) -> String {
    let at = std::time::UNIX_EPOCH + std::time::Duration::from_secs(unix_seconds.max(0) as u64);
    header::HttpDate::from(at).to_string()
}

/// Parts of files, with other bytes between them.
struct FileBody {
    cpu: Cpu,
    /// In reverse: the next slice is the last.
    slices: Vec<Slice>,
    left: u64,
    reading: Option<BoxFuture<'static, Result<Bytes>>>,
    /// What comes from a bucket, between two reads.
    incoming: Option<Reading>,
    arriving: Option<BoxFuture<'static, (Reading, Result<Option<Bytes>>)>>,
}

/// What comes next in a body.
enum Slice {
    Ready(Bytes),
    Of(Source, Range<u64>),
    /// From a bucket, with the first bytes of it.
    Begun(Reading, Option<Bytes>),
}

impl FileBody {
    fn new(content: &Content, cpu: &Cpu, bytes: Range<u64>) -> FileBody {
        let left = bytes.end - bytes.start;
        FileBody::of(cpu, [Slice::Of(content.source.clone(), bytes)], left)
    }

    fn pieces(content: &Content, cpu: &Cpu, parts: &range::Multipart) -> FileBody {
        let slice = |piece| match piece {
            Piece::Text(text) => Slice::Ready(text.into()),
            Piece::Bytes(bytes) => Slice::Of(content.source.clone(), bytes),
        };
        FileBody::of(cpu, parts.pieces().map(slice), parts.content_length())
    }

    fn archive(archive: &Archive, cpu: &Cpu, bytes: Range<u64>) -> FileBody {
        let left = bytes.end - bytes.start;
        let slice = |part| match part {
            zip::Part::Bytes(bytes) => Some(Slice::Ready(bytes)),
            zip::Part::File(n, bytes) => Some(Slice::Of(archive.files.get(n)?.clone(), bytes)),
        };
        FileBody::of(cpu, archive.layout.slice(bytes).into_iter().filter_map(slice), left)
    }

    fn of(cpu: &Cpu, slices: impl IntoIterator<Item = Slice>, left: u64) -> FileBody {
        let mut slices: Vec<_> = slices.into_iter().collect();
        slices.reverse();
        FileBody { cpu: cpu.clone(), slices, left, reading: None, incoming: None, arriving: None }
    }

    /// Waits for the first bytes that come from a bucket: a refusal can be told now, and later the answer can
    /// only be cut off. Every bucket is asked that something comes from. Where nothing is read, as for HEAD, nothing is
    /// left but the size: the server would ask for the bytes all the same, to throw them away.
    async fn begun(mut self, is_read: bool) -> Result<FileBody> {
        if !is_read {
            self.slices.clear();
        }
        let mut asked: Vec<Away> = Vec::new();
        for slice in self.slices.iter_mut().rev() {
            let Slice::Of(Source::Away(away), bytes) = slice else { continue };
            if bytes.is_empty() || asked.iter().any(|known| known.is_beside(away)) {
                continue;
            }
            let is_next = asked.is_empty();
            asked.push(Away::clone(away));
            let wanted = if is_next { bytes.clone() } else { bytes.start..bytes.start + 1 };
            let (incoming, first) = away.begin(wanted).await?;
            if is_next {
                *slice = Slice::Begun(incoming, first);
            }
        }
        Ok(self)
    }
}

impl MessageBody for FileBody {
    type Error = std::io::Error;

    fn size(&self) -> BodySize {
        BodySize::Sized(self.left)
    }

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, std::io::Error>>> {
        let this = self.get_mut();
        loop {
            if let Some(reading) = &mut this.reading {
                let Poll::Ready(read) = reading.as_mut().poll(cx) else { return Poll::Pending };
                this.reading = None;
                return Poll::Ready(Some(read.map_err(std::io::Error::other)));
            }
            if let Some(arriving) = &mut this.arriving {
                let Poll::Ready((incoming, next)) = arriving.as_mut().poll(cx) else { return Poll::Pending };
                this.arriving = None;
                match next {
                    Ok(None) => {}
                    Ok(Some(bytes)) => {
                        this.incoming = Some(incoming);
                        return Poll::Ready(Some(Ok(bytes)));
                    }
                    Err(e) => return Poll::Ready(Some(Err(std::io::Error::other(e)))),
                }
            }
            if let Some(mut incoming) = this.incoming.take() {
                this.arriving = Some(Box::pin(async move {
                    let next = incoming.next().await;
                    (incoming, next)
                }));
                continue;
            }
            match this.slices.pop() {
                None => return Poll::Ready(None),
                Some(Slice::Ready(bytes)) => return Poll::Ready(Some(Ok(bytes))),
                Some(Slice::Of(Source::Away(away), bytes)) => this.incoming = Some(away.read(bytes)),
                Some(Slice::Begun(incoming, Some(first))) => {
                    this.incoming = Some(incoming);
                    return Poll::Ready(Some(Ok(first)));
                }
                Some(Slice::Begun(_, None)) => {}
                Some(Slice::Of(Source::Here(file), bytes)) => {
                    let end = bytes.end.min(bytes.start + READ_BYTES);
                    if end < bytes.end {
                        this.slices.push(Slice::Of(Source::Here(Arc::clone(&file)), end..bytes.end));
                    }
                    let wanted = (end - bytes.start) as usize;
                    if wanted == 0 {
                        continue;
                    }
                    if let Some(read) = read_cached(&file, bytes.start, wanted) {
                        return Poll::Ready(Some(Ok(read)));
                    }
                    let (cpu, at) = (this.cpu.clone(), bytes.start);
                    this.reading = Some(Box::pin(async move {
                        cpu.run(move || {
                            let mut buffer = vec![0; wanted];
                            file.read_exact_at(&mut buffer, at)?;
                            Ok(buffer.into())
                        })
                        .await
                    }));
                }
            }
        }
    }
}

/// The bytes, if all of them are in the page cache.
fn read_cached(file: &File, at: u64, wanted: usize) -> Option<Bytes> {
    let mut buffer = Buffer::take(wanted);
    let mut into = [IoSliceMut::new(&mut buffer.0)];
    match rustix::io::preadv2(file, &mut into, at, ReadWriteFlags::NOWAIT) {
        Ok(read) if read == wanted => Some(Bytes::from_owner(buffer)),
        Ok(_) | Err(Errno::AGAIN | Errno::OPNOTSUPP | Errno::INTR) => None,
        Err(e) => {
            tracing::warn!(error = %e, "reading a content from the page cache");
            None
        }
    }
}

/// A read buffer that goes back to its thread when the socket has taken it: a fresh one
/// would be cleared and faulted in page by page for every read.
struct Buffer(Vec<u8>);

thread_local!(static SPARE: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) });

impl Buffer {
    fn take(bytes: usize) -> Buffer {
        let mut buffer = SPARE.with_borrow_mut(Vec::pop).unwrap_or_default();
        buffer.resize(bytes, 0);
        Buffer(buffer)
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let buffer = std::mem::take(&mut self.0);
        // A thread that is ending has no use for it.
        let _ = SPARE.try_with(|spare| {
            if let Ok(mut spare) = spare.try_borrow_mut()
                && spare.len() < SPARE_BUFFERS
            {
                spare.push(buffer);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_are_told_twice() {
        assert_eq!(disposition("inline", "a.jpg"), "inline; filename=\"a.jpg\"; filename*=UTF-8''a.jpg");
        assert_eq!(
            disposition("attachment", "Zoë \"x\"/../é.jpg"),
            "attachment; filename=\"Zo_ _x__.._é.jpg\"; filename*=UTF-8''Zo%C3%AB%20%22x%22_.._%C3%A9.jpg"
                .replace('é', "_")
        );
    }

    proptest! {
        #[test]
        fn a_name_is_one_header_line(name in "\\PC*|[\\x00-\\x1f\\u{80}-\\u{9f}]*") {
            let line = disposition("attachment", &name);
            prop_assert!(header::HeaderValue::from_str(&line).is_ok());
            prop_assert_eq!(line.matches('"').count(), 2);
            prop_assert!(line.is_ascii());
        }
    }
}
