//! Physical interrupts of dom0 on a fake machine.

use pv_abi::errno::Errno;
use pv_abi::event_channel::{BIND_PIRQ_WILL_SHARE, EVTCHNOP_BIND_PIRQ, EVTCHNOP_CLOSE, EvtchnBindPirq, EvtchnClose};
use pv_abi::physdev::{self as abi};
use pv_abi::xen as number;
use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::*;
use crate::fake::{Bed, Event, Guest};
use crate::rules::Rule;

fn ask<T: FromBytes + IntoBytes + Immutable + Copy>(
    bed: &Bed,
    guest: &mut Guest,
    command: u32,
    argument: &mut T,
) -> i64 {
    guest.call_with(bed, number::HYPERVISOR_PHYSDEV_OP, command, argument)
}

fn refused<T: IntoBytes + Immutable>(
    bed: &Bed,
    guest: &mut Guest,
    command: u32,
    argument: &T,
) -> (Rule, Option<Errno>) {
    let place = guest.address(0);
    guest.write(bed, place, argument);
    guest.refused(bed, physdev_op, [command.into(), place, 0, 0, 0])
}

fn gsi(index: i32) -> abi::PhysdevMapPirq {
    abi::PhysdevMapPirq { domid: 0x7ff0, type_: abi::MAP_PIRQ_TYPE_GSI, index, pirq: index, ..Default::default() }
}

fn set_up(bed: &Bed, dom0: &mut Guest, line: i32, level: bool) {
    let mut wiring =
        abi::PhysdevSetupGsi { gsi: line, triggering: level.into(), polarity: level.into(), ..Default::default() };
    assert_eq!(ask(bed, dom0, abi::PHYSDEVOP_SETUP_GSI, &mut wiring), 0);
    assert_eq!(ask(bed, dom0, abi::PHYSDEVOP_MAP_PIRQ, &mut gsi(line)), 0);
}

fn bind_pirq(bed: &Bed, dom0: &mut Guest, pirq: u32, flags: u32) -> Result<u32, i64> {
    let mut argument = EvtchnBindPirq { pirq, flags, ..Default::default() };
    match dom0.call_with(bed, number::HYPERVISOR_EVENT_CHANNEL_OP, EVTCHNOP_BIND_PIRQ, &mut argument) {
        0 => Ok(argument.port),
        errno => Err(errno),
    }
}

fn is_pending(bed: &Bed, domain: &Domain, port: u32) -> bool {
    evtchn::is_pending(&bed.hv, domain, port).unwrap()
}

fn masks(bed: &Bed) -> Vec<Event> {
    bed.hv.machine.take_events().into_iter().filter(|event| matches!(event, Event::MaskLine(..))).collect()
}

#[test]
fn a_level_line_is_masked_from_its_fire_to_the_eoi() {
    let bed = Bed::new(128);
    let mut dom0 = bed.guest(0, 2);
    set_up(&bed, &mut dom0, 20, true);
    let port = bind_pirq(&bed, &mut dom0, 20, 0).unwrap();
    assert_eq!(masks(&bed), [Event::MaskLine(20, false)]);
    on_line(&bed.hv, 20);
    assert!(is_pending(&bed, &dom0.domain, port));
    assert_eq!(masks(&bed), [Event::MaskLine(20, true)]);
    assert_eq!(ask(&bed, &mut dom0, abi::PHYSDEVOP_EOI, &mut abi::PhysdevEoi { irq: 20 }), 0);
    assert_eq!(masks(&bed), [Event::MaskLine(20, false)]);
    assert_eq!(ask(&bed, &mut dom0, abi::PHYSDEVOP_EOI, &mut abi::PhysdevEoi { irq: 20 }), 0);
    assert_eq!(masks(&bed), [], "an EOI too many does nothing");
}

#[test]
fn an_edge_needs_no_eoi() {
    let bed = Bed::new(128);
    let mut dom0 = bed.guest(0, 2);
    set_up(&bed, &mut dom0, 4, false);
    let port = bind_pirq(&bed, &mut dom0, 4, 0).unwrap();
    masks(&bed);
    on_line(&bed.hv, 4);
    assert!(is_pending(&bed, &dom0.domain, port));
    assert_eq!(masks(&bed), []);
}

