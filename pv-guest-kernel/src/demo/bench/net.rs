//! The network: echoes of small packets, several in flight and one at a time, and a page over TCP.

use alloc::string::ToString;
use alloc::vec;

use pv_guest_kernel::time::SECOND_NS;
use pv_guest_kernel::url::Url;
use smoltcp::iface::SocketHandle;
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::socket::icmp;
use smoltcp::wire::{Icmpv4Packet, Icmpv4Repr, IpAddress};

use super::{Outcome, measure};
use crate::http;
use crate::network::{self, NetworkError};

/// The user network's gateway, which answers echoes by itself.
const GATEWAY: &str = "10.0.2.2";
/// With the headers of ICMP, IP and Ethernet a frame of 64 bytes, its checksum included.
const PAYLOAD: [u8; 18] = [0x55; 18];
const IDENT: u16 = 0x4245;
/// Packets in flight.
const FLIGHT: u16 = 8;
/// What the page has, in units of the figure.
const STREAM_UNIT: usize = 64 << 10;
const PATIENCE_NS: u64 = 5 * SECOND_NS;

pub(super) fn bench(scale: u64, url: Option<&str>) {
    measure::<20>("net_packets_64", 64 * scale, |times| echoes(times, FLIGHT));
    measure::<21>("net_tcp_stream", 16 * scale, |times| stream(times, url));
    measure::<22>("net_round_trip", 32 * scale, |times| echoes(times, 1));
}

fn outcome<T>(result: Result<T, NetworkError>) -> Outcome {
    result.map(|_| ()).map_err(|error| error.to_string())
}

/// Sends so many packets, `flight` at a time, and waits for their echoes.
fn echoes(times: u64, flight: u16) -> Outcome {
    outcome(network::resolve(GATEWAY).and_then(|address| {
        let buffer = || icmp::PacketBuffer::new(vec![icmp::PacketMetadata::EMPTY; 32], vec![0; 4096]);
        network::with_socket(icmp::Socket::new(buffer(), buffer()), |handle| {
            network::with(|stack| {
                let socket = stack.sockets.get_mut::<icmp::Socket>(handle);
                socket.bind(icmp::Endpoint::Ident(IDENT)).map_err(|_| NetworkError::Refused)
            })?;
            let mut left = times;
            while left > 0 {
                let now = left.min(u64::from(flight)) as u16;
                echo(handle, address, now)?;
                left -= u64::from(now);
            }
            Ok(())
        })
    }))
}

fn echo(handle: SocketHandle, address: IpAddress, count: u16) -> Result<(), NetworkError> {
    network::with(|stack| {
        let socket = stack.sockets.get_mut::<icmp::Socket>(handle);
        for sequence in 0..count {
            let request = Icmpv4Repr::EchoRequest { ident: IDENT, seq_no: sequence, data: &PAYLOAD };
            let place = socket.send(request.buffer_len(), address).map_err(|_| NetworkError::Refused)?;
            request.emit(&mut Icmpv4Packet::new_unchecked(place), &ChecksumCapabilities::default());
        }
        Ok(())
    })?;
    let mut answers = 0;
    network::wait_for(PATIENCE_NS, |stack| {
        let socket = stack.sockets.get_mut::<icmp::Socket>(handle);
        while socket.recv().is_ok() {
            answers += 1;
        }
        Ok((answers >= count).then_some(()))
    })
}

/// Fetches a page of as many units as are asked for.
fn stream(units: u64, url: Option<&str>) -> Outcome {
    let url = url.ok_or("no page to fetch was named")?;
    let bytes = units as usize * STREAM_UNIT;
    let whole = alloc::format!("{url}/{bytes}");
    let parsed = Url::parse(&whole).map_err(|error| error.to_string())?;
    let page = http::fetch(parsed).map_err(|error| error.to_string())?;
    if page.body.len() == bytes { Ok(()) } else { Err(alloc::format!("{} of {bytes} bytes came", page.body.len())) }
}
