//! Finds the devices that the domain was given, or that the machine has, and opens them.

use alloc::string::String;
use alloc::vec::Vec;

use pv_bus::{Store, Transaction};
use pv_guest_kernel::platform;
use pv_guest_kernel::platform::native::ata;
use pv_guest_kernel::platform::pv::hal::PvHal;
use pv_guest_kernel::platform::pv::store::RingStore;
use pv_guest_kernel::platform::pv::store_ring;

use crate::{control, disk, network};

/// What drivers run on here.
pub(crate) type Hal = PvHal<RingStore>;

/// Opens the devices. Under Xen without a xenstore there are none.
pub(crate) fn start() {
    if !platform::is_xen() {
        ata::open();
        network::open_ne2000();
        return;
    }
    if store_ring().is_none() {
        return;
    }
    control::start();
    if let Some(path) = first_device("vbd") {
        disk::open(&path);
    }
    if let Some(path) = first_device("vif") {
        network::open(&path);
    }
}

/// The directory of the domain's first device of a class, such as `device/vbd/51712`.
fn first_device(class: &str) -> Option<String> {
    let mut hal = connect()?;
    let directory = alloc::format!("device/{class}");
    let mut names: Vec<u32> =
        hal.directory(Transaction::NONE, &directory).ok()?.iter().filter_map(|name| name.parse().ok()).collect();
    names.sort_unstable();
    names.first().map(|name| alloc::format!("{directory}/{name}"))
}

/// A connection of its own to the store.
pub(crate) fn connect() -> Option<Hal> {
    let connected = Hal::connect();
    if let Err(error) = &connected {
        log::error!("no connection to xenstore: {error}");
    }
    connected.ok()
}
