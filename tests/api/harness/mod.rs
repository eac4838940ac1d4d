//! The binary under test, a client of few lines, multipart bodies and pictures.
//!
//! [`Appliance`] is a running server on a directory of its own; dropping it kills the process.
//! [`Answer`] is what came back, read to the end of the connection.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "the steps that the tests share fail by panicking, too"
)]

use std::collections::HashMap;
use std::fs;
use std::io::BufRead;
use std::io::BufReader;
use std::io::Cursor;
use std::io::Read;
use std::io::Write;
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;
use std::process::ExitStatus;
use std::process::Output;
use std::process::Stdio;
use std::sync::mpsc;
use std::time::Duration;
use std::time::Instant;

use rusqlite::Connection;
use rusqlite::OpenFlags;
use rustix::process::Pid;
use rustix::process::Signal;
use rustix::process::kill_process;
use serde_json::Value;
use tempfile::TempDir;

pub const KEY: &str = "0123456789abcdef0123456789abcdef";
pub const EMAIL: &str = "admin@example.com";
pub const PASSWORD: &str = "correct horse battery staple";
pub const UPLOAD: &str = "/api/v1/assets/new/content/original/upload";
pub const AUTH: (&str, &str) = ("X-FileSpin-Api-Key", KEY);

/// How long a condition may take to come true.
pub const PATIENCE: Duration = Duration::from_mins(3);

/// More than what the server waits for when it is asked to end, as it is configured by itself.
const STOPS_WITHIN: Duration = Duration::from_mins(2);

/// A running server.
pub struct Appliance {
    child: Child,
    pub folder: TempDir,
    settings: HashMap<String, String>,
    /// `http://127.0.0.1:PORT`, or with `https`.
    pub base: String,
}

impl Appliance {
    pub fn start() -> Appliance {
        Appliance::with(&[])
    }

    /// With variables in its environment.
    pub fn with(settings: &[(&str, &str)]) -> Appliance {
        let folder = TempDir::new().unwrap();
        let settings = settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let (child, base) = serve(&folder, &settings);
        Appliance { child, folder, settings, base }
    }

    pub fn restart(&mut self) {
        assert!(self.stop().success());
        (self.child, self.base) = serve(&self.folder, &self.settings);
    }

