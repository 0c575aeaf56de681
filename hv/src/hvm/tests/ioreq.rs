//! Device models in another domain: what they ask, the requests they get, and what a wrong answer does.

use pv_abi::event_channel::{
    EVTCHNOP_BIND_INTERDOMAIN, EVTCHNOP_CLOSE, EVTCHNOP_SEND, EVTCHNOP_STATUS, EvtchnBindInterdomain, EvtchnClose,
    EvtchnSend, EvtchnStatus,
};
use pv_abi::hvm::dm_op::{
    DmOp, DmOpBuf, DmOpCreateIoreqServer, DmOpDestroyIoreqServer, DmOpGetIoreqServerInfo, DmOpInjectMsi,
    DmOpIoreqServerRange, DmOpNrVcpus, DmOpRemoteShutdown, DmOpSetIoreqServerState, XEN_DMOP_CREATE_IOREQ_SERVER,
    XEN_DMOP_DESTROY_IOREQ_SERVER, XEN_DMOP_GET_IOREQ_SERVER_INFO, XEN_DMOP_INJECT_MSI, XEN_DMOP_IO_RANGE_PCI,
    XEN_DMOP_IO_RANGE_PORT, XEN_DMOP_MAP_IO_RANGE_TO_IOREQ_SERVER, XEN_DMOP_NO_GFNS, XEN_DMOP_NR_VCPUS,
    XEN_DMOP_REMOTE_SHUTDOWN, XEN_DMOP_SET_IOREQ_SERVER_STATE, XEN_DMOP_TRACK_DIRTY_VRAM,
    XEN_DMOP_UNMAP_IO_RANGE_FROM_IOREQ_SERVER, pci_sbdf,
};
use pv_abi::hvm::ioreq::{
    IOREQ_TYPE_PCI_CONFIG, IOREQ_TYPE_PIO, Ioreq, STATE_IOREQ_INPROCESS, STATE_IOREQ_NONE, STATE_IOREQ_READY,
    STATE_IORESP_READY,
};
use pv_abi::memory::{MemAcquireResource, XENMEM_ACQUIRE_RESOURCE, XENMEM_RESOURCE_IOREQ_SERVER};

use super::*;

pub(super) fn dm<T: IntoBytes + Immutable>(bed: &Bed, dom0: &mut Guest, id: u16, op: u32, payload: &T) -> (i64, DmOp) {
    let (buffer, operation) = (dom0.address(1), dom0.address(1) + 64);
    dom0.write(bed, buffer, &DmOpBuf { h: operation, size: size_of::<DmOp>() as u64 });
    dom0.write(bed, operation, &DmOp::new(op, payload));
    let result = dom0.call(bed, number::HYPERVISOR_DM_OP, [id.into(), 1, buffer, 0, 0]);
    (result, dom0.read(bed, operation))
}

fn create(bed: &Bed, dom0: &mut Guest, id: u16) -> i64 {
    let (result, answer) = dm(bed, dom0, id, XEN_DMOP_CREATE_IOREQ_SERVER, &DmOpCreateIoreqServer::default());
    if result == 0 { answer.payload::<DmOpCreateIoreqServer>().id.into() } else { result }
}

pub(super) fn range(bed: &Bed, dom0: &mut Guest, id: u16, type_: u32, ends: (u64, u64), give: bool) -> i64 {
    let op = if give { XEN_DMOP_MAP_IO_RANGE_TO_IOREQ_SERVER } else { XEN_DMOP_UNMAP_IO_RANGE_FROM_IOREQ_SERVER };
    let asked = DmOpIoreqServerRange { type_, start: ends.0, end: ends.1, ..Default::default() };
    dm(bed, dom0, id, op, &asked).0
}

fn enable(bed: &Bed, dom0: &mut Guest, id: u16) {
    let on = DmOpSetIoreqServerState { enabled: 1, ..Default::default() };
    assert_eq!(dm(bed, dom0, id, XEN_DMOP_SET_IOREQ_SERVER_STATE, &on).0, 0);
}

