//! Requests that this box makes to addresses that others chose.
//!
//! In: a URL that somebody gave us. Out: one connection to it, and what it answers. Who gives a
//! server an address to call can use that server's place in the network, so the address is
//! checked twice: as it is written ([`Fetch::check`], for a refusal while somebody is there to
//! read it), and again at the socket, after the name was resolved ([`Fetch::connect`]).
//!
//! Invariant: a connection goes to an address that was looked at here, and that is either
//! reachable for the whole Internet, not this box, and called at one of [`Config::ports`], or in a
//! network of [`Config::allow`]. The name is resolved once, so there is no second answer that could
//! differ. IPv4 in the clothes of IPv6 (mapped, NAT64, 6to4, ISATAP) is judged by what it carries.
//!
//! Whoever gave the address learns in one sentence that the server cannot be reached, whatever the
//! reason: it would tell them which names and ports there are where they cannot look themselves.
//! The reason is the error's source, for the log.
//!
//! There are no proxies, no cookies, no compression and no redirects: a caller who wants to
//! follow one asks [`Fetch::redirect`], which checks again. How long anything may take is the
//! caller's to say, but that a peer which confirms nothing is given up by the system.

use std::io;
use std::io::IoSlice;
use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::Ipv6Addr;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::pin::Pin;
use std::pin::pin;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::OnceLock;
use std::sync::PoisonError;
use std::task::Context;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use http_body_util::BodyExt;
use http_body_util::Full;
use hyper::Method;
use hyper::Request;
use hyper::Response;
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::header;
use hyper::header::HeaderMap;
use hyper::header::HeaderName;
use hyper::header::HeaderValue;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::RootCertStore;
use rustls_pki_types::ServerName;
use serde::Deserialize;
use serde::Serialize;
use socket2::SockRef;
use socket2::TcpKeepalive;
use tokio::io::AsyncRead;
use tokio::io::AsyncWrite;
use tokio::io::ReadBuf;
use tokio::net::TcpStream;
use tokio::net::UdpSocket;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;
use url::Host;
use url::Url;

use crate::error::Code;
use crate::error::Error;
use crate::error::Result;

/// What most servers take at most; addresses signed with credentials that last for a while have two or three KiB.
const MOST_URL_BYTES: usize = 8192;

/// The most that is read at a time, and of an answer's head.
const MOST_READ_BYTES: usize = 256 * 1024;

/// How many of a name's addresses are tried.
const MOST_ADDRESSES: usize = 4;

/// How long an address of a name is waited for alone, before the next is tried beside it.
const HEAD_START: Duration = Duration::from_millis(300);

/// How much the system takes that it has not sent yet: beyond that, what was taken is on its way. Four connections
/// that share 1 Mbit/s need some seconds for it, so they are seen to move.
const UNSENT_BYTES: u32 = 128 * 1024;

/// A peer that confirms nothing for so long is gone.
const CONFIRMED_WITHIN: Duration = Duration::from_secs(15);

/// Who we say we are.
const AGENT: &str = concat!("Cloakroom/", env!("CARGO_PKG_VERSION"));

/// Where requests may go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Networks that may be called although they are private, such as `10.0.0.0/8`, at any port.
    pub allow: Vec<String>,
    /// Ports elsewhere, such as `443` or `8000-8999`.
    pub ports: Vec<String>,
}

impl Default for Config {
    fn default() -> Config {
        Config { allow: Vec::new(), ports: vec!["80".to_owned(), "443".to_owned()] }
    }
}

/// Makes connections; cheap to clone.
#[derive(Clone)]
pub struct Fetch(Arc<Inner>);

struct Inner {
    allow: Vec<Network>,
    ports: Vec<RangeInclusive<u16>>,
    tls: OnceLock<Option<Arc<ClientConfig>>>,
}

impl Fetch {
    pub fn new(config: &Config) -> Result<Fetch> {
        let read = |text: &String| {
            text.parse().map_err(|()| {
                Code::InvalidRequest.because(format!("net.allow: `{text}` is not a network such as 10.0.0.0/8"))
            })
        };
        let allow = config.allow.iter().map(read).collect::<Result<_>>()?;
        let ports = |text: &String| {
            let wrong = || Code::InvalidRequest.because(format!("net.ports: `{text}` is not like 443 or 8000-8999"));
            ports(text).ok_or_else(wrong)
        };
        let ports = config.ports.iter().map(ports).collect::<Result<_>>()?;
        Ok(Fetch(Arc::new(Inner { allow, ports, tls: OnceLock::new() })))
    }

