//! A PVH guest on a fake machine: its memory, its exits, and what it is refused.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;

use pv_abi::arch::{ArchDomainconfig, VcpuGuestContext, XEN_X86_EMU_LAPIC};
use pv_abi::domctl::{self as dom, Domctl};
use pv_abi::errno::Errno;
use pv_abi::features::{XENFEAT_AUTO_TRANSLATED_PHYSMAP, XENFEAT_HVM_CALLBACK_VECTOR};
use pv_abi::grant_table::{GNTMAP_HOST_MAP, GNTTABOP_MAP_GRANT_REF, GnttabMapGrantRef};
use pv_abi::hvm::{
    HVM_FILE_MAGIC, HVM_FILE_VERSION, HVM_PARAM_CALLBACK_IRQ, HVM_PARAM_IDENT_PT, HVM_PARAM_STORE_PFN, HVMOP_GET_PARAM,
    HVMOP_SET_PARAM, HvmHwCpu, HvmHwMtrr, HvmParam, HvmSaveDescriptor, HvmSaveHeader, callback_via_vector,
};
use pv_abi::memory::{
    AddToPhysmap, MemoryExchange, MemoryReservation, RemoveFromPhysmap, XENMEM_ADD_TO_PHYSMAP,
    XENMEM_DECREASE_RESERVATION, XENMEM_EXCHANGE, XENMEM_MAXIMUM_GPFN, XENMEM_POPULATE_PHYSMAP,
    XENMEM_REMOVE_FROM_PHYSMAP,
};
use pv_abi::version::FeatureInfo;
use pv_abi::xen::{self as number, DOMID_SELF, MmuUpdate};
use pv_abi::{DomId, Mfn, VcpuId};
use zerocopy::{FromZeros, Immutable, IntoBytes};

mod apic;
mod ioreq;
mod platform;

use crate::rules::hvm as rule;

use super::vmcb::{EFER_LMA, event, intercept, interrupt};
use super::*;
use crate::domain::{Running, Vcpu, stopped};
use crate::entry::Next;
use crate::fake::{Bed, FakeMachine, Guest, broken_rules, entry};
use crate::frames;
use crate::hardware::CpuidResult;
use crate::registers::{Registers, flags};

/// The guest's tables: L4, L3, L2 at these guest frames; the lowest 4 MiB are mapped one to one by large pages.
const TABLES: [u64; 3] = [1, 2, 3];
/// Where its code is.
const CODE: u64 = 0x8000;
/// Where it keeps arguments.
const DATA: u64 = 0x9000;

fn bed() -> Bed {
    let machine = FakeMachine::new(2048);
    machine.set_cpuid(0x8000_0001, 0, CpuidResult { ecx: 1 << 2, ..Default::default() });
    Bed::on(machine)
}

fn ask<P: IntoBytes + Immutable>(bed: &Bed, dom0: &mut Guest, command: u32, id: u16, payload: &P) -> (i64, Domctl) {
    let place = dom0.address(0);
    dom0.write(bed, place, &Domctl::with(command, id, payload));
    let result = dom0.call(bed, number::HYPERVISOR_DOMCTL, [place, 0, 0, 0, 0]);
    (result, dom0.read(bed, place))
}

fn request() -> dom::DomctlCreatedomain {
    dom::DomctlCreatedomain {
        flags: dom::XEN_DOMCTL_CDF_HVM | dom::XEN_DOMCTL_CDF_HAP,
        max_vcpus: 1,
        max_evtchn_port: 1023,
        max_grant_frames: -1,
        max_maptrack_frames: -1,
        grant_opts: 1,
        arch: ArchDomainconfig { emulation_flags: XEN_X86_EMU_LAPIC, misc_flags: 0 },
        ..Default::default()
    }
}

/// dom0 makes a PVH domain with 32 frames from guest frame 0 on.
fn made(bed: &Bed, dom0: &mut Guest) -> Arc<Domain> {
    made_with(bed, dom0, 1)
}

fn made_with(bed: &Bed, dom0: &mut Guest, vcpus: u32) -> Arc<Domain> {
    made_as(bed, dom0, &dom::DomctlCreatedomain { max_vcpus: vcpus, ..request() })
}

fn made_as(bed: &Bed, dom0: &mut Guest, asked: &dom::DomctlCreatedomain) -> Arc<Domain> {
    let vcpus = asked.max_vcpus;
    let (result, frame) = ask(bed, dom0, dom::XEN_DOMCTL_CREATEDOMAIN, 0, asked);
    assert_eq!(result, 0);
    let id = frame.domain;
    assert_eq!(ask(bed, dom0, dom::XEN_DOMCTL_MAX_VCPUS, id, &dom::DomctlMaxVcpus { max: vcpus }).0, 0);
    assert_eq!(ask(bed, dom0, dom::XEN_DOMCTL_MAX_MEM, id, &dom::DomctlMaxMem { max_memkb: 4096 }).0, 0);
    let frames: Vec<u64> = (0..32).collect();
    assert_eq!(adjust(bed, dom0, XENMEM_POPULATE_PHYSMAP, id, 0, &frames), 32);
    bed.hv.domains.get(DomId(id)).unwrap()
}

