//! Which segment descriptors a guest may have.
//!
//! Descriptor tables are read by the CPU without asking, so each entry is checked when its page becomes part of one and
//! at each later change. Source: AMD APM 2 §4.7, §4.8; Xen: `update_descriptor` and `set_gdt` of PV guests.

const PRESENT: u64 = 1 << 47;
const PRIVILEGE: u64 = 3 << 45;
/// Set for code and data, clear for gates and system segments.
const CODE_OR_DATA: u64 = 1 << 44;
const TYPE: u64 = 0xf << 40;
const CALL_GATE: u64 = 0xc << 40;
/// Of a call gate in 64-bit mode.
const GATE_RESERVED: u64 = 0xff << 32;

/// The first entry of the global descriptor table that is the hypervisor's.
const FIRST_RESERVED_ENTRY: u16 = 14 * 512;
/// The hypervisor's flat 64-bit code segment for guests.
const FLAT_CODE: u16 = 0xe033;
/// Of a selector: it names an entry of the local table.
const LOCAL: u16 = 4;

/// The descriptor as the guest may have it, with the privilege level of guests; none where it may not.
#[must_use]
pub const fn check_descriptor(seen: u64) -> Option<u64> {
    if seen & PRESENT == 0 {
        return Some(seen);
    }
    let allowed = seen | PRIVILEGE;
    if seen & CODE_OR_DATA != 0 || seen & TYPE == 0 {
        return Some(allowed);
    }
    let selector = (seen >> 16) as u16;
    let target_ok = selector & LOCAL != 0 || selector >> 3 < FIRST_RESERVED_ENTRY || selector == FLAT_CODE;
    if seen & TYPE == CALL_GATE && target_ok && seen & GATE_RESERVED == 0 { Some(allowed) } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_and_data_get_the_privilege_of_guests() {
        assert_eq!(check_descriptor(0x00af_9a00_0000_ffff), Some(0x00af_fa00_0000_ffff));
        assert_eq!(check_descriptor(0x00cf_f200_0000_ffff), Some(0x00cf_f200_0000_ffff));
    }

    #[test]
    fn what_is_absent_is_left_alone() {
        assert_eq!(check_descriptor(0), Some(0));
        assert_eq!(check_descriptor(0x0000_0900_1234_5678), Some(0x0000_0900_1234_5678));
    }

    #[test]
    fn system_segments_and_interrupt_gates_are_refused() {
        for kind in [2, 9, 0xb, 0xe, 0xf] {
            assert_eq!(check_descriptor(PRESENT | kind << 40), None, "type {kind:x}");
        }
    }

    #[test]
    fn a_call_gate_leads_only_to_a_guest_segment() {
        let gate = |selector: u64| PRESENT | CALL_GATE | selector << 16;
        assert!(check_descriptor(gate(0x10)).is_some());
        assert!(check_descriptor(gate(0xe033)).is_some());
        assert!(check_descriptor(gate(0xe034)).is_some());
        assert_eq!(check_descriptor(gate(0xe008)), None);
        assert_eq!(check_descriptor(gate(0x10) | 1 << 37), None);
    }
}