    /// For an address that the operator has written into the configuration: that is leave enough,
    /// wherever it leads.
    pub fn of_the_operator() -> Result<Fetch> {
        Fetch::new(&Config { allow: vec!["0.0.0.0/0".to_owned(), "::/0".to_owned()], ..Config::default() })
    }

    /// The address, if nothing about how it is written speaks against calling it.
    pub fn check(&self, text: &str) -> Result<Url> {
        let wrong = |what: String| Err(Code::InvalidRequest.because(what));
        if text.len() > MOST_URL_BYTES {
            return wrong(format!("a URL may have at most {MOST_URL_BYTES} bytes"));
        }
        // The parser would drop line breaks and go on.
        if text.chars().any(|c| c.is_control() || c.is_whitespace()) {
            return wrong(format!("`{}` is not a URL: it holds a blank or a control character", text.escape_debug()));
        }
        let url = match Url::parse(text) {
            Ok(url) => url,
            Err(e) => return wrong(format!("`{text}` is not a URL: {e}")),
        };
        self.judge(&url)?;
        Ok(url)
    }

    /// A connection to where the URL points. Within the time means: resolving, connecting and shaking hands.
    pub async fn connect(&self, url: &Url, within: Duration) -> Result<Line> {
        self.judge(url)?;
        match tokio::time::timeout(within, self.open(url)).await {
            Ok(line) => line,
            Err(_) => Err(unreachable(url, format!("no connection within {} s", within.as_secs()))),
        }
    }

    /// Where the answer sends us, if it does: resolved against the URL asked for, and checked.
    pub fn redirect(&self, from: &Url, answer: &Answer) -> Result<Option<Url>> {
        if !matches!(answer.status, 301 | 302 | 303 | 307 | 308) {
            return Ok(None);
        }
        let Some(to) = answer.header("location") else { return Ok(None) };
        let bad = || Code::UrlNotAllowed.because(format!("`{}` cannot be the target of a redirect", to.escape_debug()));
        let to = from.join(to).map_err(|_| bad())?;
        self.check(to.as_str()).map(Some)
    }

    /// Scheme, credentials, port, and the address if it is one.
    fn judge(&self, url: &Url) -> Result<()> {
        // Without path and query: what stands there is often a secret, and this is logged.
        let wrong = |what: &str| Err(Code::UrlNotAllowed.because(format!("`{}` cannot be called: {what}", place(url))));
        if !matches!(url.scheme(), "http" | "https") {
            return wrong("only http and https are");
        }
        if !url.username().is_empty() || url.password().is_some() {
            return wrong("a name or password in the address would end up in logs");
        }
        let port = url.port_or_known_default().unwrap_or(0);
        if port == 0 {
            return wrong("port 0 cannot be called");
        }
        let closed = || wrong(&format!("the operator can open port {port} in net.ports"));
        let address = match url.host() {
            None => return wrong("it names no host"),
            Some(Host::Ipv4(v4)) => IpAddr::V4(v4),
            Some(Host::Ipv6(v6)) => IpAddr::V6(v6),
            Some(Host::Domain(name)) if is_localhost(name) => IpAddr::V4(Ipv4Addr::LOCALHOST),
            // Where no network is allowed, this can only be one of the Internet's.
            Some(Host::Domain(_)) if self.0.allow.is_empty() && !self.opens(port) => return closed(),
            Some(Host::Domain(_)) => return Ok(()),
        };
        if self.is_listed(address) {
            return Ok(());
        }
        if !is_global(address) {
            let host = url.host_str().unwrap_or_default();
            return Err(Code::UrlNotAllowed.because(format!(
                "`{host}` is not an address of the public Internet; the operator can allow its network in net.allow"
            )));
        }
        if self.opens(port) { Ok(()) } else { closed() }
    }

    /// Whether the operator allows this address's network.
    fn is_listed(&self, address: IpAddr) -> bool {
        self.0.allow.iter().any(|network| network.holds(address))
    }

    fn opens(&self, port: u16) -> bool {
        self.0.ports.iter().any(|ports| ports.contains(&port))
    }

    /// Whether this may be called that a name led to.
    async fn admits(&self, address: SocketAddr) -> bool {
        self.is_listed(address.ip())
            || (is_global(address.ip()) && self.opens(address.port()) && !is_ours(address).await)
    }

