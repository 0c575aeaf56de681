//! Making domains and their vCPUs.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64};

use pv_abi::errno::Errno;
use pv_abi::xen::{VcpuInfo, XEN_LEGACY_MAX_VCPUS};
use pv_abi::{DomId, VcpuId};
use spin::{Mutex, Once};

use super::{Domain, Lifecycle, Vcpu, VcpuState, stopped};
use crate::Hypervisor;
use crate::control::Settings;
use crate::control::permissions::Permissions;
use crate::evtchn::EventChannels;
use crate::frames::{self, DomainMemory};
use crate::grant::{GrantTable, Version};
use crate::hardware::Machine;
use crate::hvm::{self, HvmDomain};
use crate::refusal::{Evidence, Refusal};
use crate::rules::{Limiter, control as rule};
use crate::sched;

/// The weight of a domain whose toolstack did not choose one.
const USUAL_WEIGHT: u32 = 256;
/// Bytes of a `vcpu_info`.
const INFO_BYTES: usize = size_of::<VcpuInfo>();

/// What a domain is made with.
#[derive(Debug)]
pub struct DomainConfig {
    /// The toolstack's name for it.
    pub handle: [u8; 16],
    /// Whether it may control other domains and the machine.
    pub privileged: bool,
    /// The devices that it has inside the hypervisor, where it has hardware assistance.
    pub hvm: Option<hvm::Devices>,
    /// The highest event-channel port it may allocate.
    pub max_event_port: u32,
    /// Frames that its grant table may grow to.
    pub max_grant_frames: u32,
    /// Frames' worth of mappings of others' grants it may have.
    pub max_maptrack_frames: u32,
    /// The highest version of the grant table that it may choose.
    pub max_grant_version: Version,
    /// The toolstack's other choices.
    pub settings: Settings,
}

impl Default for DomainConfig {
    fn default() -> Self {
        Self {
            handle: [0; 16],
            privileged: false,
            hvm: None,
            max_event_port: u32::MAX,
            max_grant_frames: 64,
            max_maptrack_frames: 1024,
            max_grant_version: Version::Two,
            settings: Settings::default(),
        }
    }
}

impl Domain {
    /// Makes a domain with no memory and no vCPUs, paused by its toolstack, and enters it in the table.
    ///
    /// # Errors
    /// `ENOMEM` without a frame for its `shared_info`, `EEXIST` where the number is taken.
    pub fn new<M: Machine>(hv: &Hypervisor<M>, id: DomId, config: DomainConfig) -> Result<Arc<Self>, Refusal> {
        let no_memory = || Refusal::errno(Errno::NoMem, rule::NO_MEMORY_FOR_DOMAIN);
        let hvm = config.hvm.map(|devices| HvmDomain::new(hv, devices).ok_or_else(no_memory)).transpose()?;
        let Some(shared_info) = frames::allocate_shared_for(hv, id) else {
            hvm::discard(hv, hvm);
            return Err(no_memory());
        };
        // A guest with hardware assistance masks its upcalls by its interrupt flag alone.
        for vcpu in 0..if config.hvm.is_some() { 0 } else { XEN_LEGACY_MAX_VCPUS as usize } {
            hv.machine.swap_byte(shared_info, vcpu * INFO_BYTES + 1, 1);
        }
        let permissions = if config.privileged { permissions_of_dom0(hv) } else { Permissions::default() };
        let domain = Arc::new(Self {
            id,
            handle: Mutex::new(config.handle),
            privileged: config.privileged,
            shared_info,
            hvm,
            memory: Mutex::new(DomainMemory::default()),
            events: Mutex::new(EventChannels::new(config.max_event_port)),
            fifo: Default::default(),
            grants: Mutex::new(
                GrantTable::new(config.max_grant_frames, config.max_maptrack_frames)
                    .with_max_version(config.max_grant_version),
            ),
            permissions: Mutex::new(permissions),
            ports: Mutex::default(),
            vcpus: Once::new(),
            assists: AtomicU64::new(0),
            lifecycle: Mutex::new(Lifecycle { paused_by_control: true, ..Lifecycle::default() }),
            loaded: AtomicU64::new(0),
            pause_count: AtomicU32::new(1),
            polling: AtomicU32::new(0),
            weight: AtomicU32::new(USUAL_WEIGHT),
            limiter: Mutex::new(Limiter::default()),
            settings: Mutex::new(config.settings),
        });
        if hv.domains.insert(domain.clone()) {
            return Ok(domain);
        }
        frames::free_shared(hv, shared_info);
        hvm::relinquish(hv, &domain);
        Err(Refusal::errno(Errno::Exist, rule::DOMAIN_EXISTS).with(Evidence::Value(id.0.into())))
    }
}

/// What dom0 may use of this machine.
fn permissions_of_dom0<M: Machine>(hv: &Hypervisor<M>) -> Permissions {
    let address_bits = match hv.machine.cpuid(0x8000_0008, 0).eax & 0xff {
        0 => 36,
        bits => bits,
    };
    Permissions::of_dom0(hv.machine.line_count(), address_bits, hv.options.console_on_serial)
}

/// Gives a domain its vCPUs, once; all are down until one is given a context.
///
/// # Errors
/// `EINVAL` for none, for more than 32, or where it has another number already.
pub fn add_vcpus<M: Machine>(hv: &Hypervisor<M>, domain: &Arc<Domain>, count: u32) -> Result<(), Refusal> {
    if count == 0 || count > XEN_LEGACY_MAX_VCPUS {
        let evidence = Evidence::Limit { asked: count.into(), limit: XEN_LEGACY_MAX_VCPUS.into() };
        return Err(Refusal::errno(Errno::Inval, rule::VCPU_COUNT).with(evidence));
    }
    if let Some(vcpus) = domain.vcpus.get() {
        let evidence = Evidence::Limit { asked: count.into(), limit: vcpus.len() as u64 };
        return if vcpus.len() == count as usize {
            Ok(())
        } else {
            Err(Refusal::errno(Errno::Inval, rule::VCPU_COUNT).with(evidence))
        };
    }
    let vcpus = domain.vcpus.call_once(|| (0..count).map(|id| vcpu(domain, VcpuId(id))).collect::<Vec<_>>());
    for vcpu in vcpus {
        sched::add_vcpu(hv, vcpu);
    }
    Ok(())
}

fn vcpu(domain: &Arc<Domain>, id: VcpuId) -> Arc<Vcpu> {
    let info = (domain.shared_info.0 << 12) + id.0 as u64 * INFO_BYTES as u64;
    Arc::new(Vcpu {
        id,
        domain: domain.clone(),
        info: AtomicU64::new(info),
        work: AtomicU32::new(0),
        stopped: AtomicU32::new(stopped::DOWN),
        initialised: AtomicBool::new(false),
        cpu: AtomicU32::new(0),
        nmi_pending: AtomicU8::new(0),
        schedule: Default::default(),
        timers: Mutex::default(),
        runstate: Mutex::default(),
        inbox: domain.hvm.as_ref().map(|_| Box::new(hvm::Inbox::new(id.0))),
        state: Mutex::new(Some(Box::new(VcpuState {
            hvm: domain.hvm.as_ref().map(hvm::new_vcpu),
            assisted: domain.hvm.as_ref().map(|_| Box::new(hvm::Assisted::new(id.0))),
            ..Default::default()
        }))),
    })
}
