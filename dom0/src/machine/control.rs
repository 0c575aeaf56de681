//! Xen's control operations, made with hypercalls.
//!
//! Source: Xen `public/domctl.h`, `public/sysctl.h`, `public/memory.h`.
#![expect(unsafe_code, reason = "control operations read and write memory that their arguments name")]

use alloc::string::String;
use alloc::vec::Vec;

use dom0::ids::{DomId, Port};
use dom0::toolstack::control::{
    Control, ControlError, Creation, DomainInfo, GuestKind, GuestMemory, StopReason, TscMode,
};
use pv_abi::arch::{CpuidLeaf, VcpuGuestContext, XEN_X86_EMU_ALL, XEN_X86_EMU_LAPIC, XEN_X86_EMU_VPCI};
use pv_abi::domctl::{self, Domctl, XEN_INVALID_MAX_VCPU_ID};
use pv_abi::errno::Errno;
use pv_abi::grant_table::{GNTST_OKAY, GNTTABOP_SETUP_TABLE, GnttabSetupTable};
use pv_abi::hvm::{HVMOP_SET_PARAM, HvmParam};
use pv_abi::memory::{
    AddToPhysmap, E820Entry, ForeignMemoryMap, MemoryReservation, RemoveFromPhysmap, XENMAPSPACE_GRANT_TABLE,
    XENMEM_ADD_TO_PHYSMAP, XENMEM_POPULATE_PHYSMAP, XENMEM_REMOVE_FROM_PHYSMAP, XENMEM_SET_MEMORY_MAP,
};
use pv_abi::sysctl::{self, Sysctl};
use pv_abi::xen::{self, MmuextOp};
use pv_abi::{Mfn, Pfn};
use pv_guest_kernel::platform::pv::foreign::{Access, ForeignMapping};
use pv_guest_kernel::platform::pv::{events, hypercall};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout};

/// Domains asked about in one operation.
const LIST_STEP: usize = 32;
/// More leaves than a policy of CPUID has.
const LEAVES: usize = 256;
/// As many of the hypervisor's messages as it keeps.
const MESSAGES_BYTES: usize = 16 * 1024;

/// The hypervisor under this domain.
#[derive(Debug)]
pub(crate) struct Xen;

pub(super) fn failed(operation: &'static str) -> impl Fn(Errno) -> ControlError {
    move |errno| ControlError { operation, errno: errno as i32 }
}

/// Makes a domain-control operation whose payload is `payload`, and returns the payload as Xen left it.
pub(super) fn domctl<T>(
    operation: &'static str,
    cmd: u32,
    domain: DomId,
    payload: T,
) -> Result<(DomId, T), ControlError>
where
    T: IntoBytes + FromBytes + Immutable + KnownLayout,
{
    let mut argument = Domctl::new_zeroed();
    argument.cmd = cmd;
    argument.interface_version = domctl::XEN_DOMCTL_INTERFACE_VERSION;
    argument.domain = domain.0;
    argument.u[..size_of::<T>()].copy_from_slice(payload.as_bytes());
    let args = [&raw mut argument as u64, 0, 0, 0, 0];
    // SAFETY: a domctl reads and writes its argument, and memory that the payload names, which the caller owns.
    unsafe { hypercall::call(xen::HYPERVISOR_DOMCTL, args) }.map_err(failed(operation))?;
    let (payload, _) = T::read_from_prefix(&argument.u).map_err(|_| failed(operation)(Errno::Inval))?;
    Ok((DomId(argument.domain), payload))
}