    async fn open(&self, url: &Url) -> Result<Line> {
        let host = url.host_str().unwrap_or_default();
        let failed = |what: &str, e: std::io::Error| unreachable(url, format!("{what}: {e}"));
        let port = url.port_or_known_default().unwrap_or(80);
        let found: Vec<SocketAddr> = match url.host() {
            Some(Host::Ipv4(v4)) => vec![(v4, port).into()],
            Some(Host::Ipv6(v6)) => vec![(v6, port).into()],
            Some(Host::Domain(name)) => {
                tokio::net::lookup_host((name, port)).await.map_err(|e| failed("the name has no address", e))?.collect()
            }
            None => Vec::new(),
        };
        let mut admitted = Vec::new();
        for address in found.into_iter().take(MOST_ADDRESSES) {
            if self.admits(address).await {
                admitted.push(address);
            }
        }
        let socket = match first_of(admitted).await {
            Some(socket) => socket.map_err(|e| failed("connecting", e))?,
            None => return Err(unreachable(url, "it has no address that may be called".to_owned())),
        };
        socket.set_nodelay(true).map_err(|e| failed("connecting", e))?;
        prepare(&socket);
        let moved = Moved::new();
        let socket = Watched { stream: socket, moved: moved.clone() };
        let stream: Box<dyn Stream> = if url.scheme() == "https" {
            let bare = host.trim_start_matches('[').trim_end_matches(']').to_owned();
            let name = ServerName::try_from(bare)
                .map_err(|e| unreachable(url, format!("no certificate can be for it: {e}")))?;
            let secure = self.tls()?.connect(name, socket).await;
            Box::new(secure.map_err(|e| failed("https", e))?)
        } else {
            Box::new(socket)
        };
        Line::open(stream, moved).await.map_err(|e| unreachable(url, format!("http: {e}")))
    }

    /// Trusts whom the system trusts.
    fn tls(&self) -> Result<TlsConnector> {
        let made = self.0.tls.get_or_init(|| {
            let mut roots = RootCertStore::empty();
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            let provider = Arc::new(rustls::crypto::ring::default_provider());
            let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().ok()?;
            (!roots.is_empty()).then(|| Arc::new(config.with_root_certificates(roots).with_no_client_auth()))
        });
        let none = || Code::Unreachable.because("this system trusts no authority: install ca-certificates");
        made.clone().map(TlsConnector::from).ok_or_else(none)
    }
}

/// What is asked of a server.
#[derive(Clone, Debug)]
pub struct Ask<'a> {
    pub method: Method,
    pub url: &'a Url,
    pub headers: Vec<(&'static str, String)>,
    pub body: Bytes,
}

/// A connection. One request at a time; a second one may follow when the answer was read to its end.
pub struct Line {
    sender: http1::SendRequest<Full<Bytes>>,
    moved: Moved,
    _driver: Driver,
}

impl Line {
    async fn open(stream: impl Stream + 'static, moved: Moved) -> Result<Line, hyper::Error> {
        let (sender, connection) =
            http1::Builder::new().max_buf_size(MOST_READ_BYTES).handshake(TokioIo::new(stream)).await?;
        // What it ends with is told to whoever waits for the answer.
        let driver = Driver(tokio::spawn(async move {
            let _ = connection.await;
        }));
        Ok(Line { sender, moved, _driver: driver })
    }

    /// Whether another request can be sent.
    pub async fn is_ready(&mut self) -> bool {
        self.sender.ready().await.is_ok()
    }

    /// Sends a request and waits for the head of the answer, for as long as the caller does.
    pub async fn send(&mut self, ask: &Ask<'_>) -> Result<Answer> {
        let host = ask.url.host_str().unwrap_or_default();
        let target = &ask.url[url::Position::BeforePath..url::Position::AfterQuery];
        let authority = &ask.url[url::Position::BeforeHost..url::Position::AfterPort];
        let mut request = Request::builder()
            .method(ask.method.clone())
            .uri(if target.is_empty() { "/" } else { target })
            .header(header::HOST, authority)
            .header(header::USER_AGENT, AGENT)
            .header(header::ACCEPT_ENCODING, "identity");
        for (name, value) in &ask.headers {
            request = request.header(*name, value);
        }
        let request = request
            .body(Full::new(ask.body.clone()))
            .map_err(|e| Code::InvalidRequest.from(format!("{host}: the request cannot be written"), e))?;
        self.exchange(request).await
    }

    /// The same for a request that is whole: its target is a path, and it says its host. However long it takes to
    /// send, it goes on for as long as it moves; `None` when for so long nothing went out and no answer came.
    pub async fn forward(&mut self, request: Request<Bytes>, stall: Duration) -> Option<Result<Answer>> {
        let moved = self.moved.clone();
        moved.note();
        let mut answer = pin!(self.exchange(request.map(Full::new)));
        loop {
            let last = moved.last();
            match tokio::time::timeout_at(last + stall, &mut answer).await {
                Ok(answer) => return Some(answer),
                Err(_) if moved.last() > last => {}
                Err(_) => return None,
            }
        }
    }