fn acquire(bed: &Bed, dom0: &mut Guest, id: u16, server: u32, frame: u64) -> (i64, Mfn) {
    let list = dom0.address(2);
    let mut asked = MemAcquireResource::new_zeroed();
    (asked.domid, asked.type_, asked.id) = (id, XENMEM_RESOURCE_IOREQ_SERVER, server);
    (asked.nr_frames, asked.frame, asked.frame_list) = (1, frame, list);
    let result = dom0.call_with(bed, number::HYPERVISOR_MEMORY_OP, XENMEM_ACQUIRE_RESOURCE, &mut asked);
    (result, Mfn(dom0.read(bed, list)))
}

/// A server that has ports 1230h to 1233h, switched on; its page, and dom0's port.
pub(super) fn served(bed: &Bed, dom0: &mut Guest, id: u16) -> (Mfn, u32) {
    assert_eq!(create(bed, dom0, id), 0);
    assert_eq!(range(bed, dom0, id, XEN_DMOP_IO_RANGE_PORT, (0x1230, 0x1233), true), 0);
    enable(bed, dom0, id);
    let (result, page) = acquire(bed, dom0, id, 0, 1);
    assert_eq!(result, 0);
    let remote_port = request_at(bed, page).vp_eport;
    let mut bind = EvtchnBindInterdomain { remote_dom: id, remote_port, ..EvtchnBindInterdomain::new_zeroed() };
    assert_eq!(dom0.call_with(bed, number::HYPERVISOR_EVENT_CHANNEL_OP, EVTCHNOP_BIND_INTERDOMAIN, &mut bind), 0);
    (page, bind.local_port)
}

pub(super) fn request_at(bed: &Bed, page: Mfn) -> Ioreq {
    let mut request = Ioreq::new_zeroed();
    bed.hv.machine.read_bytes(page, 0, request.as_mut_bytes());
    request
}

pub(super) fn answer(bed: &Bed, dom0: &mut Guest, page: Mfn, port: u32, data: u64, state: u8) {
    let answer = Ioreq { data, ..request_at(bed, page) }.with_state(state);
    bed.hv.machine.write_bytes(page, 0, answer.as_bytes());
    let sent = dom0.call_with(bed, number::HYPERVISOR_EVENT_CHANNEL_OP, EVTCHNOP_SEND, &mut EvtchnSend { port });
    assert_eq!(sent, 0);
}

impl Pvh {
    /// An access to a port of 1, 2 or 4 bytes.
    pub(super) fn port(&mut self, bed: &Bed, port: u16, size: u64, input: bool, data: u64) -> Next {
        self.registers.rax = data;
        self.vmcb().exit_info = [u64::from(port) << 16 | size << 4 | u64::from(input), CODE + 1];
        self.exit(bed, 0x7b, &[0xec])
    }

    pub(super) fn go_on(&mut self, bed: &Bed) -> Next {
        before_entry(&bed.hv, &mut self.running, &mut self.registers)
    }

    fn asks(&self) -> bool {
        self.vcpu().stopped.load(Ordering::SeqCst) & stopped::ASKING != 0
    }
}

#[test]
fn a_read_waits_for_its_answer_and_gets_it() {
    let bed = bed();
    let mut dom0 = bed.guest(0, 6);
    let domain = made(&bed, &mut dom0);
    let (page, port) = served(&bed, &mut dom0, domain.id.0);
    let mut pvh = Pvh::new(&bed, &domain);
    assert_eq!(pvh.port(&bed, 0x1231, 1, true, 0x1234_5678), Next::Switch);
    assert!(pvh.asks());
    let request = request_at(&bed, page);
    assert_eq!((request.addr, request.size, request.count, request.type_), (0x1231, 1, 1, IOREQ_TYPE_PIO));
    assert_eq!((request.state(), request.is_read(), request.data_is_ptr()), (STATE_IOREQ_READY, true, false));
    // A word from the device model before it is done changes nothing.
    answer(&bed, &mut dom0, page, port, 0, STATE_IOREQ_INPROCESS);
    assert!(pvh.asks());
    answer(&bed, &mut dom0, page, port, 0xffff_ffab, STATE_IORESP_READY);
    assert!(!pvh.asks());
    assert_eq!(pvh.go_on(&bed), Next::Guest);
    assert_eq!((pvh.registers.rax, pvh.registers.rip), (0x1234_56ab, CODE + 1));
    assert_eq!(request_at(&bed, page).state(), STATE_IOREQ_NONE);
}

