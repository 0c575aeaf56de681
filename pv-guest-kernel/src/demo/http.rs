//! Fetching a page: HTTP/1.0 over one TCP connection, which the server closes at the end.

use alloc::format;
use alloc::vec;
use alloc::vec::Vec;

use pv_guest_kernel::time::SECOND_NS;
use pv_guest_kernel::url::Url;
use smoltcp::iface::SocketHandle;
use smoltcp::socket::tcp;
use smoltcp::time::Duration;

use crate::network::{self, NetworkError, Stack};

/// How long to wait for the next piece.
const PATIENCE_NS: u64 = 20 * SECOND_NS;
const RECEIVE_BYTES: usize = 64 << 10;
const SEND_BYTES: usize = 4 << 10;
/// More headers than this are no page that this shell shows.
const MAX_HEADERS: usize = 64;

/// A fetched page.
pub(crate) struct Page {
    pub(crate) status: u16,
    pub(crate) reason: alloc::string::String,
    pub(crate) body: Vec<u8>,
}

/// Fetches a page.
///
/// # Errors
/// [`NetworkError`].
pub(crate) fn fetch(url: Url<'_>) -> Result<Page, NetworkError> {
    let address = network::resolve(url.host)?;
    let receive = tcp::SocketBuffer::new(vec![0; RECEIVE_BYTES]);
    let send = tcp::SocketBuffer::new(vec![0; SEND_BYTES]);
    let mut socket = tcp::Socket::new(receive, send);
    socket.set_timeout(Some(Duration::from_secs(15)));
    let answer = network::with_socket(socket, |handle| {
        network::with(|stack| {
            let port = stack.next_port();
            let context = stack.interface.context();
            let socket = stack.sockets.get_mut::<tcp::Socket>(handle);
            let connected = socket.connect(context, (address, url.port), port);
            connected.map_err(|_| NetworkError::Refused)
        })?;
        let request = format!(
            "GET {} HTTP/1.0\r\nHost: {}\r\nUser-Agent: xenolith\r\nConnection: close\r\n\r\n",
            url.path, url.host
        );
        send_all(handle, request.as_bytes())?;
        receive_all(handle)
    })?;
    parse(&answer)
}

fn socket(stack: &mut Stack, handle: SocketHandle) -> &mut tcp::Socket<'static> {
    stack.sockets.get_mut(handle)
}

fn send_all(handle: SocketHandle, bytes: &[u8]) -> Result<(), NetworkError> {
    let mut sent = 0;
    network::wait_for(PATIENCE_NS, |stack| {
        let socket = socket(stack, handle);
        if !socket.is_open() {
            return Err(NetworkError::Refused);
        }
        if socket.can_send() {
            sent += socket.send_slice(&bytes[sent..]).unwrap_or(0);
        }
        Ok((sent == bytes.len()).then_some(()))
    })
}

/// Receives until the server closes.
fn receive_all(handle: SocketHandle) -> Result<Vec<u8>, NetworkError> {
    let mut received = Vec::new();
    loop {
        let before = received.len();
        let ended = network::wait_for(PATIENCE_NS, |stack| {
            let socket = socket(stack, handle);
            while socket.can_recv() {
                let taken = socket.recv(|bytes| {
                    received.extend_from_slice(bytes);
                    (bytes.len(), bytes.len())
                });
                if taken.is_err() {
                    break;
                }
            }
            let ended = !socket.may_recv();
            Ok((ended || received.len() > before).then_some(ended))
        })?;
        if ended {
            network::with(|stack| {
                socket(stack, handle).close();
                Ok(())
            })?;
            return Ok(received);
        }
    }
}

/// Splits an answer into status and body.
fn parse(answer: &[u8]) -> Result<Page, NetworkError> {
    if answer.is_empty() {
        return Err(NetworkError::Refused);
    }
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut response = httparse::Response::new(&mut headers);
    let parsed = response.parse(answer);
    let Ok(httparse::Status::Complete(length)) = parsed else {
        return Err(NetworkError::NotHttp);
    };
    Ok(Page {
        status: response.code.unwrap_or(0),
        reason: response.reason.unwrap_or("").into(),
        body: answer[length..].to_vec(),
    })
}