    async fn exchange(&mut self, request: Request<Full<Bytes>>) -> Result<Answer> {
        let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
        let port = |(_, port): &(&str, &str)| port.bytes().all(|byte| byte.is_ascii_digit());
        let host = host.rsplit_once(':').filter(port).map_or(host, |(name, _)| name).to_owned();
        let answer = self.sender.send_request(request).await;
        let answer = answer.map_err(|e| not_reached(&host, format!("no answer: {}", causes(&e))))?;
        let (head, body) = Response::into_parts(answer);
        Ok(Answer { status: head.status.as_u16(), headers: head.headers, body })
    }
}

/// When a connection last took something that goes out.
#[derive(Clone)]
struct Moved(Arc<Mutex<Instant>>);

impl Moved {
    fn new() -> Moved {
        Moved(Arc::new(Mutex::new(Instant::now())))
    }

    fn note(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    fn last(&self) -> Instant {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection of which is seen whether anything goes out: beneath TLS and all buffers but the system's.
struct Watched<S> {
    stream: S,
    moved: Moved,
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, into)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        if matches!(written, Poll::Ready(Ok(1..))) {
            self.moved.note();
        }
        written
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, bytes);
        if matches!(written, Poll::Ready(Ok(1..))) {
            self.moved.note();
        }
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// What a server answered: its head, and a body that is read as the caller likes.
pub struct Answer {
    pub status: u16,
    headers: HeaderMap<HeaderValue>,
    body: Incoming,
}

impl Answer {
    /// All of them.
    pub fn headers(&self) -> &HeaderMap<HeaderValue> {
        &self.headers
    }

    /// A header, if it is there once and can be read.
    pub fn header(&self, name: &'static str) -> Option<&str> {
        self.headers.get(HeaderName::from_static(name))?.to_str().ok()
    }

    /// The next bytes of the body; `None` at its end.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>> {
        while let Some(frame) = self.body.frame().await {
            let frame = frame.map_err(|e| Code::Unreachable.from("the answer ended early", e))?;
            // Trailers have nothing to say.
            if let Ok(bytes) = frame.into_data() {
                return Ok(Some(bytes));
            }
        }
        Ok(None)
    }

    /// The first bytes of the body, and whether that is all of it.
    pub async fn beginning(&mut self, most_bytes: usize) -> Result<(Vec<u8>, bool)> {
        let mut read = Vec::new();
        while read.len() <= most_bytes {
            match self.chunk().await? {
                Some(bytes) => read.extend_from_slice(&bytes),
                None => return Ok((read, true)),
            }
        }
        read.truncate(most_bytes);
        Ok((read, false))
    }
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// The task that moves a connection's bytes; ends with the connection's owner.
struct Driver(JoinHandle<()>);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A block of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Network {
    address: IpAddr,
    bits: u8,
}

impl Network {
    fn holds(self, address: IpAddr) -> bool {
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(ours), IpAddr::V4(theirs)) => {
                same_start(u128::from(ours.to_bits()) << 96, u128::from(theirs.to_bits()) << 96, self.bits)
            }
            (IpAddr::V6(ours), IpAddr::V6(theirs)) => same_start(ours.to_bits(), theirs.to_bits(), self.bits),
            _ => false,
        }
    }
}

impl FromStr for Network {
    type Err = ();

    fn from_str(text: &str) -> Result<Network, ()> {
        let (address, bits) = match text.trim().split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text.trim(), None),
        };
        let address: IpAddr = address.parse().map_err(|_| ())?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let bits = bits.map_or(Ok(most), |bits| bits.parse().map_err(|_| ()))?;
        if bits <= most { Ok(Network { address, bits }) } else { Err(()) }
    }
}

/// Scheme and host of a URL: as much of it as may be logged.
pub fn place(url: &Url) -> String {
    format!("{}://{}", url.scheme(), url.host_str().unwrap_or_default())
}

/// The server of this URL cannot be reached, for a reason that only the log is told.
pub fn unreachable(url: &Url, why: String) -> Error {
    not_reached(url.host_str().unwrap_or_default(), why)
}

fn not_reached(host: &str, why: String) -> Error {
    Code::Unreachable.from(format!("{host} cannot be reached, or does not answer as it should"), why)
}

/// An error and what lies beneath it.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// A connection to the first of these that takes one; `None` when there are none. Each has a head start before the
/// next, so that one which says nothing holds up nobody.
async fn first_of(addresses: Vec<SocketAddr>) -> Option<io::Result<TcpStream>> {
    let (mut left, mut under_way) = (addresses.into_iter(), FuturesUnordered::new());
    let mut tried = None;
    loop {
        under_way.extend(left.next().map(TcpStream::connect));
        match tokio::time::timeout(HEAD_START, under_way.next()).await {
            Ok(Some(Err(e))) => tried = Some(Err(e)),
            Ok(Some(connected)) => return Some(connected),
            Ok(None) => return tried,
            Err(_) => {}
        }
    }
}

