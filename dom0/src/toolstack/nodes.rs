//! What the store says about a guest: its home, its devices and who may see them.
//!
//! Front-end nodes belong to the guest, back-end nodes to this domain; each side may read the other's. The names are
//! those that Xen's toolstack writes, so that any front end finds what it looks for.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::build::Built;
use super::config::GuestConfig;
use super::device::{Disk, DiskTarget, Vif};
use crate::ids::DomId;
use crate::xenstore::{Access, Permissions};

/// A node to write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its absolute name.
    pub path: String,
    /// Its value.
    pub value: String,
    /// Its permissions, where they are not those of the node above.
    pub perms: Option<Permissions>,
}

/// State of a device that has been described and not yet met.
const INITIALISING: u8 = 1;

struct Nodes(Vec<Entry>);

impl Nodes {
    fn add(&mut self, path: &str, value: impl ToString) {
        self.0.push(Entry { path: path.to_string(), value: value.to_string(), perms: None });
    }

    fn add_for(&mut self, path: &str, value: impl ToString, perms: &Permissions) {
        self.0.push(Entry { path: path.to_string(), value: value.to_string(), perms: Some(perms.clone()) });
    }
}

/// Nodes that a guest owns and this domain reads.
fn guests_own(domain: DomId) -> Permissions {
    Permissions::private(domain).allowing(DomId(0), Access::Read)
}

/// Nodes of this domain that a guest reads.
fn guest_reads(domain: DomId) -> Permissions {
    Permissions::private(DomId(0)).allowing(domain, Access::Read)
}

/// Everything about a guest but its devices.
pub fn home(config: &GuestConfig, built: &Built, handle: &str) -> Vec<Entry> {
    let domain = built.domain;
    let home = format!("/local/domain/{}", domain.0);
    let (reads, owns) = (guest_reads(domain), guests_own(domain));
    let mut nodes = Nodes(Vec::new());
    nodes.add_for(&format!("/vm/{handle}"), "", &reads);
    nodes.add(&format!("/vm/{handle}/name"), &config.name);
    nodes.add(&format!("/vm/{handle}/uuid"), handle);
    nodes.add_for(&home, "", &reads);
    nodes.add(&format!("{home}/vm"), format!("/vm/{handle}"));
    nodes.add(&format!("{home}/name"), &config.name);
    nodes.add(&format!("{home}/domid"), domain.0);
    for vcpu in 0..config.max_vcpus {
        let availability = if vcpu < config.vcpus { "online" } else { "offline" };
        nodes.add(&format!("{home}/cpu/{vcpu}/availability"), availability);
    }
    nodes.add(&format!("{home}/memory/static-max"), config.maxmem_mib * 1024);
    nodes.add(&format!("{home}/memory/target"), config.memory_mib * 1024);
    nodes.add(&format!("{home}/memory/videoram"), 0);
    nodes.add_for(&format!("{home}/device"), "", &reads);
    nodes.add_for(&format!("{home}/control"), "", &reads);
    for name in ["shutdown", "feature-poweroff", "feature-reboot", "feature-suspend", "sysrq"] {
        nodes.add_for(&format!("{home}/control/{name}"), "", &owns);
    }
    nodes.add(&format!("{home}/control/platform-feature-multiprocessor-suspend"), 1);
    nodes.add(&format!("{home}/control/platform-feature-xs_reset_watches"), 1);
    for name in ["data", "drivers", "feature", "attr", "error"] {
        nodes.add_for(&format!("{home}/{name}"), "", &owns);
    }
    nodes.add(&format!("{home}/store/port"), built.store_port.0);
    nodes.add(&format!("{home}/store/ring-ref"), built.store_frame.0);
    nodes.add_for(&format!("{home}/console"), "", &reads);
    nodes.add(&format!("{home}/console/type"), "xenconsoled");
    nodes.add(&format!("{home}/console/output"), "pty");
    nodes.add(&format!("{home}/console/limit"), 1_048_576);
    nodes.add(&format!("{home}/console/port"), built.console_port.0);
    nodes.add(&format!("{home}/console/ring-ref"), built.console_frame.0);
    nodes.0
}

/// The two directories of a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DevicePaths {
    /// The guest's half.
    pub front: String,
    /// This domain's half.
    pub back: String,
}

impl DevicePaths {
    /// The directories of device `number` of a `kind` such as `vbd`.
    pub fn new(domain: DomId, kind: &str, number: u32) -> Self {
        Self {
            front: format!("/local/domain/{}/device/{kind}/{number}", domain.0),
            back: format!("/local/domain/0/backend/{kind}/{}/{number}", domain.0),
        }
    }

    fn begin(&self, domain: DomId) -> Nodes {
        let mut nodes = Nodes(Vec::new());
        nodes.add_for(&self.back, "", &guest_reads(domain));
        nodes.add_for(&self.front, "", &guests_own(domain));
        nodes.add(&format!("{}/frontend", self.back), &self.front);
        nodes.add(&format!("{}/frontend-id", self.back), domain.0);
        nodes.add(&format!("{}/online", self.back), 1);
        nodes.add(&format!("{}/state", self.back), INITIALISING);
        nodes.add(&format!("{}/backend", self.front), &self.back);
        nodes.add(&format!("{}/backend-id", self.front), 0);
        nodes.add(&format!("{}/state", self.front), INITIALISING);
        nodes
    }
}

/// The nodes of a disk.
pub fn disk(domain: DomId, disk: &Disk) -> Vec<Entry> {
    let paths = DevicePaths::new(domain, "vbd", disk.number);
    let mut nodes = paths.begin(domain);
    let (kind, target) = match &disk.target {
        DiskTarget::Physical(target) => ("phy", target),
        DiskTarget::File(target) => ("file", target),
    };
    nodes.add(&format!("{}/params", paths.back), target);
    nodes.add(&format!("{}/type", paths.back), kind);
    nodes.add(&format!("{}/dev", paths.back), &disk.vdev);
    nodes.add(&format!("{}/mode", paths.back), if disk.writable { "w" } else { "r" });
    nodes.add(&format!("{}/device-type", paths.back), "disk");
    nodes.add(&format!("{}/removable", paths.back), 0);
    nodes.add(&format!("{}/virtual-device", paths.front), disk.number);
    nodes.add(&format!("{}/device-type", paths.front), "disk");
    nodes.0
}

/// The nodes of the network interface with this place in the guest.
pub fn vif(domain: DomId, index: u32, vif: &Vif) -> Vec<Entry> {
    let paths = DevicePaths::new(domain, "vif", index);
    let mut nodes = paths.begin(domain);
    nodes.add(&format!("{}/mac", paths.back), vif.mac);
    nodes.add(&format!("{}/bridge", paths.back), &vif.bridge);
    nodes.add(&format!("{}/handle", paths.back), index);
    nodes.add(&format!("{}/type", paths.back), "vif");
    nodes.add(&format!("{}/mac", paths.front), vif.mac);
    nodes.add(&format!("{}/handle", paths.front), index);
    nodes.add(&format!("{}/mtu", paths.front), 1500);
    nodes.0
}