#[test]
fn a_write_carries_its_bytes_alone() {
    let bed = bed();
    let mut dom0 = bed.guest(0, 6);
    let domain = made(&bed, &mut dom0);
    let (page, port) = served(&bed, &mut dom0, domain.id.0);
    let mut pvh = Pvh::new(&bed, &domain);
    assert_eq!(pvh.port(&bed, 0x1232, 2, false, 0xdead_beef), Next::Switch);
    let request = request_at(&bed, page);
    assert_eq!((request.data, request.size, request.is_read()), (0xbeef, 2, false));
    answer(&bed, &mut dom0, page, port, 7, STATE_IORESP_READY);
    assert_eq!(pvh.go_on(&bed), Next::Guest);
    assert_eq!(pvh.registers.rax, 0xdead_beef);
}

#[test]
fn what_no_server_has_all_of_floats_at_once() {
    let bed = bed();
    let mut dom0 = bed.guest(0, 6);
    let domain = made(&bed, &mut dom0);
    served(&bed, &mut dom0, domain.id.0);
    let mut pvh = Pvh::new(&bed, &domain);
    for (port, size, floats) in [(0x122f, 1, 0xff), (0x1233, 2, 0xffff), (0x60, 4, 0xffff_ffff)] {
        assert_eq!(pvh.port(&bed, port, size, true, 0), Next::Guest, "{port:#x}");
        assert_eq!(pvh.registers.rax, floats);
    }
    let off = DmOpSetIoreqServerState::default();
    assert_eq!(dm(&bed, &mut dom0, domain.id.0, XEN_DMOP_SET_IOREQ_SERVER_STATE, &off).0, 0);
    bed.hv.machine.leave_guest();
    assert_eq!(pvh.port(&bed, 0x1230, 1, true, 0), Next::Guest);
    assert_eq!(pvh.registers.rax, 0xff);
}

#[test]
fn a_configuration_space_is_asked_for_by_function_and_offset() {
    let bed = bed();
    let mut dom0 = bed.guest(0, 6);
    let domain = made(&bed, &mut dom0);
    let (page, port) = served(&bed, &mut dom0, domain.id.0);
    let function = u64::from(pci_sbdf(0, 0, 3, 0));
    assert_eq!(range(&bed, &mut dom0, domain.id.0, XEN_DMOP_IO_RANGE_PCI, (function, function), true), 0);
    let mut pvh = Pvh::new(&bed, &domain);
    assert_eq!(pvh.port(&bed, 0xcf8, 4, false, 0x8000_1810), Next::Guest);
    assert_eq!(pvh.port(&bed, 0xcfe, 2, true, 0), Next::Switch);
    let request = request_at(&bed, page);
    assert_eq!((request.addr, request.size, request.type_), (function << 32 | 0x12, 2, IOREQ_TYPE_PCI_CONFIG));
    answer(&bed, &mut dom0, page, port, 0x1234, STATE_IORESP_READY);
    assert_eq!(pvh.go_on(&bed), Next::Guest);
    assert_eq!(pvh.registers.rax, 0x1234);
    assert_eq!(pvh.port(&bed, 0xcf8, 4, false, 0x8000_2010), Next::Guest);
    assert_eq!(pvh.port(&bed, 0xcfc, 4, true, 0), Next::Guest);
    assert_eq!(pvh.registers.rax, 0xffff_ffff);
}

