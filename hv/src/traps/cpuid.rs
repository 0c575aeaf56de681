//! What `CPUID` tells a PV guest.
//!
//! A guest learns of the CPU by the forced-emulation prefix (`ud2`, "xen", `cpuid`), from its kernel and its user space
//! alike. It sees the host's leaves under a mask: what a PV guest cannot use is hidden (paging sizes, virtualization,
//! x2APIC, supervisor protections), and so is what this hypervisor keeps no state for (RDTSCP and RDPID, whose register
//! is not switched; FSGSBASE; the speculation controls), and what an emulated CPU claims and does not keep (fast copies by
//! single bytes). A toolstack may show less still, by a policy of leaves. The
//! hypervisor's own leaves start at 0x40000000. Source: abi-needs of Xen 4.17, §4; Xen's `public/arch-x86/cpuid.h`.

use pv_abi::arch::{CpuidLeaf, XEN_CPUID_NO_SUBLEAF};

use crate::Hypervisor;
use crate::domain::{Domain, Running};
use crate::hardware::{CpuidResult, Machine};
use crate::registers::Registers;

/// `ud2`, "xen", `cpuid`, as a little-endian word.
const FORCED: u64 = 0x00a2_0f6e_6578_0b0f;
/// Bytes of it.
const FORCED_BYTES: u64 = 7;
/// The first of the hypervisor's leaves.
pub(crate) const BASE: u32 = 0x4000_0000;
/// The highest basic leaf that is shown.
pub(super) const MAX_BASIC: u32 = 0xd;
/// The highest extended leaf that is shown.
pub(super) const MAX_EXTENDED: u32 = 0x8000_0021;

/// CPUID.1:ECX: XSAVE exists.
pub(crate) const XSAVE: u32 = 1 << 26;
/// CPUID.1:ECX: XSAVE is switched on.
const OSXSAVE: u32 = 1 << 27;
/// CPUID.1:ECX: this is no bare machine.
pub(super) const HYPERVISOR: u32 = 1 << 31;
/// CPUID.1:EDX and 8000_0001:EDX: SYSENTER exists.
const SEP: u32 = 1 << 11;
/// CPUID.7:EBX: `rep movsb` is the fastest way to copy much.
const ERMS: u32 = 1 << 9;
/// CPUID.7:EDX: and to copy little.
const FSRM: u32 = 1 << 4;
/// The state components that a guest may switch on: x87, SSE, AVX, and the three of AVX-512.
pub(super) const XCR0: u64 = 0xe7;

/// A word with these bits set.
const fn bits<const N: usize>(list: [u32; N]) -> u32 {
    let mut word = 0;
    let mut index = 0;
    while index < N {
        word |= 1 << list[index];
        index += 1;
    }
    word
}

/// Feature words that a PV guest may see at most.
mod shown {
    use super::bits;

    pub(super) const LEAF_1_ECX: u32 = bits([0, 1, 9, 12, 13, 19, 20, 22, 23, 25, 26, 28, 29, 30]);
    pub(super) const LEAF_1_EDX: u32 = bits([0, 2, 4, 5, 6, 7, 8, 9, 11, 14, 15, 16, 19, 22, 23, 24, 25, 26, 27, 28]);
    pub(super) const LEAF_7_EBX: u32 = bits([3, 5, 8, 9, 16, 17, 18, 19, 21, 23, 24, 26, 27, 28, 29, 30, 31]);
    pub(super) const LEAF_7_ECX: u32 = bits([1, 6, 8, 9, 10, 11, 12, 14, 25]);
    pub(super) const LEAF_7_EDX: u32 = bits([2, 3, 4, 8, 10, 14]);
    pub(super) const LEAF_7_1_EAX: u32 = bits([4, 5, 10, 11, 12]);
    pub(super) const LEAF_D_1_EAX: u32 = bits([0, 1, 2]);
    pub(super) const EXTENDED_ECX: u32 = bits([0, 1, 5, 6, 7, 8, 11, 16, 21, 26]);
    pub(super) const EXTENDED_EDX: u32 = bits([0, 2, 4, 5, 6, 7, 8, 9, 11, 14, 15, 16, 20, 22, 23, 24, 25, 29, 30, 31]);
    pub(super) const EXTENDED_8_EBX: u32 = bits([0, 2]);
    pub(super) const EXTENDED_21_EAX: u32 = bits([2]);
}

