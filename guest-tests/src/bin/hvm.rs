//! An HVM guest: made by the first domain, which is its device model too.
//!
//! The guest (`hvm.s`) uses ports, strings of ports, registers in memory, and the interrupt controllers and clocks that the
//! hypervisor keeps inside; it notes what it sees and powers off. What it asks of a device model comes here by a page of
//! requests. Nothing of it is paravirtual but the last call.
#![no_std]
#![no_main]
#![expect(unsafe_code, reason = "the other domain's memory is mapped, and its kernel is assembly")]

use core::arch::global_asm;
use core::sync::atomic::{Ordering, fence};

use guest_tests::assisted::{RESULTS, WINDOW, build, control, destroy, show, usual, wait};
use guest_tests::errno::{E2BIG, EEXIST, EINVAL, ENOENT, ENOSPC, EOPNOTSUPP, EPERM, ESRCH};
use guest_tests::{
    A, D, P, Page, RW, about, entry_address, expect, guest_test, hypercall, mmu_update_as, mmuext, operation, read_at,
};
use pv_abi::arch::{XEN_X86_EMU_ALL, XEN_X86_EMU_IOAPIC, XEN_X86_EMU_VPCI};
use pv_abi::domctl::{XEN_DOMCTL_CREATEDOMAIN, XEN_DOMCTL_UNPAUSEDOMAIN};
use pv_abi::event_channel::{EVTCHNOP_BIND_INTERDOMAIN, EVTCHNOP_SEND, EvtchnBindInterdomain, EvtchnSend};
use pv_abi::hvm::dm_op::{
    DmOp, DmOpBuf, DmOpCreateIoreqServer, DmOpDestroyIoreqServer, DmOpGetIoreqServerInfo, DmOpIoreqServerRange,
    DmOpNrVcpus, DmOpSetIoreqServerState, DmOpSetIsaIrqLevel, DmOpSetPciIntxLevel, DmOpSetPciLinkRoute,
    XEN_DMOP_CREATE_IOREQ_SERVER, XEN_DMOP_DESTROY_IOREQ_SERVER, XEN_DMOP_GET_IOREQ_SERVER_INFO,
    XEN_DMOP_IO_RANGE_MEMORY, XEN_DMOP_IO_RANGE_PORT, XEN_DMOP_MAP_IO_RANGE_TO_IOREQ_SERVER, XEN_DMOP_NO_GFNS,
    XEN_DMOP_NR_VCPUS, XEN_DMOP_SET_IOREQ_SERVER_STATE, XEN_DMOP_SET_ISA_IRQ_LEVEL, XEN_DMOP_SET_PCI_INTX_LEVEL,
    XEN_DMOP_SET_PCI_LINK_ROUTE, XEN_DMOP_UNMAP_IO_RANGE_FROM_IOREQ_SERVER,
};
use pv_abi::hvm::ioreq::{IOREQ_TYPE_PIO, Ioreq, STATE_IOREQ_INPROCESS, STATE_IOREQ_READY, STATE_IORESP_READY};
use pv_abi::hvm::{HVM_PARAM_ACPI_IOPORTS_LOCATION, HVMOP_SET_PARAM, HvmParam};
use pv_abi::memory::{MemAcquireResource, XENMEM_ACQUIRE_RESOURCE, XENMEM_RESOURCE_IOREQ_SERVER};
use pv_abi::xen::{
    HYPERVISOR_DM_OP, HYPERVISOR_EVENT_CHANNEL_OP, HYPERVISOR_HVM_OP, HYPERVISOR_MEMORY_OP, MMUEXT_INVLPG_LOCAL,
};
use zerocopy::{Immutable, IntoBytes};

guest_test!(hvm);

global_asm!(include_str!("hvm.s"));

unsafe extern "C" {
    static hvm_kernel: u8;
    static hvm_kernel_end: u8;
}

/// All devices that the hypervisor may keep inside.
const DEVICES: u32 = XEN_X86_EMU_ALL & !XEN_X86_EMU_VPCI;
/// Bytes of the device model's registers in memory, at [`REGISTERS`].
const REGISTER_BYTES: usize = 64;
const REGISTERS: u64 = 0xf000_0000;
const RESULT_WORDS: usize = 21;
/// The entry is the machine's frame, whoever owns it.
const NO_TRANSLATE: u64 = 3;