fn adjust(bed: &Bed, dom0: &mut Guest, command: u32, id: u16, order: u32, list: &[u64]) -> i64 {
    let mut asked = MemoryReservation::new_zeroed();
    (asked.extent_start, asked.nr_extents, asked.extent_order) = (dom0.address(1), list.len() as u64, order);
    asked.domid = id;
    dom0.write(bed, dom0.address(1), list);
    dom0.call_with(bed, number::HYPERVISOR_MEMORY_OP, command, &mut asked)
}

fn behind(bed: &Bed, domain: &Domain, guest_frame: u64) -> Option<Mfn> {
    domain.hvm.as_ref().unwrap().map.lock().find(&bed.hv.machine, guest_frame)
}

/// The PVH guest's vCPU, in 64-bit mode.
struct Pvh {
    domain: Arc<Domain>,
    running: Running,
    registers: Registers,
}

impl Pvh {
    fn new(bed: &Bed, domain: &Arc<Domain>) -> Self {
        let [l4, l3, l2] = TABLES.map(|frame| behind(bed, domain, frame).unwrap());
        bed.hv.machine.write_word(l4, 0, TABLES[1] << 12 | 3);
        bed.hv.machine.write_word(l3, 0, TABLES[2] << 12 | 3);
        bed.hv.machine.write_word(l2, 0, 0x83);
        bed.hv.machine.write_word(l2, 1, 0x20_0081);
        let vcpu = domain.vcpu(VcpuId(0)).unwrap().clone();
        let mut state = vcpu.state.lock().take().unwrap();
        let vmcb = state.hvm.as_deref_mut().unwrap();
        (vmcb.cr0, vmcb.cr3, vmcb.cr4) = (1 << 31 | 1 << 16 | 0x11, TABLES[0] << 12, 1 << 5);
        vmcb.efer |= EFER_LMA | 1 << 8;
        (vmcb.cs.attributes, vmcb.cs.base) = (0xa9b, 0);
        vcpu.stopped.store(0, Ordering::SeqCst);
        domain.pause_count.store(0, Ordering::SeqCst);
        bed.hv.machine.leave_guest();
        let registers = Registers { rip: CODE, rflags: flags::ALWAYS, ..Default::default() };
        Self { domain: domain.clone(), running: Running { vcpu, state }, registers }
    }

    fn vmcb(&mut self) -> &mut Vmcb {
        self.running.state.hvm.as_deref_mut().unwrap()
    }

    fn vcpu(&self) -> &Arc<Vcpu> {
        &self.running.vcpu
    }

    /// Writes its memory, which lies one to one.
    fn write(&self, bed: &Bed, address: u64, bytes: &[u8]) {
        let frame = behind(bed, &self.domain, address >> 12).unwrap();
        bed.hv.machine.write_bytes(frame, (address & 0xfff) as usize, bytes);
    }

    fn word(&self, bed: &Bed, address: u64) -> u64 {
        let frame = behind(bed, &self.domain, address >> 12).unwrap();
        bed.hv.machine.read_word(frame, (address & 0xfff) as usize / 8)
    }

    /// Stops with this code at this instruction.
    fn exit(&mut self, bed: &Bed, code: u64, instruction: &[u8]) -> Next {
        self.write(bed, CODE, instruction);
        self.registers.rip = CODE;
        self.vmcb().exit_code = code;
        on_exit(&bed.hv, &mut self.running, &mut self.registers)
    }

    fn call(&mut self, bed: &Bed, hypercall: u64, arguments: [u64; 2]) -> i64 {
        (self.registers.rax, self.registers.rdi, self.registers.rsi) = (hypercall, arguments[0], arguments[1]);
        let _ = self.exit(bed, 0x81, &[0x0f, 0x01, 0xd9]);
        assert_eq!(self.registers.rip, CODE + 3);
        self.registers.rax.cast_signed()
    }

    fn call_with<T: IntoBytes + Immutable>(&mut self, bed: &Bed, hypercall: u64, command: u32, value: &T) -> i64 {
        self.write(bed, DATA, value.as_bytes());
        self.call(bed, hypercall, [command.into(), DATA])
    }
}

#[test]
fn without_the_hardware_there_is_no_such_domain() {
    let bed = Bed::new(256);
    let mut dom0 = bed.guest(0, 4);
    let _ = broken_rules();
    assert_eq!(ask(&bed, &mut dom0, dom::XEN_DOMCTL_CREATEDOMAIN, 0, &request()).0, Errno::Inval.as_return());
    assert_eq!(broken_rules(), ["HVM-01"]);
}

#[test]
fn all_of_a_destroyed_domain_is_free_again() {
    let bed = bed();
    let mut dom0 = bed.guest(0, 6);
    let before = bed.hv.allocator.lock().free_count();
    let domain = made(&bed, &mut dom0);
    assert_eq!(adjust(&bed, &mut dom0, XENMEM_POPULATE_PHYSMAP, domain.id.0, 9, &[512]), 1);
    assert_eq!(behind(&bed, &domain, 700), behind(&bed, &domain, 512).map(|mfn| Mfn(mfn.0 + 188)));
    let id = domain.id.0;
    drop(domain);
    bed.hv.machine.interrupt_after(Some(0));
    assert_eq!(ask(&bed, &mut dom0, dom::XEN_DOMCTL_DESTROYDOMAIN, id, &[0_u8; 1]).0, 0);
    assert_eq!(bed.hv.allocator.lock().free_count(), before);
}