    /// Ends it as a power cut does; `meanwhile` is done to what it left on the disk.
    pub fn crash(&mut self, meanwhile: impl FnOnce(&std::path::Path)) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        meanwhile(&self.data_dir());
        (self.child, self.base) = serve(&self.folder, &self.settings);
    }

    /// Asks it to end, as the system does, and waits.
    pub fn stop(&mut self) -> ExitStatus {
        self.terminate();
        let pid = Pid::from_child(&self.child);
        let (tell, told) = mpsc::channel();
        std::thread::scope(|scope| {
            scope.spawn(|| tell.send(self.child.wait().unwrap()));
            told.recv_timeout(STOPS_WITHIN).unwrap_or_else(|_| {
                kill_process(pid, Signal::KILL).unwrap();
                panic!("the server did not end within {STOPS_WITHIN:?}")
            })
        })
    }

    pub fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Does something while the server stands still, so that it finds all of it at once.
    pub fn frozen<T>(&self, act: impl FnOnce() -> T) -> T {
        self.signal(Signal::STOP);
        let deadline = Instant::now() + PATIENCE;
        let stands = |task: fs::DirEntry| {
            let Ok(stat) = fs::read_to_string(task.path().join("stat")) else { return true };
            stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T'))
        };
        while !fs::read_dir(format!("/proc/{}/task", self.child.id())).unwrap().flatten().all(stands) {
            assert!(Instant::now() < deadline, "the server does not stand still");
            std::thread::yield_now();
        }
        let done = act();
        self.signal(Signal::CONT);
        done
    }

    /// The command line, beside the running server.
    pub fn cli(&self, arguments: &[&str]) -> Output {
        command(&self.folder, &self.settings).args(arguments).output().unwrap()
    }

    pub fn data_dir(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// The server and its workers.
    pub fn processes(&self) -> Vec<u32> {
        let mut all = vec![self.child.id()];
        let mut at = 0;
        while let Some(pid) = all.get(at) {
            for task in fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten() {
                let children = fs::read_to_string(task.path().join("children")).unwrap_or_default();
                all.extend(children.split_whitespace().map(|pid| pid.parse::<u32>().unwrap()));
            }
            at += 1;
        }
        all
    }

    pub fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.base.split("://").nth(1).unwrap()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// What is still being looked at is asked for again, as the refusal says.
    pub fn call(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let answer = self.call_once(method, path, headers, body);
            let is_early = method == "GET" && answer.status == 400 && answer.text().contains("\"ASSET_NOT_READY\"");
            if !is_early || Instant::now() >= deadline {
                return answer;
            }
        }
    }

    pub fn call_once(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        let mut stream = self.connect();
        let mut head = format!("{method} {path} HTTP/1.1\r\nHost: box\r\nConnection: close\r\n").into_bytes();
        if !body.is_empty() || method == "POST" {
            write!(head, "Content-Length: {}\r\n", body.len()).unwrap();
        }
        for (name, value) in headers {
            write!(head, "{name}: {value}\r\n").unwrap();
        }
        head.extend(b"\r\n");
        stream.write_all(&head).unwrap();
        // A server that refuses early closes before everything is sent.
        let _ = stream.write_all(body);
        Answer::read(stream, method)
    }

    /// As nobody.
    pub fn get(&self, path: &str) -> Answer {
        self.call("GET", path, &[], b"")
    }

    /// As the administrator; the JSON of a 200.
    pub fn json(&self, path: &str) -> Value {
        let answer = self.call("GET", path, &[AUTH], b"");
        assert_eq!(answer.status, 200, "GET {path}: {}", answer.text());
        answer.json()
    }

    pub fn post_json(&self, path: &str, body: &str) -> Answer {
        self.call("POST", path, &[AUTH, ("Content-Type", "application/json")], body.as_bytes())
    }

    pub fn upload(&self, form: Form) -> Answer {
        self.send(UPLOAD, form)
    }

    /// A multipart body, as the administrator.
    pub fn send(&self, path: &str, form: Form) -> Answer {
        self.call("POST", path, &[AUTH, ("Content-Type", Form::TYPE)], &form.end())
    }

    /// Waits until a file or folder below the data directory is there, or is not.
    pub fn until_there(&self, path: &str, wanted: bool) {
        let deadline = Instant::now() + PATIENCE;
        while self.data_dir().join(path).exists() != wanted {
            assert!(Instant::now() < deadline, "{path}: expected {wanted}");
            self.get("/livez");
        }
    }

    /// What the journal says of an asset: events and details.
    pub fn journal(&self, id: &str) -> Vec<(String, Value)> {
        let path = self.data_dir().join("cloakroom.db");
        let database = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
        let mut rows = database.prepare("SELECT event, detail FROM journal WHERE asset_id = ?1 ORDER BY seq").unwrap();
        let entries = rows.query_map([id], |row| Ok((row.get(0)?, row.get::<_, String>(1)?))).unwrap();
        entries.flatten().map(|(event, detail)| (event, serde_json::from_str(&detail).unwrap())).collect()
    }

    /// Uploads one file; its id.
    pub fn keep(&self, name: &str, body: &[u8]) -> String {
        let answer = self.upload(Form::new().file("file", name, body));
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()["assets"][0]["id"].as_str().unwrap().to_owned()
    }

    /// Uploads one file; its data once it was looked at.
    pub fn saved(&self, name: &str, body: &[u8]) -> Value {
        self.settled(&self.keep(name, body))
    }

    /// The asset's data once it was looked at. An image is asked for because that waits at the server.
    pub fn settled(&self, id: &str) -> Value {
        self.until(&format!("/api/v1/assets/{id}/data"), |data| {
            let settled = data["status"] != "NOT_READY";
            if !settled {
                self.get(&format!("/api/v1/assets/{id}/conversions?resize=1,1"));
            }
            settled
        })
    }

    /// Asks for a JSON until it is as wanted.
    pub fn until(&self, path: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let found = self.json(path);
            if wanted(&found) {
                return found;
            }
            assert!(Instant::now() < deadline, "{path} is still {found}");
        }
    }

    /// Waits until nothing is left in staging.
    pub fn staging_empties(&self) {
        self.staging_holds(0);
    }

    /// Waits until that many files are in staging.
    pub fn staging_holds(&self, wanted: usize) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let there = fs::read_dir(self.data_dir().join("staging")).unwrap().count();
            if there == wanted {
                return;
            }
            assert!(Instant::now() < deadline, "{there} files in staging instead of {wanted}");
            self.get("/livez");
        }
    }
}

