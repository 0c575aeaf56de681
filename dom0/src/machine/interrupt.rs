//! Interrupts of devices, as event channels.
//!
//! A PCI line is level-triggered and may be shared: the hypervisor keeps it quiet from the moment it fires until it is
//! told that its devices have been looked at.
//!
//! Source: Xen `public/physdev.h`.
#![expect(unsafe_code, reason = "interrupts are set up by hypercalls")]

use alloc::sync::Arc;

use pv_abi::errno::Errno;
use pv_abi::physdev::{
    MAP_PIRQ_TYPE_GSI, PHYSDEVOP_EOI, PHYSDEVOP_MAP_PIRQ, PHYSDEVOP_SETUP_GSI, PhysdevEoi, PhysdevMapPirq,
    PhysdevSetupGsi,
};
use pv_abi::xen::{DOMID_SELF, HYPERVISOR_PHYSDEV_OP};
use pv_guest_kernel::platform::pv::{events, hypercall};
use pv_guest_kernel::task::Signal;
use zerocopy::FromZeros;

const LEVEL: u8 = 1;
const ACTIVE_HIGH: u8 = 0;

/// One interrupt line.
pub(crate) struct Line {
    /// Its number.
    pub(crate) gsi: u32,
    pirq: u32,
    fired: Arc<Signal>,
}

impl Line {
    /// Listens to a line; when it fires, `signal` is raised.
    ///
    /// # Errors
    /// The hypervisor's refusal.
    pub(crate) fn listen(gsi: u32, signal: &Arc<Signal>) -> Result<Self, Errno> {
        let number = i32::try_from(gsi).map_err(|_| Errno::Inval)?;
        let mut map = PhysdevMapPirq::new_zeroed();
        map.domid = DOMID_SELF;
        map.type_ = MAP_PIRQ_TYPE_GSI;
        map.index = number;
        map.pirq = number;
        operation(PHYSDEVOP_MAP_PIRQ, &mut map)?;
        let mut setup = PhysdevSetupGsi::new_zeroed();
        setup.gsi = number;
        setup.triggering = LEVEL;
        setup.polarity = ACTIVE_HIGH;
        match operation(PHYSDEVOP_SETUP_GSI, &mut setup) {
            // The hypervisor has set the line up by itself.
            Ok(()) | Err(Errno::Exist) => {}
            Err(errno) => return Err(errno),
        }
        let pirq = u32::try_from(map.pirq).map_err(|_| Errno::Inval)?;
        let port = events::bind_pirq(pirq, true)?;
        let fired = Arc::new(Signal::new());
        let (raised, signal) = (fired.clone(), signal.clone());
        events::on(port, move || {
            raised.raise();
            signal.raise();
        });
        let line = Self { gsi, pirq, fired };
        line.done();
        Ok(line)
    }

    /// Whether the line has fired since it was last asked.
    pub(crate) fn take(&self) -> bool {
        self.fired.take()
    }

    /// Lets the line fire again: its devices have been looked at.
    pub(crate) fn done(&self) {
        let mut eoi = PhysdevEoi { irq: self.pirq };
        if let Err(errno) = operation(PHYSDEVOP_EOI, &mut eoi) {
            log::warn!("interrupt line {}: {errno:?}", self.gsi);
        }
    }
}

fn operation<T>(command: u32, argument: &mut T) -> Result<(), Errno> {
    // SAFETY: each caller passes the struct of its command.
    unsafe { hypercall::operation(HYPERVISOR_PHYSDEV_OP, command, argument) }.map(drop)
}