#[test]
fn an_answer_that_is_none_ends_the_guest_alone() {
    let bed = bed();
    let mut dom0 = bed.guest(0, 6);
    let domain = made(&bed, &mut dom0);
    let (page, port) = served(&bed, &mut dom0, domain.id.0);
    let mut pvh = Pvh::new(&bed, &domain);
    let _ = pvh.port(&bed, 0x1230, 1, true, 0);
    answer(&bed, &mut dom0, page, port, 0, STATE_IOREQ_NONE);
    assert_eq!(pvh.go_on(&bed), Next::Switch);
    assert_eq!(domain.lifecycle.lock().shutdown, Some(pv_abi::sched::SHUTDOWN_CRASH));
    assert!(bed.hv.domains.get(DomId::DOM0).unwrap().lifecycle.lock().shutdown.is_none());
    let said = alloc::string::String::from_utf8(bed.hv.machine.take_console()).unwrap();
    assert!(said.contains("HVM-34"), "{said}");
}

#[test]
fn a_server_that_ends_lets_those_go_on_who_wait() {
    let bed = bed();
    let mut dom0 = bed.guest(0, 6);
    let domain = made(&bed, &mut dom0);
    served(&bed, &mut dom0, domain.id.0);
    let mut pvh = Pvh::new(&bed, &domain);
    let _ = pvh.port(&bed, 0x1230, 4, true, 0);
    let end = DmOpDestroyIoreqServer::default();
    assert_eq!(dm(&bed, &mut dom0, domain.id.0, XEN_DMOP_DESTROY_IOREQ_SERVER, &end).0, 0);
    assert!(!pvh.asks());
    assert_eq!(pvh.go_on(&bed), Next::Guest);
    assert_eq!(pvh.registers.rax, 0xffff_ffff);
    assert_eq!(dm(&bed, &mut dom0, domain.id.0, XEN_DMOP_DESTROY_IOREQ_SERVER, &end).0, Errno::NoEnt.as_return());
}

#[test]
fn a_server_leaves_nothing_behind() {
    let bed = bed();
    let mut dom0 = bed.guest(0, 6);
    let domain = made(&bed, &mut dom0);
    let id = domain.id.0;
    // The first one makes the tables of ports grow.
    served(&bed, &mut dom0, id);
    let end = DmOpDestroyIoreqServer::default();
    assert_eq!(dm(&bed, &mut dom0, id, XEN_DMOP_DESTROY_IOREQ_SERVER, &end).0, 0);
    let before = bed.hv.allocator.lock().free_count();
    served(&bed, &mut dom0, id);
    assert!(bed.hv.allocator.lock().free_count() < before);
    assert_eq!(dm(&bed, &mut dom0, id, XEN_DMOP_DESTROY_IOREQ_SERVER, &end).0, 0);
    assert_eq!(bed.hv.allocator.lock().free_count(), before);
}

#[test]
fn the_hypervisors_port_is_not_the_guests_to_close_or_send_on() {
    let bed = bed();
    let mut dom0 = bed.guest(0, 6);
    let domain = made(&bed, &mut dom0);
    let (page, local) = served(&bed, &mut dom0, domain.id.0);
    let port = request_at(&bed, page).vp_eport;
    let mut pvh = Pvh::new(&bed, &domain);
    let _ = broken_rules();
    let events = number::HYPERVISOR_EVENT_CHANNEL_OP;
    assert_eq!(pvh.call_with(&bed, events, EVTCHNOP_CLOSE, &EvtchnClose { port }), Errno::Inval.as_return());
    assert_eq!(pvh.call_with(&bed, events, EVTCHNOP_SEND, &EvtchnSend { port }), Errno::Inval.as_return());
    assert_eq!(broken_rules(), ["EVT-23", "EVT-02"]);
    bed.hv.machine.leave_guest();
    let mut status = EvtchnStatus { port: local, ..EvtchnStatus::new_zeroed() };
    status.dom = DOMID_SELF;
    assert_eq!(dom0.call_with(&bed, events, EVTCHNOP_STATUS, &mut status), 0);
    assert_eq!((status.status, status.u), (2, [domain.id.0.into(), port]));
    // The other end can be closed, and bound again.
    assert_eq!(dom0.call_with(&bed, events, EVTCHNOP_CLOSE, &mut EvtchnClose { port: local }), 0);
    let mut bind =
        EvtchnBindInterdomain { remote_dom: domain.id.0, remote_port: port, ..EvtchnBindInterdomain::new_zeroed() };
    assert_eq!(dom0.call_with(&bed, events, EVTCHNOP_BIND_INTERDOMAIN, &mut bind), 0);
    assert_eq!(dom0.call_with(&bed, events, EVTCHNOP_BIND_INTERDOMAIN, &mut bind), Errno::Inval.as_return());
}

