//! The small helpers: what a packed or coded value means.

use pv_abi::arch::{TrapInfo, xen_cr3_to_pfn, xen_pfn_to_cr3};
use pv_abi::cpuid::{is_signature, xen_cpuid_leaf};
use pv_abi::event_channel::{EvtchnStatus, PortState};
use pv_abi::features::bit_by_name;
use pv_abi::grant_table::status_message;
use pv_abi::hvm::callback_via_vector;
use pv_abi::io::xenbus::XenbusState;
use pv_abi::memory::{
    E820_RAM, E820Entry, xenmemf_address_bits, xenmemf_get_address_bits, xenmemf_get_node, xenmemf_node,
};
use pv_abi::sched::ShutdownReason;
use pv_abi::xen::{MMU_PT_UPDATE_PRESERVE_AD, MmuUpdate, SharedInfo, StartInfo, VcpuTimeInfo};
use pv_abi::{DomId, MachineAddr, Mfn, PAGE_SIZE, Pfn, Port, VcpuId, hypercall_page};

#[test]
fn a_port_state_survives_the_wire() {
    let states = [
        PortState::Closed,
        PortState::Unbound { dom: 3 },
        PortState::Interdomain { dom: 7, port: 9 },
        PortState::Pirq(16),
        PortState::Virq(2),
        PortState::Ipi,
    ];
    for state in states {
        let mut status = EvtchnStatus::default();
        status.set_state(state);
        assert_eq!(status.state(), Some(state));
    }
    assert_eq!(EvtchnStatus { status: 99, ..Default::default() }.state(), None);
}

#[test]
fn an_e820_entry_is_20_bytes() {
    let entry = E820Entry { addr: 0x10_0000, size: 0x8000_0000, type_: E820_RAM };
    let bytes = entry.to_bytes();
    assert_eq!(bytes.len(), 20);
    assert_eq!(E820Entry::from_bytes(&bytes), entry);
    assert_eq!(bytes[16..], [1, 0, 0, 0]);
}

#[test]
fn memory_flags_hold_width_and_node() {
    let flags = xenmemf_address_bits(32) | xenmemf_node(1);
    assert_eq!((xenmemf_get_address_bits(flags), xenmemf_get_node(flags)), (32, 1));
    assert_eq!(xenmemf_get_node(xenmemf_address_bits(32)), 255);
}

#[test]
fn an_update_keeps_its_command_in_the_low_bits() {
    assert_eq!(MmuUpdate::normal(0x1008, 5), MmuUpdate { ptr: 0x1008, val: 5 });
    let update = MmuUpdate { ptr: 0x1008 | MMU_PT_UPDATE_PRESERVE_AD, val: 0 };
    assert_eq!((update.command(), update.address()), (MMU_PT_UPDATE_PRESERVE_AD, 0x1008));
}

#[test]
fn a_page_table_address_is_its_frame_shifted() {
    assert_eq!(xen_pfn_to_cr3(0x1234), 0x123_4000);
    assert_eq!(xen_cr3_to_pfn(xen_pfn_to_cr3(0x1234)), 0x1234);
}

#[test]
fn a_trap_entry_packs_ring_and_mask() {
    let entry = TrapInfo::new(14, 3, true, 0xe033, 0xffff_8000_0000_0000);
    assert_eq!((entry.dpl(), entry.masks_events(), entry.flags), (3, true, 7));
    assert!(!TrapInfo::new(3, 3, false, 0xe033, 0).masks_events());
}

#[test]
fn a_start_page_is_known_by_its_magic() {
    let mut page = StartInfo::default();
    assert!(!page.has_magic());
    page.magic[..10].copy_from_slice(b"xen-3.0-x8");
    assert!(page.has_magic());
    page.cmd_line[..5].copy_from_slice(b"quiet");
    assert_eq!(page.command_line(), b"quiet");
    page.cmd_line.fill(b'x');
    assert_eq!(page.command_line().len(), page.cmd_line.len());
}

#[test]
fn the_first_domains_console_shares_a_union_with_the_others() {
    let mut page = StartInfo::default();
    page.set_console_dom0(0x500, 40);
    assert_eq!(page.console_dom0(), (0x500, 40));
    assert_eq!(page.console_domu_mfn, 40 << 32 | 0x500);
}

