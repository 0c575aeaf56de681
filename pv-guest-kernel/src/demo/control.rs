//! What a toolstack asks of a running guest: the node `control/shutdown`.
//!
//! The toolstack writes a word there; the guest empties the node to say that it has understood, and does it.
//!
//! Source: Xen `docs/misc/xenstore-paths.pandoc`, `control/shutdown`.

use pv_bus::{Store, Transaction};
use pv_guest_kernel::platform::{self, Shutdown};
use pv_guest_kernel::{println, task};

use crate::driver::{self, Hal};

const NODE: &str = "control/shutdown";

/// Starts the thread that watches the node.
pub(crate) fn start() {
    let Some(mut hal) = driver::connect() else {
        return;
    };
    if let Err(error) = hal.watch(NODE) {
        log::warn!("{NODE}: {error}: a shutdown from outside will not be noticed");
        return;
    }
    task::spawn("control", move || watch(&mut hal));
}

fn watch(hal: &mut Hal) {
    let signal = hal.signal();
    loop {
        while hal.next_watch_event().is_some() {
            obey(hal);
        }
        signal.wait();
    }
}

fn obey(hal: &mut Hal) {
    let Ok(word) = hal.read(Transaction::NONE, NODE) else {
        return;
    };
    let how = match word.as_slice() {
        b"" => return,
        b"poweroff" | b"halt" => Shutdown::PowerOff,
        b"reboot" => Shutdown::Reboot,
        b"crash" => Shutdown::Crash,
        other => {
            log::warn!("{NODE}: {:?} is unknown", core::str::from_utf8(other));
            return;
        }
    };
    // The toolstack reads the empty node; if it cannot be written the guest ends all the same.
    let _ = hal.write(Transaction::NONE, NODE, b"");
    println!("shutdown from outside: {how:?}");
    platform::current().shutdown(how)
}
