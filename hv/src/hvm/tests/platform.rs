//! A guest with a chipset: lines, interrupts, clocks, the devices' registers, and what device models have of it.

use pv_abi::arch::{XEN_X86_EMU_ALL, XEN_X86_EMU_VPCI};
use pv_abi::hvm::HVM_PARAM_ACPI_IOPORTS_LOCATION;
use pv_abi::hvm::dm_op::{
    DmOpSetIsaIrqLevel, DmOpSetPciIntxLevel, DmOpSetPciLinkRoute, XEN_DMOP_IO_RANGE_MEMORY, XEN_DMOP_SET_ISA_IRQ_LEVEL,
    XEN_DMOP_SET_PCI_INTX_LEVEL, XEN_DMOP_SET_PCI_LINK_ROUTE,
};
use pv_abi::hvm::ioreq::{IOREQ_TYPE_COPY, STATE_IORESP_READY};

use super::apic::said;
use super::ioreq::{answer, dm, range, request_at, served};
use super::*;

const WHOLE: u32 = XEN_X86_EMU_ALL & !XEN_X86_EMU_VPCI;
const IO_APIC: u64 = 0xfec0_0000;
const APIC: u64 = 0xfee0_0000;

fn whole(bed: &Bed, dom0: &mut Guest) -> Arc<Domain> {
    let arch = ArchDomainconfig { emulation_flags: WHOLE, misc_flags: 0 };
    made_as(bed, dom0, &dom::DomctlCreatedomain { arch, ..request() })
}

impl Pvh {
    /// `out` of a byte.
    fn out(&mut self, bed: &Bed, port: u16, byte: u8) {
        assert_eq!(self.port(bed, port, 1, false, byte.into()), Next::Guest, "{port:#x}");
    }

    fn input(&mut self, bed: &Bed, port: u16) -> u8 {
        assert_eq!(self.port(bed, port, 1, true, 0), Next::Guest, "{port:#x}");
        self.registers.rax as u8
    }

    /// `mov [rbx], eax` or `mov eax, [rbx]` at an address without memory.
    fn store(&mut self, bed: &Bed, physical: u64, value: u32) -> Next {
        self.registers.rax = value.into();
        self.vmcb().exit_info = [6, physical];
        self.exit(bed, 0x400, &[0x89, 0x03])
    }

    fn load(&mut self, bed: &Bed, physical: u64) -> u32 {
        self.vmcb().exit_info = [4, physical];
        assert_eq!(self.exit(bed, 0x400, &[0x8b, 0x03]), Next::Guest);
        self.registers.rax as u32
    }

    fn register(&mut self, bed: &Bed, index: u32, value: u32) {
        assert_eq!(self.store(bed, IO_APIC, index), Next::Guest);
        assert_eq!(self.store(bed, IO_APIC + 0x10, value), Next::Guest);
    }

    /// The 8259s as kernels start them, their interrupts from 30h on, all lines open; the first local pin passes them.
    fn with_pics(mut self, bed: &Bed) -> Self {
        for (port, byte) in [(0x20, 0x11), (0x21, 0x30), (0x21, 4), (0x21, 1), (0xa0, 0x11), (0xa1, 0x38), (0xa1, 2)] {
            self.out(bed, port, byte);
        }
        for (port, byte) in [(0xa1, 1), (0x21, 0), (0xa1, 0)] {
            self.out(bed, port, byte);
        }
        assert_eq!(self.store(bed, APIC + 0xf0, 0x1ff), Next::Guest);
        assert_eq!(self.store(bed, APIC + 0x350, 0x700), Next::Guest);
        self.registers.rflags |= flags::IF;
        self
    }
}

fn isa(bed: &Bed, dom0: &mut Guest, id: u16, isa_irq: u8, level: u8) -> i64 {
    dm(bed, dom0, id, XEN_DMOP_SET_ISA_IRQ_LEVEL, &DmOpSetIsaIrqLevel { isa_irq, level }).0
}