#[test]
fn a_large_block_is_given_back_frame_by_frame() {
    let bed = bed();
    let mut dom0 = bed.guest(0, 6);
    let domain = made(&bed, &mut dom0);
    let id = domain.id.0;
    assert_eq!(adjust(&bed, &mut dom0, XENMEM_POPULATE_PHYSMAP, id, 9, &[512]), 1);
    let kept = behind(&bed, &domain, 514);
    assert_eq!(adjust(&bed, &mut dom0, XENMEM_DECREASE_RESERVATION, id, 0, &[513]), 1);
    assert_eq!((behind(&bed, &domain, 513), behind(&bed, &domain, 514)), (None, kept));
    assert_eq!(domain.memory.lock().total, 32 + 511);
    let _ = broken_rules();
    assert_eq!(adjust(&bed, &mut dom0, XENMEM_DECREASE_RESERVATION, id, 0, &[513]), 0);
    assert_eq!(adjust(&bed, &mut dom0, XENMEM_POPULATE_PHYSMAP, id, 9, &[600]), 0);
    assert_eq!(adjust(&bed, &mut dom0, XENMEM_POPULATE_PHYSMAP, id, 0, &[1 << 36]), 0);
    assert_eq!(broken_rules(), ["HVM-08", "HVM-09", "HVM-09"]);
}

#[test]
fn tables_come_from_a_pool_whose_size_the_toolstack_says() {
    let bed = bed();
    let mut dom0 = bed.guest(0, 6);
    let domain = made(&bed, &mut dom0);
    let id = domain.id.0;
    let mut pool = |size| {
        let request = dom::DomctlPagingMempool { size };
        ask(&bed, &mut dom0, dom::XEN_DOMCTL_SET_PAGING_MEMPOOL_SIZE, id, &request).0
    };
    let _ = broken_rules();
    // The root and one table of each level below.
    assert_eq!([pool(4 << 12), pool(3 << 12), pool(4097)], [0, Errno::NoMem.as_return(), Errno::Inval.as_return()]);
    assert_eq!(broken_rules(), ["HVM-23", "HVM-23"]);
    let (result, frame) = ask(&bed, &mut dom0, dom::XEN_DOMCTL_GET_PAGING_MEMPOOL_SIZE, id, &[0_u8; 8]);
    assert_eq!((result, frame.payload::<dom::DomctlPagingMempool>().size), (0, 4 << 12));
    let mut pvh = Pvh::new(&bed, &domain);
    let mut add = AddToPhysmap::new_zeroed();
    (add.domid, add.gpfn) = (DOMID_SELF, 1 << 20);
    let put = |pvh: &mut Pvh, add: &AddToPhysmap| {
        pvh.call_with(&bed, number::HYPERVISOR_MEMORY_OP, XENMEM_ADD_TO_PHYSMAP, add)
    };
    assert_eq!((put(&mut pvh, &add), broken_rules()), (Errno::NoMem.as_return(), alloc::vec!["HVM-10".into()]));
    add.gpfn = 100;
    assert_eq!(put(&mut pvh, &add), 0);
    let to_dom0 = ask(&bed, &mut dom0, dom::XEN_DOMCTL_GET_PAGING_MEMPOOL_SIZE, 0, &[0_u8; 8]).0;
    assert_eq!((to_dom0, broken_rules()), (Errno::OpNotSupp.as_return(), alloc::vec!["HVM-02".into()]));
}

#[test]
fn dom0_maps_a_guest_frame_and_makes_no_table_of_it() {
    let bed = bed();
    let mut dom0 = bed.guest(0, 6);
    let domain = made(&bed, &mut dom0);
    let [.., l1] = dom0.tables;
    let foreign = u64::from(domain.id.0);
    let place = dom0.address(0);
    let map = |dom0: &mut Guest, value: u64| {
        dom0.write(&bed, place, &MmuUpdate { ptr: (l1.0 << 12) + 100 * 8, val: value });
        dom0.call(&bed, number::HYPERVISOR_MMU_UPDATE, [place, 1, 0, foreign, 0])
    };
    assert_eq!(map(&mut dom0, 7 << 12 | 7), 0);
    let mapped = bed.hv.machine.read_word(l1, 100);
    assert_eq!(Some(Mfn((mapped & entry::FRAME) >> 12)), behind(&bed, &domain, 7));
    assert!(map(&mut dom0, 40 << 12 | 7) < 0, "nothing is there");
    dom0.write(&bed, place, &MmuUpdate { ptr: ((l1.0 << 12) + 101 * 8) | 3, val: mapped });
    assert_eq!(dom0.call(&bed, number::HYPERVISOR_MMU_UPDATE, [place, 1, 0, foreign, 0]), 0, "by the machine's number");
    assert_eq!(bed.hv.machine.read_word(l1, 101) & entry::FRAME, mapped & entry::FRAME);
    let mfn = behind(&bed, &domain, 7).unwrap();
    assert!(crate::paging::pin_initial(&bed.hv, &domain, mfn).is_err());
}

