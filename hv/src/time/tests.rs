//! What timers and clocks do, one behaviour a test.

use alloc::sync::Arc;

use pv_abi::VcpuId;
use pv_abi::vcpu::{
    RUNSTATE_BLOCKED, RUNSTATE_RUNNING, VCPUOP_REGISTER_RUNSTATE_MEMORY_AREA, VCPUOP_REGISTER_VCPU_TIME_MEMORY_AREA,
    VCPUOP_SET_SINGLESHOT_TIMER, VcpuRunstateInfo, VcpuSetSingleshotTimer,
};
use pv_abi::xen::{
    HYPERVISOR_SET_TIMER_OP, HYPERVISOR_VCPU_OP, VMASST_TYPE_RUNSTATE_UPDATE_FLAG, VcpuTimeInfo,
    XEN_PVCLOCK_TSC_STABLE_BIT,
};

use super::*;
use crate::domain::Domain;
use crate::evtchn;
use crate::fake::{Bed, Event};
use crate::sched;

const MS: u64 = 1_000_000;

/// A domain of one vCPU with a port for its timer.
fn with_timer_port(bed: &Bed) -> (Arc<Domain>, Arc<Vcpu>, u32) {
    let domain = bed.domain(1, 1);
    let port = evtchn::bind_virq(&bed.hv, &domain, VIRQ_TIMER, 0).unwrap();
    let vcpu = domain.vcpu(VcpuId(0)).unwrap().clone();
    (domain, vcpu, port)
}

fn take_tick(bed: &Bed, domain: &Domain, port: u32) -> bool {
    let is_pending = evtchn::is_pending(&bed.hv, domain, port).unwrap();
    bed.hv.machine.fetch_and_word(domain.shared_info, 256, 0);
    bed.hv.machine.fetch_and_word(domain.shared_info, 1, 0);
    bed.hv.machine.swap_byte(domain.shared_info, 0, 0);
    is_pending
}

fn pass(bed: &Bed, ns: u64) {
    bed.hv.machine.advance(ns);
    if bed.hv.machine.take_timer_interrupt() {
        on_timer(&bed.hv);
    }
}

#[test]
fn a_single_shot_timer_comes_once_and_not_early() {
    let bed = Bed::new(64);
    let (domain, vcpu, port) = with_timer_port(&bed);
    let now = bed.hv.machine.now();
    set_single(&bed.hv, &vcpu, Some(now + 5 * MS));
    pass(&bed, 5 * MS - 1);
    assert!(!take_tick(&bed, &domain, port));
    pass(&bed, 1);
    assert!(take_tick(&bed, &domain, port));
    pass(&bed, 100 * MS);
    assert!(!take_tick(&bed, &domain, port));
    assert_eq!(bed.hv.machine.deadline(), None);
}

#[test]
fn a_deadline_that_has_passed_comes_at_once() {
    let bed = Bed::new(64);
    let (domain, vcpu, port) = with_timer_port(&bed);
    set_single(&bed.hv, &vcpu, Some(1));
    assert!(take_tick(&bed, &domain, port));
}

#[test]
fn a_timer_that_was_moved_comes_at_its_last_time_only() {
    let bed = Bed::new(64);
    let (domain, vcpu, port) = with_timer_port(&bed);
    let now = bed.hv.machine.now();
    for later in [5, 9, 3, 20] {
        set_single(&bed.hv, &vcpu, Some(now + later * MS));
    }
    for ms in 1..=25 {
        pass(&bed, MS);
        assert_eq!(take_tick(&bed, &domain, port), ms == 20, "after {ms} ms");
    }
    set_single(&bed.hv, &vcpu, Some(now + 30 * MS));
    set_single(&bed.hv, &vcpu, None);
    pass(&bed, 100 * MS);
    assert!(!take_tick(&bed, &domain, port));
}

#[test]
fn a_new_vcpu_ticks_at_100_hz_while_it_runs_until_it_says_otherwise() {
    let bed = Bed::new(64);
    let (domain, vcpu, port) = with_timer_port(&bed);
    sched::wake(&bed.hv, &vcpu);
    let mut slot = None;
    bed.schedule(&mut slot);
    take_tick(&bed, &domain, port);
    for _ in 0..5 {
        pass(&bed, 10 * MS);
        assert!(take_tick(&bed, &domain, port));
    }
    set_periodic(&bed.hv, &vcpu, 50 * MS);
    pass(&bed, 49 * MS);
    assert!(!take_tick(&bed, &domain, port));
    pass(&bed, MS);
    assert!(take_tick(&bed, &domain, port));
    set_periodic(&bed.hv, &vcpu, 0);
    pass(&bed, 1_000 * MS);
    assert!(!take_tick(&bed, &domain, port));
}