/// Makes a system-control operation whose payload is `payload`, and returns the payload as Xen left it.
///
/// # Safety
/// Memory that the payload names is the caller's, and as long as the payload says.
pub(super) unsafe fn sysctl<T>(operation: &'static str, cmd: u32, payload: T) -> Result<T, ControlError>
where
    T: IntoBytes + FromBytes + Immutable + KnownLayout,
{
    let mut argument = Sysctl::new_zeroed();
    argument.cmd = cmd;
    argument.interface_version = sysctl::XEN_SYSCTL_INTERFACE_VERSION;
    argument.u[..size_of::<T>()].copy_from_slice(payload.as_bytes());
    let args = [&raw mut argument as u64, 0, 0, 0, 0];
    // SAFETY: Xen reads and writes its argument, and memory that the caller answers for.
    unsafe { hypercall::call(xen::HYPERVISOR_SYSCTL, args) }.map_err(failed(operation))?;
    let answer = T::read_from_prefix(&argument.u).map_err(|_| failed(operation)(Errno::Inval))?;
    Ok(answer.0)
}

/// An operation without a payload.
pub(super) fn simple(operation: &'static str, cmd: u32, domain: DomId) -> Result<(), ControlError> {
    domctl(operation, cmd, domain, [0_u8; 0]).map(drop)
}

impl Xen {
    /// All domains, from the first on (`XEN_SYSCTL_getdomaininfolist`).
    pub(crate) fn domains(&mut self) -> Vec<DomainInfo> {
        let mut found = Vec::new();
        let mut buffer = alloc::vec![domctl::DomctlGetdomaininfo::new_zeroed(); LIST_STEP];
        loop {
            let mut payload = sysctl::SysctlGetdomaininfolist::new_zeroed();
            payload.first_domain = found.last().map_or(0, |info: &DomainInfo| info.domain.0 + 1);
            payload.max_domains = LIST_STEP as u32;
            payload.buffer = buffer.as_mut_ptr() as u64;
            // SAFETY: Xen writes at most `max_domains` entries to `buffer`.
            let answer = unsafe { sysctl("listing domains", sysctl::XEN_SYSCTL_GETDOMAININFOLIST, payload) };
            let count = answer.map_or(0, |payload| payload.num_domains as usize).min(LIST_STEP);
            found.extend(buffer[..count].iter().map(describe));
            if count < LIST_STEP {
                return found;
            }
        }
    }

    /// The hypervisor's messages (`XEN_SYSCTL_readconsole`), which it forgets where `clear`.
    pub(crate) fn messages(&mut self, clear: bool) -> Result<String, ControlError> {
        let mut buffer = alloc::vec![0_u8; MESSAGES_BYTES];
        let mut payload = sysctl::SysctlReadconsole::new_zeroed();
        payload.clear = u8::from(clear);
        payload.buffer = buffer.as_mut_ptr() as u64;
        payload.count = MESSAGES_BYTES as u32;
        // SAFETY: Xen writes at most `count` bytes to `buffer`.
        let payload = unsafe { sysctl("reading the hypervisor's messages", sysctl::XEN_SYSCTL_READCONSOLE, payload) }?;
        buffer.truncate(payload.count as usize);
        Ok(String::from_utf8_lossy(&buffer).into_owned())
    }
}

fn describe(info: &domctl::DomctlGetdomaininfo) -> DomainInfo {
    let is = |flag: u32| info.flags & flag != 0;
    let code = info.flags >> domctl::XEN_DOMINF_SHUTDOWNSHIFT & domctl::XEN_DOMINF_SHUTDOWNMASK;
    DomainInfo {
        domain: DomId(info.domain),
        dying: is(domctl::XEN_DOMINF_DYING),
        stopped: is(domctl::XEN_DOMINF_SHUTDOWN).then(|| StopReason::from_code(code as u8)),
        paused: is(domctl::XEN_DOMINF_PAUSED),
        blocked: is(domctl::XEN_DOMINF_BLOCKED),
        running: is(domctl::XEN_DOMINF_RUNNING),
        pages: info.tot_pages,
        max_pages: info.max_pages,
        vcpus: info.nr_online_vcpus,
        max_vcpu: if info.max_vcpu_id == XEN_INVALID_MAX_VCPU_ID { 0 } else { info.max_vcpu_id },
        shared_info: Mfn(info.shared_info_frame),
        cpu_time_ns: info.cpu_time,
    }
}

impl GuestMemory for Xen {
    fn write(&mut self, domain: DomId, frames: &[Mfn], offset: usize, bytes: &[u8]) -> Result<(), ControlError> {
        let mapping = ForeignMapping::new(domain, frames, Access::ReadWrite).map_err(failed("mapping guest memory"))?;
        mapping.write(offset, bytes);
        Ok(())
    }

    fn clear(&mut self, domain: DomId, frames: &[Mfn]) -> Result<(), ControlError> {
        let mapping = ForeignMapping::new(domain, frames, Access::ReadWrite).map_err(failed("mapping guest memory"))?;
        mapping.zero(0, mapping.len_bytes());
        Ok(())
    }
}

impl Control for Xen {
    fn create(&mut self, creation: &Creation) -> Result<DomId, ControlError> {
        let mut payload = domctl::DomctlCreatedomain::new_zeroed();
        payload.handle = creation.handle;
        payload.max_vcpus = creation.max_vcpus;
        payload.max_evtchn_port = 1023;
        // The hypervisor's own limits.
        payload.max_grant_frames = -1;
        payload.max_maptrack_frames = -1;
        payload.grant_opts = super::queries::grant_version();
        if creation.kind.is_assisted() {
            payload.flags = domctl::XEN_DOMCTL_CDF_HVM | domctl::XEN_DOMCTL_CDF_HAP;
        }
        payload.arch.emulation_flags = match creation.kind {
            GuestKind::Pv => 0,
            GuestKind::Pvh => XEN_X86_EMU_LAPIC,
            // Xen takes these together or not at all.
            GuestKind::Hvm => XEN_X86_EMU_ALL & !XEN_X86_EMU_VPCI,
        };
        let (domain, _) = domctl("creating a domain", domctl::XEN_DOMCTL_CREATEDOMAIN, DomId(0), payload)?;
        Ok(domain)
    }

    fn set_max_vcpus(&mut self, domain: DomId, vcpus: u32) -> Result<(), ControlError> {
        let mut payload = domctl::DomctlMaxVcpus::new_zeroed();
        payload.max = vcpus;
        domctl("making virtual CPUs", domctl::XEN_DOMCTL_MAX_VCPUS, domain, payload).map(drop)
    }

    fn set_max_memory(&mut self, domain: DomId, kib: u64) -> Result<(), ControlError> {
        let mut payload = domctl::DomctlMaxMem::new_zeroed();
        payload.max_memkb = kib;
        domctl("bounding memory", domctl::XEN_DOMCTL_MAX_MEM, domain, payload).map(drop)
    }

    fn set_tsc(&mut self, domain: DomId, mode: TscMode) -> Result<(), ControlError> {
        let mut payload = domctl::DomctlTscInfo::new_zeroed();
        payload.tsc_mode = mode as u32;
        domctl("choosing a time-stamp counter", domctl::XEN_DOMCTL_SETTSCINFO, domain, payload).map(drop)
    }

    fn set_memory_map(&mut self, domain: DomId, map: &[E820Entry]) -> Result<(), ControlError> {
        let entries: Vec<_> = map.iter().map(|entry| entry.to_bytes()).collect();
        let mut argument = ForeignMemoryMap::new_zeroed();
        argument.domid = domain.0;
        argument.map.nr_entries = entries.len() as u32;
        argument.map.buffer = entries.as_ptr() as u64;
        // SAFETY: Xen reads the entries of the map.
        unsafe { hypercall::operation(xen::HYPERVISOR_MEMORY_OP, XENMEM_SET_MEMORY_MAP, &mut argument) }
            .map(drop)
            .map_err(failed("telling a guest of its memory"))
    }

    fn set_paging_memory(&mut self, domain: DomId, mib: u32) -> Result<(), ControlError> {
        const WHAT: &str = "setting memory aside for a guest's tables";
        let mut payload = domctl::DomctlShadowOp::new_zeroed();
        payload.op = domctl::XEN_DOMCTL_SHADOW_OP_SET_ALLOCATION;
        payload.mb = mib;
        domctl(WHAT, domctl::XEN_DOMCTL_SHADOW_OP, domain, payload).map(drop)
    }

    fn set_parameter(&mut self, domain: DomId, index: u32, value: u64) -> Result<(), ControlError> {
        let mut argument = HvmParam::new_zeroed();
        (argument.domid, argument.index, argument.value) = (domain.0, index, value);
        // SAFETY: Xen reads the struct.
        unsafe { hypercall::operation(xen::HYPERVISOR_HVM_OP, HVMOP_SET_PARAM, &mut argument) }
            .map(drop)
            .map_err(failed("setting a parameter of a guest"))
    }

    fn hide_hypervisor(&mut self, domain: DomId) -> Result<(), ControlError> {
        const WHAT: &str = "choosing what CPUID tells a guest";
        /// CPUID.1:ECX: a hypervisor is there.
        const MARK: u32 = 1 << 31;
        let mut leaves = alloc::vec![CpuidLeaf::new_zeroed(); LEAVES];
        let mut payload = domctl::DomctlCpuPolicy::new_zeroed();
        (payload.nr_leaves, payload.leaves) = (leaves.len() as u32, leaves.as_mut_ptr() as u64);
        // Xen writes at most `nr_leaves` entries, and no register's where there is room for none.
        let (_, got) = domctl(WHAT, domctl::XEN_DOMCTL_GET_CPU_POLICY, domain, payload)?;
        leaves.truncate(got.nr_leaves as usize);
        leaves.iter_mut().filter(|leaf| leaf.leaf == 1).for_each(|leaf| leaf.c &= !MARK);
        payload.nr_leaves = leaves.len() as u32;
        domctl(WHAT, domctl::XEN_DOMCTL_SET_CPU_POLICY, domain, payload).map(drop)
    }

    fn put_grant_table(&mut self, domain: DomId, frame: Pfn) -> Result<(), ControlError> {
        let mut argument = AddToPhysmap::new_zeroed();
        (argument.domid, argument.space, argument.gpfn) = (domain.0, XENMAPSPACE_GRANT_TABLE, frame.0);
        // SAFETY: the frame is another domain's.
        unsafe { hypercall::operation(xen::HYPERVISOR_MEMORY_OP, XENMEM_ADD_TO_PHYSMAP, &mut argument) }
            .map(drop)
            .map_err(failed("reaching a guest's grant table"))
    }

    fn clear_frame(&mut self, domain: DomId, frame: Pfn) -> Result<(), ControlError> {
        let mut argument = RemoveFromPhysmap::new_zeroed();
        (argument.domid, argument.gpfn) = (domain.0, frame.0);
        // SAFETY: the frame is another domain's.
        unsafe { hypercall::operation(xen::HYPERVISOR_MEMORY_OP, XENMEM_REMOVE_FROM_PHYSMAP, &mut argument) }
            .map(drop)
            .map_err(failed("taking a frame of a guest away"))
    }

    fn set_hvm_context(&mut self, domain: DomId, records: &[u8]) -> Result<(), ControlError> {
        let mut payload = domctl::DomctlHvmcontext::new_zeroed();
        payload.size = records.len() as u32;
        payload.buffer = records.as_ptr() as u64;
        domctl("setting virtual CPUs", domctl::XEN_DOMCTL_SETHVMCONTEXT, domain, payload).map(drop)
    }

    fn populate(&mut self, domain: DomId, first: Pfn, count: u64) -> Result<Vec<Mfn>, ControlError> {
        let mut frames: Vec<u64> = (first.0..first.0 + count).collect();
        let mut argument = MemoryReservation::new_zeroed();
        argument.extent_start = frames.as_mut_ptr() as u64;
        argument.nr_extents = count;
        argument.domid = domain.0;
        // SAFETY: Xen reads and writes the `nr_extents` entries of `frames`.
        let done = unsafe { hypercall::operation(xen::HYPERVISOR_MEMORY_OP, XENMEM_POPULATE_PHYSMAP, &mut argument) };
        let done = done.map_err(failed("giving a guest memory"))?;
        if done < count {
            return Err(failed("giving a guest memory")(Errno::NoMem));
        }
        Ok(frames.into_iter().map(Mfn).collect())
    }

    fn pin_root_table(&mut self, domain: DomId, root: Mfn) -> Result<(), ControlError> {
        let mut operation = MmuextOp::new_zeroed();
        operation.cmd = xen::MMUEXT_PIN_L4_TABLE;
        operation.arg1 = root.0;
        let args = [&raw const operation as u64, 1, 0, u64::from(domain.0), 0];
        // SAFETY: pins a table of another domain.
        unsafe { hypercall::call(xen::HYPERVISOR_MMUEXT_OP, args) }
            .map(drop)
            .map_err(failed("checking the page tables of a guest"))
    }

    fn fill_hypercall_page(&mut self, domain: DomId, frame: Mfn) -> Result<(), ControlError> {
        let mut payload = domctl::DomctlHypercallInit::new_zeroed();
        payload.gmfn = frame.0;
        domctl("filling the hypercall page", domctl::XEN_DOMCTL_HYPERCALL_INIT, domain, payload).map(drop)
    }

    fn alloc_unbound(&mut self, domain: DomId, remote: DomId) -> Result<Port, ControlError> {
        events::alloc_unbound_for(domain, remote).map_err(failed("making an event channel"))
    }

    fn grant_frame(&mut self, domain: DomId) -> Result<Mfn, ControlError> {
        const WHAT: &str = "reaching a guest's grant table";
        let mut frame = 0_u64;
        let mut argument = GnttabSetupTable::new_zeroed();
        argument.dom = domain.0;
        argument.nr_frames = 1;
        argument.frame_list = &raw mut frame as u64;
        let args = [u64::from(GNTTABOP_SETUP_TABLE), &raw mut argument as u64, 1, 0, 0];
        // SAFETY: Xen writes one entry to `frame`.
        unsafe { hypercall::call(xen::HYPERVISOR_GRANT_TABLE_OP, args) }.map_err(failed(WHAT))?;
        if argument.status != GNTST_OKAY {
            return Err(failed(WHAT)(Errno::Inval));
        }
        Ok(Mfn(frame))
    }

    fn set_vcpu(&mut self, domain: DomId, context: &VcpuGuestContext) -> Result<(), ControlError> {
        let mut payload = domctl::DomctlVcpucontext::new_zeroed();
        payload.ctxt = core::ptr::from_ref(context) as u64;
        domctl("setting a virtual CPU", domctl::XEN_DOMCTL_SETVCPUCONTEXT, domain, payload).map(drop)
    }

    fn info(&mut self, domain: DomId) -> Result<DomainInfo, ControlError> {
        const WHAT: &str = "asking about a domain";
        let payload = domctl::DomctlGetdomaininfo::new_zeroed();
        let (_, info) = domctl(WHAT, domctl::XEN_DOMCTL_GETDOMAININFO, domain, payload)?;
        if info.domain != domain.0 {
            return Err(failed(WHAT)(Errno::Srch));
        }
        Ok(describe(&info))
    }

    fn pause(&mut self, domain: DomId) -> Result<(), ControlError> {
        simple("pausing a domain", domctl::XEN_DOMCTL_PAUSEDOMAIN, domain)
    }

    fn unpause(&mut self, domain: DomId) -> Result<(), ControlError> {
        simple("unpausing a domain", domctl::XEN_DOMCTL_UNPAUSEDOMAIN, domain)
    }

    fn destroy(&mut self, domain: DomId) -> Result<(), ControlError> {
        simple("destroying a domain", domctl::XEN_DOMCTL_DESTROYDOMAIN, domain)
    }
}