#[test]
fn ranges_do_not_overlap_and_can_be_taken_in_part() {
    let bed = bed();
    let mut dom0 = bed.guest(0, 6);
    let id = made(&bed, &mut dom0).id.0;
    assert_eq!(create(&bed, &mut dom0, id), 0);
    let _ = broken_rules();
    let mut set = |first, last, give| range(&bed, &mut dom0, id, XEN_DMOP_IO_RANGE_PORT, (first, last), give);
    assert_eq!(set(0x10, 0x1f, true), 0);
    assert_eq!(set(0x1f, 0x20, true), Errno::Exist.as_return());
    assert_eq!(set(0x14, 0x17, false), 0);
    assert_eq!(set(0x14, 0x14, false), Errno::NoEnt.as_return());
    assert_eq!(set(0x14, 0x17, true), 0);
    assert_eq!(set(0x18, 0x1f, false), 0);
    assert_eq!(set(5, 4, true), Errno::Inval.as_return());
    assert_eq!(set(0, u64::MAX, false), Errno::NoEnt.as_return());
    for n in 0.. {
        let result = set(0x1000 + 2 * n, 0x1000 + 2 * n, true);
        if result != 0 {
            assert_eq!((result, n), (Errno::NoSpc.as_return(), 254));
            break;
        }
    }
    assert_eq!(range(&bed, &mut dom0, id, 3, (0, 0), true), Errno::Inval.as_return());
    assert_eq!(broken_rules(), ["HVM-32", "HVM-32", "HVM-27", "HVM-32", "HVM-33", "HVM-27"]);
}

#[test]
fn what_a_device_model_may_not_is_refused_by_its_rule() {
    let bed = bed();
    let mut dom0 = bed.guest(0, 6);
    let id = made(&bed, &mut dom0).id.0;
    for n in 0..8 {
        assert_eq!(create(&bed, &mut dom0, id), n);
    }
    let _ = broken_rules();
    assert_eq!(create(&bed, &mut dom0, id), Errno::NoSpc.as_return());
    let none = DmOpSetIoreqServerState { id: 9, ..Default::default() };
    assert_eq!(dm(&bed, &mut dom0, id, XEN_DMOP_SET_IOREQ_SERVER_STATE, &none).0, Errno::NoEnt.as_return());
    let by_guest = DmOpGetIoreqServerInfo::default();
    assert_eq!(dm(&bed, &mut dom0, id, XEN_DMOP_GET_IOREQ_SERVER_INFO, &by_guest).0, Errno::NoMem.as_return());
    let odd = DmOpCreateIoreqServer { pad: [0, 1, 0], ..Default::default() };
    assert_eq!(dm(&bed, &mut dom0, id, XEN_DMOP_CREATE_IOREQ_SERVER, &odd).0, Errno::Inval.as_return());
    assert_eq!(dm(&bed, &mut dom0, id, XEN_DMOP_TRACK_DIRTY_VRAM, &[0_u64; 2]).0, Errno::OpNotSupp.as_return());
    assert_eq!(dm(&bed, &mut dom0, 0, XEN_DMOP_NR_VCPUS, &0_u32).0, Errno::Perm.as_return());
    assert_eq!(dm(&bed, &mut dom0, 77, XEN_DMOP_NR_VCPUS, &0_u32).0, Errno::Srch.as_return());
    assert_eq!(dom0.call(&bed, number::HYPERVISOR_DM_OP, [id.into(), 3, 0, 0, 0]), Errno::TooBig.as_return());
    assert_eq!(dom0.call(&bed, number::HYPERVISOR_DM_OP, [id.into(), 0, 0, 0, 0]), Errno::Fault.as_return());
    assert_eq!(acquire(&bed, &mut dom0, id, 9, 1).0, Errno::NoEnt.as_return());
    assert_eq!(acquire(&bed, &mut dom0, id, 0, 0).0, Errno::NoEnt.as_return());
    assert_eq!(acquire(&bed, &mut dom0, id, 0, 2).0, Errno::Inval.as_return());
    let table = crate::rules::hvm::TABLE;
    let broken = broken_rules();
    let [own, unknown] = [rule::DEVICE_MODEL, rule::DEVICE_MODEL_OPERATION];
    let servers = [rule::SERVER_COUNT, rule::NO_SERVER, rule::SERVER_MEMORY];
    for name in servers.into_iter().chain([own, unknown, rule::DEVICE_MODEL_ARGUMENT, rule::BUFFERS]) {
        assert!(table.contains(&name) && broken.iter().any(|broken| *broken == name.0.id), "{name}: {broken:?}");
    }
}