#[test]
fn a_closed_port_masks_its_line() {
    let bed = Bed::new(128);
    let mut dom0 = bed.guest(0, 2);
    set_up(&bed, &mut dom0, 20, true);
    let port = bind_pirq(&bed, &mut dom0, 20, 0).unwrap();
    masks(&bed);
    let mut close = EvtchnClose { port };
    assert_eq!(dom0.call_with(&bed, number::HYPERVISOR_EVENT_CHANNEL_OP, EVTCHNOP_CLOSE, &mut close), 0);
    assert_eq!(masks(&bed), [Event::MaskLine(20, true)]);
    assert!(bind_pirq(&bed, &mut dom0, 20, 0).is_ok(), "and can be bound again");
}

#[test]
fn pirqs_that_cannot_be_bound_say_why() {
    let bed = Bed::new(256);
    let mut dom0 = bed.guest(0, 2);
    let rule_of = |domain: &Domain, number, shares| bind(&bed.hv, domain, number, 9, shares).unwrap_err().rule;
    assert_eq!(rule_of(&dom0.domain, 20, false), rule::PIRQ_NOT_PERMITTED);
    assert_eq!(rule_of(&dom0.domain, PIRQS, false), rule::NO_SUCH_PIRQ);
    set_up(&bed, &mut dom0, 20, true);
    bind_pirq(&bed, &mut dom0, 20, BIND_PIRQ_WILL_SHARE).unwrap();
    assert_eq!(rule_of(&dom0.domain, 20, true), rule::PIRQ_BOUND);
    let other = bed.domain(2, 1);
    assert_eq!(map_line(&bed.hv, &other, &other, 20, None).unwrap_err().rule, rule::PIRQ_NOT_PERMITTED);
    other.permissions.lock().interrupts.add(20, 20);
    assert_eq!(map_line(&bed.hv, &other, &other, 20, None).unwrap(), 20);
    assert_eq!(rule_of(&other, 20, false), rule::PIRQ_NOT_SHARED);
    bind(&bed.hv, &other, 20, 5, true).unwrap();
    masks(&bed);
    on_line(&bed.hv, 20);
    assert_eq!(masks(&bed), [Event::MaskLine(20, true)]);
    end(&bed.hv, &other, 20).unwrap();
    assert_eq!(masks(&bed), [], "the other has not said that it is done");
    end(&bed.hv, &dom0.domain, 20).unwrap();
    assert_eq!(masks(&bed), [Event::MaskLine(20, false)]);
}

#[test]
fn a_domain_that_goes_leaves_its_interrupts() {
    let bed = Bed::new(256);
    let mut dom0 = bed.guest(0, 2);
    set_up(&bed, &mut dom0, 20, true);
    bind_pirq(&bed, &mut dom0, 20, 0).unwrap();
    on_line(&bed.hv, 20);
    release_all(&bed.hv, &dom0.domain);
    assert!(bed.hv.interrupts.table.lock().pirqs.is_empty());
    assert_eq!(masks(&bed).last(), Some(&Event::MaskLine(20, true)));
}

#[test]
fn lines_and_numbers_are_checked() {
    let bed = Bed::new(128);
    let mut dom0 = bed.guest(0, 2);
    set_up(&bed, &mut dom0, 20, true);
    let again = abi::PhysdevSetupGsi { gsi: 20, ..Default::default() };
    assert_eq!(refused(&bed, &mut dom0, abi::PHYSDEVOP_SETUP_GSI, &again), (rule::LINE_SET_UP, Some(Errno::Exist)));
    let none = abi::PhysdevSetupGsi { gsi: 24, ..Default::default() };
    assert_eq!(refused(&bed, &mut dom0, abi::PHYSDEVOP_SETUP_GSI, &none), (rule::NO_SUCH_LINE, Some(Errno::Inval)));
    let taken = abi::PhysdevMapPirq { pirq: 20, ..gsi(21) };
    assert_eq!(refused(&bed, &mut dom0, abi::PHYSDEVOP_MAP_PIRQ, &taken), (rule::PIRQ_TAKEN, Some(Errno::Inval)));
    let kind = abi::PhysdevMapPirq { type_: 9, ..gsi(21) };
    assert_eq!(refused(&bed, &mut dom0, abi::PHYSDEVOP_MAP_PIRQ, &kind), (rule::MAP_KIND, Some(Errno::Inval)));
    assert_eq!(ask(&bed, &mut dom0, abi::PHYSDEVOP_MAP_PIRQ, &mut gsi(20)), 0, "mapping a line again is the same");
    let eoi = abi::PhysdevEoi { irq: 9 };
    assert_eq!(refused(&bed, &mut dom0, abi::PHYSDEVOP_EOI, &eoi), (rule::NO_SUCH_PIRQ, Some(Errno::Inval)));
    let mut vector = abi::PhysdevIrq { irq: 21, vector: 0 };
    assert_eq!(ask(&bed, &mut dom0, abi::PHYSDEVOP_ALLOC_IRQ_VECTOR, &mut vector), 0);
    assert_eq!(vector.vector, 21);
}