#[test]
fn ticks_that_were_missed_come_as_one() {
    let bed = Bed::new(64);
    let (domain, vcpu, port) = with_timer_port(&bed);
    sched::wake(&bed.hv, &vcpu);
    let mut slot = None;
    bed.schedule(&mut slot);
    assert!(take_tick(&bed, &domain, port), "the first comes when it first runs");
    bed.sleep(&vcpu);
    set_single(&bed.hv, &vcpu, Some(bed.hv.machine.now() + 35 * MS));
    let start = bed.hv.machine.now();
    bed.schedule(&mut slot);
    assert_eq!(bed.hv.machine.now(), start + 35 * MS, "a vCPU that sleeps is not woken by its ticks");
    assert!(take_tick(&bed, &domain, port));
    pass(&bed, 10 * MS);
    assert!(take_tick(&bed, &domain, port));
}

#[test]
fn set_timer_op_takes_absurd_times_as_soon() {
    let bed = Bed::new(128);
    let mut guest = bed.guest(1, 2);
    set_periodic(&bed.hv, &guest.running.vcpu, 0);
    let now = bed.hv.machine.now();
    assert_eq!(guest.call(&bed, HYPERVISOR_SET_TIMER_OP, [u64::MAX, 0, 0, 0, 0]), 0);
    assert_eq!(bed.hv.machine.deadline(), Some(now + 100 * MS));
    assert_eq!(guest.call(&bed, HYPERVISOR_SET_TIMER_OP, [now + MS, 0, 0, 0, 0]), 0);
    assert_eq!(bed.hv.machine.deadline(), Some(now + MS));
}

#[test]
fn the_future_flag_of_a_single_shot_is_ignored() {
    let bed = Bed::new(128);
    let mut guest = bed.guest(1, 2);
    let port = evtchn::bind_virq(&bed.hv, &guest.domain, VIRQ_TIMER, 0).unwrap();
    let place = guest.address(0);
    guest.write(&bed, place, &VcpuSetSingleshotTimer { timeout_abs_ns: 1, flags: 1, ..Default::default() });
    let arguments = [VCPUOP_SET_SINGLESHOT_TIMER.into(), 0, place, 0, 0];
    assert_eq!(guest.call(&bed, HYPERVISOR_VCPU_OP, arguments), 0);
    assert!(take_tick(&bed, &guest.domain, port));
}

#[test]
fn the_machine_is_not_told_a_deadline_that_it_knows() {
    let bed = Bed::new(64);
    let (_, vcpu, _) = with_timer_port(&bed);
    let now = bed.hv.machine.now();
    set_single(&bed.hv, &vcpu, Some(now + MS));
    bed.hv.machine.take_events();
    for later in 2..50 {
        set_single(&bed.hv, &vcpu, Some(now + later * MS));
        program(&bed.hv);
    }
    assert_eq!(bed.hv.machine.take_events(), []);
}

fn time_page(bed: &Bed, domain: &Domain) -> VcpuTimeInfo {
    let mut page = VcpuTimeInfo::default();
    bed.hv.machine.read_bytes(domain.shared_info, 32, zerocopy::IntoBytes::as_mut_bytes(&mut page));
    page
}

#[test]
fn the_time_page_is_odd_while_it_is_written() {
    let bed = Bed::new(64);
    let (domain, vcpu, _) = with_timer_port(&bed);
    write_time_page(&bed.hv, &vcpu);
    clock::publish_again(&vcpu);
    bed.hv.machine.remember_writes(true);
    bed.hv.machine.take_events();
    write_time_page(&bed.hv, &vcpu);
    let writes: alloc::vec::Vec<_> = bed.hv.machine.take_events();
    let versions: alloc::vec::Vec<u64> = writes
        .iter()
        .filter_map(|event| match event {
            Event::Write(_, 4, value) => Some(*value),
            _ => None,
        })
        .collect();
    assert_eq!(versions, [3, 4]);
    assert!(matches!(writes.first(), Some(Event::Write(_, 4, 3))));
    assert!(matches!(writes.last(), Some(Event::Write(_, 4, 4))));
    assert_eq!(write_time_page(&bed.hv, &vcpu), None, "nothing changed");
    let page = time_page(&bed, &domain);
    assert_eq!(page.system_time_at(bed.hv.machine.tsc()), bed.hv.machine.now());
    assert_eq!(page.flags, XEN_PVCLOCK_TSC_STABLE_BIT);
}