#[test]
fn a_server_is_not_for_another_domain() {
    let bed = bed();
    let mut dom0 = bed.guest(0, 6);
    let domain = made(&bed, &mut dom0);
    assert_eq!(create(&bed, &mut dom0, domain.id.0), 0);
    let hvm = domain.hvm.as_ref().unwrap();
    let refusal = super::super::ioreq::enable(hvm, DomId(5), 0, true).unwrap_err();
    assert_eq!((refusal.as_errno(), refusal.rule), (Some(Errno::Perm), rule::SERVER_NOT_YOURS));
    let mut other = bed.guest(9, 4);
    let count = dm(&bed, &mut other, domain.id.0, XEN_DMOP_NR_VCPUS, &0_u32).0;
    assert_eq!(count, Errno::Perm.as_return());
}

#[test]
fn a_device_model_counts_interrupts_and_ends() {
    let bed = bed();
    let mut dom0 = bed.guest(0, 6);
    let domain = made_with(&bed, &mut dom0, 2);
    let id = domain.id.0;
    let (result, answer) = dm(&bed, &mut dom0, id, XEN_DMOP_NR_VCPUS, &0_u32);
    assert_eq!((result, answer.payload::<DmOpNrVcpus>().vcpus), (0, 2));
    let to_second = DmOpInjectMsi { data: 0x41, addr: 0xfee0_2000, ..Default::default() };
    assert_eq!(dm(&bed, &mut dom0, id, XEN_DMOP_INJECT_MSI, &to_second).0, 0);
    let info = DmOpGetIoreqServerInfo { flags: XEN_DMOP_NO_GFNS, ..Default::default() };
    let buffered = DmOpCreateIoreqServer { handle_bufioreq: 2, ..Default::default() };
    assert_eq!(dm(&bed, &mut dom0, id, XEN_DMOP_CREATE_IOREQ_SERVER, &buffered).0, 0);
    let (result, answer) = dm(&bed, &mut dom0, id, XEN_DMOP_GET_IOREQ_SERVER_INFO, &info);
    assert_eq!(result, 0);
    assert_ne!(answer.payload::<DmOpGetIoreqServerInfo>().bufioreq_port, 0);
    assert_eq!(acquire(&bed, &mut dom0, id, 0, 0).0, 0);
    assert_eq!(dm(&bed, &mut dom0, id, XEN_DMOP_REMOTE_SHUTDOWN, &DmOpRemoteShutdown { reason: 3 }).0, 0);
    assert_eq!(domain.lifecycle.lock().shutdown, Some(3));
}