#[test]
fn privileges_of_input_and_output_are_the_guests_own() {
    let bed = Bed::new(128);
    let mut guest = bed.guest(1, 2);
    assert_eq!(ask(&bed, &mut guest, abi::PHYSDEVOP_SET_IOPL, &mut abi::PhysdevSetIopl { iopl: 1 }), 0);
    assert_eq!(guest.running.state.iopl, 1);
    let bad = abi::PhysdevSetIopl { iopl: 4 };
    assert_eq!(refused(&bed, &mut guest, abi::PHYSDEVOP_SET_IOPL, &bad), (rule::IOPL_RANGE, Some(Errno::Inval)));
    let bad = abi::PhysdevSetIobitmap { nr_ports: 65537, ..Default::default() };
    assert_eq!(
        refused(&bed, &mut guest, abi::PHYSDEVOP_SET_IOBITMAP, &bad),
        (rule::IO_BITMAP_RANGE, Some(Errno::Inval))
    );
    let line = abi::PhysdevSetupGsi::default();
    let denied = refused(&bed, &mut guest, abi::PHYSDEVOP_SETUP_GSI, &line);
    assert_eq!(denied, (crate::rules::core::PRIVILEGED, Some(Errno::Perm)));
}

#[test]
fn the_page_of_eois_shows_level_lines() {
    let bed = Bed::new(128);
    let mut dom0 = bed.guest(0, 3);
    set_up(&bed, &mut dom0, 20, true);
    bind_pirq(&bed, &mut dom0, 20, 0).unwrap();
    let mut query = abi::PhysdevIrqStatusQuery { irq: 20, flags: 0 };
    assert_eq!(ask(&bed, &mut dom0, abi::PHYSDEVOP_IRQ_STATUS_QUERY, &mut query), 0);
    assert_eq!(query.flags, abi::XENIRQSTAT_NEEDS_EOI);
    let page = dom0.frames[2];
    let mut map = abi::PhysdevPirqEoiGmfn { gmfn: page.0 };
    assert_eq!(ask(&bed, &mut dom0, abi::PHYSDEVOP_PIRQ_EOI_GMFN_V2, &mut map), 0);
    assert_eq!(bed.hv.machine.read_word(page, 0), 1 << 20);
    assert_eq!(ask(&bed, &mut dom0, abi::PHYSDEVOP_IRQ_STATUS_QUERY, &mut query), 0);
    assert_eq!(query.flags, 0);
    let twice = refused(&bed, &mut dom0, abi::PHYSDEVOP_PIRQ_EOI_GMFN_V1, &map);
    assert_eq!(twice, (rule::EOI_MAP_ONCE, Some(Errno::Busy)));
    release_all(&bed.hv, &dom0.domain);
}

#[test]
fn the_io_apic_shows_its_version_and_keeps_its_routing() {
    let bed = Bed::new(128);
    let mut dom0 = bed.guest(0, 2);
    let mut read = abi::PhysdevApic { apic_physbase: 0xfec0_0000, reg: 1, value: 0 };
    assert_eq!(ask(&bed, &mut dom0, abi::PHYSDEVOP_APIC_READ, &mut read), 0);
    assert_eq!(read.value, 23 << 16 | 0x20);
    let write = abi::PhysdevApic { reg: 0x10, ..read };
    assert_eq!(refused(&bed, &mut dom0, abi::PHYSDEVOP_APIC_WRITE, &write), (rule::APIC_REGISTER, Some(Errno::Perm)));
    let mut reset = abi::PhysdevDbgpOp { op: 3, ..Default::default() };
    assert_eq!(ask(&bed, &mut dom0, abi::PHYSDEVOP_DBGP_OP, &mut reset), 0, "there is no debug port to reset");
}