#[test]
fn what_replaces_memory_frees_it() {
    let bed = bed();
    let mut dom0 = bed.guest(0, 6);
    let domain = made(&bed, &mut dom0);
    let mut pvh = Pvh::new(&bed, &domain);
    let mut add = AddToPhysmap::new_zeroed();
    (add.domid, add.gpfn) = (DOMID_SELF, 20);
    assert_eq!(pvh.call_with(&bed, number::HYPERVISOR_MEMORY_OP, XENMEM_ADD_TO_PHYSMAP, &add), 0);
    assert_eq!(behind(&bed, &domain, 20), Some(domain.shared_info));
    assert_eq!(domain.memory.lock().total, 31);
    (add.space, add.gpfn) = (1, 100);
    assert_eq!(pvh.call_with(&bed, number::HYPERVISOR_MEMORY_OP, XENMEM_ADD_TO_PHYSMAP, &add), 0);
    assert_eq!(behind(&bed, &domain, 100), domain.grants.lock().frame(0));
    assert_eq!(pvh.call_with(&bed, number::HYPERVISOR_MEMORY_OP, XENMEM_MAXIMUM_GPFN, &add), 100);
    let mut remove = RemoveFromPhysmap::new_zeroed();
    (remove.domid, remove.gpfn) = (DOMID_SELF, 20);
    assert_eq!(pvh.call_with(&bed, number::HYPERVISOR_MEMORY_OP, XENMEM_REMOVE_FROM_PHYSMAP, &remove), 0);
    assert_eq!(behind(&bed, &domain, 20), None);
    let _ = broken_rules();
    add.space = 2;
    let refused = pvh.call_with(&bed, number::HYPERVISOR_MEMORY_OP, XENMEM_ADD_TO_PHYSMAP, &add);
    assert_eq!((refused, broken_rules()), (Errno::Inval.as_return(), alloc::vec!["HVM-11".into()]));
}

#[test]
fn hypercalls_find_arguments_by_the_guests_own_tables() {
    let bed = bed();
    let mut dom0 = bed.guest(0, 6);
    let domain = made(&bed, &mut dom0);
    let mut pvh = Pvh::new(&bed, &domain);
    assert_eq!(pvh.call(&bed, number::HYPERVISOR_XEN_VERSION, [0, 0]), 4 << 16 | 17);
    let info = FeatureInfo { submap_idx: 0, submap: 0 };
    assert_eq!(pvh.call_with(&bed, number::HYPERVISOR_XEN_VERSION, 6, &info), 0);
    let features = (pvh.word(&bed, DATA) >> 32) as u32;
    assert!(features & 1 << XENFEAT_AUTO_TRANSLATED_PHYSMAP != 0 && features & 1 << XENFEAT_HVM_CALLBACK_VECTOR != 0);
    let marks = bed.hv.machine.read_word(behind(&bed, &domain, TABLES[2]).unwrap(), 0);
    assert_eq!(marks & 0x60, 0x60, "read and written");
    // Read-only there, and beyond what is mapped.
    assert_eq!(pvh.call(&bed, number::HYPERVISOR_XEN_VERSION, [6, 0x20_0000]), Errno::Fault.as_return());
    assert_eq!(pvh.call(&bed, number::HYPERVISOR_XEN_VERSION, [6, 0x40_0000]), Errno::Fault.as_return());
}

#[test]
fn hypercalls_about_page_tables_are_none_of_its() {
    let bed = bed();
    let mut dom0 = bed.guest(0, 6);
    let domain = made(&bed, &mut dom0);
    let mut pvh = Pvh::new(&bed, &domain);
    let _ = broken_rules();
    assert_eq!(pvh.call(&bed, number::HYPERVISOR_MMU_UPDATE, [0, 0]), Errno::NoSys.as_return());
    assert_eq!(broken_rules(), ["HVM-03"]);
    let nested = number::MulticallEntry { op: number::HYPERVISOR_SET_GDT, ..Default::default() };
    pvh.write(&bed, DATA, nested.as_bytes());
    assert_eq!(pvh.call(&bed, number::HYPERVISOR_MULTICALL, [DATA, 1]), 0);
    assert_eq!(pvh.word(&bed, DATA + 8).cast_signed(), Errno::NoSys.as_return());
    pvh.vmcb().privilege = 3;
    assert_eq!(pvh.call(&bed, number::HYPERVISOR_XEN_VERSION, [0, 0]), Errno::Perm.as_return());
    pvh.vmcb().privilege = 0;
    pvh.vmcb().cs.attributes = 0xc9b;
    assert_eq!(pvh.call(&bed, number::HYPERVISOR_XEN_VERSION, [0, 0]), Errno::NoSys.as_return());
    assert_eq!(broken_rules(), ["HVM-04"]);
}