static REQUESTS: Page = Page::new();

fn dm<T: IntoBytes + Immutable>(domain: u16, op: u32, payload: &T) -> (i64, DmOp) {
    let mut operation = DmOp::new(op, payload);
    let buffer = DmOpBuf { h: core::ptr::from_mut(&mut operation) as u64, size: size_of::<DmOp>() as u64 };
    let result = hypercall(HYPERVISOR_DM_OP, [domain.into(), 1, &raw const buffer as u64, 0, 0]);
    (result, operation)
}

fn range(domain: u16, id: u16, type_: u32, (start, end): (u64, u64), give: bool) -> i64 {
    let op = if give { XEN_DMOP_MAP_IO_RANGE_TO_IOREQ_SERVER } else { XEN_DMOP_UNMAP_IO_RANGE_FROM_IOREQ_SERVER };
    dm(domain, op, &DmOpIoreqServerRange { id, pad: 0, type_, start, end }).0
}

/// A device model with a few ports and registers.
struct Model {
    domain: u16,
    port: u32,
    registers: [u8; REGISTER_BYTES],
    /// What the next word of the string port is.
    word: u64,
    /// The bytes written to it.
    written: u64,
    /// One answer is announced before it is there.
    hasty: bool,
}

impl Model {
    /// Answers the request that is there, if one is.
    fn serve(&mut self) {
        let place = REQUESTS.va() as *mut Ioreq;
        // SAFETY: the page is mapped for as long as the server is.
        let mut request = unsafe { place.read_volatile() };
        if request.state() != STATE_IOREQ_READY {
            return;
        }
        fence(Ordering::Acquire);
        if core::mem::take(&mut self.hasty) {
            self.put(request.with_state(STATE_IOREQ_INPROCESS));
        }
        let (bytes, is_port) = (u64::from(request.size), request.type_ == IOREQ_TYPE_PIO);
        for n in 0..u64::from(request.count) {
            let addr = if is_port { request.addr } else { request.addr + n * bytes };
            if request.data_is_ptr() {
                self.by_address(request, addr, request.data + n * bytes);
            } else {
                request.data = self.access(addr, bytes, request.data, request.is_read());
            }
        }
        self.put(request.with_state(STATE_IORESP_READY));
    }

    fn put(&self, request: Ioreq) {
        let place = REQUESTS.va() as *mut Ioreq;
        fence(Ordering::Release);
        // SAFETY: the page is mapped for as long as the server is.
        unsafe { place.write_volatile(request) };
        operation(HYPERVISOR_EVENT_CHANNEL_OP, EVTCHNOP_SEND, &mut EvtchnSend { port: self.port });
    }

    /// One element of a string, which is in the guest's memory.
    fn by_address(&mut self, request: Ioreq, addr: u64, at: u64) {
        show(self.domain, at >> 12);
        let place = (WINDOW.va() + at % 4096) as *mut u8;
        for byte in 0..request.size as usize {
            // SAFETY: the window shows the page, and elements do not cross it.
            let place = unsafe { place.add(byte) };
            if request.is_read() {
                let value = self.access(addr + byte as u64, 1, 0, true);
                // SAFETY: as above.
                unsafe { place.write_volatile(value as u8) };
            } else {
                // SAFETY: as above.
                let value = unsafe { place.read_volatile() };
                self.access(addr + byte as u64, 1, value.into(), false);
            }
        }
    }

    fn access(&mut self, addr: u64, bytes: u64, data: u64, read: bool) -> u64 {
        match addr {
            0x1230 if bytes == 1 => 0x5a,
            0x1230 => 0x1234_5678,
            0x1231 if !read => {
                self.line(data as u8);
                0
            }
            0x1232 | 0x1233 if read => {
                self.word += 1;
                self.word
            }
            0x1232 | 0x1233 => {
                self.written = self.written << 8 | data & 0xff;
                0
            }
            _ => self.register((addr - REGISTERS) as usize % REGISTER_BYTES, bytes as usize, data, read),
        }
    }