#[test]
fn all_vcpus_compute_the_same_time_whenever_their_pages_were_written() {
    let bed = Bed::new(64);
    let domain = bed.domain(1, 3);
    let mut pages = alloc::vec::Vec::new();
    for vcpu in domain.vcpus.get().into_iter().flatten() {
        bed.hv.machine.advance(13);
        pages.extend(write_time_page(&bed.hv, vcpu));
    }
    assert_eq!(pages.len(), 3);
    for _ in 0..50 {
        bed.hv.machine.advance(7);
        let (tsc, now) = (bed.hv.machine.tsc(), bed.hv.machine.now());
        assert!(pages.iter().all(|page| page.system_time_at(tsc) == now));
    }
}

#[test]
fn the_wall_clock_is_what_was_set() {
    let bed = Bed::new(64);
    let domain = bed.domain(1, 1);
    update_wallclock(&bed.hv, &domain);
    let read = || {
        let first = bed.hv.machine.read_word(domain.shared_info, 384);
        let second = bed.hv.machine.read_word(domain.shared_info, 385);
        (first as u32, first >> 32 | second >> 32 << 32, second as u32)
    };
    assert_eq!(read(), (2, 1_700_000_000, 500));
    set_wallclock(&bed.hv, 0x1_2345_6789, 20, 1_000_000_030);
    assert_eq!(read(), (4, 0x1_2345_6787, 999_999_990));
    domain.settings.lock().time_offset_seconds = -7;
    update_wallclock(&bed.hv, &domain);
    assert_eq!(read(), (6, 0x1_2345_6780, 999_999_990));
}

#[test]
fn a_runstate_area_says_where_time_went() {
    let bed = Bed::new(128);
    let mut guest = bed.guest(1, 3);
    let vcpu = guest.running.vcpu.clone();
    set_periodic(&bed.hv, &vcpu, 0);
    let (place, area) = (guest.address(0), guest.address(1));
    guest.write(&bed, place, &area);
    let register = [VCPUOP_REGISTER_RUNSTATE_MEMORY_AREA.into(), 0, place, 0, 0];
    assert_eq!(guest.call(&bed, HYPERVISOR_VCPU_OP, register), 0);
    guest.domain.assists.store(1 << VMASST_TYPE_RUNSTATE_UPDATE_FLAG, core::sync::atomic::Ordering::Relaxed);

    *vcpu.state.lock() = Some(core::mem::take(&mut guest.running.state));
    sched::wake(&bed.hv, &vcpu);
    let mut slot = None;
    bed.schedule(&mut slot);
    let started = bed.hv.machine.now();
    bed.hv.machine.advance(4 * MS);
    bed.sleep(&vcpu);
    set_single(&bed.hv, &vcpu, Some(started + 9 * MS));
    evtchn::bind_virq(&bed.hv, &guest.domain, VIRQ_TIMER, 0).unwrap();
    bed.schedule(&mut slot);
    guest.running.state = slot.take().unwrap().state;
    let info: VcpuRunstateInfo = guest.read(&bed, area);
    assert_eq!((info.state, info.state_entry_time), (RUNSTATE_RUNNING, started + 9 * MS));
    assert_eq!(info.time[RUNSTATE_RUNNING as usize], 4 * MS);
    assert_eq!(info.time[RUNSTATE_BLOCKED as usize], 5 * MS);
}

#[test]
fn a_second_time_page_follows_the_first() {
    let bed = Bed::new(128);
    let mut guest = bed.guest(1, 3);
    let (place, area) = (guest.address(0), guest.address(1));
    guest.write(&bed, place, &area);
    let register = [VCPUOP_REGISTER_VCPU_TIME_MEMORY_AREA.into(), 0, place, 0, 0];
    assert_eq!(guest.call(&bed, HYPERVISOR_VCPU_OP, register), 0);
    update_guest_clock(&bed.hv, &mut guest.running);
    let page: VcpuTimeInfo = guest.read(&bed, area);
    assert_eq!(page, time_page(&bed, &guest.domain));
    assert_eq!(page.version % 2, 0);
}