#[test]
fn what_only_pv_domains_have_is_refused() {
    let bed = bed();
    let mut dom0 = bed.guest(0, 6);
    let domain = made(&bed, &mut dom0);
    let _ = broken_rules();
    let context = dom0.address(1);
    dom0.write(&bed, context, &VcpuGuestContext::default());
    let asked = dom::DomctlVcpucontext { vcpu: 0, ctxt: context, ..Default::default() };
    let set = ask(&bed, &mut dom0, dom::XEN_DOMCTL_SETVCPUCONTEXT, domain.id.0, &asked).0;
    let extents = MemoryReservation { domid: domain.id.0, nr_extents: 1, ..MemoryReservation::new_zeroed() };
    let mut exchange = MemoryExchange { in_: extents, out: extents, nr_exchanged: 0 };
    let exchanged = dom0.call_with(&bed, number::HYPERVISOR_MEMORY_OP, XENMEM_EXCHANGE, &mut exchange);
    assert_eq!((set, exchanged), (Errno::Inval.as_return(), Errno::OpNotSupp.as_return()));
    let mut pvh = Pvh::new(&bed, &domain);
    let map = GnttabMapGrantRef { flags: GNTMAP_HOST_MAP, ..GnttabMapGrantRef::default() };
    pvh.write(&bed, DATA, map.as_bytes());
    pvh.registers.rdx = 1;
    assert_eq!(pvh.call(&bed, number::HYPERVISOR_GRANT_TABLE_OP, [GNTTABOP_MAP_GRANT_REF.into(), DATA]), 0);
    assert_eq!(broken_rules(), ["HVM-14", "HVM-15", "HVM-16"]);
}

#[test]
fn an_upcall_comes_when_the_guest_takes_interrupts() {
    let bed = bed();
    let mut dom0 = bed.guest(0, 6);
    let domain = made(&bed, &mut dom0);
    let mut pvh = Pvh::new(&bed, &domain);
    let own = |value| HvmParam { domid: DOMID_SELF, index: HVM_PARAM_CALLBACK_IRQ, value, ..Default::default() };
    let via = own(callback_via_vector(0xf3));
    assert_eq!(pvh.call_with(&bed, number::HYPERVISOR_HVM_OP, HVMOP_SET_PARAM, &via), 0);
    let _ = before_entry(&bed.hv, &mut pvh.running, &mut pvh.registers);
    assert_eq!(pvh.vmcb().event, 0);
    bed.hv.machine.swap_byte(domain.shared_info, 0, 1);
    let _ = before_entry(&bed.hv, &mut pvh.running, &mut pvh.registers);
    assert_eq!((pvh.vmcb().event, pvh.vmcb().interrupt_control & interrupt::WINDOW), (0, interrupt::WINDOW));
    pvh.registers.rflags |= flags::IF;
    let _ = before_entry(&bed.hv, &mut pvh.running, &mut pvh.registers);
    assert_eq!((pvh.vmcb().event, pvh.vmcb().interrupt_control & interrupt::WINDOW), (event::VALID | 0xf3, 0));
    let _ = broken_rules();
    for nowhere in [callback_via_vector(15), 3 << 56] {
        assert!(pvh.call_with(&bed, number::HYPERVISOR_HVM_OP, HVMOP_SET_PARAM, &own(nowhere)) < 0);
    }
    assert_eq!(broken_rules(), ["HVM-07", "HVM-07"]);
    // By a line, of which there is none.
    assert_eq!(pvh.call_with(&bed, number::HYPERVISOR_HVM_OP, HVMOP_SET_PARAM, &own(1)), 0);
    pvh.vmcb().event = 0;
    let _ = before_entry(&bed.hv, &mut pvh.running, &mut pvh.registers);
    assert_eq!(pvh.vmcb().event, 0);
}

#[test]
fn parameters_of_the_toolstack_are_not_the_guests() {
    let bed = bed();
    let mut dom0 = bed.guest(0, 6);
    let domain = made(&bed, &mut dom0);
    let mut param = HvmParam { domid: domain.id.0, index: HVM_PARAM_STORE_PFN, value: 0xfeffc, ..Default::default() };
    assert_eq!(dom0.call_with(&bed, number::HYPERVISOR_HVM_OP, HVMOP_SET_PARAM, &mut param), 0);
    let _ = broken_rules();
    param.index = 39;
    assert!(dom0.call_with(&bed, number::HYPERVISOR_HVM_OP, HVMOP_SET_PARAM, &mut param) < 0);
    param.domid = DOMID_SELF;
    assert!(dom0.call_with(&bed, number::HYPERVISOR_HVM_OP, HVMOP_GET_PARAM, &mut param) < 0);
    let mut pvh = Pvh::new(&bed, &domain);
    param = HvmParam { domid: DOMID_SELF, index: HVM_PARAM_STORE_PFN, ..Default::default() };
    assert_eq!(pvh.call_with(&bed, number::HYPERVISOR_HVM_OP, HVMOP_GET_PARAM, &param), 0);
    assert_eq!(pvh.word(&bed, DATA + 8), 0xfeffc);
    assert!(pvh.call_with(&bed, number::HYPERVISOR_HVM_OP, HVMOP_SET_PARAM, &param) < 0);
    param.index = HVM_PARAM_IDENT_PT;
    assert!(pvh.call_with(&bed, number::HYPERVISOR_HVM_OP, HVMOP_GET_PARAM, &param) < 0);
    assert_eq!(broken_rules(), ["HVM-05", "HVM-02", "HVM-06", "HVM-06"]);
}

