//! What a guest reads of time without asking: its time page, wall clock and runstate area.
//!
//! Each has a version (the runstate area: a flag) that says while it is being written, so a reader on another CPU tries
//! again. A guest can write over what was published and only misleads itself: nothing here is read back but a version.

use core::mem::offset_of;
use core::sync::atomic::Ordering;

use pv_abi::vcpu::{VcpuRunstateInfo, XEN_RUNSTATE_UPDATE};
use pv_abi::xen::{SharedInfo, VMASST_TYPE_RUNSTATE_UPDATE_FLAG, VcpuInfo, VcpuTimeInfo, XEN_PVCLOCK_TSC_STABLE_BIT};
use zerocopy::IntoBytes;

use crate::Hypervisor;
use crate::domain::{Domain, Running, Vcpu};
use crate::hardware::{GuestFault, Machine};
use crate::hvm::walk;

/// Word of `vcpu_info` where the time page starts.
const TIME: usize = offset_of!(VcpuInfo, time) / 8;
/// Words of `shared_info` that hold the wall clock: version and seconds, then nanoseconds and the seconds' upper half.
const WALL_CLOCK: usize = offset_of!(SharedInfo, wc_version) / 8;

/// Where a vCPU's time page was published, and its version.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Published {
    version: u32,
    place: Option<u64>,
}

/// Writes the running vCPU's time page and runstate area.
pub fn update_guest_clock<M: Machine>(hv: &Hypervisor<M>, running: &mut Running) {
    let changed = write_time_page(hv, &running.vcpu);
    let (area, time_area, runstate) = {
        let runstate = running.vcpu.runstate.lock();
        (runstate.area, runstate.time_area, *runstate.entered())
    };
    if area == 0 && time_area == 0 {
        return;
    }
    with_kernel_tables(hv, running, || {
        if area != 0 {
            write_runstate(hv, running, area, runstate);
        }
        if time_area != 0
            && let Some(page) = changed
        {
            write_time_area(hv, running, time_area, page);
        }
    });
}

/// Writes the runstate area of a vCPU that stops running here, while its address space is still loaded.
pub(crate) fn update_runstate_area<M: Machine>(hv: &Hypervisor<M>, running: &Running) {
    let (area, runstate) = {
        let runstate = running.vcpu.runstate.lock();
        (runstate.area, *runstate.entered())
    };
    if area != 0 {
        with_kernel_tables(hv, running, || write_runstate(hv, running, area, runstate));
    }
}

/// Does something while the guest kernel's address space is loaded: areas are addresses in it.
fn with_kernel_tables<M: Machine>(hv: &Hypervisor<M>, running: &Running, work: impl FnOnce()) {
    match (running.state.kernel_mode, running.state.kernel_root, running.state.user_root) {
        (false, Some(kernel), Some(user)) => {
            hv.machine.load_root(kernel);
            work();
            hv.machine.load_root(user);
        }
        _ => work(),
    }
}

/// Writes a vCPU's time page, unless it is there; gives what was written.
///
/// The page is the same for all vCPUs and does not change, so what they compute from it cannot differ.
pub fn write_time_page<M: Machine>(hv: &Hypervisor<M>, vcpu: &Vcpu) -> Option<VcpuTimeInfo> {
    let place = Some(vcpu.info.load(Ordering::Relaxed));
    let mut timers = vcpu.timers.lock();
    let published = &mut timers.clock;
    if published.place == place {
        return None;
    }
    let odd = published.version.wrapping_add(1) | 1;
    *published = Published { version: odd.wrapping_add(1), place };
    let scale = hv.machine.time_scale();
    let page = VcpuTimeInfo {
        version: published.version,
        tsc_timestamp: scale.start,
        tsc_to_system_mul: scale.mul,
        tsc_shift: scale.shift,
        flags: if scale.stable { XEN_PVCLOCK_TSC_STABLE_BIT } else { 0 },
        ..VcpuTimeInfo::default()
    };
    let words: [u64; 4] = zerocopy::transmute!(page);
    let (frame, offset) = vcpu.info_place();
    let first = offset / 8 + TIME;
    hv.machine.write_word(frame, first, odd.into());
    (1..4).for_each(|index| hv.machine.write_word(frame, first + index, words[index]));
    hv.machine.write_word(frame, first, words[0]);
    Some(page)
}