#[test]
fn there_are_two_sets_of_devices() {
    let bed = bed();
    let mut dom0 = bed.guest(0, 6);
    let _ = broken_rules();
    for emulation_flags in [0, WHOLE & !2, XEN_X86_EMU_ALL] {
        let arch = ArchDomainconfig { emulation_flags, misc_flags: 0 };
        let asked = dom::DomctlCreatedomain { arch, ..request() };
        assert_eq!(ask(&bed, &mut dom0, dom::XEN_DOMCTL_CREATEDOMAIN, 0, &asked).0, Errno::OpNotSupp.as_return());
        assert_eq!(broken_rules(), ["HVM-35"]);
    }
    whole(&bed, &mut dom0);
}

#[test]
fn a_line_interrupts_through_the_8259s_once_interrupts_are_on() {
    let bed = bed();
    let mut dom0 = bed.guest(0, 6);
    let domain = whole(&bed, &mut dom0);
    let mut guest = Pvh::new(&bed, &domain).with_pics(&bed);
    guest.registers.rflags &= !flags::IF;
    assert_eq!(isa(&bed, &mut dom0, domain.id.0, 4, 1), 0);
    assert_eq!(guest.enter(&bed), None);
    assert_ne!(guest.vmcb().interrupt_control & interrupt::WINDOW, 0, "it stops as soon as it takes interrupts");
    guest.registers.rflags |= flags::IF;
    assert_eq!(guest.enter(&bed), Some(0x34));
    assert_eq!(guest.enter(&bed), None, "in service");
    guest.out(&bed, 0x20, 0x20);
    assert_eq!(isa(&bed, &mut dom0, domain.id.0, 4, 0), 0);
    assert_eq!(guest.enter(&bed), None, "an edge");
    // With the pin masked, nothing comes.
    assert_eq!(guest.store(&bed, APIC + 0x350, 0x1_0700), Next::Guest);
    assert_eq!(isa(&bed, &mut dom0, domain.id.0, 4, 1), 0);
    assert_eq!(guest.enter(&bed), None);
}

#[test]
fn a_pin_of_a_device_interrupts_through_the_io_apic_until_it_is_ended() {
    let bed = bed();
    let mut dom0 = bed.guest(0, 6);
    let domain = whole(&bed, &mut dom0);
    let id = domain.id.0;
    let mut guest = Pvh::new(&bed, &domain).with_pics(&bed);
    guest.register(&bed, 0x10 + 2 * 28, 0xa0a1);
    let level = |dom0: &mut Guest, level| {
        let pin = DmOpSetPciIntxLevel { device: 3, level, ..DmOpSetPciIntxLevel::new_zeroed() };
        dm(&bed, dom0, id, XEN_DMOP_SET_PCI_INTX_LEVEL, &pin).0
    };
    assert_eq!(level(&mut dom0, 1), 0);
    assert_eq!(guest.enter(&bed), Some(0xa1));
    assert_eq!(guest.load(&bed, APIC + 0x180 + 0x50), 2, "a level");
    assert_eq!(guest.store(&bed, APIC + 0xb0, 0), Next::Guest);
    assert_eq!(guest.enter(&bed), Some(0xa1), "it is still high");
    assert_eq!(level(&mut dom0, 0), 0);
    assert_eq!(guest.store(&bed, APIC + 0xb0, 0), Next::Guest);
    assert_eq!(guest.enter(&bed), None);
    // The same pin, by its link and the 8259s.
    assert_eq!(
        dm(&bed, &mut dom0, id, XEN_DMOP_SET_PCI_LINK_ROUTE, &DmOpSetPciLinkRoute { link: 3, isa_irq: 11 }).0,
        0
    );
    guest.register(&bed, 0x10 + 2 * 28, 0x1_0000);
    assert_eq!(level(&mut dom0, 1), 0);
    assert_eq!(guest.enter(&bed), Some(0x3b));
}