#[test]
fn instructions_are_emulated_whatever_their_prefixes() {
    let bed = bed();
    let mut dom0 = bed.guest(0, 6);
    let domain = made(&bed, &mut dom0);
    let mut pvh = Pvh::new(&bed, &domain);
    pvh.registers.rax = 0x4000_0004;
    let _ = pvh.exit(&bed, 0x72, &[0x66, 0x48, 0x0f, 0xa2]);
    assert_eq!((pvh.registers.rip, pvh.registers.rcx), (CODE + 4, domain.id.0.into()));
    // EFER is read without what the guest is not to see.
    (pvh.registers.rcx, pvh.vmcb().exit_info) = (0xc000_0080, [0; 2]);
    let _ = pvh.exit(&bed, 0x7c, &[0x0f, 0x32]);
    assert_eq!(pvh.registers.rax, EFER_LMA | 1 << 8);
    pvh.registers.rcx = 0x1234;
    let _ = pvh.exit(&bed, 0x7c, &[0x0f, 0x32]);
    assert_eq!((pvh.registers.rip, pvh.vmcb().event & 0xff), (CODE, 13));
    // Long mode cannot be left while paging is on.
    (pvh.registers.rcx, pvh.registers.rax, pvh.registers.rdx, pvh.vmcb().exit_info) = (0xc000_0080, 0, 0, [1, 0]);
    let _ = pvh.exit(&bed, 0x7c, &[0x0f, 0x30]);
    assert_eq!(pvh.vmcb().event & 0xff, 13);
    // Ports float.
    (pvh.registers.rax, pvh.vmcb().exit_info) = (0, [0x60 << 16 | 1 << 4 | 1, CODE + 2]);
    let _ = pvh.exit(&bed, 0x7b, &[0xe4, 0x60]);
    assert_eq!((pvh.registers.rax, pvh.registers.rip), (0xff, CODE + 2));
    // A page of hypercall stubs.
    (pvh.registers.rcx, pvh.registers.rax, pvh.vmcb().exit_info) = (0x4000_0000, 0x1_0000, [1, 0]);
    let _ = pvh.exit(&bed, 0x7c, &[0x0f, 0x30]);
    assert_eq!(pvh.word(&bed, 0x1_0000 + 17 * 32), 0xd901_0f00_0000_11b8);
}

#[test]
fn halting_waits_for_an_event_and_with_interrupts_off_for_nothing() {
    let bed = bed();
    let mut dom0 = bed.guest(0, 6);
    let domain = made(&bed, &mut dom0);
    let mut pvh = Pvh::new(&bed, &domain);
    pvh.registers.rflags |= flags::IF;
    assert_eq!(pvh.exit(&bed, 0x78, &[0xf4]), Next::Switch);
    assert_eq!(pvh.vcpu().stopped.load(Ordering::SeqCst), stopped::BLOCKED);
    assert_eq!(pvh.registers.rip, CODE + 1);
    pvh.vcpu().stopped.store(0, Ordering::SeqCst);
    pvh.registers.rflags &= !flags::IF;
    assert_eq!(pvh.exit(&bed, 0x78, &[0xf4]), Next::Switch);
    assert_eq!(domain.lifecycle.lock().shutdown, Some(0));
}

#[test]
fn what_is_not_there_ends_the_guest_alone_and_is_named() {
    let reasons = [(0x400, "HVM-17"), (0x7f, "HVM-18"), (0x7d, "HVM-19"), (0x7b, "HVM-20"), (0x72, "HVM-21")];
    for (code, rule) in reasons {
        let bed = bed();
        let mut dom0 = bed.guest(0, 6);
        let domain = made(&bed, &mut dom0);
        let mut pvh = Pvh::new(&bed, &domain);
        pvh.vmcb().exit_info = [1 << 2, 0xfed0_0000];
        assert_eq!(pvh.exit(&bed, code, &[0x90]), Next::Switch);
        assert_eq!(domain.lifecycle.lock().shutdown, Some(3), "{rule}");
        let said = alloc::string::String::from_utf8(bed.hv.machine.take_console()).unwrap();
        assert!(said.contains(rule), "{said}");
    }
}

#[test]
fn a_non_maskable_interrupt_waits_until_another_event_is_delivered() {
    let bed = bed();
    let mut dom0 = bed.guest(0, 6);
    let domain = made(&bed, &mut dom0);
    let mut pvh = Pvh::new(&bed, &domain);
    crate::sched::kick_for_nmi(&bed.hv, pvh.vcpu());
    pvh.vmcb().event = event::VALID | event::EXCEPTION | 14;
    assert_eq!(before_entry(&bed.hv, &mut pvh.running, &mut pvh.registers), Next::Guest);
    assert_eq!(pvh.vmcb().event, event::VALID | event::EXCEPTION | 14);
    let _ = pvh.exit(&bed, 0x60, &[0x90]);
    for expected in [event::VALID | event::NMI, 0] {
        assert_eq!(before_entry(&bed.hv, &mut pvh.running, &mut pvh.registers), Next::Guest);
        assert_eq!(core::mem::take(&mut pvh.vmcb().event), expected);
    }
}