/// Lets the time page count as never published, so that it is written again.
pub(crate) fn publish_again(vcpu: &Vcpu) {
    vcpu.timers.lock().clock.place = None;
}

/// Writes the running vCPU's memory.
fn copy<M: Machine>(hv: &Hypervisor<M>, running: &Running, to: u64, from: &[u8]) -> Result<(), GuestFault> {
    if running.state.hvm.is_some() {
        return walk::copy_to(hv, running, to, from);
    }
    hv.machine.copy_to_guest(to, from)
}

/// Writes a time page to guest memory; a guest that unmapped its area gets none.
fn write_time_area<M: Machine>(hv: &Hypervisor<M>, running: &Running, area: u64, page: VcpuTimeInfo) {
    let mut odd = page;
    odd.version = page.version.wrapping_sub(1);
    if copy(hv, running, area, odd.as_bytes()).is_ok() {
        let _ = copy(hv, running, area, page.version.as_bytes());
    }
}

/// Writes a runstate area to guest memory; a guest that unmapped its area gets none.
fn write_runstate<M: Machine>(hv: &Hypervisor<M>, running: &Running, area: u64, runstate: VcpuRunstateInfo) {
    let entered = offset_of!(VcpuRunstateInfo, state_entry_time) as u64;
    let says_so = running.vcpu.domain.assists.load(Ordering::Relaxed) >> VMASST_TYPE_RUNSTATE_UPDATE_FLAG & 1 != 0;
    if !says_so {
        let _ = copy(hv, running, area, runstate.as_bytes());
        return;
    }
    let mut marked = runstate;
    marked.state_entry_time |= XEN_RUNSTATE_UPDATE;
    let Some(place) = area.checked_add(entered) else {
        return;
    };
    if copy(hv, running, place, marked.state_entry_time.as_bytes()).is_ok()
        && copy(hv, running, area, marked.as_bytes()).is_ok()
    {
        let _ = copy(hv, running, place, runstate.state_entry_time.as_bytes());
    }
}

/// Seconds and nanoseconds since 1970 at system time zero.
pub fn wallclock<M: Machine>(hv: &Hypervisor<M>) -> (u64, u32) {
    hv.timers.wall.lock().unwrap_or_else(|| hv.machine.wall_clock_base())
}

/// Sets the wall clock: at system time `system_ns` it is this many seconds and nanoseconds since 1970. All domains see it.
pub fn set_wallclock<M: Machine>(hv: &Hypervisor<M>, seconds: u64, nanoseconds: u32, system_ns: u64) {
    let then = u128::from(seconds) * 1_000_000_000 + u128::from(nanoseconds);
    let base = then.saturating_sub(system_ns.into());
    *hv.timers.wall.lock() = Some(((base / 1_000_000_000) as u64, (base % 1_000_000_000) as u32));
    for domain in hv.domains.from(pv_abi::DomId::DOM0) {
        update_wallclock(hv, &domain);
    }
}

/// Writes a domain's wall clock: the machine's, and as many seconds more as its toolstack says.
pub fn update_wallclock<M: Machine>(hv: &Hypervisor<M>, domain: &Domain) {
    let (seconds, nanoseconds) = wallclock(hv);
    let seconds = seconds.saturating_add_signed(domain.settings.lock().time_offset_seconds);
    let machine = &hv.machine;
    let version = machine.read_word(domain.shared_info, WALL_CLOCK) as u32;
    let odd = version.wrapping_add(1) | 1;
    let low_seconds = (seconds & 0xffff_ffff) << 32;
    machine.write_word(domain.shared_info, WALL_CLOCK, u64::from(odd) | low_seconds);
    machine.write_word(domain.shared_info, WALL_CLOCK + 1, u64::from(nanoseconds) | seconds >> 32 << 32);
    machine.write_word(domain.shared_info, WALL_CLOCK, u64::from(odd.wrapping_add(1)) | low_seconds);
}