#[test]
fn lines_that_there_are_not_are_refused() {
    let bed = bed();
    let mut dom0 = bed.guest(0, 6);
    let id = whole(&bed, &mut dom0).id.0;
    let _ = broken_rules();
    let inval = Errno::Inval.as_return();
    assert_eq!([isa(&bed, &mut dom0, id, 16, 1), isa(&bed, &mut dom0, id, 1, 2)], [inval; 2]);
    for pin in [
        DmOpSetPciIntxLevel { bus: 1, ..DmOpSetPciIntxLevel::new_zeroed() },
        DmOpSetPciIntxLevel { device: 32, ..DmOpSetPciIntxLevel::new_zeroed() },
        DmOpSetPciIntxLevel { intx: 4, ..DmOpSetPciIntxLevel::new_zeroed() },
        DmOpSetPciIntxLevel { level: 2, ..DmOpSetPciIntxLevel::new_zeroed() },
    ] {
        assert_eq!(dm(&bed, &mut dom0, id, XEN_DMOP_SET_PCI_INTX_LEVEL, &pin).0, inval);
    }
    for link in [DmOpSetPciLinkRoute { link: 4, isa_irq: 1 }, DmOpSetPciLinkRoute { link: 0, isa_irq: 16 }] {
        assert_eq!(dm(&bed, &mut dom0, id, XEN_DMOP_SET_PCI_LINK_ROUTE, &link).0, inval);
    }
    assert_eq!(broken_rules(), ["HVM-27"; 8]);
}

#[test]
fn the_timer_wakes_a_guest_that_halts() {
    let bed = bed();
    let mut dom0 = bed.guest(0, 6);
    let domain = whole(&bed, &mut dom0);
    let mut guest = Pvh::new(&bed, &domain).with_pics(&bed);
    for (port, byte) in [(0x43, 0x34), (0x40, 0x9c), (0x40, 0x2e)] {
        guest.out(&bed, port, byte);
    }
    assert_eq!(guest.exit(&bed, 0x78, &[0xf4]), Next::Switch);
    assert_eq!(guest.vcpu().stopped.load(Ordering::SeqCst), stopped::BLOCKED);
    bed.hv.machine.advance(10_100_000);
    crate::time::on_timer(&bed.hv);
    assert_eq!(guest.vcpu().stopped.load(Ordering::SeqCst), 0);
    assert_eq!(guest.enter(&bed), Some(0x30));
    guest.out(&bed, 0x20, 0x20);
    // One that is there already does not let it halt.
    bed.hv.machine.advance(10_000_000);
    crate::time::on_timer(&bed.hv);
    let _ = guest.exit(&bed, 0x78, &[0xf4]);
    assert_eq!(guest.vcpu().stopped.load(Ordering::SeqCst), 0);
}

#[test]
fn acpis_ports_are_where_the_toolstack_says() {
    let bed = bed();
    let mut dom0 = bed.guest(0, 6);
    let domain = whole(&bed, &mut dom0);
    let mut guest = Pvh::new(&bed, &domain);
    bed.hv.machine.advance(1_000_000_000);
    assert_eq!(guest.port(&bed, 0xb008, 4, true, 0), Next::Guest);
    assert_eq!(guest.registers.rax, 0xffff_ffff, "not here yet");
    let mut param =
        HvmParam { domid: domain.id.0, index: HVM_PARAM_ACPI_IOPORTS_LOCATION, value: 2, ..FromZeros::new_zeroed() };
    let set = |dom0: &mut Guest, param: &mut HvmParam| {
        dom0.call_with(&bed, number::HYPERVISOR_HVM_OP, HVMOP_SET_PARAM, param)
    };
    assert_eq!(set(&mut dom0, &mut param), Errno::Inval.as_return());
    param.value = 1;
    assert_eq!(set(&mut dom0, &mut param), 0);
    assert_eq!(guest.port(&bed, 0xb008, 4, true, 0), Next::Guest);
    assert_ne!(guest.registers.rax, 0xffff_ffff);
    guest.out(&bed, 0x70, 0x0d);
    assert_eq!(guest.input(&bed, 0x71), 0x80, "the clock's battery is good");
}