#[test]
fn an_event_that_was_interrupted_comes_again() {
    let bed = bed();
    let mut dom0 = bed.guest(0, 6);
    let domain = made(&bed, &mut dom0);
    let mut pvh = Pvh::new(&bed, &domain);
    let interrupted = event::VALID | event::EXCEPTION | 14;
    pvh.vmcb().exit_event = interrupted;
    let _ = pvh.exit(&bed, 0x60, &[0x90]);
    assert_eq!(pvh.vmcb().event, interrupted);
    pvh.vmcb().exit_event = event::VALID | event::SOFTWARE | 0x80;
    let _ = pvh.exit(&bed, 0x60, &[0x90]);
    assert_eq!(pvh.vmcb().event, 0);
}

#[test]
fn an_interrupt_waits_in_the_cpu_and_comes_again_where_it_was_not_taken() {
    let mut vmcb = Vmcb::new(0);
    let mut registers = Registers::default();
    vmcb.event = event::VALID | 0xf3;
    vmcb.take(&registers);
    assert_eq!((vmcb.event, vmcb.interrupt_control >> 32 & 0xff), (0, 0xf3));
    assert_eq!(vmcb.interrupt_control & interrupt::WINDOW, interrupt::WINDOW);
    // A physical interrupt ends the run first.
    vmcb.give(&mut registers);
    assert_eq!((vmcb.exit_event, vmcb.interrupt_control & interrupt::WINDOW), (event::VALID | 0xf3, 0));
    vmcb.event = core::mem::take(&mut vmcb.exit_event);
    vmcb.take(&registers);
    vmcb.interrupt_control &= !interrupt::WAITS; // The guest takes it.
    vmcb.give(&mut registers);
    assert_eq!((vmcb.event, vmcb.exit_event), (0, 0));
}

#[test]
fn an_interrupt_beside_an_awaited_window_is_injected() {
    let mut vmcb = Vmcb::new(0);
    let mut registers = Registers::default();
    vmcb.intercepts[0] |= intercept::VIRTUAL_INTERRUPT;
    vmcb.interrupt_control |= interrupt::WINDOW;
    vmcb.event = event::VALID | 0xf3;
    vmcb.take(&registers);
    assert_eq!(vmcb.event, event::VALID | 0xf3);
    vmcb.give(&mut registers);
    assert_eq!((vmcb.exit_event, vmcb.interrupt_control & interrupt::WINDOW), (0, interrupt::WINDOW));
}

/// A saved state with one vCPU's record.
fn saved(header: HvmSaveHeader, cpu: &HvmHwCpu, instance: u16) -> Vec<u8> {
    let mut state = Vec::new();
    for (typecode, instance, record) in [(1, 0, header.as_bytes()), (2, instance, cpu.as_bytes()), (0, 0, &[][..])] {
        let descriptor = HvmSaveDescriptor { typecode, instance, length: record.len() as u32 };
        state.extend_from_slice(descriptor.as_bytes());
        state.extend_from_slice(record);
    }
    state
}

fn set_state(bed: &Bed, dom0: &mut Guest, id: u16, state: &[u8]) -> i64 {
    let place = dom0.address(2);
    dom0.write(bed, place, state);
    let request = dom::DomctlHvmcontext { size: state.len() as u32, buffer: place, ..Default::default() };
    ask(bed, dom0, dom::XEN_DOMCTL_SETHVMCONTEXT, id, &request).0
}

#[test]
fn a_saved_state_starts_a_vcpu_and_can_be_read_back() {
    let bed = bed();
    let mut dom0 = bed.guest(0, 6);
    let domain = made(&bed, &mut dom0);
    let id = domain.id.0;
    let header = HvmSaveHeader { magic: HVM_FILE_MAGIC, version: HVM_FILE_VERSION, ..Default::default() };
    let cpu = HvmHwCpu { rip: 0x10_0000, rbx: 0x1234, cr0: 0x11, rflags: 2, cs_arbytes: 0xc9b, ..Default::default() };
    assert_eq!(set_state(&bed, &mut dom0, id, &saved(header, &cpu, 0)), 0);
    let vcpu = domain.vcpu(VcpuId(0)).unwrap();
    assert_eq!(vcpu.stopped.load(Ordering::SeqCst), 0);
    assert_eq!(vcpu.state.lock().as_ref().unwrap().registers.rip, 0x10_0000);
    let info: dom::DomctlGetdomaininfo =
        ask(&bed, &mut dom0, dom::XEN_DOMCTL_GETDOMAININFO, id, &[0_u8; 1]).1.payload();
    assert!(info.flags & dom::XEN_DOMINF_HVM_GUEST != 0);
    let request = dom::DomctlHvmcontext { size: 4096, buffer: dom0.address(2), ..Default::default() };
    let (result, frame) = ask(&bed, &mut dom0, dom::XEN_DOMCTL_GETHVMCONTEXT, id, &request);
    let size = frame.payload::<dom::DomctlHvmcontext>().size as usize;
    let types = size_of::<HvmSaveDescriptor>() + size_of::<HvmHwMtrr>();
    assert_eq!((result, size), (0, saved(header, &cpu, 0).len() + types));
    let read: HvmHwCpu = dom0.read(&bed, dom0.address(2) + 8 + 24 + 8);
    assert_eq!((read.rip, read.rbx, read.cs_arbytes), (cpu.rip, cpu.rbx, cpu.cs_arbytes));
}

