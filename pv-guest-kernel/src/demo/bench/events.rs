//! Events to another guest and back.
//!
//! The other guest (`pong DOMAIN`) opens a channel for this domain and answers each event on it. This one finds the
//! channel by trying: of the other's ports only that one takes it.

use alloc::string::{String, ToString};
use alloc::sync::Arc;

use pv_abi::errno::Errno;
use pv_abi::{DomId, Port};
use pv_guest_kernel::platform;
use pv_guest_kernel::platform::pv::events;
use pv_guest_kernel::println;
use pv_guest_kernel::task::{self, Signal};
use pv_guest_kernel::time::{MILLISECOND_NS, SECOND_NS, now_ns};

use super::{Outcome, measure};

/// Ports of the other guest that are tried.
const PORTS: u32 = 64;
const PATIENCE_NS: u64 = 20 * SECOND_NS;

/// `pong DOMAIN`: answers the events of a domain until it has been silent for a while.
pub(crate) fn pong(arguments: &[String]) -> i32 {
    let Some(domain) = arguments.first().and_then(|text| text.parse().ok()).filter(|_| platform::is_xen()) else {
        println!("pong: to which domain? A bare machine has none");
        return 2;
    };
    match serve(DomId(domain)) {
        Ok(answered) => {
            println!("{answered} events answered");
            0
        }
        Err(errno) => {
            println!("pong: {errno:?}");
            1
        }
    }
}

/// Answers events; says how many.
fn serve(peer: DomId) -> Result<u64, Errno> {
    let port = events::alloc_unbound(peer)?;
    let seen = Arc::new(Signal::new());
    events::raise(port, &seen);
    let mut answered = 0;
    while seen.wait_until(now_ns() + PATIENCE_NS) {
        events::notify(port)?;
        answered += 1;
    }
    events::close(port)?;
    Ok(answered)
}

/// A channel, and what its events raise; or why there is none.
pub(super) type Channel = Result<(Port, Arc<Signal>), String>;

/// The workload.
pub(super) fn bench(scale: u64, channel: &Channel) {
    measure::<15>("event_ping_pong", 100 * scale, |times| {
        let (port, seen) = channel.as_ref().map_err(Clone::clone)?;
        for _ in 0..times {
            events::notify(*port).map_err(|errno| alloc::format!("{errno:?}"))?;
            if !seen.wait_until(now_ns() + PATIENCE_NS) {
                return Err("the other guest does not answer".to_string());
            }
        }
        Outcome::Ok(())
    });
    if let Ok((port, _)) = channel {
        // A port that is closed already needs no closing.
        let _ = events::close(*port);
    }
}

/// The channel that the other guest, in the domain `peer`, has opened for this one; waits until there is one, so that the
/// other guest has started by then.
pub(super) fn channel(peer: Option<&str>) -> Channel {
    if !platform::is_xen() {
        return Err("a bare machine has no other guest".to_string());
    }
    let peer = peer.and_then(|text| text.parse().ok()).ok_or("the measured guest is the only one")?;
    let deadline = now_ns() + PATIENCE_NS;
    while now_ns() < deadline {
        if let Some(port) = (1..PORTS).find_map(|port| events::bind_interdomain(DomId(peer), Port(port)).ok()) {
            let seen = Arc::new(Signal::new());
            events::raise(port, &seen);
            return Ok((port, seen));
        }
        task::sleep_ns(10 * MILLISECOND_NS);
    }
    Err("the other guest has no channel for this one".to_string())
}