#[test]
fn registers_in_memory_are_a_device_models_or_float() {
    let bed = bed();
    let mut dom0 = bed.guest(0, 6);
    let domain = whole(&bed, &mut dom0);
    let id = domain.id.0;
    let (page, port) = served(&bed, &mut dom0, id);
    assert_eq!(range(&bed, &mut dom0, id, XEN_DMOP_IO_RANGE_MEMORY, (0xf000_0000, 0xf000_0fff), true), 0);
    let mut guest = Pvh::new(&bed, &domain);
    assert_eq!(guest.load(&bed, 0xe000_0000), u32::MAX);
    assert_eq!(guest.store(&bed, 0xe000_0000, 5), Next::Guest);
    // or dword [rbx], 3: it asks for a read, and then for a write.
    guest.vmcb().exit_info = [6, 0xf000_0010];
    assert_eq!(guest.exit(&bed, 0x400, &[0x83, 0x0b, 3]), Next::Switch);
    let request = request_at(&bed, page);
    assert_eq!((request.type_, request.addr, request.size, request.is_read()), (IOREQ_TYPE_COPY, 0xf000_0010, 4, true));
    answer(&bed, &mut dom0, page, port, 0x10, STATE_IORESP_READY);
    assert_eq!(guest.go_on(&bed), Next::Switch);
    let request = request_at(&bed, page);
    assert_eq!((request.addr, request.data, request.is_read()), (0xf000_0010, 0x13, false));
    assert_eq!(guest.registers.rip, CODE);
    answer(&bed, &mut dom0, page, port, 0, STATE_IORESP_READY);
    assert_eq!(guest.go_on(&bed), Next::Guest);
    assert_eq!(guest.registers.rip, CODE + 3);
    // rep movsd from there to memory.
    (guest.registers.rcx, guest.registers.rsi, guest.registers.rdi) = (2, 0xf000_0020, DATA);
    guest.vmcb().exit_info = [4, 0xf000_0020];
    assert_eq!(guest.exit(&bed, 0x400, &[0xf3, 0xa5]), Next::Switch);
    answer(&bed, &mut dom0, page, port, 0x1234_5678, STATE_IORESP_READY);
    assert_eq!(guest.go_on(&bed), Next::Guest);
    assert_eq!((guest.word(&bed, DATA) as u32, guest.registers.rcx, guest.registers.rip), (0x1234_5678, 1, CODE));
}

#[test]
fn a_string_is_asked_for_by_the_page_of_its_memory() {
    let bed = bed();
    let mut dom0 = bed.guest(0, 6);
    let domain = whole(&bed, &mut dom0);
    let (page, port) = served(&bed, &mut dom0, domain.id.0);
    let mut guest = Pvh::new(&bed, &domain);
    let string = |guest: &mut Pvh, input: u64| {
        guest.vmcb().exit_info = [0x1230 << 16 | 2 << 4 | 0xc | input, CODE + 3];
        guest.exit(&bed, 0x7b, &[0xf3, 0x66, if input == 1 { 0x6d } else { 0x6f }])
    };
    (guest.registers.rcx, guest.registers.rdi) = (4, 0x9ffc);
    assert_eq!(string(&mut guest, 1), Next::Switch);
    let request = request_at(&bed, page);
    assert_eq!((request.data, request.count, request.size, request.data_is_ptr()), (0x9ffc, 2, 2, true));
    answer(&bed, &mut dom0, page, port, 0, STATE_IORESP_READY);
    assert_eq!(guest.go_on(&bed), Next::Guest);
    assert_eq!((guest.registers.rcx, guest.registers.rdi, guest.registers.rip), (2, 0xa000, CODE));
    // Downwards, of one that lies in two pages: by its value.
    (guest.registers.rcx, guest.registers.rsi) = (2, 0xafff);
    guest.registers.rflags |= flags::DF;
    guest.write(&bed, 0xafff, &[0x34]);
    guest.write(&bed, 0xb000, &[0x12]);
    assert_eq!(string(&mut guest, 0), Next::Switch);
    let request = request_at(&bed, page);
    assert_eq!((request.data, request.count, request.data_is_ptr(), request.is_read()), (0x1234, 1, false, false));
    answer(&bed, &mut dom0, page, port, 0, STATE_IORESP_READY);
    assert_eq!(guest.go_on(&bed), Next::Guest);
    assert_eq!((guest.registers.rcx, guest.registers.rsi), (1, 0xaffd));
    // Where the guest's tables lead nowhere, it gets its page fault.
    (guest.registers.rdi, guest.registers.rcx) = (0x4000_0000, 1);
    assert_eq!(string(&mut guest, 1), Next::Guest);
    assert_eq!(guest.vmcb().event, event::VALID | event::EXCEPTION | event::HAS_ERROR | 14 | 2 << 32);
    assert_eq!(guest.vmcb().cr2, 0x4000_0000);
    guest.vmcb().event = 0;
    // Nobody has this port: all of the string floats.
    guest.registers.rflags &= !flags::DF;
    (guest.registers.rdi, guest.registers.rcx) = (DATA, 3);
    guest.vmcb().exit_info = [0x999 << 16 | 1 << 4 | 0xd, CODE + 2];
    assert_eq!(guest.exit(&bed, 0x7b, &[0xf3, 0x6c]), Next::Guest);
    assert_eq!((guest.word(&bed, DATA) & 0xff_ffff, guest.registers.rcx), (0xff_ffff, 0));
}

