//! Whether a caller is still there to hear an answer.
//!
//! A chunk whose answer nobody heard will be sent again, so some handlers want to know. The socket
//! of a connection is noted when it is accepted; nothing is read from it.

use std::any::Any;
use std::os::fd::AsRawFd;
use std::os::fd::BorrowedFd;
use std::os::fd::RawFd;

use actix_web::HttpRequest;
use actix_web::dev::Extensions;
use actix_web::rt::net::TcpStream;
use rustix::net::RecvFlags;

/// The socket of a connection.
struct Socket(RawFd);

/// Notes the socket of a connection. That of an encrypted one is not: what ends it is encrypted, too.
pub fn remember(connection: &dyn Any, about: &mut Extensions) {
    if let Some(stream) = connection.downcast_ref::<TcpStream>() {
        about.insert(Socket(stream.as_raw_fd()));
    }
}

/// Whether the caller has closed the connection, as far as is known. Only for use while its request is
/// being answered.
pub fn has_left(request: &HttpRequest) -> bool {
    let Some(Socket(fd)) = request.conn_data::<Socket>() else { return false };
    #[expect(unsafe_code, reason = "actix shows the socket of a request only when it is accepted")]
    // SAFETY: the connection that carries this request owns the socket and outlives its answer.
    let socket = unsafe { BorrowedFd::borrow_raw(*fd) };
    let mut byte = [0; 1];
    match rustix::net::recv(socket, &mut byte, RecvFlags::PEEK | RecvFlags::DONTWAIT) {
        Ok((_, read)) => read == 0,
        Err(error) => error == rustix::io::Errno::CONNRESET,
    }
}
