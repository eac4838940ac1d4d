//! A server that speaks as much S3 as the house does, in memory, and misbehaves when told to.
//!
//! For tests alone: those beside the code and those of the binary share it. It listens on a port
//! of its own on the loopback, a thread for each connection, and checks no signature. What it
//! does wrong is chosen with [`Double::behave`] while it runs.

#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::missing_panics_doc,
    clippy::must_use_candidate,
    reason = "for tests alone, and each uses its own part"
)]

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::BufRead;
use std::io::BufReader;
use std::io::Read;
use std::io::Write;
use std::net::Shutdown;
use std::net::TcpListener;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::Mutex;

/// What it does with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// As S3 does.
    Well,
    /// 403 to everything.
    Forbids,
    /// 503 to everything.
    Unavailable,
    /// Closes the connection when half of a body has come, or has been sent.
    Resets,
    /// Ends the first answer with a body after half of it, then behaves.
    ResetsOnce,
    /// Keeps what it is sent, and gives it a tag of its own.
    TagsOddly,
    /// Keeps other bytes than it is sent, and tags them as they are kept.
    Corrupts,
    /// Tags what it is sent in one piece, and keeps what it had.
    Forgets,
    /// Answers with the whole object, whichever range is asked for.
    HeedsNoRange,
    /// Has no such bucket.
    Misses,
    /// Reads the request and never answers.
    Silent,
    /// The same on connections that it has answered on; as S3 does on fresh ones.
    DeafWhenKept,
    /// 503 to every part that it has not seen before.
    Stumbles,
    /// Joins parts, and closes the connection instead of saying so.
    LosesTheEnd,
    /// 403 to what removes something.
    OnlyAdds,
}

/// The server.
#[derive(Clone)]
pub struct Double {
    pub endpoint: String,
    shared: Arc<Mutex<Shared>>,
}

struct Shared {
    manner: Manner,
    objects: BTreeMap<String, (Vec<u8>, String)>,
    parts: BTreeMap<(String, u32), Vec<u8>>,
    /// Those that have begun and not ended.
    open: BTreeSet<String>,
    uploads: u64,
    log: Vec<String>,
}

