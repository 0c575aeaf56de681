//! A guest's accesses to emulated devices, as the hypervisor passes them on, and the way back: answers and interrupts.
//!
//! Each virtual CPU has a place in a page of the hypervisor's and a port. What is in the page is read into a value before
//! it is looked at; only a place that says that it is asked is answered.
//!
//! Source: Xen `public/hvm/ioreq.h`, `public/hvm/dm_op.h`, `public/memory.h` (`XENMEM_acquire_resource`).
#![expect(unsafe_code, reason = "requests lie in memory that the hypervisor shares")]

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::mem::offset_of;
use core::sync::atomic::{AtomicU8, Ordering};

use dom0::ids::DomId;
use dom0::models::board::{Change, Ports};
use dom0::models::pci::Place;
use dom0::toolstack::control::ControlError;
use pv_abi::hvm::dm_op::{self, DmOp, DmOpBuf, DmOpIoreqServerRange, pci_sbdf};
use pv_abi::hvm::ioreq::{Ioreq, STATE_IOREQ_READY, STATE_IORESP_READY};
use pv_abi::memory::{MemAcquireResource, XENMEM_ACQUIRE_RESOURCE, XENMEM_RESOURCE_IOREQ_SERVER};
use pv_abi::sched::{SHUTDOWN_POWEROFF, SHUTDOWN_REBOOT};
use pv_abi::xen::{HYPERVISOR_DM_OP, HYPERVISOR_MEMORY_OP};
use pv_abi::{Mfn, Port};
use pv_guest_kernel::platform::pv::foreign::ForeignMapping;
use pv_guest_kernel::platform::pv::{events, hypercall};
use pv_guest_kernel::task::Signal;
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes};

use super::control::failed;

/// The frame of a server with the requests that wait for an answer.
const REQUESTS: u64 = 1;
const PAGE_BYTES: usize = 4096;

/// What answers for a guest's devices. Dropping it ends it: the guest's accesses find nothing then.
pub(crate) struct Server {
    domain: DomId,
    id: u16,
    page: Option<ForeignMapping>,
    /// This domain's ports, by virtual CPU.
    ports: Vec<Port>,
}

impl Server {
    /// Makes a server for a guest that does not run yet; `signal` is raised when something is asked.
    ///
    /// # Errors
    /// The hypervisor's.
    pub(crate) fn new(domain: DomId, vcpus: u32, signal: &Arc<Signal>) -> Result<Self, ControlError> {
        const WHAT: &str = "making a server of a guest's devices";
        let create = dm_op::DmOpCreateIoreqServer::default();
        let created = operation(WHAT, domain, dm_op::XEN_DMOP_CREATE_IOREQ_SERVER, &create)?;
        let mut server = Self { domain, id: created.id, page: None, ports: Vec::new() };
        let frame = server.acquire(REQUESTS)?;
        let page = ForeignMapping::of_resource(domain, &[frame]).map_err(failed(WHAT))?;
        server.page = Some(page);
        let enable = dm_op::DmOpSetIoreqServerState { id: server.id, enabled: 1, pad: 0 };
        operation(WHAT, domain, dm_op::XEN_DMOP_SET_IOREQ_SERVER_STATE, &enable)?;
        for vcpu in 0..vcpus as usize {
            let remote = server.request(vcpu).map_or(0, |request| request.vp_eport);
            let port = events::bind_interdomain(domain, Port(remote)).map_err(failed(WHAT))?;
            server.ports.push(port);
            events::raise(port, signal);
        }
        Ok(server)
    }

    fn acquire(&self, frame: u64) -> Result<Mfn, ControlError> {
        let mut list = 0_u64;
        let mut argument = MemAcquireResource::new_zeroed();
        (argument.domid, argument.type_, argument.id) =
            (self.domain.0, XENMEM_RESOURCE_IOREQ_SERVER, u32::from(self.id));
        (argument.nr_frames, argument.frame, argument.frame_list) = (1, frame, &raw mut list as u64);
        // SAFETY: Xen reads the struct and writes one entry to `list`.
        unsafe { hypercall::operation(HYPERVISOR_MEMORY_OP, XENMEM_ACQUIRE_RESOURCE, &mut argument) }
            .map_err(failed("reaching the requests of a guest"))?;
        Ok(Mfn(list))
    }

    /// Virtual CPUs that it serves.
    pub(crate) fn vcpus(&self) -> usize {
        self.ports.len()
    }

    fn place(&self, vcpu: usize) -> Option<*mut Ioreq> {
        let fits = vcpu < PAGE_BYTES / size_of::<Ioreq>();
        let page = self.page.as_ref().filter(|_| fits)?;
        Some((page.addr() + vcpu * size_of::<Ioreq>()) as *mut Ioreq)
    }

    fn request(&self, vcpu: usize) -> Option<Ioreq> {
        let place = self.place(vcpu)?;
        // SAFETY: a place of the page, which stays mapped; all bits are a request.
        Some(unsafe { place.read_volatile() })
    }

    fn state(&self, vcpu: usize) -> Option<&AtomicU8> {
        let byte = self.place(vcpu)?.cast::<u8>().wrapping_add(offset_of!(Ioreq, _pad_state));
        // SAFETY: a byte of the page, which stays mapped and which nobody reaches otherwise while it changes.
        Some(unsafe { AtomicU8::from_ptr(byte) })
    }

