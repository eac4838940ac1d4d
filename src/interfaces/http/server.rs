//! The listeners: plain and TLS, on as many addresses as are asked for.

use std::net::IpAddr;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use actix_web::App;
use actix_web::HttpServer;
use actix_web::dev::Server;
use actix_web::middleware::from_fn;
use actix_web::web::ServiceConfig;

use crate::error::Code;
use crate::error::Result;
use crate::interfaces::http::Config;
use crate::interfaces::http::observe;
use crate::interfaces::http::peer;
use crate::interfaces::http::tls::Certificates;
use crate::interfaces::http::tls::Source;
use crate::support::clock::Clock;

/// A server that is bound and can be run.
pub struct Bound {
    pub server: Server,
    /// `http://127.0.0.1:8080`, with the real port.
    pub addresses: Vec<String>,
    /// Present when the box shows a certificate of its own authority.
    pub own: Option<(Certificates, Source)>,
}

/// Binds every listener. `mount` puts routes and shared values into an application.
pub fn bind(
    config: &Config,
    data_dir: &Path,
    clock: &Clock,
    mount: impl Fn(&mut ServiceConfig) + Clone + Send + 'static,
) -> Result<Bound> {
    let listeners = config.listen.iter().map(|text| Listener::parse(text)).collect::<Result<Vec<_>>>()?;
    let app = move || App::new().wrap(from_fn(observe::observe)).configure(mount.clone());
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let workers = if config.workers == 0 { cores } else { config.workers };
    let mut server = HttpServer::new(app)
        .workers(workers)
        // Without it a head and its body wait for each other's acknowledgement: 40 ms a request.
        .tcp_nodelay(true)
        .on_connect(peer::remember)
        // Two reads of a file: larger ones only leave the processor's cache.
        .h1_write_buffer_size(128 * 1024)
        .max_connections((config.max_connections / workers).max(1))
        // Judged before what has come is read: a machine that stood still for this long refuses whom it let wait.
        .client_request_timeout(Duration::from_secs(20))
        .keep_alive(Duration::from_secs(15))
        .tls_handshake_timeout(Duration::from_secs(5))
        .shutdown_timeout(config.drain_seconds)
        .disable_signals();
    let mut own = None;
    let refused = |address: &str| {
        let address = address.to_owned();
        move |e: std::io::Error| Code::InvalidRequest.from(format!("cannot listen on {address}: {e}"), e)
    };
    for listener in &listeners {
        server = if listener.tls {
            let (certificates, source) = match &own {
                Some((certificates, source)) => (Certificates::clone(certificates), Source::clone(source)),
                None => open_certificates(config, data_dir, clock.clone())?,
            };
            let tls = certificates.server_config()?;
            own = Some((certificates, source));
            server.bind_rustls_0_23(&*listener.address, tls).map_err(refused(&listener.address))?
        } else {
            server.bind(&*listener.address).map_err(refused(&listener.address))?
        };
    }
    let addresses =
        server.addrs_with_scheme().into_iter().map(|(address, scheme)| format!("{scheme}://{address}")).collect();
    let own = own.filter(|(_, source)| matches!(source, Source::Own { .. }));
    Ok(Bound { server: server.run(), addresses, own })
}

fn open_certificates(config: &Config, data_dir: &Path, clock: Clock) -> Result<(Certificates, Source)> {
    let source = if config.tls_certificate.is_empty() {
        let mut addresses: Vec<IpAddr> = config.listen.iter().filter_map(|text| own_address(text)).collect();
        for address in &config.tls_addresses {
            addresses.push(address.parse().map_err(|_| {
                Code::InvalidRequest.because(format!("http.tls_addresses: `{address}` is not an IP address"))
            })?);
        }
        let hostname = rustix::system::uname().nodename().to_string_lossy().into_owned();
        Source::Own { dir: data_dir.to_path_buf(), hostname, addresses }
    } else {
        Source::Given { certificate: PathBuf::from(&config.tls_certificate), key: PathBuf::from(&config.tls_private) }
    };
    let (certificates, report) = Certificates::open(&source, clock)?;
    for name in &report.left_out {
        tracing::warn!(name, "the box's own certificate cannot be for this address");
    }
    Ok((certificates, source))
}

fn own_address(listen: &str) -> Option<IpAddr> {
    let listener = Listener::parse(listen).ok()?;
    let socket: std::net::SocketAddr = listener.address.parse().ok()?;
    (!socket.ip().is_unspecified()).then_some(socket.ip())
}

struct Listener {
    tls: bool,
    address: String,
}

impl Listener {
    fn parse(text: &str) -> Result<Listener> {
        let (tls, address) = match text.split_once("://") {
            None => (false, text),
            Some(("http", rest)) => (false, rest),
            Some(("https", rest)) => (true, rest),
            Some((scheme, _)) => {
                return Err(Code::InvalidRequest.because(format!("--listen {text}: `{scheme}` is not http or https")));
            }
        };
        let address = address.trim_end_matches('/');
        if address.rsplit_once(':').is_none_or(|(_, port)| port.parse::<u16>().is_err()) {
            return Err(
                Code::InvalidRequest.because(format!("--listen {text}: say ADDRESS:PORT, such as 0.0.0.0:8080"))
            );
        }
        Ok(Listener { tls, address: address.to_owned() })
    }
}
