//! Model-specific registers, as PV kernels read and write them.
//!
//! Three are the guest's own (FS base and the two GS bases); a few have a fixed answer or are the CPU's, read-only; a
//! write is accepted where it changes nothing or nothing needs it. All others raise #GP, but a read by a kernel that has
//! no #GP handler yet gives zero where the CPU has the register. Source: abi-needs of Xen 4.17, §3.1.

use pv_abi::arch::{SEGBASE_FS, SEGBASE_GS_KERNEL, SEGBASE_GS_USER};

use super::callbacks::is_canonical;
use super::vector;
use crate::Hypervisor;
use crate::domain::Running;
use crate::hardware::Machine;

const TSC: u32 = 0x10;
const PLATFORM_ID: u32 = 0x17;
const APIC_BASE: u32 = 0x1b;
const MICROCODE_SIGNATURE: u32 = 0x8b;
const MACHINE_CHECK_CAPABILITY: u32 = 0x179;
const MACHINE_CHECK_STATUS: u32 = 0x17a;
const MISC_ENABLE: u32 = 0x1a0;
const PAGE_ATTRIBUTES: u32 = 0x277;
const FIRST_BANK: u32 = 0x400;
const EFER: u32 = 0xc000_0080;
const FS_BASE: u32 = 0xc000_0100;
const GS_BASE: u32 = 0xc000_0101;
const KERNEL_GS_BASE: u32 = 0xc000_0102;
const AMD_COUNTERS: core::ops::RangeInclusive<u32> = 0xc001_0000..=0xc001_0007;
const AMD_HARDWARE_CONFIGURATION: u32 = 0xc001_0015;
const AMD_DECODE_CONFIGURATION: u32 = 0xc001_1029;

/// Machine-check banks that a guest sees; they never report anything.
const BANKS: u32 = 2;
/// The last register of the last bank.
const LAST_BANK: u32 = FIRST_BANK + BANKS * 4 - 1;
/// The page attributes that all guests run with.
const GUEST_PAT: u64 = 0x0000_0501_0007_0406;
/// EFER.SVME.
const SVME: u64 = 1 << 12;

/// Reads a register for the guest's kernel; none for #GP.
pub(super) fn read<M: Machine>(hv: &Hypervisor<M>, running: &Running, msr: u32) -> Option<u64> {
    let machine = &hv.machine;
    let [fs_base, gs_base, user_gs_base] =
        if matches!(msr, FS_BASE..=KERNEL_GS_BASE) { machine.segment_bases(&running.state) } else { [0; 3] };
    match msr {
        FS_BASE => Some(fs_base),
        GS_BASE => Some(gs_base),
        KERNEL_GS_BASE => Some(user_gs_base),
        TSC => Some(machine.tsc()),
        APIC_BASE => Some(0xfee0_0800 | if running.vcpu.id.0 == 0 { 1 << 8 } else { 0 }),
        PAGE_ATTRIBUTES => Some(GUEST_PAT),
        EFER => machine.read_msr(EFER).map(|value| value & !SVME),
        MICROCODE_SIGNATURE | PLATFORM_ID | MISC_ENABLE => machine.read_msr(msr),
        MACHINE_CHECK_CAPABILITY => Some(BANKS.into()),
        MACHINE_CHECK_STATUS => Some(0),
        FIRST_BANK..=LAST_BANK => Some(if msr.is_multiple_of(4) { u64::MAX } else { 0 }),
        AMD_HARDWARE_CONFIGURATION => machine.read_msr(msr).map(|_| 0),
        AMD_DECODE_CONFIGURATION => machine.read_msr(msr).map(|value| value & 2),
        msr if AMD_COUNTERS.contains(&msr) => machine.read_msr(msr).map(|_| 0),
        _ => read_unknown(hv, running, msr),
    }
}

/// A register that the policy does not know: zero for a kernel without a #GP handler, or where its toolstack relaxed
/// the policy, if the CPU has it.
#[cold]
fn read_unknown<M: Machine>(hv: &Hypervisor<M>, running: &Running, msr: u32) -> Option<u64> {
    let early = running.state.traps[usize::from(vector::PROTECTION)].address == 0;
    let relaxed = running.vcpu.domain.settings.lock().relaxed_msrs;
    if !early && !relaxed {
        return None;
    }
    hv.machine.read_msr(msr).map(|_| 0)
}

/// Writes a register for the guest's kernel; none for #GP.
pub(super) fn write<M: Machine>(hv: &Hypervisor<M>, running: &mut Running, msr: u32, value: u64) -> Option<()> {
    let which = match msr {
        FS_BASE => SEGBASE_FS,
        GS_BASE => SEGBASE_GS_KERNEL,
        KERNEL_GS_BASE => SEGBASE_GS_USER,
        _ => return write_other(hv, running, msr, value),
    };
    if !is_canonical(value) {
        return None;
    }
    hv.machine.set_segment_base(&mut running.state, which, value);
    Some(())
}

fn write_other<M: Machine>(hv: &Hypervisor<M>, running: &Running, msr: u32, value: u64) -> Option<()> {
    let unchanged = |current: Option<u64>| (current == Some(value)).then_some(());
    match msr {
        EFER | APIC_BASE | PAGE_ATTRIBUTES | MISC_ENABLE => unchanged(read(hv, running, msr)),
        MICROCODE_SIGNATURE | AMD_HARDWARE_CONFIGURATION | AMD_DECODE_CONFIGURATION => Some(()),
        FIRST_BANK..=LAST_BANK if msr.is_multiple_of(4) => Some(()),
        MACHINE_CHECK_STATUS | FIRST_BANK..=LAST_BANK => (value == 0).then_some(()),
        msr if AMD_COUNTERS.contains(&msr) => hv.machine.read_msr(msr).map(|_| ()),
        _ if running.vcpu.domain.settings.lock().relaxed_msrs => hv.machine.read_msr(msr).map(|_| ()),
        _ => None,
    }
}