impl Drop for Appliance {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The binary with a clean environment, to be given a subcommand.
pub fn command(folder: &TempDir, settings: &HashMap<String, String>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cloakroom"));
    command
        .env_clear()
        .current_dir(folder.path())
        .env("CLOAKROOM_DATA_DIR", folder.path().join("data"))
        .env("CLOAKROOM_HTTP__LISTEN", "127.0.0.1:0")
        .env("CLOAKROOM_HTTP__WORKERS", "2")
        .env("CLOAKROOM_STORAGE__FREE_FLOOR_BYTES", "1048576")
        .env("CLOAKROOM_LOG", "warn")
        // Tests ask as fast as they can, and fail in their hundreds, on purpose.
        .env("CLOAKROOM_HTTP__RATES__CALLS_BURST", "0")
        .env("CLOAKROOM_HTTP__RATES__FAILURES_BURST", "0")
        .env("CLOAKROOM_ADMIN_EMAIL", EMAIL)
        .env("CLOAKROOM_ADMIN_PASSWORD", PASSWORD)
        .env("CLOAKROOM_ADMIN_API_KEY", KEY)
        .envs(elsewhere())
        .envs(settings)
        .stdin(Stdio::null());
    command
}

/// With `CLOAKROOM_TEST_S3=http://ADDR:PORT` all tests keep originals there, in the bucket `things`.
fn elsewhere() -> Vec<(&'static str, String)> {
    #[expect(clippy::disallowed_methods, reason = "the one thing that the tests are told")]
    let Ok(endpoint) = std::env::var("CLOAKROOM_TEST_S3") else { return Vec::new() };
    vec![
        ("CLOAKROOM_STORAGE__BACKEND", "s3".to_owned()),
        ("CLOAKROOM_STORAGE__ENDPOINT", endpoint),
        ("CLOAKROOM_STORAGE__BUCKET", "things".to_owned()),
        ("CLOAKROOM_STORAGE__ACCESS_KEY", "us".to_owned()),
        ("CLOAKROOM_STORAGE__SECRET_KEY", "hush".to_owned()),
        // Most tests of forms are about those for this box; `buckets` has the others.
        ("CLOAKROOM_STORAGE__DIRECT_TO_BUCKET", "false".to_owned()),
    ]
}

fn serve(folder: &TempDir, settings: &HashMap<String, String>) -> (Child, String) {
    let mut child = command(folder, settings).arg("serve").stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let base = lines.find_map(|line| line.unwrap().strip_prefix("listening on ").map(str::to_owned));
    // What it says later is read and forgotten, so that it never waits for a reader.
    std::thread::spawn(move || lines.for_each(drop));
    let Some(base) = base else { panic!("the server ended while starting: {:?}", child.wait()) };
    (child, base)
}

/// What a call was answered.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Answer {
    /// Reads to the end of the connection.
    pub fn read(mut stream: TcpStream, method: &str) -> Answer {
        let mut raw = Vec::new();
        // After an early refusal the rest of the body may have met a closed door.
        let ended = stream.read_to_end(&mut raw);
        let Some(end) = raw.windows(4).position(|w| w == b"\r\n\r\n") else {
            panic!("no answer but {ended:?} {:?}", String::from_utf8_lossy(&raw))
        };
        let head = String::from_utf8(raw[..end].to_vec()).unwrap();
        let mut lines = head.lines();
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let pair =
            |line: &str| line.split_once(':').map(|(n, v)| (n.to_ascii_lowercase(), v.trim().to_owned())).unwrap();
        let mut answer = Answer { status, headers: lines.map(pair).collect(), body: raw[end + 4..].to_vec() };
        if answer.header("transfer-encoding") == "chunked" {
            answer.body = unchunked(&answer.body);
        }
        let length = answer.header("content-length").parse::<usize>().ok();
        if method != "HEAD" && status != 304 {
            assert!(length.is_none_or(|length| length == answer.body.len()), "not what was announced: {answer:?}");
        }
        answer
    }

    /// All values of a header, joined; empty when there is none.
    pub fn header(&self, name: &str) -> String {
        let values: Vec<_> = self.headers.iter().filter(|(n, _)| n == name).map(|(_, v)| &**v).collect();
        values.join(", ")
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.text()))
    }

    /// Checks a refusal: status, stable word, and that the rest of the body is there.
    #[track_caller]
    pub fn refused(&self, status: u16, message: &str) -> String {
        assert_eq!(self.status, status, "{}", self.text());
        let said = self.json();
        assert_eq!((&said["status"], &said["message"]), (&"ERROR".into(), &message.into()), "{said}");
        assert_eq!(said["request_id"], *self.header("x-request-id"));
        said["detail"].as_str().unwrap().to_owned()
    }

    /// Type and size of a picture, by its bytes.
    pub fn picture(&self) -> (&'static str, u32, u32) {
        assert_eq!(self.status, 200, "{}", self.text());
        let (kind, (width, height)) = match &self.body[..] {
            [0xff, 0xd8, ..] => {
                let head = turbojpeg::read_header(&self.body).unwrap();
                ("image/jpeg", (head.width as u32, head.height as u32))
            }
            [b'R', b'I', b'F', b'F', ..] => ("image/webp", pixels(&self.body).dimensions()),
            [0x89, b'P', ..] => ("image/png", pixels(&self.body).dimensions()),
            other => {
                let at = other.windows(4).position(|w| w == b"ispe").expect("a picture of a kind that is known");
                let side = |at: usize| u32::from_be_bytes(other[at..at + 4].try_into().unwrap());
                ("image/avif", (side(at + 8), side(at + 12)))
            }
        };
        assert_eq!(self.header("content-type"), kind, "the header and the bytes disagree");
        (kind, width, height)
    }
}