    /// What a virtual CPU asks, if it does.
    pub(crate) fn asked(&self, vcpu: usize) -> Option<Ioreq> {
        let state = self.state(vcpu)?.load(Ordering::Acquire);
        let request = self.request(vcpu)?;
        let asks = Ioreq { _pad_state: state, ..request }.state() == STATE_IOREQ_READY;
        asks.then_some(Ioreq { _pad_state: state, ..request })
    }

    /// Answers what a virtual CPU asked, and lets it go on.
    pub(crate) fn answer(&self, vcpu: usize, request: Ioreq, data: u64) {
        let (Some(place), Some(state), Some(port)) = (self.place(vcpu), self.state(vcpu), self.ports.get(vcpu)) else {
            return;
        };
        let field = place.cast::<u8>().wrapping_add(offset_of!(Ioreq, data)).cast::<u64>();
        // SAFETY: a field of the place, which is this domain's until the state below says that it is answered.
        unsafe { field.write_volatile(data) };
        state.store(request.with_state(STATE_IORESP_READY)._pad_state, Ordering::Release);
        if let Err(errno) = events::notify(*port) {
            log::warn!("domain {}: an answer does not reach it: {errno:?}", self.domain.0);
        }
    }

    /// Takes configuration spaces of the first PCI bus.
    ///
    /// # Errors
    /// The hypervisor's.
    pub(crate) fn take_place(&self, place: Place) -> Result<(), ControlError> {
        let function = pci_sbdf(0, 0, place.device, place.function).into();
        self.range(dm_op::XEN_DMOP_MAP_IO_RANGE_TO_IOREQ_SERVER, dm_op::XEN_DMOP_IO_RANGE_PCI, (function, function))
    }

    fn ports(&self, command: u32, Ports { first, last }: Ports) -> Result<(), ControlError> {
        self.range(command, dm_op::XEN_DMOP_IO_RANGE_PORT, (first.into(), last.into()))
    }

    fn range(&self, command: u32, type_: u32, (start, end): (u64, u64)) -> Result<(), ControlError> {
        let range = DmOpIoreqServerRange { id: self.id, pad: 0, type_, start, end };
        operation("giving a server of devices their place", self.domain, command, &range).map(drop)
    }

    /// Tells the hypervisor what a board has to say.
    ///
    /// # Errors
    /// The hypervisor's.
    pub(crate) fn tell(&self, change: Change) -> Result<(), ControlError> {
        const WHAT: &str = "telling of an emulated device";
        let domain = self.domain;
        match change {
            Change::Line { line, level } => {
                let level = dm_op::DmOpSetIsaIrqLevel { isa_irq: line, level: level.into() };
                operation(WHAT, domain, dm_op::XEN_DMOP_SET_ISA_IRQ_LEVEL, &level).map(drop)
            }
            Change::Pin { device, pin, level } => {
                let level = dm_op::DmOpSetPciIntxLevel { domain: 0, bus: 0, device, intx: pin, level: level.into() };
                operation(WHAT, domain, dm_op::XEN_DMOP_SET_PCI_INTX_LEVEL, &level).map(drop)
            }
            Change::Link { link, line } => {
                let route = dm_op::DmOpSetPciLinkRoute { link, isa_irq: line };
                operation(WHAT, domain, dm_op::XEN_DMOP_SET_PCI_LINK_ROUTE, &route).map(drop)
            }
            Change::Map(ports) => self.ports(dm_op::XEN_DMOP_MAP_IO_RANGE_TO_IOREQ_SERVER, ports),
            Change::Unmap(ports) => self.ports(dm_op::XEN_DMOP_UNMAP_IO_RANGE_FROM_IOREQ_SERVER, ports),
            Change::PowerOff => self.shut_down(SHUTDOWN_POWEROFF),
            Change::Reset => self.shut_down(SHUTDOWN_REBOOT),
        }
    }

    fn shut_down(&self, reason: u32) -> Result<(), ControlError> {
        let shutdown = dm_op::DmOpRemoteShutdown { reason };
        operation("shutting a guest down", self.domain, dm_op::XEN_DMOP_REMOTE_SHUTDOWN, &shutdown).map(drop)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.page = None;
        for port in core::mem::take(&mut self.ports) {
            if let Err(errno) = events::close(port) {
                log::warn!("domain {}: a port stays open: {errno:?}", self.domain.0);
            }
        }
        let destroy = dm_op::DmOpDestroyIoreqServer { id: self.id, pad: 0 };
        if let Err(error) = operation("ending a server", self.domain, dm_op::XEN_DMOP_DESTROY_IOREQ_SERVER, &destroy) {
            log::debug!("domain {}: {error}", self.domain.0);
        }
    }
}

/// Performs an operation of a device model; gives its struct as Xen left it.
fn operation<T>(what: &'static str, domain: DomId, command: u32, payload: &T) -> Result<T, ControlError>
where
    T: IntoBytes + FromBytes + Immutable,
{
    let mut argument = DmOp::new(command, payload);
    let mut buffer = DmOpBuf { h: &raw mut argument as u64, size: size_of::<DmOp>() as u64 };
    let args = [domain.0.into(), 1, &raw mut buffer as u64, 0, 0];
    // SAFETY: Xen reads the buffer, and reads and writes the operation that it names.
    unsafe { hypercall::call(HYPERVISOR_DM_OP, args) }.map_err(failed(what))?;
    Ok(argument.payload())
}