impl Double {
    pub fn start() -> Double {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let shared = Arc::new(Mutex::new(Shared {
            manner: Manner::Well,
            objects: BTreeMap::new(),
            parts: BTreeMap::new(),
            open: BTreeSet::new(),
            uploads: 0,
            log: Vec::new(),
        }));
        let double = Double { endpoint, shared };
        let serving = double.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let serving = serving.clone();
                std::thread::spawn(move || {
                    let mut is_kept = false;
                    while serving.answer(&stream, is_kept).unwrap_or(false) {
                        is_kept = true;
                    }
                });
            }
        });
        double
    }

    pub fn behave(&self, manner: Manner) {
        self.shared.lock().unwrap().manner = manner;
    }

    /// The names of all objects, with the bucket in front.
    pub fn names(&self) -> Vec<String> {
        self.shared.lock().unwrap().objects.keys().cloned().collect()
    }

    pub fn object(&self, name: &str) -> Option<Vec<u8>> {
        self.shared.lock().unwrap().objects.get(name).map(|(bytes, _)| bytes.clone())
    }

    /// How many parts lie there of uploads that have not ended.
    pub fn parts(&self) -> usize {
        self.shared.lock().unwrap().parts.len()
    }

    /// Changes an object behind everybody's back.
    pub fn damage(&self, name: &str) {
        self.shared.lock().unwrap().objects.get_mut(name).unwrap().0[0] ^= 1;
    }

    /// Sends it a form, as anybody may; the status it answers.
    pub fn post(&self, path: &str, form: &[u8]) -> u16 {
        let mut stream = TcpStream::connect(self.endpoint.trim_start_matches("http://")).unwrap();
        let head = format!("POST {path} HTTP/1.1\r\nHost: double\r\nContent-Length: {}\r\n\r\n", form.len());
        stream.write_all(&[head.as_bytes(), form].concat()).unwrap();
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).unwrap();
        line.split(' ').nth(1).unwrap().parse().unwrap()
    }

    /// What was asked, as `METHOD target range`.
    pub fn log(&self) -> Vec<String> {
        self.shared.lock().unwrap().log.clone()
    }

    /// One request; whether the connection may be used again.
    fn answer(&self, mut stream: &TcpStream, is_kept: bool) -> std::io::Result<bool> {
        let mut reader = BufReader::new(stream);
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(false);
        }
        let mut words = line.split_whitespace();
        let (method, target) = (words.next().unwrap_or("").to_owned(), words.next().unwrap_or("").to_owned());
        let (mut length, mut range) = (0, None);
        loop {
            let mut header = String::new();
            reader.read_line(&mut header)?;
            let Some((name, value)) = header.trim().split_once(':') else { break };
            match &*name.to_ascii_lowercase() {
                "content-length" => length = value.trim().parse().unwrap_or(0),
                "range" => range = Some(value.trim().trim_start_matches("bytes=").to_owned()),
                _ => {}
            }
        }
        let manner = {
            let mut shared = self.shared.lock().unwrap();
            shared.log.push(format!("{method} {target} {}", range.as_deref().unwrap_or("")));
            shared.manner
        };
        let half = matches!(manner, Manner::Resets) && length > 1;
        let mut body = vec![0; if half { length / 2 } else { length }];
        reader.read_exact(&mut body)?;
        if half {
            stream.shutdown(Shutdown::Both)?;
            return Ok(false);
        }
        let refused = |code: &str| format!("<Error><Code>{code}</Code><Message>as told</Message></Error>").into_bytes();
        let (status, tag, body) = match manner {
            Manner::Silent | Manner::DeafWhenKept if manner == Manner::Silent || is_kept => {
                // Until the other side has had enough.
                let _ = reader.read(&mut [0]);
                return Ok(false);
            }
            Manner::OnlyAdds if method == "DELETE" => (403, None, refused("AccessDenied")),
            Manner::Stumbles if self.is_new(&method, &target) => (503, None, refused("SlowDown")),
            Manner::Forbids => (403, None, refused("AccessDenied")),
            Manner::Unavailable => (503, None, refused("ServiceUnavailable")),
            Manner::Misses => (404, None, refused("NoSuchBucket")),
            _ => self.act(&method, &target, range.as_deref(), body, manner),
        };
        if manner == Manner::LosesTheEnd && method == "POST" && target.contains("uploadId=") {
            stream.shutdown(Shutdown::Both)?;
            return Ok(false);
        }
        let mut head = format!("HTTP/1.1 {status} -\r\nContent-Length: {}\r\n", body.len());
        if let Some((tag, more)) = &tag {
            let _ = write!(head, "ETag: \"{tag}\"\r\n{more}");
        }
        head.push_str("\r\n");
        stream.write_all(head.as_bytes())?;
        if method == "HEAD" {
            return Ok(true);
        }
        if method == "GET" && body.len() > 1 && matches!(manner, Manner::Resets | Manner::ResetsOnce) {
            if manner == Manner::ResetsOnce {
                self.behave(Manner::Well);
            }
            stream.write_all(&body[..body.len() / 2])?;
            stream.shutdown(Shutdown::Both)?;
            return Ok(false);
        }
        stream.write_all(&body)?;
        Ok(true)
    }

    /// Whether this is a part that has not been asked for before.
    fn is_new(&self, method: &str, target: &str) -> bool {
        let asked = format!("{method} {target} ");
        target.contains("partNumber=") && self.log().iter().filter(|line| **line == asked).count() == 1
    }

    /// Status, tag with further headers, body.
    fn act(
        &self,
        method: &str,
        target: &str,
        range: Option<&str>,
        mut body: Vec<u8>,
        manner: Manner,
    ) -> (u16, Option<(String, String)>, Vec<u8>) {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let name = path.trim_start_matches('/').to_owned();
        let asked = |key: &str| {
            query.split('&').find_map(|pair| pair.split_once('=').filter(|(k, _)| *k == key)).map(|(_, v)| v.to_owned())
        };
        let mut shared = self.shared.lock().unwrap();
        if method == "PUT" && manner == Manner::Corrupts && !body.is_empty() {
            body[0] ^= 1;
        }
        let odd = manner == Manner::TagsOddly;
        let tagged = |bytes: &[u8]| if odd { "0123456789abcdef0123456789abcdef".to_owned() } else { md5_hex(bytes) };
        match (method, asked("uploadId")) {
            ("POST", None) if query.starts_with("uploads") => {
                shared.uploads += 1;
                let upload = format!("u{}", shared.uploads);
                let answer = format!(
                    "<InitiateMultipartUploadResult><UploadId>{upload}</UploadId></InitiateMultipartUploadResult>"
                );
                shared.open.insert(upload);
                (200, None, answer.into_bytes())
            }
            ("POST", None) => {
                let (fields, file) = form(&body);
                let field = |name: &str| fields.iter().find(|(n, _)| n == name).map(|(_, value)| value.clone());
                let Some((key, _)) = field("key").zip(field("x-amz-signature")) else {
                    return (403, None, Vec::new());
                };
                let tag = tagged(&file);
                shared.objects.insert(format!("{name}/{key}"), (file, tag.clone()));
                (204, Some((tag, String::new())), Vec::new())
            }
            (_, Some(upload)) if !shared.open.contains(&upload) => {
                (404, None, b"<Error><Code>NoSuchUpload</Code><Message>none</Message></Error>".to_vec())
            }
            ("PUT", Some(upload)) => {
                let number = asked("partNumber").unwrap().parse().unwrap();
                let tag = tagged(&body);
                shared.parts.insert((upload, number), body);
                (200, Some((tag, String::new())), Vec::new())
            }
            ("POST", Some(upload)) => {
                let parts: Vec<_> =
                    shared.parts.iter().filter(|((u, _), _)| *u == upload).map(|(_, b)| b.clone()).collect();
                let digests: Vec<u8> = parts.iter().flat_map(|part| md5_raw(part)).collect();
                let tag = if odd { tagged(&[]) } else { format!("{}-{}", md5_hex(&digests), parts.len()) };
                shared.parts.retain(|(u, _), _| *u != upload);
                shared.open.remove(&upload);
                shared.objects.insert(name, (parts.concat(), tag.clone()));
                let answer = format!(
                    "<CompleteMultipartUploadResult><Location>x</Location><Bucket>b</Bucket><Key>k</Key><ETag>\"{tag}\"</ETag></CompleteMultipartUploadResult>"
                );
                (200, None, answer.into_bytes())
            }
            ("PUT", None) => {
                let tag = tagged(&body);
                if manner != Manner::Forgets {
                    shared.objects.insert(name, (body, tag.clone()));
                }
                (200, Some((tag, String::new())), Vec::new())
            }
            ("DELETE", upload) => {
                match upload {
                    Some(upload) => {
                        shared.parts.retain(|(u, _), _| *u != upload);
                        shared.open.remove(&upload);
                    }
                    None => drop(shared.objects.remove(&name)),
                }
                (204, None, Vec::new())
            }
            ("GET" | "HEAD", _) => match shared.objects.get(&name) {
                None => (404, None, b"<Error><Code>NoSuchKey</Code><Message>none</Message></Error>".to_vec()),
                Some((bytes, tag)) => {
                    match range.filter(|_| manner != Manner::HeedsNoRange).and_then(|range| range.split_once('-')) {
                        None => (200, Some((tag.clone(), String::new())), bytes.clone()),
                        Some((first, last)) => {
                            let first: usize = first.parse().unwrap();
                            let last = last.parse().unwrap_or(usize::MAX).min(bytes.len() - 1);
                            let more = format!("Content-Range: bytes {first}-{last}/{}\r\n", bytes.len());
                            (206, Some((tag.clone(), more)), bytes[first..=last].to_vec())
                        }
                    }
                }
            },
            _ => (405, None, Vec::new()),
        }
    }
}

/// The fields of a form, and the file behind them.
fn form(body: &[u8]) -> (Vec<(String, String)>, Vec<u8>) {
    let find = |from: usize, what: &[u8]| (from..body.len()).find(|at| body[*at..].starts_with(what)).unwrap();
    let boundary = [b"\r\n", &body[..find(0, b"\r\n")]].concat();
    let (mut fields, mut at) = (Vec::new(), boundary.len());
    loop {
        let text = find(at, b"\r\n\r\n") + 4;
        let head = String::from_utf8_lossy(&body[at..text]).into_owned();
        let end = find(text, &boundary);
        if head.contains("filename=") {
            return (fields, body[text..end].to_vec());
        }
        let name = head.split("name=\"").nth(1).unwrap().split('"').next().unwrap().to_owned();
        fields.push((name, String::from_utf8_lossy(&body[text..end]).into_owned()));
        at = end + boundary.len() + 2;
    }
}

fn md5_raw(bytes: &[u8]) -> Vec<u8> {
    use md5::Digest;
    md5::Md5::digest(bytes).to_vec()
}

pub fn md5_hex(bytes: &[u8]) -> String {
    md5_raw(bytes).iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