fn unchunked(mut body: &[u8]) -> Vec<u8> {
    let mut whole = Vec::new();
    loop {
        let end = body.windows(2).position(|w| w == b"\r\n").unwrap();
        let size = usize::from_str_radix(std::str::from_utf8(&body[..end]).unwrap(), 16).unwrap();
        if size == 0 {
            return whole;
        }
        whole.extend_from_slice(&body[end + 2..end + 2 + size]);
        body = &body[end + 2 + size + 2..];
    }
}

/// A multipart body being written.
pub struct Form(Vec<u8>);

impl Form {
    pub const TYPE: &str = "multipart/form-data; boundary=b0undary";

    pub fn new() -> Form {
        Form(Vec::new())
    }

    pub fn file(self, field: &str, name: &str, body: &[u8]) -> Form {
        self.part(&format!("name=\"{field}\"; filename=\"{name}\""), body)
    }

    pub fn field(self, name: &str, text: &str) -> Form {
        self.part(&format!("name=\"{name}\""), text.as_bytes())
    }

    /// A part with this disposition.
    pub fn part(mut self, disposition: &str, body: &[u8]) -> Form {
        let head = format!("--b0undary\r\nContent-Disposition: form-data; {disposition}\r\n\r\n");
        self.0.extend_from_slice(head.as_bytes());
        self.0.extend_from_slice(body);
        self.0.extend_from_slice(b"\r\n");
        self
    }

    pub fn end(mut self) -> Vec<u8> {
        self.0.extend_from_slice(b"--b0undary--\r\n");
        self.0
    }
}

/// Changes the database behind the server's back. What it is made of is only changed while no server runs.
pub fn meddle(data_dir: &std::path::Path, sql: &str) {
    let path = data_dir.join("cloakroom.db");
    let database = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE).unwrap();
    // A running server may be at a commit, and the disk busy.
    database.busy_timeout(PATIENCE).unwrap();
    database.execute_batch(sql).unwrap();
}

/// A JPEG: left half red, right half blue.
pub fn jpeg(width: u32, height: u32) -> Vec<u8> {
    let picture = halves(width, height);
    let whole = turbojpeg::Image {
        pixels: picture.as_raw().as_slice(),
        width: width as usize,
        pitch: 3 * width as usize,
        height: height as usize,
        format: turbojpeg::PixelFormat::RGB,
    };
    turbojpeg::compress(whole, 90, turbojpeg::Subsamp::None).unwrap().to_vec()
}

/// A PNG of the same; transparent everywhere when asked.
pub fn png(width: u32, height: u32, transparent: bool) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    let mut picture = image::DynamicImage::ImageRgb8(halves(width, height)).to_rgba8();
    if transparent {
        picture.pixels_mut().for_each(|pixel| pixel.0[3] = 0);
    }
    picture.write_to(&mut bytes, image::ImageFormat::Png).unwrap();
    bytes.into_inner()
}

/// A PNG that claims this size and has no pixels.
pub fn png_claiming(width: u32, height: u32) -> Vec<u8> {
    let mut body = png(1, 1, false);
    body[16..20].copy_from_slice(&width.to_be_bytes());
    body[20..24].copy_from_slice(&height.to_be_bytes());
    let sum = !body[12..29].iter().fold(!0u32, |sum, byte| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| if sum & 1 == 1 { sum >> 1 ^ 0xedb8_8320 } else { sum >> 1 })
    });
    body[29..33].copy_from_slice(&sum.to_be_bytes());
    body
}

/// The same JPEG with an EXIF orientation.
pub fn turned(jpeg: &[u8], orientation: u8) -> Vec<u8> {
    let mut exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0".to_vec();
    exif.extend([orientation, 0, 0, 0, 0, 0, 0]);
    let mut whole = vec![0xff, 0xd8, 0xff, 0xe1, 0, exif.len() as u8 + 2];
    whole.extend(exif);
    whole.extend(&jpeg[2..]);
    whole
}

/// The pixels of a JPEG, PNG or WebP.
pub fn pixels(body: &[u8]) -> image::RgbaImage {
    if body.starts_with(&[0xff, 0xd8]) {
        let rgba = turbojpeg::decompress(body, turbojpeg::PixelFormat::RGBA).unwrap();
        return image::RgbaImage::from_raw(rgba.width as u32, rgba.height as u32, rgba.pixels).unwrap();
    }
    image::load_from_memory(body).unwrap().to_rgba8()
}

fn halves(width: u32, height: u32) -> image::RgbImage {
    image::RgbImage::from_fn(width, height, |x, _| image::Rgb(if x < width / 2 { [255, 0, 0] } else { [0, 0, 255] }))
}