#[test]
fn system_time_is_scaled_from_the_time_stamp() {
    let time = VcpuTimeInfo {
        tsc_timestamp: 1000,
        system_time: 50,
        tsc_to_system_mul: 1 << 31,
        tsc_shift: 1,
        ..Default::default()
    };
    assert_eq!(time.system_time_at(1000), 50);
    assert_eq!(time.system_time_at(1400), 450);
    assert_eq!(time.system_time_at(900), 50, "an older stamp counts as equal");
    let slower = VcpuTimeInfo { tsc_shift: -1, ..time };
    assert_eq!(slower.system_time_at(1400), 150);
}

#[test]
fn a_vcpus_part_of_the_shared_page_is_64_bytes() {
    assert_eq!(SharedInfo::vcpu_info_offset(3), 192);
}

#[test]
fn features_are_known_by_the_names_of_the_note() {
    assert_eq!(bit_by_name("writable_page_tables"), Some(0));
    assert_eq!(bit_by_name("dom0"), Some(11));
    assert_eq!(bit_by_name("NR_SUBMAPS"), None);
    assert_eq!(bit_by_name(""), None);
}

#[test]
fn every_grant_status_has_words() {
    for status in -13..=0 {
        assert_ne!(status_message(status), "unknown status");
    }
    assert_eq!(status_message(1), "unknown status");
}

#[test]
fn a_xenbus_state_is_one_digit() {
    for number in 0..=8 {
        let state = XenbusState::from_raw(number);
        assert_eq!(state as u32, number);
        assert_eq!(XenbusState::parse(state.as_str().as_bytes()), state);
    }
    for text in [&b""[..], b"9", b"44", b" 4", b"-1"] {
        assert_eq!(XenbusState::parse(text), XenbusState::Unknown);
    }
}

#[test]
fn a_shutdown_reason_has_a_number_below_six() {
    for reason in 0..6 {
        assert_eq!(ShutdownReason::from_raw(reason).map(|reason| reason as u32), Some(reason));
    }
    assert_eq!(ShutdownReason::from_raw(6), None);
}

#[test]
fn the_hypervisors_leaves_spell_its_name() {
    let word = |text: &[u8; 4]| u32::from_le_bytes(*text);
    assert!(is_signature(word(b"XenV"), word(b"MMXe"), word(b"nVMM")));
    assert!(!is_signature(word(b"KVMK"), word(b"VMKV"), word(b"M\0\0\0")));
    assert_eq!(xen_cpuid_leaf(2), 0x4000_0002);
}

#[test]
fn an_upcall_vector_stands_under_its_type() {
    assert_eq!(callback_via_vector(0xf3), 0x0200_0000_0000_00f3);
}

#[test]
fn the_hypercall_page_has_a_stub_every_32_bytes() {
    let mut page = [0; PAGE_SIZE];
    hypercall_page::fill(&mut page);
    assert_eq!(page[..32], hypercall_page::entry(0));
    assert_eq!(page[17 * 32..18 * 32], hypercall_page::entry(17));
    assert_eq!(page[4064..], hypercall_page::entry(127));
}

#[test]
fn the_stub_of_iret_does_not_return() {
    let stub = hypercall_page::entry(23);
    assert_eq!(stub[..11], [0x51, 0x41, 0x53, 0x50, 0xb8, 23, 0, 0, 0, 0x0f, 0x05]);
    assert!(stub[11..].iter().all(|&byte| byte == 0xcc));
}

#[test]
fn frames_and_addresses_turn_into_each_other() {
    assert_eq!(Mfn(3).address(), MachineAddr(0x3000));
    assert_eq!(MachineAddr(0x3abc).mfn(), Mfn(3));
    assert_eq!(MachineAddr(0x3abc).page_offset(), 0xabc);
}

#[test]
fn numbers_print_as_people_write_them() {
    assert_eq!(Pfn(0x1f).to_string(), "0x1f");
    assert_eq!(DomId(7).to_string(), "d7");
    assert_eq!(VcpuId(2).to_string(), "v2");
    assert_eq!(Port(11).to_string(), "11");
}

#[test]
fn only_numbers_below_the_reserved_ones_are_ordinary_domains() {
    assert!(DomId(0x7fef).is_ordinary());
    assert!(!DomId::SELF.is_ordinary());
    assert!(!DomId::INVALID.is_ordinary());
}