#[test]
fn a_program_reaches_only_its_own_pages_by_a_string() {
    let bed = bed();
    let mut dom0 = bed.guest(0, 6);
    let domain = whole(&bed, &mut dom0);
    let mut guest = Pvh::new(&bed, &domain);
    guest.vmcb().privilege = 3;
    guest.registers.rdi = DATA;
    guest.vmcb().exit_info = [0x999 << 16 | 1 << 4 | 5, CODE + 1];
    assert_eq!(guest.exit(&bed, 0x7b, &[0x6c]), Next::Guest);
    assert_eq!(guest.vmcb().event, event::VALID | event::EXCEPTION | event::HAS_ERROR | 14 | 7 << 32);
}

#[test]
fn what_is_not_carried_out_ends_the_guest_with_its_instruction() {
    let bed = bed();
    let mut dom0 = bed.guest(0, 10);
    for (code, info, instruction, rule) in [
        (0x400, [4, 0xf000_0000], &[0x0f, 0x6f, 0x03][..], "HVM-36"),
        (0x400, [6, IO_APIC], &[0x88, 0x03], "HVM-22"),
        (0x400, [4, IO_APIC + 2], &[0x8b, 0x03], "HVM-22"),
        (0x400, [1 << 33, 0xf000_0000], &[0x8b, 0x03], "HVM-17"),
        (0x400, [0x10, 0xf000_0000], &[0x8b, 0x03], "HVM-17"),
        (0x7b, [0x60 << 16 | 1 << 4 | 5, CODE + 1], &[0xec], "HVM-20"),
    ] {
        let domain = whole(&bed, &mut dom0);
        let mut guest = Pvh::new(&bed, &domain);
        guest.vmcb().exit_info = info;
        let _ = said(&bed);
        assert_eq!(guest.exit(&bed, code, instruction), Next::Switch, "{rule}");
        assert_eq!(domain.lifecycle.lock().shutdown, Some(3), "{rule}");
        let said = said(&bed);
        assert!(said.contains(rule) && said.contains("(hv) at 0x8000: ["), "{said}");
    }
}

#[test]
fn strings_in_another_paging_mode_end_the_guest() {
    let bed = bed();
    let mut dom0 = bed.guest(0, 6);
    let domain = whole(&bed, &mut dom0);
    let mut guest = Pvh::new(&bed, &domain);
    guest.registers.rdi = DATA;
    let Pvh { running, .. } = &mut guest;
    let _ = said(&bed);
    let refusal = mmio::missed(running, walk::Miss::Mode).unwrap_err();
    assert_eq!(refusal.rule, rule::PAGING_MODE);
    guest.vmcb().efer &= !EFER_LMA;
    let miss = walk::physical(&bed.hv, &guest.running, DATA, walk::How::default());
    assert_eq!(miss, Err(walk::Miss::Mode));
}