/// How the system is to treat a connection. Where it does not know how, it does without.
fn prepare(socket: &TcpStream) {
    let socket = SockRef::from(socket);
    let kept_alive = TcpKeepalive::new().with_time(CONFIRMED_WITHIN).with_interval(CONFIRMED_WITHIN / 3);
    let _ = socket.set_tcp_notsent_lowat(UNSENT_BYTES);
    let _ = socket.set_tcp_user_timeout(Some(CONFIRMED_WITHIN));
    let _ = socket.set_tcp_keepalive(&kept_alive);
}

/// `443`, or `8000-8999`.
fn ports(text: &str) -> Option<RangeInclusive<u16>> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last): (u16, u16) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
    (0 < first && first <= last).then_some(first..=last)
}

/// Whether this is an address of the box itself, as far as the system knows. Nothing is sent.
async fn is_ours(address: SocketAddr) -> bool {
    let any: IpAddr = if address.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let Ok(socket) = UdpSocket::bind((any, 0)).await else { return false };
    // What is sent to an address of ours would come from there.
    socket.connect(address).await.is_ok() && socket.local_addr().is_ok_and(|from| from.ip() == address.ip())
}

fn same_start(one: u128, other: u128, bits: u8) -> bool {
    bits == 0 || (one ^ other) >> (128 - u32::from(bits)) == 0
}

fn is_localhost(name: &str) -> bool {
    let name = name.trim_end_matches('.');
    name.eq_ignore_ascii_case("localhost") || name.to_ascii_lowercase().ends_with(".localhost")
}

/// Whether the whole Internet can reach this address: the registries of special-purpose addresses
/// (RFC 6890 and its updates), and for IPv6 only what is handed out at all.
pub fn is_global(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => is_global_v4(v4),
        IpAddr::V6(v6) => is_global_v6(v6),
    }
}

fn is_global_v4(address: Ipv4Addr) -> bool {
    !matches!(
        address.octets(),
        [0 | 10 | 127 | 224.., ..]
            | [100, 64..=127, ..]
            | [169, 254, ..]
            | [172, 16..=31, ..]
            | [192, 0, 0 | 2, _]
            | [192, 88, 99, _]
            | [192, 168, ..]
            | [198, 18 | 19, ..]
            | [198, 51, 100, _]
            | [203, 0, 113, _]
    )
}