/// Puts a device at 00:03.0: a 32-bit MSI capability at 0x50, and an MSI-X table of four entries at 0x2000 of the memory
/// at 0xfebf0000.
fn device(bed: &Bed) {
    let registers = [
        (0x00, 0x1041_1af4),
        (0x04, 0x0010_0002),
        (0x10, 0xc041),
        (0x14, 0xfebf_0000),
        (0x34, 0x40),
        (0x40, 0x0003_5011),
        (0x44, 0x2001),
        (0x50, 0x0000_0005),
        (0x54, 0),
        (0x58, 0),
    ];
    for (register, value) in registers {
        bed.hv.machine.set_config(0, 24, register, value);
    }
}

fn config(bed: &Bed, register: u8) -> u32 {
    Function { bus: 0, devfn: 24 }.read(&bed.hv, register, 4)
}

#[test]
fn an_entry_of_a_devices_table_is_found_written_and_switched_on() {
    let bed = Bed::new(128);
    device(&bed);
    let mut dom0 = bed.guest(0, 2);
    let mut wanted =
        abi::PhysdevMapPirq { domid: 0x7ff0, devfn: 24, pirq: -1, entry_nr: 2, table_base: 1, ..Default::default() };
    assert_eq!(ask(&bed, &mut dom0, abi::PHYSDEVOP_MAP_PIRQ, &mut wanted), 0);
    let entry = 0xfebf_2020;
    let read = |offset: u64| bed.hv.machine.read_device(pv_abi::MachineAddr(entry + offset));
    assert_eq!([read(0), read(8), read(12)], [0xfee0_0000, 0x40, 1]);
    assert_eq!(config(&bed, 0x40) >> 16, 0x8003, "on, and no longer all masked");
    assert_eq!(config(&bed, 0x04) & 1 << 10, 1 << 10, "the pin is switched off");
    bind_pirq(&bed, &mut dom0, wanted.pirq.cast_unsigned(), 0).unwrap();
    assert_eq!(read(12), 0);
    let mut unmap = abi::PhysdevUnmapPirq { domid: 0x7ff0, pirq: wanted.pirq, ..Default::default() };
    assert_eq!(ask(&bed, &mut dom0, abi::PHYSDEVOP_UNMAP_PIRQ, &mut unmap), 0);
    assert_eq!(config(&bed, 0x40) >> 16, 0x0003);
    let beyond = abi::PhysdevMapPirq { pirq: -1, entry_nr: 4, ..wanted };
    assert_eq!(refused(&bed, &mut dom0, abi::PHYSDEVOP_MAP_PIRQ, &beyond), (rule::MESSAGE_ENTRY, Some(Errno::Inval)));
    bed.hv.machine.set_config(0, 24, 4, 0x0010_0000);
    let hidden = abi::PhysdevMapPirq { pirq: -1, ..wanted };
    assert_eq!(refused(&bed, &mut dom0, abi::PHYSDEVOP_MAP_PIRQ, &hidden), (rule::MESSAGE_ENTRY, Some(Errno::Nxio)));
}

#[test]
fn the_one_message_of_a_device_is_written_and_restored() {
    let bed = Bed::new(128);
    device(&bed);
    let mut dom0 = bed.guest(0, 2);
    let mut wanted = abi::PhysdevMapPirq { domid: 0x7ff0, devfn: 24, pirq: -1, ..Default::default() };
    assert_eq!(ask(&bed, &mut dom0, abi::PHYSDEVOP_MAP_PIRQ, &mut wanted), 0);
    bind_pirq(&bed, &mut dom0, wanted.pirq.cast_unsigned(), 0).unwrap();
    let programmed = [config(&bed, 0x50), config(&bed, 0x54), config(&bed, 0x58)];
    assert_eq!(programmed, [0x0001_0005, 0xfee0_0000, 0x40]);
    bed.hv.machine.set_config(0, 24, 0x50, 5);
    bed.hv.machine.set_config(0, 24, 0x54, 0);
    let mut function = abi::PhysdevRestoreMsi { bus: 0, devfn: 24 };
    assert_eq!(ask(&bed, &mut dom0, abi::PHYSDEVOP_RESTORE_MSI, &mut function), 0);
    assert_eq!([config(&bed, 0x50), config(&bed, 0x54), config(&bed, 0x58)], programmed);
}