    fn register(&mut self, at: usize, bytes: usize, data: u64, read: bool) -> u64 {
        let place = &mut self.registers[at..(at + bytes).min(REGISTER_BYTES)];
        let mut value = data.to_le_bytes();
        if read {
            value = [0; 8];
            value[..place.len()].copy_from_slice(place);
        } else {
            place.copy_from_slice(&value[..place.len()]);
        }
        u64::from_le_bytes(value)
    }

    /// Line 4 of the ISA bus low or high, pin A of PCI device 3 high or low.
    fn line(&self, what: u8) {
        if what < 2 {
            dm(self.domain, XEN_DMOP_SET_ISA_IRQ_LEVEL, &DmOpSetIsaIrqLevel { isa_irq: 4, level: what });
        } else {
            let pin = DmOpSetPciIntxLevel { domain: 0, bus: 0, device: 3, intx: 0, level: u8::from(what == 2) };
            dm(self.domain, XEN_DMOP_SET_PCI_INTX_LEVEL, &pin);
        }
    }
}

fn hvm() {
    about("XEN_DOMCTL_createdomain");
    let odd = control(XEN_DOMCTL_CREATEDOMAIN, 0, &usual(XEN_X86_EMU_IOAPIC)).0;
    expect("a domain with other devices than a PC's is refused", odd, EOPNOTSUPP);
    let (result, frame) = control(XEN_DOMCTL_CREATEDOMAIN, 0, &usual(DEVICES));
    expect("an HVM domain is made, where the CPU has SVM", result, 0);
    if result != 0 {
        return;
    }
    let domain = frame.domain;
    let [from, end] = [&raw const hvm_kernel, &raw const hvm_kernel_end].map(|place| place as u64);
    build(domain, from, end);
    let mut param = HvmParam {
        domid: domain,
        index: HVM_PARAM_ACPI_IOPORTS_LOCATION,
        value: 1,
        ..zerocopy::FromZeros::new_zeroed()
    };
    about("HVMOP_set_param");
    expect("ACPI's ports are chosen", operation(HYPERVISOR_HVM_OP, HVMOP_SET_PARAM, &mut param), 0);
    refusals(domain);
    let Some(mut model) = served(domain) else {
        destroy(domain);
        return;
    };
    lines(domain);
    about("XEN_DOMCTL_unpausedomain");
    let started = control(XEN_DOMCTL_UNPAUSEDOMAIN, domain, &[0_u8; 1]).0;
    let reason = wait(domain, || model.serve());
    expect("the domain starts", started, 0);
    about("SCHEDOP_shutdown");
    expect("it powers itself off", reason, 0);
    check(domain, &model);
    mmu_update_as(entry_address(REQUESTS.va()), 0, pv_abi::xen::DOMID_SELF.into());
    mmuext(MMUEXT_INVLPG_LOCAL, REQUESTS.va(), 0);
    about("XEN_DMOP_destroy_ioreq_server");
    let server = DmOpDestroyIoreqServer { id: 0, pad: 0 };
    expect("its server is destroyed", dm(domain, XEN_DMOP_DESTROY_IOREQ_SERVER, &server).0, 0);
    expect("and is no more", dm(domain, XEN_DMOP_DESTROY_IOREQ_SERVER, &server).0, ENOENT);
    destroy(domain);
}

/// What device models may not ask.
fn refusals(domain: u16) {
    about("dm_op");
    let count = DmOpNrVcpus { vcpus: 0 };
    expect("one has no device model in itself", dm(0, XEN_DMOP_NR_VCPUS, &count).0, EPERM);
    expect("a domain that is not there has none", dm(999, XEN_DMOP_NR_VCPUS, &count).0, ESRCH);
    expect("an operation that there is not", dm(domain, 99, &count).0, EOPNOTSUPP);
    let buffers = hypercall(HYPERVISOR_DM_OP, [domain.into(), 3, 0, 0, 0]);
    expect("an operation has two buffers at most", buffers, E2BIG);
    about("XEN_DMOP_nr_vcpus");
    let (result, answer) = dm(domain, XEN_DMOP_NR_VCPUS, &count);
    expect("its vCPUs are counted", (result, answer.payload::<DmOpNrVcpus>().vcpus), (0, 1));
    about("XEN_DMOP_create_ioreq_server");
    let odd = DmOpCreateIoreqServer { handle_bufioreq: 3, ..Default::default() };
    expect("a server is made in ways that there are", dm(domain, XEN_DMOP_CREATE_IOREQ_SERVER, &odd).0, EINVAL);
}