fn is_global_v6(address: Ipv6Addr) -> bool {
    let carried = |high: u16, low: u16| is_global_v4(Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low)));
    match address.segments() {
        // Protocol assignments, Teredo among them; documentation, twice.
        [0x2001, 0..=0x01ff | 0x0db8, ..] | [0x3fff, 0..=0x0fff, ..] => false,
        // Compatible (and with it :: and ::1), mapped, translated (RFC 2765), NAT64, 6to4, ISATAP.
        [0, 0, 0, 0, 0, 0 | 0xffff, high, low]
        | [0, 0, 0, 0, 0xffff, 0, high, low]
        | [0x64, 0xff9b, 0, 0, 0, 0, high, low]
        | [0x2002, high, low, ..]
        | [0x2000..=0x3fff, _, _, _, 0 | 0x200, 0x5efe, high, low] => carried(high, low),
        [first, ..] => (0x2000..=0x3fff).contains(&first),
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;
    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;

    use super::*;

    fn fetch(allow: &[&str]) -> Fetch {
        let allow = allow.iter().map(|text| (*text).to_owned()).collect();
        Fetch::new(&Config { allow, ..Config::default() }).unwrap()
    }

    /// Every way of writing an address that has been used to reach what is private.
    const PRIVATE: &[&str] = &[
        "http://127.0.0.1",
        "http://127.255.255.254:9",
        "http://0.0.0.0",
        "http://0",
        "http://10.0.0.1",
        "http://100.64.0.1",
        "http://169.254.169.254/latest/meta-data/",
        "http://172.16.0.1",
        "http://172.31.255.255",
        "http://192.0.0.8",
        "http://192.0.2.1",
        "http://192.88.99.1",
        "http://192.168.1.1",
        "http://198.18.0.1",
        "http://198.51.100.1",
        "http://203.0.113.9",
        "http://224.0.0.1",
        "http://240.0.0.1",
        "http://255.255.255.255",
        "http://2130706433",
        "http://017700000001",
        "http://0x7f000001",
        "http://0x7f.1",
        "http://0177.0.0.1",
        "http://127.1",
        "http://127.0.0.1.",
        "http://①②⑦.⓪.⓪.①",
        "http://127。0。0。1",
        "http://localhost",
        "http://LOCALHOST.",
        "http://box.localhost",
        "http://[::]",
        "http://[::1]",
        "http://[0:0:0:0:0:0:0:1]",
        "http://[::127.0.0.1]",
        "http://[::ffff:127.0.0.1]",
        "http://[::ffff:7f00:1]",
        "http://[::ffff:0:127.0.0.1]",
        "http://[64:ff9b::127.0.0.1]",
        "http://[64:ff9b::a00:1]",
        "http://[64:ff9b:1::1.1.1.1]",
        "http://[2002:7f00:1::]",
        "http://[2002:a00:1::1]",
        "http://[2001:0:53aa:64c:0:0:80ff:fffe]",
        "http://[2001:db8::1]",
        "http://[3fff::1]",
        "http://[2606:4700::5efe:10.0.0.1]",
        "http://[2606:4700::200:5efe:127.0.0.1]",
        "http://[fe80::1]",
        "http://[fe80::5efe:1.1.1.1]",
        "http://[fec0::1]",
        "http://[fc00::1]",
        "http://[fd12:3456::1]",
        "http://[ff02::1]",
        "http://[100::1]",
        "http://[5f00::1]",
        "https://user@example.org/",
        "https://user:pass@example.org/",
        "http://example.org@127.0.0.1/",
        "http://127.0.0.1\\@example.org/",
        "http://example.org:0/",
        "ftp://example.org/",
        "file:///etc/passwd",
        "gopher://127.0.0.1:6379/_x",
        "data:text/plain,x",
        "unix:/run/x.sock",
    ];

    const PUBLIC: &[&str] = &[
        "http://1.1.1.1",
        "https://8.8.8.8:443/x?y=z",
        "http://100.63.255.255",
        "http://100.128.0.1",
        "http://172.15.0.1",
        "http://172.32.0.1",
        "http://192.0.1.1",
        "http://198.20.0.1",
        "http://223.255.255.255",
        "http://[2606:4700:4700::1111]",
        "http://[::ffff:1.1.1.1]",
        "http://[64:ff9b::1.1.1.1]",
        "http://[2002:101:101::1]",
        "http://[2001:4860:4860::8888]",
        "https://hooks.example.org/in",
        "https://bücher.example/",
    ];

    #[test]
    fn what_is_written_tells_private_from_public() {
        let fetch = fetch(&[]);
        for url in PRIVATE {
            assert_eq!(fetch.check(url).map(|_| ()).unwrap_err().code, Code::UrlNotAllowed, "{url}");
        }
        for url in PUBLIC {
            assert!(fetch.check(url).is_ok(), "{url}");
        }
        let signed = format!("https://example.org/x?token={}", "x".repeat(3000));
        assert!(fetch.check(&signed).is_ok());
        let long = format!("http://example.org/{}", "x".repeat(9000));
        for url in
            ["", "example.org", "//example.org", "http://", "http://a b/", "http://a/\r\nX: y", "http://[::1", &long]
        {
            assert_eq!(fetch.check(url).map(|_| ()).unwrap_err().code, Code::InvalidRequest, "{url}");
        }
    }

    #[test]
    fn an_allowed_network_and_nothing_beside_it() {
        let fetch = fetch(&["127.0.0.0/8", " 10.1.0.0/16", "192.168.7.9", "fd00::/8"]);
        for (url, allowed) in [
            ("http://127.9.9.9", true),
            ("http://localhost", true),
            ("http://[::ffff:127.0.0.1]", true),
            ("http://10.1.255.1", true),
            ("http://10.2.0.1", false),
            ("http://192.168.7.9", true),
            ("http://192.168.7.8", false),
            ("http://[fd99::1]", true),
            ("http://[fc99::1]", false),
            ("http://[::1]", false),
            ("http://[2002:7f00:1::]", false),
            ("ftp://127.0.0.1", false),
        ] {
            assert_eq!(fetch.check(url).is_ok(), allowed, "{url}");
        }
        for bad in ["10.0.0.0/33", "10.0.0/8", "::/129", "localhost", "10.0.0.0/-1", ""] {
            let error = Fetch::new(&Config { allow: vec![bad.into()], ..Config::default() }).err().unwrap();
            assert!(error.detail.contains("net.allow"), "{bad}: {error}");
        }
    }

    #[test]
    fn only_ports_that_are_open_are_called_but_in_networks_that_are_allowed() {
        let with = |allow: &[&str], ports: &[&str]| {
            let own = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
            Fetch::new(&Config { allow: own(allow), ports: own(ports) })
        };
        let (usual, more) = (fetch(&[]), with(&[], &["443", "8000-8999"]).unwrap());
        let (near, everywhere) = (fetch(&["10.0.0.0/8"]), Fetch::of_the_operator().unwrap());
        for (url, allowed) in [
            ("http://1.1.1.1/", [true, false, true, true]),
            ("https://1.1.1.1/", [true, true, true, true]),
            ("http://1.1.1.1:22/", [false, false, false, true]),
            ("http://1.1.1.1:8080/", [false, true, false, true]),
            ("http://1.1.1.1:9000/", [false, false, false, true]),
            ("http://[2606:4700:4700::1111]:25/", [false, false, false, true]),
            ("http://10.0.0.1:5000/", [false, false, true, true]),
            // What a name leads to is not known yet; where nothing is allowed it does not matter.
            ("https://example.org:8443/", [false, true, true, true]),
            ("https://example.org:22/", [false, false, true, true]),
        ] {
            let found = [&usual, &more, &near, &everywhere].map(|fetch| fetch.check(url).is_ok());
            assert_eq!(found, allowed, "{url}");
        }
        let refused = usual.check("http://1.1.1.1:22/").unwrap_err();
        assert!(refused.detail.contains("net.ports"), "{refused}");
        for bad in ["", "0", "http", "80-", "-80", "90-80", "70000", "1-2-3"] {
            let error = with(&[], &[bad]).err().unwrap();
            assert!(error.detail.contains("net.ports"), "{bad}: {error}");
        }
    }

    #[tokio::test]
    async fn an_address_of_this_box_is_known() {
        for (address, ours) in [("127.0.0.1:80", true), ("[::1]:80", true), ("192.0.2.1:80", false)] {
            let address: SocketAddr = address.parse().unwrap();
            // A system without IPv6 has no such address.
            assert_eq!(is_ours(address).await, ours && (address.is_ipv4() || UdpSocket::bind("[::1]:0").await.is_ok()));
        }
    }

    #[tokio::test]
    async fn the_socket_is_never_opened_for_what_is_not_allowed() {
        let trap = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = trap.local_addr().unwrap().port();
        let fetch = fetch(&["10.0.0.0/8"]);
        for host in ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "2130706433", "localhost."] {
            let url = Url::parse(&format!("http://{host}:{port}/")).unwrap();
            let refused = fetch.connect(&url, Duration::from_secs(5)).await.err().unwrap();
            assert_eq!(refused.code, Code::UrlNotAllowed, "{host}");
            // What a name led to is judged, too, as if it had looked harmless. Not every system knows all of these.
            let refused = fetch.open(&url).await.err().unwrap();
            assert_eq!(refused.code, Code::Unreachable, "{host}: {refused}");
            let why = refused.source.unwrap().to_string();
            assert!(why.contains("no address that may be called") || host.ends_with('.'), "{host}: {why}");
        }
        assert!(tokio::time::timeout(Duration::ZERO, trap.accept()).await.is_err(), "somebody came");
    }

    async fn serve(answers: Vec<&'static str>) -> (Url, tokio::task::JoinHandle<Vec<String>>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://localhost:{}/in?a=b#c", listener.local_addr().unwrap().port());
        let served = tokio::spawn(async move {
            let (mut socket, _) = listener.accept().await.unwrap();
            let mut asked = Vec::new();
            for answer in answers {
                let mut read = vec![0; 4096];
                let count = socket.read(&mut read).await.unwrap();
                asked.push(String::from_utf8_lossy(&read[..count]).into_owned());
                socket.write_all(answer.as_bytes()).await.unwrap();
            }
            asked
        });
        (Url::parse(&url).unwrap(), served)
    }

    #[tokio::test]
    async fn a_line_carries_one_request_after_the_other() {
        let (url, served) = serve(vec![
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
            "HTTP/1.1 302 Found\r\nLocation: http://10.9.9.9/\r\nContent-Length: 0\r\n\r\n",
        ])
        .await;
        let fetch = fetch(&["127.0.0.0/8"]);
        let mut line = fetch.connect(&url, Duration::from_secs(5)).await.unwrap();
        let headers = vec![("content-type", "application/json".to_owned())];
        let ask = Ask { method: Method::POST, url: &url, headers, body: Bytes::from_static(b"{}") };
        let mut answer = line.send(&ask).await.unwrap();
        assert_eq!((answer.status, answer.beginning(1).await.unwrap()), (200, (b"o".to_vec(), false)));
        drop(answer);
        assert!(line.is_ready().await);
        let answer = line.send(&ask).await.unwrap();
        let to = fetch.redirect(&url, &answer).unwrap_err();
        assert_eq!((answer.status, to.code), (302, Code::UrlNotAllowed));
        let asked = served.await.unwrap();
        let head = asked[0].to_ascii_lowercase();
        assert!(head.starts_with("post /in?a=b http/1.1\r\n"), "{head}");
        assert!(head.contains(&format!("host: localhost:{}\r\n", url.port().unwrap())), "{head}");
        assert!(head.contains("content-length: 2\r\n") && head.contains("accept-encoding: identity"), "{head}");
    }

    #[tokio::test]
    async fn sending_ends_where_nothing_moves() {
        const ROOM_BYTES: usize = 64 << 10;
        let body = Bytes::from(vec![b'x'; 5 * ROOM_BYTES + 1]);
        for read_bytes in [0, 3 * ROOM_BYTES, 6 * ROOM_BYTES] {
            let (ours, mut theirs) = tokio::io::duplex(ROOM_BYTES);
            let moved = Moved::new();
            let mut line = Line::open(Watched { stream: ours, moved: moved.clone() }, moved).await.unwrap();
            let reader = tokio::spawn(async move {
                let mut read = Vec::new();
                // What is there at the end is dropped with the connection.
                let _ = (&mut theirs).take(read_bytes as u64).read_to_end(&mut read).await;
                std::future::pending::<()>().await;
            });
            let request = Request::put("/").header("host", "a").body(body.clone()).unwrap();
            assert!(line.forward(request, Duration::from_millis(100)).await.is_none(), "{read_bytes}");
            reader.abort();
        }
    }

    #[tokio::test]
    async fn what_goes_out_is_progress_and_what_has_no_room_is_none() {
        let (ours, mut theirs) = tokio::io::duplex(1000);
        let moved = Moved::new();
        let mut watched = Watched { stream: ours, moved: moved.clone() };
        let mut write = async |vectored: bool| {
            let bytes = [b'x'; 700];
            let before = moved.last();
            let written = std::future::poll_fn(|cx| {
                let written = if vectored {
                    Pin::new(&mut watched).poll_write_vectored(cx, &[IoSlice::new(&bytes)])
                } else {
                    Pin::new(&mut watched).poll_write(cx, &bytes)
                };
                Poll::Ready(match written {
                    Poll::Ready(count) => count.unwrap(),
                    Poll::Pending => 0,
                })
            });
            (written.await, moved.last() > before)
        };
        assert_eq!(write(false).await, (700, true));
        assert_eq!(write(true).await, (300, true));
        assert_eq!((write(false).await, write(true).await), ((0, false), (0, false)));
        theirs.read_exact(&mut [0; 1000]).await.unwrap();
        assert_eq!(write(true).await, (700, true));
    }

    #[tokio::test]
    async fn an_address_that_says_nothing_hides_none_beside_it() {
        // Its queue is full, so the system drops who knocks.
        let dead = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        dead.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        dead.listen(0).unwrap();
        let silent = dead.local_addr().unwrap().as_socket().unwrap();
        let mut waiting = Vec::new();
        while let Ok(one) = std::net::TcpStream::connect_timeout(&silent, Duration::from_millis(100)) {
            waiting.push(one);
        }
        let alive = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let there = alive.local_addr().unwrap();
        let reached = tokio::time::timeout(Duration::from_secs(20), first_of(vec![gone, silent, there])).await;
        assert_eq!(reached.unwrap().unwrap().unwrap().peer_addr().unwrap(), there);
        let refused = first_of(vec![gone, gone]).await.unwrap().unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
        assert!(first_of(Vec::new()).await.is_none());
    }

    #[tokio::test]
    async fn what_does_not_answer_is_unreachable() {
        let fetch = fetch(&["127.0.0.0/8"]);
        let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let url = Url::parse(&format!("http://{gone}/")).unwrap();
        let refused = fetch.connect(&url, Duration::from_secs(5)).await.err().unwrap();
        assert!(refused.to_string().contains("Connection refused"), "the log is told: {refused}");
        // A listener that never greets: the handshake of https runs out of time.
        let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = Url::parse(&format!("https://{}/", silent.local_addr().unwrap())).unwrap();
        let late = fetch.connect(&url, Duration::from_millis(50)).await.err().unwrap();
        assert_eq!((late.code, &late.detail), (refused.code, &refused.detail), "and nobody else");
        let (url, _served) = serve(vec!["nonsense\r\n\r\n"]).await;
        let mut line = fetch.connect(&url, Duration::from_secs(5)).await.unwrap();
        let ask = Ask { method: Method::GET, url: &url, headers: Vec::new(), body: Bytes::new() };
        let mute = line.send(&ask).await.err().unwrap();
        assert_eq!(mute.detail.replace("localhost", "127.0.0.1"), refused.detail);
    }
}
