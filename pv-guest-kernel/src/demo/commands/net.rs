//! Commands on the network.

use alloc::string::String;
use alloc::vec;

use pv_guest_kernel::time::{SECOND_NS, Seconds, now_ns};
use pv_guest_kernel::url::Url;
use pv_guest_kernel::{console, println, task};
use smoltcp::iface::SocketHandle;
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::socket::icmp;
use smoltcp::wire::{Icmpv4Packet, Icmpv4Repr, IpAddress};

use crate::http;
use crate::network::{self, NetworkError};

pub(super) fn ifconfig(_arguments: &[String]) -> i32 {
    let described = network::with(|stack| Ok(stack.describe()));
    match described {
        Ok(text) => {
            println!("{text}");
            0
        }
        Err(error) => failed("ifconfig", &error),
    }
}

fn failed(command: &str, error: &NetworkError) -> i32 {
    println!("{command}: {error}");
    1
}

pub(super) fn fetch(arguments: &[String]) -> i32 {
    let Some(text) = arguments.first() else {
        println!("fetch: which URL?");
        return 2;
    };
    let url = match Url::parse(text) {
        Ok(url) => url,
        Err(error) => {
            println!("fetch: {text}: {error}");
            return 2;
        }
    };
    match http::fetch(url) {
        Ok(page) => show(text, &page),
        Err(error) => {
            println!("fetch: {text}: {error}");
            1
        }
    }
}

fn show(url: &str, page: &http::Page) -> i32 {
    console::write_bytes(&page.body);
    if page.body.last().is_some_and(|byte| *byte != b'\n') {
        println!();
    }
    if (200..300).contains(&page.status) {
        return 0;
    }
    println!("fetch: {url}: {} {}", page.status, page.reason);
    1
}

/// Echo requests a `ping` sends unless told otherwise.
const PINGS: u16 = 3;
/// Identifies the echo requests of this shell.
const IDENT: u16 = 0x784e;
const PAYLOAD: [u8; 32] = *b"echo from the xenolith demo.....";

pub(super) fn ping(arguments: &[String]) -> i32 {
    let Some(host) = arguments.first() else {
        println!("ping: which host?");
        return 2;
    };
    let count = arguments.get(1).and_then(|count| count.parse().ok()).unwrap_or(PINGS);
    match ping_host(host, count) {
        Ok(0) => 1,
        Ok(_) => 0,
        Err(error) => failed("ping", &error),
    }
}

/// Sends echo requests; returns how many were answered.
fn ping_host(host: &str, count: u16) -> Result<u16, NetworkError> {
    let address = network::resolve(host)?;
    let buffer = || icmp::PacketBuffer::new(vec![icmp::PacketMetadata::EMPTY; 4], vec![0; 512]);
    network::with_socket(icmp::Socket::new(buffer(), buffer()), |handle| {
        let bound = network::with(|stack| {
            let socket = stack.sockets.get_mut::<icmp::Socket>(handle);
            Ok(socket.bind(icmp::Endpoint::Ident(IDENT)).is_ok())
        })?;
        debug_assert!(bound, "a new socket can be bound");
        let mut answered = 0;
        for sequence in 0..count {
            if sequence > 0 {
                task::sleep_ns(SECOND_NS / 4);
            }
            answered += u16::from(ping_once(handle, address, sequence)?);
        }
        println!("{answered} of {count} answered");
        Ok(answered)
    })
}

fn ping_once(handle: SocketHandle, address: IpAddress, sequence: u16) -> Result<bool, NetworkError> {
    let start = now_ns();
    network::with(|stack| {
        let socket = stack.sockets.get_mut::<icmp::Socket>(handle);
        let request = Icmpv4Repr::EchoRequest { ident: IDENT, seq_no: sequence, data: &PAYLOAD };
        let sent = socket.send_with(request.buffer_len(), address, |bytes| {
            let mut packet = Icmpv4Packet::new_unchecked(&mut bytes[..request.buffer_len()]);
            request.emit(&mut packet, &ChecksumCapabilities::default());
            request.buffer_len()
        });
        sent.map(|_| ()).map_err(|_| NetworkError::Refused)
    })?;
    let answer = network::wait_for(2 * SECOND_NS, |stack| {
        let socket = stack.sockets.get_mut::<icmp::Socket>(handle);
        while let Ok((bytes, from)) = socket.recv() {
            if is_answer(bytes, sequence) {
                return Ok(Some(from));
            }
        }
        Ok(None)
    });
    match answer {
        Ok(from) => {
            let took = Seconds(now_ns() - start);
            println!("{} bytes from {from}: seq {sequence}, {took}", PAYLOAD.len());
            Ok(true)
        }
        Err(NetworkError::TimedOut) => {
            println!("seq {sequence}: no answer");
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

fn is_answer(bytes: &[u8], sequence: u16) -> bool {
    let Ok(packet) = Icmpv4Packet::new_checked(bytes) else {
        return false;
    };
    let parsed = Icmpv4Repr::parse(&packet, &ChecksumCapabilities::default());
    matches!(parsed, Ok(Icmpv4Repr::EchoReply { ident: IDENT, seq_no, .. }) if seq_no == sequence)
}
