//! CPUID policies: what a toolstack reads of them, and what becomes of the one it sets.
//!
//! A policy is a list of leaves in order. A toolstack starts from what all guests of a kind may see, and can only take away
//! from it. Source: Xen's `public/domctl.h` (`XEN_DOMCTL_{get,set}_cpu_policy`), `public/sysctl.h`.

use alloc::vec::Vec;

use pv_abi::arch::{CpuidLeaf, XEN_CPUID_NO_SUBLEAF};

use super::cpuid::{BASE, HYPERVISOR, MAX_BASIC, MAX_EXTENDED, visible_leaf};
use crate::hardware::{CpuidResult, Machine};
use crate::hvm;

/// All leaves that guests may see at most, with hardware assistance or without, in order: what a toolstack is given to start
/// from.
pub(crate) fn visible<M: Machine>(machine: &M, assisted: bool) -> Vec<CpuidLeaf> {
    let visible = if assisted { hvm::visible_leaf::<M> } else { visible_leaf::<M> };
    policy_of(machine, |leaf, subleaf| visible(machine, leaf, subleaf))
}

/// The leaves of the CPU itself.
pub(crate) fn host<M: Machine>(machine: &M) -> Vec<CpuidLeaf> {
    policy_of(machine, |leaf, subleaf| if leaf == BASE { CpuidResult::default() } else { machine.cpuid(leaf, subleaf) })
}

fn policy_of<M: Machine>(machine: &M, read: impl Fn(u32, u32) -> CpuidResult) -> Vec<CpuidLeaf> {
    let mut policy = Vec::new();
    let mut push = |leaf: u32, subleaf: Option<u32>| {
        let CpuidResult { eax, ebx, ecx, edx } = read(leaf, subleaf.unwrap_or(0));
        let subleaf = subleaf.unwrap_or(XEN_CPUID_NO_SUBLEAF);
        policy.push(CpuidLeaf { leaf, subleaf, a: eax, b: ebx, c: ecx, d: edx });
    };
    for leaf in 0..=machine.cpuid(0, 0).eax.min(MAX_BASIC) {
        match leaf {
            4 => (0..6).for_each(|subleaf| push(leaf, Some(subleaf))),
            7 | 0xb => (0..2).for_each(|subleaf| push(leaf, Some(subleaf))),
            0xd => (0..8).for_each(|subleaf| push(leaf, Some(subleaf))),
            _ => push(leaf, None),
        }
    }
    push(BASE, None);
    for leaf in 0x8000_0000..=machine.cpuid(0x8000_0000, 0).eax.min(MAX_EXTENDED) {
        push(leaf, None);
    }
    policy
}

/// The policy that results where a toolstack asks for `wanted`: never more than [`visible`] in a feature word;
/// and the highest hypervisor leaf it asks for.
pub(crate) fn merged<M: Machine>(machine: &M, assisted: bool, wanted: &[CpuidLeaf]) -> (Vec<CpuidLeaf>, Option<u32>) {
    let mut limit = None;
    let mut policy = visible(machine, assisted);
    policy.retain(|entry| entry.leaf & 0xffff_0000 != BASE);
    for leaf in wanted {
        if leaf.leaf == BASE {
            limit = (leaf.a != 0).then_some(leaf.a);
            continue;
        }
        let key = (leaf.leaf, leaf.subleaf);
        if let Some(place) = policy.iter_mut().find(|entry| (entry.leaf, entry.subleaf) == key) {
            restrict(place, leaf, if assisted { 0 } else { HYPERVISOR });
        }
    }
    policy.sort_by_key(|entry| (entry.leaf, entry.subleaf));
    (policy, limit)
}

/// Takes what a toolstack asks for in a leaf: feature words only lose bits, not `kept` of leaf 1; the rest is its choice.
fn restrict(most: &mut CpuidLeaf, wanted: &CpuidLeaf, kept: u32) {
    match (most.leaf, most.subleaf) {
        (0 | 0x8000_0000, _) => *most = CpuidLeaf { a: wanted.a.min(most.a), ..*wanted },
        (1, _) => {
            most.a = wanted.a;
            most.b = wanted.b & 0x00ff_ffff;
            most.c &= wanted.c | kept;
            most.d &= wanted.d;
        }
        (7 | 0xd, _) | (0x8000_0008 | 0x8000_0021, _) => {
            most.a = if most.leaf == 0x8000_0008 { wanted.a } else { most.a & wanted.a };
            most.b = if most.leaf == 0xd { most.b } else { most.b & wanted.b };
            most.c = if most.leaf == 0xd { most.c } else { most.c & wanted.c };
            most.d &= wanted.d;
        }
        (0x8000_0001, _) => {
            most.a = wanted.a;
            most.c &= wanted.c;
            most.d &= wanted.d;
        }
        _ => *most = *wanted,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::FakeMachine;
    use crate::traps::cpuid::find;

    #[test]
    fn a_toolstack_can_only_take_features_away() {
        let machine = FakeMachine::new(1);
        machine.set_cpuid(0, 0, CpuidResult { eax: 1, ..Default::default() });
        machine.set_cpuid(1, 0, CpuidResult { ecx: 1 << 0 | 1 << 9, ..Default::default() });
        let wanted = CpuidLeaf { leaf: 1, subleaf: XEN_CPUID_NO_SUBLEAF, a: 7, b: 0, c: 1 << 9 | 1 << 12, d: 0 };
        let (policy, limit) = merged(&machine, false, &[wanted]);
        let leaf = find(&policy, 1, 0).unwrap();
        assert_eq!((leaf.eax, leaf.ecx, limit), (7, 1 << 9 | HYPERVISOR, None));
        // With hardware assistance the mark of a hypervisor is one of them.
        let (policy, _) = merged(&machine, true, &[wanted]);
        assert_eq!(find(&policy, 1, 0).unwrap().ecx & HYPERVISOR, 0);
    }
}