/// Whether the instruction that is no instruction starts as the forced-emulation prefix does.
#[inline(always)]
pub(crate) fn may_be_forced<M: Machine>(hv: &Hypervisor<M>, registers: &Registers) -> bool {
    matches!(hv.machine.read_from_guest::<[u8; 4]>(registers.rip),
        Ok(start) if u32::from_le_bytes(start) == FORCED as u32)
}

/// Emulates `CPUID` if after the first four bytes the prefix goes on; says whether it did.
#[inline(always)]
pub(crate) fn execute_forced<M: Machine>(hv: &Hypervisor<M>, running: &Running, registers: &mut Registers) -> bool {
    let end = registers.rip.wrapping_add(FORCED_BYTES);
    match hv.machine.read_from_guest::<[u8; 4]>(end.wrapping_sub(4)) {
        Ok(rest) if u32::from_le_bytes(rest) == (FORCED >> 24) as u32 => {}
        _ => return false,
    }
    registers.rip = end;
    execute(hv, running, registers, true);
    true
}

/// Executes `CPUID` for the guest.
#[inline(always)]
pub(super) fn execute<M: Machine>(hv: &Hypervisor<M>, running: &Running, registers: &mut Registers, forced: bool) {
    let result = guest_cpuid(hv, running, registers.rax as u32, registers.rcx as u32, forced);
    registers.rax = result.eax.into();
    registers.rbx = result.ebx.into();
    registers.rcx = result.ecx.into();
    registers.rdx = result.edx.into();
}

/// What the running vCPU sees in a leaf. `forced`: it asks by the prefix.
#[inline(always)]
pub(crate) fn guest_cpuid<M: Machine>(
    hv: &Hypervisor<M>,
    running: &Running,
    leaf: u32,
    subleaf: u32,
    forced: bool,
) -> CpuidResult {
    let domain = &running.vcpu.domain;
    if leaf & 0xffff_0000 == BASE {
        return hypervisor_leaf(hv, domain, leaf, subleaf);
    }
    let mut result = domain_leaf(hv, domain, leaf, subleaf);
    match leaf {
        1 => {
            let has_xsave = result.ecx & XSAVE != 0;
            let on = running.state.cr4 & super::privileged::CR4_OSXSAVE != 0;
            if has_xsave && (on || forced && running.state.kernel_mode) {
                result.ecx |= OSXSAVE;
            }
        }
        0xd if subleaf < 2 && result != CpuidResult::default() => {
            result.ebx = hv.machine.fpu_state_size(running.state.xcr0) as u32;
        }
        _ => {}
    }
    result
}

/// A leaf as the domain's policy has it, or under the mask of all PV guests where it has none.
#[inline(always)]
fn domain_leaf<M: Machine>(hv: &Hypervisor<M>, domain: &Domain, leaf: u32, subleaf: u32) -> CpuidResult {
    if domain.settings.lock().cpu_policy.is_empty() {
        return visible_leaf(&hv.machine, leaf, subleaf);
    }
    find(&domain.settings.lock().cpu_policy, leaf, subleaf).unwrap_or_default()
}

/// A leaf in a policy.
#[inline(never)]
pub(super) fn find(policy: &[CpuidLeaf], leaf: u32, subleaf: u32) -> Option<CpuidResult> {
    let place = policy
        .binary_search_by_key(&(leaf, subleaf), |entry| (entry.leaf, entry.subleaf))
        .or_else(|_| policy.binary_search_by_key(&(leaf, XEN_CPUID_NO_SUBLEAF), |entry| (entry.leaf, entry.subleaf)))
        .ok()?;
    let CpuidLeaf { a, b, c, d, .. } = policy[place];
    Some(CpuidResult { eax: a, ebx: b, ecx: c, edx: d })
}