#[test]
fn a_device_without_the_capability_has_no_messages() {
    let bed = Bed::new(128);
    let mut dom0 = bed.guest(0, 2);
    let msi =
        abi::PhysdevMapPirq { domid: 0x7ff0, type_: abi::MAP_PIRQ_TYPE_MSI, pirq: -1, devfn: 24, ..Default::default() };
    let missing = refused(&bed, &mut dom0, abi::PHYSDEVOP_MAP_PIRQ, &msi);
    assert_eq!(missing, (rule::NO_MESSAGE_CAPABILITY, Some(Errno::NoDev)));
    let several = abi::PhysdevMapPirq { type_: abi::MAP_PIRQ_TYPE_MULTI_MSI, entry_nr: 4, ..msi };
    let refused_several = refused(&bed, &mut dom0, abi::PHYSDEVOP_MAP_PIRQ, &several);
    assert_eq!(refused_several, (rule::ONE_MESSAGE, Some(Errno::OpNotSupp)));
    let far = abi::PhysdevMapPirq { type_: abi::MAP_PIRQ_TYPE_MSI_SEG, bus: 1 << 16, ..msi };
    assert_eq!(refused(&bed, &mut dom0, abi::PHYSDEVOP_MAP_PIRQ, &far).1, Some(Errno::NoDev));
}

fn message(entry: u64) -> Message {
    let function = Function { bus: 0, devfn: 24 };
    Message { function, kind: message::Kind::Entry { capability: 0x40, entry: pv_abi::MachineAddr(entry) } }
}

#[test]
fn a_message_is_written_masked_and_opened_when_it_is_bound() {
    let bed = Bed::new(128);
    let dom0 = bed.guest(0, 2);
    let entry = 0xfebf_1000;
    let number = map_message(&bed.hv, &dom0.domain, message(entry), None).unwrap();
    assert_eq!(number, PIRQS - 1);
    let read = |offset: u64| bed.hv.machine.read_device(pv_abi::MachineAddr(entry + offset));
    assert_eq!([read(0), read(4), read(8), read(12)], [0xfee0_0000, 0, 0x40, 1]);
    let port = evtchn::bind_pirq(&bed.hv, &dom0.domain, number, 0).unwrap();
    assert_eq!(read(12), 0);
    on_message(&bed.hv, 0);
    assert!(is_pending(&bed, &dom0.domain, port));
    let twice = map_message(&bed.hv, &dom0.domain, message(entry), None).unwrap_err();
    assert_eq!((twice.rule, twice.as_errno()), (rule::MESSAGE_TAKEN, Some(Errno::Exist)));
    unmap(&bed.hv, &dom0.domain, number).unwrap();
    assert_eq!(read(12), 1);
}

#[test]
fn vectors_and_numbers_run_out_with_a_reason() {
    let bed = Bed::new(128);
    let dom0 = bed.guest(0, 2);
    let refusal = (0..).find_map(|n| map_message(&bed.hv, &dom0.domain, message(0xfebf_0000 + n * 16), None).err());
    assert_eq!(refusal.unwrap().rule, rule::NO_FREE_PIRQ);
}

#[test]
fn the_consoles_line_can_be_mapped_but_not_bound() {
    let bed = Bed::new(128);
    let mut dom0 = bed.guest(0, 2);
    bed.hv.interrupts.table.lock().lines.push(Line { gsi: 4, mode: LineMode { level: false, low: false }, own: true });
    assert_eq!(ask(&bed, &mut dom0, abi::PHYSDEVOP_MAP_PIRQ, &mut gsi(4)), 0);
    let refusal = bind(&bed.hv, &dom0.domain, 4, 9, true).unwrap_err();
    assert_eq!((refusal.rule, refusal.as_errno()), (rule::LINE_OF_CONSOLE, Some(Errno::Busy)));
}