/// A server with ports and registers, switched on, for whose requests this domain listens.
fn served(domain: u16) -> Option<Model> {
    about("XEN_DMOP_create_ioreq_server");
    let (result, answer) = dm(domain, XEN_DMOP_CREATE_IOREQ_SERVER, &DmOpCreateIoreqServer::default());
    let id = answer.payload::<DmOpCreateIoreqServer>().id;
    expect("a server is made", (result, id), (0, 0));
    let most = (1..16).map(|_| dm(domain, XEN_DMOP_CREATE_IOREQ_SERVER, &DmOpCreateIoreqServer::default()).0);
    expect("a domain has eight servers at most", most.take_while(|result| *result == 0).count(), 7);
    let create = DmOpCreateIoreqServer::default();
    expect("and no ninth", dm(domain, XEN_DMOP_CREATE_IOREQ_SERVER, &create).0, ENOSPC);
    about("XEN_DMOP_map_io_range_to_ioreq_server XEN_DMOP_unmap_io_range_from_ioreq_server");
    let ports = |ends, give| range(domain, id, XEN_DMOP_IO_RANGE_PORT, ends, give);
    expect("it gets ports", ports((0x1230, 0x1233), true), 0);
    expect("ports that it has are not given again", ports((0x1233, 0x1240), true), EEXIST);
    expect("ports that it has not are not taken", ports((0x1300, 0x1301), false), ENOENT);
    expect("a range has its ends in order", ports((0x1301, 0x1300), true), EINVAL);
    expect("ranges are of kinds that there are", range(domain, id, 9, (0, 0), true), EINVAL);
    let memory = (REGISTERS, REGISTERS + REGISTER_BYTES as u64 - 1);
    expect("it gets addresses", range(domain, id, XEN_DMOP_IO_RANGE_MEMORY, memory, true), 0);
    let given = (0..300_u64).take_while(|n| ports((0x2000 + 2 * n, 0x2000 + 2 * n), true) == 0).count();
    expect("it gets 256 ranges of a kind at most", given, 255);
    about("XEN_DMOP_get_ioreq_server_info");
    let none = DmOpGetIoreqServerInfo { id: 9, flags: XEN_DMOP_NO_GFNS, ..Default::default() };
    expect("a server that is not there tells nothing", dm(domain, XEN_DMOP_GET_IOREQ_SERVER_INFO, &none).0, ENOENT);
    about("XENMEM_acquire_resource");
    let mut frame = 0_u64;
    let mut asked: MemAcquireResource = zerocopy::FromZeros::new_zeroed();
    (asked.domid, asked.type_, asked.id) = (domain, XENMEM_RESOURCE_IOREQ_SERVER, id.into());
    (asked.nr_frames, asked.frame, asked.frame_list) = (1, 1, &raw mut frame as u64);
    let acquired = operation(HYPERVISOR_MEMORY_OP, XENMEM_ACQUIRE_RESOURCE, &mut asked);
    expect("its page of requests is acquired", acquired, 0);
    let entry = entry_address(REQUESTS.va()) | NO_TRANSLATE;
    let mapped = mmu_update_as(entry, frame << 12 | P | RW | A | D, domain.into());
    mmuext(MMUEXT_INVLPG_LOCAL, REQUESTS.va(), 0);
    expect("and mapped", mapped, 0);
    if mapped != 0 {
        return None;
    }
    about("XEN_DMOP_set_ioreq_server_state");
    let on = DmOpSetIoreqServerState { id, enabled: 1, pad: 0 };
    expect("it is switched on", dm(domain, XEN_DMOP_SET_IOREQ_SERVER_STATE, &on).0, 0);
    about("EVTCHNOP_bind_interdomain");
    // SAFETY: the page was mapped.
    let remote_port = unsafe { (REQUESTS.va() as *const Ioreq).read_volatile() }.vp_eport;
    let mut bind = EvtchnBindInterdomain { remote_dom: domain, remote_port, ..zerocopy::FromZeros::new_zeroed() };
    let bound = operation(HYPERVISOR_EVENT_CHANNEL_OP, EVTCHNOP_BIND_INTERDOMAIN, &mut bind);
    expect("the port of its vCPU is bound", bound, 0);
    let mut registers = [0; REGISTER_BYTES];
    registers[0x10..0x14].copy_from_slice(&0xa500_0040_u32.to_le_bytes());
    Some(Model { domain, port: bind.local_port, registers, word: 0, written: 0, hasty: true })
}