#[test]
fn one_record_of_a_state_is_read_and_set_alone() {
    let bed = bed();
    let mut dom0 = bed.guest(0, 6);
    let domain = made(&bed, &mut dom0);
    let id = domain.id.0;
    let buffer = dom0.address(2);
    let read = |dom0: &mut Guest, type_, instance, bufsz, buffer| {
        let request = dom::DomctlHvmcontextPartial { type_, instance, bufsz, buffer };
        let (result, frame) = ask(&bed, dom0, dom::XEN_DOMCTL_GETHVMCONTEXT_PARTIAL, id, &request);
        (result, frame.payload::<dom::DomctlHvmcontextPartial>().bufsz)
    };
    let bytes = size_of::<HvmHwMtrr>() as u64;
    assert_eq!(read(&mut dom0, 14, 0, 0, 0), (0, bytes));
    assert_eq!(read(&mut dom0, 14, 0, 4096, buffer), (0, bytes));
    let mut types: HvmHwMtrr = dom0.read(&bed, buffer);
    assert_eq!((types.msr_mtrr_def_type, types.msr_mtrr_cap), (0x806, 0x508));
    let header = HvmSaveHeader { magic: HVM_FILE_MAGIC, version: HVM_FILE_VERSION, ..Default::default() };
    let state = |types: &HvmHwMtrr| {
        let mut state = saved(header, &HvmHwCpu::default(), 0);
        state.truncate(8 + 24);
        for (typecode, record) in [(14, types.as_bytes()), (0, &[][..])] {
            let descriptor = HvmSaveDescriptor { typecode, instance: 0, length: record.len() as u32 };
            state.extend_from_slice(descriptor.as_bytes());
            state.extend_from_slice(record);
        }
        state
    };
    types.msr_mtrr_def_type = 0xc06;
    assert_eq!(set_state(&bed, &mut dom0, id, &state(&types)), 0);
    assert_eq!(domain.vcpu(VcpuId(0)).unwrap().stopped.load(Ordering::SeqCst), stopped::DOWN, "it is not started");
    assert_eq!(read(&mut dom0, 14, 0, 4096, buffer), (0, bytes));
    assert_eq!(dom0.read::<HvmHwMtrr>(&bed, buffer).msr_mtrr_def_type, 0xc06);
    let _ = broken_rules();
    types.msr_pat_cr = 2;
    assert_eq!(set_state(&bed, &mut dom0, id, &state(&types)), Errno::Inval.as_return());
    assert_eq!(read(&mut dom0, 14, 0, bytes - 1, buffer).0, Errno::NoSpc.as_return());
    assert_eq!(read(&mut dom0, 14, 1, 4096, buffer).0, Errno::NoEnt.as_return());
    assert_eq!(read(&mut dom0, 99, 0, 4096, buffer).0, Errno::Inval.as_return());
    assert_eq!(broken_rules(), ["HVM-12"; 4]);
}

#[test]
fn a_saved_state_that_cannot_be_is_refused_whole() {
    let bed = bed();
    let mut dom0 = bed.guest(0, 6);
    let domain = made(&bed, &mut dom0);
    let id = domain.id.0;
    let header = HvmSaveHeader { magic: HVM_FILE_MAGIC, version: HVM_FILE_VERSION, ..Default::default() };
    let cpu = HvmHwCpu { cr0: 0x11, ..Default::default() };
    let good = saved(header, &cpu, 0);
    let _ = broken_rules();
    let mut refused = |id, state: &[u8]| set_state(&bed, &mut dom0, id, state) == Errno::Inval.as_return();
    assert!(refused(id, &saved(HvmSaveHeader::default(), &cpu, 0)));
    assert!(refused(id, &saved(header, &cpu, 1)));
    assert!(refused(id, &good[..good.len() - 8]));
    assert!(refused(id, &good[..100]));
    assert_eq!(broken_rules(), ["HVM-12"; 4]);
    for cpu in [
        HvmHwCpu { cr0: 1 << 31, ..cpu },
        HvmHwCpu { cr4: 1 << 13, ..cpu },
        HvmHwCpu { msr_efer: 1 << 12, ..cpu },
        HvmHwCpu { cr3: 1 << 60, ..cpu },
    ] {
        assert!(refused(id, &saved(header, &cpu, 0)));
    }
    assert!(refused(0, &good));
    assert_eq!(broken_rules(), ["HVM-13", "HVM-13", "HVM-13", "HVM-13", "HVM-02"]);
    assert_eq!(domain.vcpu(VcpuId(0)).unwrap().stopped.load(Ordering::SeqCst), stopped::DOWN);
}

#[test]
fn frames_of_a_domain_that_goes_are_not_put_into_its_map() {
    let bed = bed();
    let mut dom0 = bed.guest(0, 6);
    let domain = made(&bed, &mut dom0);
    let mfn = frames::allocate_domain_frame(&bed.hv, &domain).unwrap();
    let hvm = domain.hvm.as_ref().unwrap();
    assert!(relinquish(&bed.hv, &domain));
    let refusal = memory::populate(&bed.hv, &domain, hvm, (50, 0), mfn).unwrap_err();
    assert_eq!(refusal.rule, crate::rules::hvm::TABLE_MEMORY);
    assert_eq!(behind(&bed, &domain, 0), None);
}