/// A leaf as PV guests may see it at most.
#[inline(always)]
pub(crate) fn visible_leaf<M: Machine>(machine: &M, leaf: u32, subleaf: u32) -> CpuidResult {
    let host = || machine.cpuid(leaf, subleaf);
    match leaf {
        0 => {
            let host = host();
            CpuidResult { eax: host.eax.min(MAX_BASIC), ..host }
        }
        1 => leaf_1(machine),
        2 => host(),
        4 if subleaf < 8 => host(),
        7 if subleaf < 2 => leaf_7(machine, subleaf),
        0xd => leaf_d(machine, subleaf),
        0x8000_0000 => {
            let host = host();
            CpuidResult { eax: host.eax.min(MAX_EXTENDED), ..host }
        }
        0x8000_0001 => {
            let host = host();
            let mut edx = host.edx & shown::EXTENDED_EDX;
            if machine.is_intel() {
                edx &= bits([11, 20, 29]);
            }
            CpuidResult { eax: host.eax, ebx: 0, ecx: host.ecx & shown::EXTENDED_ECX, edx }
        }
        0x8000_0002..=0x8000_0006 => host(),
        0x8000_0008 => {
            let host = host();
            CpuidResult { eax: host.eax & 0xffff, ebx: host.ebx & shown::EXTENDED_8_EBX, ..Default::default() }
        }
        0x8000_0021 => CpuidResult { eax: host().eax & shown::EXTENDED_21_EAX, ..Default::default() },
        _ => CpuidResult::default(),
    }
}

fn leaf_1<M: Machine>(machine: &M) -> CpuidResult {
    let host = machine.cpuid(1, 0);
    let mut edx = host.edx & shown::LEAF_1_EDX;
    if !machine.is_intel() {
        edx &= !SEP;
    }
    CpuidResult { eax: host.eax, ebx: host.ebx & 0x00ff_ffff, ecx: host.ecx & shown::LEAF_1_ECX | HYPERVISOR, edx }
}

fn leaf_7<M: Machine>(machine: &M, subleaf: u32) -> CpuidResult {
    let host = machine.cpuid(7, subleaf);
    if subleaf == 1 {
        return CpuidResult { eax: host.eax & shown::LEAF_7_1_EAX, ..Default::default() };
    }
    let (mut ebx, mut edx) = (host.ebx & shown::LEAF_7_EBX, host.edx & shown::LEAF_7_EDX);
    if !machine.copies_bytes_fast() {
        ebx &= !ERMS;
        edx &= !FSRM;
    }
    CpuidResult { eax: host.eax.min(1), ebx, ecx: host.ecx & shown::LEAF_7_ECX, edx }
}

/// The state components: sizes are those of what a guest may switch on.
fn leaf_d<M: Machine>(machine: &M, subleaf: u32) -> CpuidResult {
    if machine.cpuid(1, 0).ecx & XSAVE == 0 {
        return CpuidResult::default();
    }
    let components = xcr0_mask(machine);
    match subleaf {
        0 => CpuidResult {
            eax: components as u32,
            ebx: machine.fpu_state_size(components) as u32,
            ecx: machine.fpu_state_size(components) as u32,
            edx: (components >> 32) as u32,
        },
        1 => CpuidResult { eax: machine.cpuid(0xd, 1).eax & shown::LEAF_D_1_EAX, ..Default::default() },
        2..=7 if components & 1 << subleaf != 0 => machine.cpuid(0xd, subleaf),
        _ => CpuidResult::default(),
    }
}

/// The state components that a guest may switch on, on this machine.
pub(crate) fn xcr0_mask<M: Machine>(machine: &M) -> u64 {
    let host = machine.cpuid(0xd, 0);
    let mut mask = (u64::from(host.edx) << 32 | u64::from(host.eax)) & XCR0;
    if mask & 0xe0 != 0xe0 {
        mask &= !0xe0;
    }
    mask
}