/// Lines, pins and links that there are not.
fn lines(domain: u16) {
    about("XEN_DMOP_set_isa_irq_level");
    let line = |isa_irq, level| dm(domain, XEN_DMOP_SET_ISA_IRQ_LEVEL, &DmOpSetIsaIrqLevel { isa_irq, level }).0;
    expect("the ISA bus has 16 lines of two levels", [line(16, 1), line(4, 2)], [EINVAL; 2]);
    about("XEN_DMOP_set_pci_intx_level");
    let pin = |bus, device, intx| {
        let pin = DmOpSetPciIntxLevel { domain: 0, bus, device, intx, level: 1 };
        dm(domain, XEN_DMOP_SET_PCI_INTX_LEVEL, &pin).0
    };
    expect("there are 32 devices of four pins on one bus", [pin(1, 0, 0), pin(0, 32, 0), pin(0, 0, 4)], [EINVAL; 3]);
    about("XEN_DMOP_set_pci_link_route");
    let route = |link, isa_irq| dm(domain, XEN_DMOP_SET_PCI_LINK_ROUTE, &DmOpSetPciLinkRoute { link, isa_irq }).0;
    expect("there are four links to 16 lines", [route(4, 1), route(0, 16)], [EINVAL; 2]);
    expect("a link is routed", route(3, 11), 0);
}

/// What the guest noted.
fn check(domain: u16, model: &Model) {
    expect("its results are mapped", show(domain, RESULTS), 0);
    let seen: [u64; RESULT_WORDS] =
        core::array::from_fn(|word| read_at(WINDOW.va() + 8 * word as u64).unwrap_or(u64::MAX));
    about("emulated_instructions");
    expect("a byte of a port is the device model's", seen[0] & 0xff, 0x5a);
    expect("and four bytes", seen[1], 0x1234_5678);
    expect("a string of ports is read to its end", seen[2], 0);
    expect("into the guest's memory", seen[3], 0x0807_0605_0403_0201);
    expect("and written", (seen[4], model.written), (0x10_6003, 0x01_0203));
    expect("one to where there are no tables faults", seen[5], 2 << 32 | 0x4000_0000);
    expect("a port of nobody's floats", seen[6], 0xff);
    expect("a register in memory is the device model's", seen[7], 0xa500_0040);
    expect("it is read and written by one instruction", seen[8], 0xa500_0041);
    expect("and read by a byte", seen[9], 0xa5);
    expect("a string fills registers", seen[10], 0x80_0028);
    expect("and copies them", seen[11], 0x7777_7777_7777_7777);
    expect("a test of one sets the flags", seen[12], 1);
    expect("an address of nobody's floats", seen[13], 0xffff_ffff);
    expect("the 8259's mask is read", seen[14], 0xef);
    expect("a line waits with interrupts off", seen[15], 0);
    expect("and interrupts once with interrupts on", seen[16], 1);
    expect("the I/O APIC has 48 inputs", seen[17] & 0xff_00ff, 0x2f_0011);
    expect("a pin interrupts through it, and ends", seen[18], 1);
    expect("the clock's battery is good", seen[19], 0x80);
    expect("ACPI's timer counts", seen[20] < 1 << 30, true);
}
