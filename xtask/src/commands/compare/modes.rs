//! The modes: what the guest's kernel runs on, and how.

use crate::commands::run::{Hypervisor, Mode, Options};
use crate::xen;

/// One of them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Column {
    /// Bare QEMU.
    Native,
    /// Paravirtualized on hv.
    Pv,
    /// Hardware-assisted with paravirtual devices, on hv.
    Pvh,
    /// Unmodified, on hv.
    Hvm,
    /// Paravirtualized on Xen.
    XenPv,
    /// Hardware-assisted with paravirtual devices, on Xen.
    XenPvh,
}

impl Column {
    /// All of them, in the order of the report.
    pub(crate) const ALL: [Self; 6] = [Self::Native, Self::Pv, Self::Pvh, Self::Hvm, Self::XenPv, Self::XenPvh];

    /// Its name in the JSON.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Pv => "pv",
            Self::Pvh => "pvh",
            Self::Hvm => "hvm",
            Self::XenPv => "xen_pv",
            Self::XenPvh => "xen_pvh",
        }
    }

    /// Its name for people.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Pv => "PV on hv",
            Self::Pvh => "PVH on hv",
            Self::Hvm => "HVM on hv",
            Self::XenPv => "PV on Xen 4.17",
            Self::XenPvh => "PVH on Xen 4.17",
        }
    }

    /// Why it cannot be had on this machine, if it cannot.
    pub(crate) fn hindrance(self) -> Option<String> {
        match self {
            Self::Native | Self::Pv | Self::Pvh | Self::Hvm => None,
            Self::XenPv | Self::XenPvh => xen::image().err().map(|error| format!("{error:#}")),
        }
    }

    /// The system in which the guest runs these commands.
    pub(crate) fn options(self, exec: String) -> Options {
        let on = if matches!(self, Self::XenPv | Self::XenPvh) { Hypervisor::Xen } else { Hypervisor::Hv };
        let mode = match self {
            Self::Native => Mode::Native,
            Self::Pv | Self::XenPv => Mode::Pv,
            Self::Pvh | Self::XenPvh => Mode::Pvh,
            Self::Hvm => Mode::Hvm,
        };
        let beside = (!self.is_unmodified()).then(|| pong(mode));
        let dom0_options = "attach=demo".to_owned();
        let (memory, timeout) = (320, 300);
        let exec = Some(exec);
        Options { mode, exec, beside, dom0_options, snapshot: true, memory, timeout, ..Options::usual(on) }
    }

    /// Time can be counted in instructions there. Where QEMU's own deadline comes after the injection of an interrupt and
    /// before the guest's next stop, QEMU delivers it a second time, to a kernel that has switched interrupts off; Xen
    /// injects, hv lets them wait in the CPU.
    pub(crate) fn keeps_deadlines(self) -> bool {
        self != Self::XenPvh
    }

    /// The kernel there knows of no Xen beneath it.
    pub(crate) fn is_unmodified(self) -> bool {
        matches!(self, Self::Native | Self::Hvm)
    }
}

/// The guest that answers the first one's events, in the same mode.
fn pong(mode: Mode) -> String {
    let kind = if mode == Mode::Pvh { "type = \"pvh\"\n" } else { "" };
    format!(
        "name = \"pong\"\n{kind}kernel = \"/boot/demo\"\nextra = 'exec=\"pong 1\"'\nmemory = 32\nvcpus = 1\n\
         tsc_mode = \"native\"\n"
    )
}