/// The hypervisor's own leaves.
#[inline(never)]
fn hypervisor_leaf<M: Machine>(hv: &Hypervisor<M>, domain: &Domain, leaf: u32, subleaf: u32) -> CpuidResult {
    let (limit, mode) = {
        let settings = domain.settings.lock();
        (settings.hypervisor_leaves.unwrap_or(BASE + 5).clamp(BASE + 2, BASE + 5), settings.tsc)
    };
    if leaf > limit {
        return CpuidResult::default();
    }
    match leaf - BASE {
        0 => CpuidResult { eax: limit, ebx: 0x566e_6558, ecx: 0x6558_4d4d, edx: 0x4d4d_566e },
        1 => CpuidResult { eax: 4 << 16 | 17, ..Default::default() },
        2 => CpuidResult { eax: 1, ebx: BASE, ecx: 1, edx: 0 },
        3 => time_leaf(hv, mode, subleaf),
        5 => {
            let highest = hv.machine.frame_count().saturating_sub(1);
            CpuidResult { ebx: 64 - highest.leading_zeros() + 12, ..Default::default() }
        }
        _ => CpuidResult::default(),
    }
}

fn time_leaf<M: Machine>(hv: &Hypervisor<M>, tsc: crate::control::TscSettings, subleaf: u32) -> CpuidResult {
    let scale = hv.machine.time_scale();
    match subleaf {
        0 => CpuidResult { eax: 1 << 1, ebx: tsc.mode, ecx: scale.khz, edx: tsc.incarnation },
        1 => {
            let offset = scaled(scale.mul, scale.shift, scale.start).wrapping_neg();
            CpuidResult {
                eax: offset as u32,
                ebx: (offset >> 32) as u32,
                ecx: scale.mul,
                edx: i32::from(scale.shift).cast_unsigned(),
            }
        }
        2 => CpuidResult { eax: scale.khz, ..Default::default() },
        _ => CpuidResult::default(),
    }
}

/// Ticks in nanoseconds.
fn scaled(mul: u32, shift: i8, ticks: u64) -> u64 {
    let ticks = u128::from(ticks);
    let shifted = if shift < 0 { ticks >> shift.unsigned_abs() } else { ticks << shift };
    ((shifted * u128::from(mul)) >> 32) as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::FakeMachine;

    fn full(leaf: u32, subleaf: u32, machine: &FakeMachine) {
        let all = CpuidResult { eax: u32::MAX, ebx: u32::MAX, ecx: u32::MAX, edx: u32::MAX };
        machine.set_cpuid(leaf, subleaf, all);
    }

    #[test]
    fn what_a_pv_guest_cannot_use_is_hidden() {
        let machine = FakeMachine::new(1);
        for leaf in [1, 7, 0x8000_0001] {
            full(leaf, 0, &machine);
        }
        let leaf_1 = visible_leaf(&machine, 1, 0);
        let hidden = [1, 3, 12, 13, 17, 21, 29, 31];
        assert!(hidden.iter().all(|bit| leaf_1.edx & 1 << bit == 0), "{:x}", leaf_1.edx);
        assert!([3, 5, 17, 21, 24].iter().all(|bit| leaf_1.ecx & 1 << bit == 0));
        assert_eq!(leaf_1.ebx >> 24, 0);
        assert!(leaf_1.ecx & HYPERVISOR != 0);
        let leaf_7 = visible_leaf(&machine, 7, 0);
        assert!([0, 7, 10, 20].iter().all(|bit| leaf_7.ebx & 1 << bit == 0));
        let extended = visible_leaf(&machine, 0x8000_0001, 0);
        assert!([2, 22].iter().all(|bit| extended.ecx & 1 << bit == 0));
        assert_eq!(extended.edx & (1 << 26 | 1 << 27), 0);
    }

    #[test]
    fn leaves_beyond_the_last_are_empty() {
        let machine = FakeMachine::new(1);
        for leaf in [3, 5, 6, 0xa, 0xb, 0x14, 0x8000_000a, 0x8000_001f] {
            full(leaf, 0, &machine);
            assert_eq!(visible_leaf(&machine, leaf, 0), CpuidResult::default(), "{leaf:#x}");
        }
    }

    #[test]
    fn avx512_is_shown_whole_or_not_at_all() {
        let machine = FakeMachine::new(1);
        machine.set_cpuid(0xd, 0, CpuidResult { eax: 0x67, ..Default::default() });
        assert_eq!(xcr0_mask(&machine), 7);
    }
}
