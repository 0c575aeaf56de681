//! What the scheduler and its hypercalls do, one behaviour a test.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;

use pv_abi::VcpuId;
use pv_abi::errno::Errno;
use pv_abi::sched::{
    SCHEDOP_BLOCK, SCHEDOP_PIN_OVERRIDE, SCHEDOP_POLL, SCHEDOP_REMOTE_SHUTDOWN, SCHEDOP_SHUTDOWN,
    SCHEDOP_SHUTDOWN_CODE, SCHEDOP_WATCHDOG, SCHEDOP_YIELD, SHUTDOWN_CRASH, SHUTDOWN_POWEROFF, SHUTDOWN_SUSPEND,
    SchedPinOverride, SchedPoll, SchedRemoteShutdown, SchedShutdown, SchedWatchdog,
};
use pv_abi::vcpu::*;
use pv_abi::xen::{
    HYPERVISOR_SCHED_OP, HYPERVISOR_SCHED_OP_COMPAT, HYPERVISOR_SET_TIMER_OP, HYPERVISOR_VCPU_OP, VIRQ_DOM_EXC,
    VIRQ_TIMER,
};

use super::*;
use crate::domain::{Running, stopped};
use crate::evtchn;
use crate::fake::{Bed, Event, FakeMachine, Guest, broken_rules};
use crate::hardware::{CpuId, CpuSet, Machine};
use crate::rules::sched as rule;

const MS: u64 = 1_000_000;

/// Stops the periodic timers, which would wake the CPU all the time.
fn quiet(bed: &Bed, domain: &Domain) {
    for vcpu in domain.vcpus.get().unwrap() {
        time::set_periodic(&bed.hv, vcpu, 0);
    }
}

/// A domain of one vCPU that wants to run, with this weight.
fn hungry(bed: &Bed, id: u16, weight: u32) -> Arc<Vcpu> {
    let domain = bed.domain(id, 1);
    domain.weight.store(weight, Ordering::Relaxed);
    quiet(bed, &domain);
    let vcpu = domain.vcpu(VcpuId(0)).unwrap().clone();
    wake(&bed.hv, &vcpu);
    vcpu
}

/// Lets time pass while whoever is chosen uses the CPU up.
fn run_for(bed: &Bed, slot: &mut Option<Running>, ns: u64) {
    let end = bed.hv.machine.now() + ns;
    while bed.hv.machine.now() < end {
        bed.schedule(slot);
        let next = bed.hv.machine.deadline().unwrap_or(u64::MAX).clamp(bed.hv.machine.now() + 1, end);
        bed.hv.machine.set_now(next);
        if bed.hv.machine.take_timer_interrupt() {
            time::on_timer(&bed.hv);
        }
    }
}

#[test]
fn cpu_time_is_shared_by_weight() {
    let bed = Bed::new(64);
    let vcpus: Vec<_> = [(1, 256), (2, 512), (3, 1024)].map(|(id, weight)| hungry(&bed, id, weight)).into();
    run_for(&bed, &mut None, 7_000 * MS);
    let used: Vec<u64> = vcpus.iter().map(|vcpu| cpu_time(&bed.hv, vcpu) / MS).collect();
    assert_eq!(used.iter().sum::<u64>(), 7_000, "the CPU is never idle");
    for (used, fair) in used.iter().zip([1_000, 2_000, 4_000]) {
        assert!(used.abs_diff(fair) <= 30, "{used} ms of {fair}");
    }
}

#[test]
fn who_sleeps_does_not_save_up() {
    let bed = Bed::new(64);
    let (sleeper, worker) = (hungry(&bed, 1, 256), hungry(&bed, 2, 256));
    let mut slot = None;
    bed.sleep(&sleeper);
    run_for(&bed, &mut slot, 5_000 * MS);
    unblock(&bed.hv, &sleeper);
    let before = [cpu_time(&bed.hv, &sleeper), cpu_time(&bed.hv, &worker)];
    run_for(&bed, &mut slot, 1_000 * MS);
    let slept = cpu_time(&bed.hv, &sleeper) - before[0];
    let worked = cpu_time(&bed.hv, &worker) - before[1];
    assert!(slept.abs_diff(worked) <= 30 * MS, "{slept} and {worked}");
}

#[test]
fn who_wakes_runs_soon() {
    let bed = Bed::new(64);
    let (sleeper, _worker) = (hungry(&bed, 1, 256), hungry(&bed, 2, 256));
    let mut slot = None;
    bed.sleep(&sleeper);
    run_for(&bed, &mut slot, 1_000 * MS);
    let running = bed.schedule(&mut slot);
    assert!(!Arc::ptr_eq(&running, &sleeper));
    unblock(&bed.hv, &sleeper);
    assert_ne!(running.work.load(Ordering::Relaxed) & work::RESCHEDULE, 0);
    assert!(should_switch(&bed.hv, &running));
    assert!(Arc::ptr_eq(&bed.schedule(&mut slot), &sleeper));
}

#[test]
fn who_wakes_does_not_keep_the_preempted_waiting_long() {
    let bed = Bed::new(64);
    let (holder, spinner) = (hungry(&bed, 1, 256), hungry(&bed, 2, 256));
    let mut slot = None;
    bed.sleep(&spinner);
    run_for(&bed, &mut slot, 1_000 * MS);
    unblock(&bed.hv, &spinner);
    assert!(Arc::ptr_eq(&bed.schedule(&mut slot), &spinner));
    let (held, begun) = (cpu_time(&bed.hv, &holder), bed.hv.machine.now());
    while cpu_time(&bed.hv, &holder) == held {
        run_for(&bed, &mut slot, MS / 4);
    }
    let waited = bed.hv.machine.now() - begun;
    assert!(waited <= 3 * MS, "{waited} ns");
}

#[test]
fn who_wakes_all_the_time_gets_no_more_than_its_share() {
    let bed = Bed::new(64);
    let (waker, worker) = (hungry(&bed, 1, 256), hungry(&bed, 2, 256));
    let mut slot = None;
    for _ in 0..4_000 {
        run_for(&bed, &mut slot, MS / 4);
        bed.sleep(&waker);
        unblock(&bed.hv, &waker);
    }
    let used = [&waker, &worker].map(|vcpu| cpu_time(&bed.hv, vcpu) / MS);
    assert!(used[0] <= used[1] + 10, "{used:?}");
    assert!(used[1] <= 600, "it is not starved either: {used:?}");
}

#[test]
fn an_idle_cpu_waits_in_the_machine_and_does_not_spin() {
    let bed = Bed::new(64);
    let vcpu = hungry(&bed, 1, 256);
    let mut slot = None;
    bed.schedule(&mut slot);
    bed.sleep(&vcpu);
    time::set_single(&bed.hv, &vcpu, Some(bed.hv.machine.now() + 500 * MS));
    evtchn::bind_virq(&bed.hv, &vcpu.domain, VIRQ_TIMER, 0).unwrap();
    bed.hv.machine.take_events();
    let start = bed.hv.machine.now();
    assert!(Arc::ptr_eq(&bed.schedule(&mut slot), &vcpu));
    assert_eq!(bed.hv.machine.now(), start + 500 * MS);
    let events = bed.hv.machine.take_events();
    assert_eq!(events.iter().filter(|event| **event == Event::Wait).count(), 1);
    assert!(!events.iter().any(|event| matches!(event, Event::LoadRoot(_))), "its tables stayed loaded");
    assert_eq!(runstate(&bed.hv, &vcpu).time[RUNSTATE_BLOCKED as usize], 500 * MS);
}

#[test]
fn yield_alone_returns_at_once_and_lets_others_go_first() {
    let bed = Bed::new(128);
    let mut guest = bed.guest(1, 2);
    quiet(&bed, &guest.domain);
    assert_eq!(guest.call(&bed, HYPERVISOR_SCHED_OP, [SCHEDOP_YIELD.into(), 0, 0, 0, 0]), 0);
    assert_eq!(guest.running.vcpu.work.load(Ordering::Relaxed), 0);
    let (first, second) = (hungry(&bed, 2, 256), hungry(&bed, 3, 256));
    let mut slot = None;
    let running = bed.schedule(&mut slot);
    let other = if Arc::ptr_eq(&running, &first) { &second } else { &first };
    queue::let_others_go(&running);
    assert!(should_switch(&bed.hv, &running));
    assert!(Arc::ptr_eq(&bed.schedule(&mut slot), other));
    assert_eq!(guest.call(&bed, HYPERVISOR_SCHED_OP_COMPAT, [SCHEDOP_YIELD.into(), 0, 0, 0, 0]), 0);
}

#[test]
fn a_paused_domain_does_not_run() {
    let bed = Bed::new(64);
    let (first, second) = (hungry(&bed, 1, 256), hungry(&bed, 2, 256));
    let mut slot = None;
    bed.schedule(&mut slot);
    pause(&bed.hv, &first.domain);
    let before = cpu_time(&bed.hv, &first);
    run_for(&bed, &mut slot, 100 * MS);
    assert_eq!(cpu_time(&bed.hv, &first), before);
    unpause(&bed.hv, &first.domain);
    run_for(&bed, &mut slot, 100 * MS);
    assert!(cpu_time(&bed.hv, &first) > before);
    assert!(cpu_time(&bed.hv, &second) > 100 * MS);
}

#[test]
fn an_idle_cpu_takes_work_from_a_busy_one() {
    let bed = Bed::on(FakeMachine::with_cpus(64, 2));
    let vcpus: Vec<_> = [1, 2, 3].map(|id| hungry(&bed, id, 256)).into();
    let mut slots = [None, None];
    let mut running = Vec::new();
    for (cpu, slot) in slots.iter_mut().enumerate() {
        bed.hv.machine.set_cpu(cpu as u32);
        running.push(bed.schedule(slot));
    }
    assert!(!Arc::ptr_eq(&running[0], &running[1]));
    let waiting = vcpus.iter().find(|vcpu| !running.iter().any(|running| Arc::ptr_eq(running, vcpu))).unwrap();
    let busy = waiting.cpu.load(Ordering::Relaxed);
    let other = 1 - busy;
    bed.hv.machine.set_cpu(other);
    bed.sleep(&running[other as usize]);
    assert!(Arc::ptr_eq(&bed.schedule(&mut slots[other as usize]), waiting));
    assert_eq!(waiting.cpu.load(Ordering::Relaxed), other);
}

/// Lets time pass on all CPUs, 1 ms at a time, while whoever is chosen uses them up.
fn run_all_for(bed: &Bed, slots: &mut [Option<Running>], ms: u64) {
    for _ in 0..ms {
        bed.hv.machine.advance(MS);
        for (cpu, slot) in (0..).zip(slots.iter_mut()) {
            bed.hv.machine.set_cpu(cpu);
            time::on_timer(&bed.hv);
            let stays = slot.as_ref().is_some_and(|running| {
                running.vcpu.work.load(Ordering::Relaxed) & work::RESCHEDULE == 0 && running.vcpu.is_runnable()
            });
            if !stays {
                bed.schedule(slot);
            }
        }
    }
}

#[test]
fn three_vcpus_share_two_cpus_evenly() {
    let bed = Bed::on(FakeMachine::with_cpus(64, 2));
    let vcpus: Vec<_> = [1, 2, 3].map(|id| hungry(&bed, id, 256)).into();
    let mut slots = [None, None];
    run_all_for(&bed, &mut slots, 6_000);
    let used: Vec<u64> = vcpus.iter().map(|vcpu| cpu_time(&bed.hv, vcpu) / MS).collect();
    assert!(used.iter().sum::<u64>() >= 11_950, "no CPU is idle: {used:?}");
    for used in &used {
        assert!(used.abs_diff(4_000) <= 200, "{used} ms of 4000");
    }
}

#[test]
fn weights_hold_on_two_cpus() {
    let bed = Bed::on(FakeMachine::with_cpus(64, 2));
    let weights = [(1, 512), (2, 256), (3, 256)];
    let vcpus: Vec<_> = weights.map(|(id, weight)| hungry(&bed, id, weight)).into();
    run_all_for(&bed, &mut [None, None], 6_000);
    let used: Vec<u64> = vcpus.iter().map(|vcpu| cpu_time(&bed.hv, vcpu) / MS).collect();
    for (used, fair) in used.iter().zip([6_000_u64, 3_000, 3_000]) {
        assert!(used.abs_diff(fair) <= 600, "{used} ms of {fair}");
    }
}

#[test]
fn an_affinity_moves_a_vcpu_and_keeps_it_there() {
    let bed = Bed::on(FakeMachine::with_cpus(64, 2));
    let vcpu = hungry(&bed, 1, 256);
    let mut slots = [None, None];
    let first = vcpu.cpu.load(Ordering::Relaxed);
    bed.hv.machine.set_cpu(first);
    bed.schedule(&mut slots[first as usize]);
    let other = CpuId(1 - first);
    set_affinity(&bed.hv, &vcpu, CpuSet::of(other), CpuSet::ALL);
    assert!(should_switch(&bed.hv, &vcpu));
    let neighbour = hungry(&bed, 2, 256);
    set_affinity(&bed.hv, &neighbour, CpuSet::of(CpuId(first)), CpuSet::ALL);
    assert!(Arc::ptr_eq(&bed.schedule(&mut slots[first as usize]), &neighbour));
    assert_eq!(vcpu.cpu.load(Ordering::Relaxed), other.0);
    bed.hv.machine.set_cpu(other.0);
    assert!(Arc::ptr_eq(&bed.schedule(&mut slots[other.0 as usize]), &vcpu));
    assert_eq!(affinity(&vcpu), (CpuSet::of(other), CpuSet::ALL));
    run_all_for(&bed, &mut slots, 100);
    assert_eq!(vcpu.cpu.load(Ordering::Relaxed), other.0);
    assert_eq!((vcpu.domain.loaded(), neighbour.domain.loaded()), (CpuSet::of(other), CpuSet::of(CpuId(first))));
}

#[test]
fn who_wakes_goes_to_an_idle_cpu_that_it_likes() {
    let bed = Bed::on(FakeMachine::with_cpus(64, 4));
    let busy = hungry(&bed, 1, 256);
    bed.hv.machine.set_cpu(busy.cpu.load(Ordering::Relaxed));
    let mut slot = None;
    bed.schedule(&mut slot);
    bed.hv.scheduler.idle.store(0b1100, Ordering::SeqCst);
    let domain = bed.domain(2, 1);
    let sleeper = domain.vcpu(VcpuId(0)).unwrap();
    sleeper.cpu.store(busy.cpu.load(Ordering::Relaxed), Ordering::SeqCst);
    set_affinity(&bed.hv, sleeper, CpuSet::ALL, CpuSet::of(CpuId(3)));
    bed.hv.machine.take_events();
    wake(&bed.hv, sleeper);
    assert_eq!(sleeper.cpu.load(Ordering::SeqCst), 3);
    assert!(bed.hv.machine.take_events().contains(&Event::Interrupt(CpuId(3))));
}

#[test]
fn a_shutdown_stops_the_domain_and_tells_dom0() {
    let bed = Bed::new(128);
    let dom0 = bed.domain(0, 1);
    let port = evtchn::bind_virq(&bed.hv, &dom0, VIRQ_DOM_EXC, 0).unwrap();
    let mut guest = bed.guest(1, 2);
    let mut request = SchedShutdown { reason: SHUTDOWN_POWEROFF };
    assert_eq!(guest.call_with(&bed, HYPERVISOR_SCHED_OP, SCHEDOP_SHUTDOWN, &mut request), 0);
    assert_eq!(guest.domain.lifecycle.lock().shutdown, Some(SHUTDOWN_POWEROFF));
    assert!(!guest.running.vcpu.is_runnable());
    assert!(evtchn::is_pending(&bed.hv, &dom0, port).unwrap());
    shutdown(&bed.hv, &guest.domain, SHUTDOWN_CRASH);
    assert_eq!(guest.domain.lifecycle.lock().shutdown, Some(SHUTDOWN_POWEROFF), "the first reason stays");
    resume(&bed.hv, &guest.domain);
    assert!(guest.running.vcpu.is_runnable());
}

#[test]
fn a_latched_reason_is_what_a_later_shutdown_reports() {
    let bed = Bed::new(128);
    let mut guest = bed.guest(1, 2);
    let mut request = SchedShutdown { reason: SHUTDOWN_CRASH };
    assert_eq!(guest.call_with(&bed, HYPERVISOR_SCHED_OP, SCHEDOP_SHUTDOWN_CODE, &mut request), 0);
    assert!(guest.running.vcpu.is_runnable());
    assert_eq!(guest.call(&bed, HYPERVISOR_SCHED_OP_COMPAT, [SCHEDOP_SHUTDOWN.into(), 0, 0, 0, 0]), 0);
    assert_eq!(guest.domain.lifecycle.lock().shutdown, Some(SHUTDOWN_CRASH));
}

#[test]
fn dom0_can_declare_another_shut_down() {
    broken_rules();
    let bed = Bed::new(128);
    let (mut dom0, mut guest) = (bed.guest(0, 2), bed.guest(1, 2));
    let mut request = SchedRemoteShutdown { domain_id: 1, reason: SHUTDOWN_SUSPEND, ..Default::default() };
    let call = SCHEDOP_REMOTE_SHUTDOWN;
    assert_eq!(guest.call_with(&bed, HYPERVISOR_SCHED_OP, call, &mut request), Errno::Perm.as_return());
    assert_eq!(dom0.call_with(&bed, HYPERVISOR_SCHED_OP, call, &mut request), 0);
    assert_eq!(guest.domain.lifecycle.lock().shutdown, Some(SHUTDOWN_SUSPEND));
    request.domain_id = 8;
    assert_eq!(dom0.call_with(&bed, HYPERVISOR_SCHED_OP, call, &mut request), Errno::Srch.as_return());
    assert_eq!(broken_rules(), ["HYP-05", "HYP-08"]);
}

#[test]
#[should_panic(expected = "power Off")]
fn the_machine_stops_with_dom0() {
    let bed = Bed::new(64);
    shutdown(&bed.hv, &bed.domain(0, 1), SHUTDOWN_POWEROFF);
}

#[test]
fn a_watchdog_that_is_not_fed_stops_its_domain() {
    broken_rules();
    let bed = Bed::new(128);
    let mut guest = bed.guest(1, 2);
    quiet(&bed, &guest.domain);
    let watchdog = |guest: &mut Guest, id, timeout| {
        guest.call_with(&bed, HYPERVISOR_SCHED_OP, SCHEDOP_WATCHDOG, &mut SchedWatchdog { id, timeout })
    };
    assert_eq!(watchdog(&mut guest, 1, 5), Errno::Inval.as_return());
    assert_eq!(watchdog(&mut guest, 0, 2), 1);
    assert_eq!(watchdog(&mut guest, 0, 9), 2);
    assert_eq!(watchdog(&mut guest, 0, 9), Errno::NoSpc.as_return());
    assert_eq!(watchdog(&mut guest, 3, 1), Errno::Inval.as_return());
    assert_eq!(watchdog(&mut guest, 2, 0), 0);
    bed.hv.machine.advance(1_500 * MS);
    assert_eq!(watchdog(&mut guest, 1, 2), 0);
    bed.hv.machine.advance(1_900 * MS);
    time::on_timer(&bed.hv);
    assert_eq!(guest.domain.lifecycle.lock().shutdown, None);
    bed.hv.machine.advance(200 * MS);
    time::on_timer(&bed.hv);
    assert_eq!(guest.domain.lifecycle.lock().shutdown, Some(pv_abi::sched::SHUTDOWN_WATCHDOG));
    assert_eq!(broken_rules(), ["SCH-14", "SCH-15", "SCH-14"]);
}

#[test]
fn block_sleeps_only_with_nothing_pending() {
    let bed = Bed::new(128);
    let mut guest = bed.guest(1, 2);
    let call = [SCHEDOP_BLOCK.into(), 0, 0, 0, 0];
    assert_eq!(guest.call(&bed, HYPERVISOR_SCHED_OP, call), 0);
    assert_eq!(guest.running.vcpu.stopped.load(Ordering::SeqCst), stopped::BLOCKED);
    let port = evtchn::bind_ipi(&bed.hv, &guest.domain, 0).unwrap();
    evtchn::send(&bed.hv, &guest.domain, port).unwrap();
    assert_eq!(guest.running.vcpu.stopped.load(Ordering::SeqCst), 0);
    assert_eq!(guest.call(&bed, HYPERVISOR_SCHED_OP_COMPAT, call), 0);
    assert_eq!(guest.running.vcpu.stopped.load(Ordering::SeqCst), 0, "an event is pending");
}

#[test]
fn a_poll_ends_when_its_time_is_over() {
    broken_rules();
    let bed = Bed::new(128);
    let mut guest = bed.guest(1, 2);
    quiet(&bed, &guest.domain);
    let now = bed.hv.machine.now();
    let mut request = SchedPoll { timeout: now, ..Default::default() };
    assert_eq!(guest.call_with(&bed, HYPERVISOR_SCHED_OP, SCHEDOP_POLL, &mut request), 0);
    assert!(guest.running.vcpu.is_runnable(), "that time is over");
    request.timeout = now + 3 * MS;
    assert_eq!(guest.call_with(&bed, HYPERVISOR_SCHED_OP, SCHEDOP_POLL, &mut request), 0);
    assert!(!guest.running.vcpu.is_runnable());
    bed.hv.machine.set_now(now + 3 * MS);
    time::on_timer(&bed.hv);
    assert!(guest.running.vcpu.is_runnable());
    request.nr_ports = 129;
    let refused = guest.call_with(&bed, HYPERVISOR_SCHED_OP, SCHEDOP_POLL, &mut request);
    assert_eq!(refused, Errno::Inval.as_return());
    request = SchedPoll { ports: guest.address(1), nr_ports: 1, ..Default::default() };
    guest.write(&bed, guest.address(1), &64_u32);
    let refused = guest.call_with(&bed, HYPERVISOR_SCHED_OP, SCHEDOP_POLL, &mut request);
    assert_eq!(refused, Errno::Inval.as_return(), "there is no such port");
    assert!(guest.running.vcpu.is_runnable());
    assert_eq!(guest.domain.polling.load(Ordering::SeqCst), 0);
    assert_eq!(broken_rules(), ["SCH-12", "EVT-01"]);
}

#[test]
fn a_poll_of_one_port_is_not_ended_by_another_port_while_it_begins() {
    let bed: &'static Bed = Box::leak(Box::new(Bed::new(128)));
    let mut guest = bed.guest(1, 3);
    quiet(bed, &guest.domain);
    let [polled, other] = [0, 1].map(|virq| evtchn::bind_virq(&bed.hv, &guest.domain, virq, 0).unwrap());
    bed.hv.machine.fetch_or_word(guest.domain.shared_info, 320, 1 << polled | 1 << other);
    guest.write(bed, guest.address(1), &polled);
    let mut request = SchedPoll { ports: guest.address(1), nr_ports: 1, ..Default::default() };
    let domain = guest.domain.clone();
    bed.hv.machine.before_reads(move || {
        bed.hv.machine.fetch_and_word(domain.shared_info, 256, !(1 << other));
        evtchn::set_pending(&bed.hv, &domain, other);
    });
    assert_eq!(guest.call_with(bed, HYPERVISOR_SCHED_OP, SCHEDOP_POLL, &mut request), 0);
    assert!(!guest.running.vcpu.is_runnable());
    evtchn::set_pending(&bed.hv, &guest.domain, polled);
    assert!(guest.running.vcpu.is_runnable());
    assert_eq!(guest.domain.polling.load(Ordering::SeqCst), 0);
}

fn vcpu_op(bed: &Bed, guest: &mut Guest, operation: u32, vcpu: u64, argument: u64) -> i64 {
    guest.call(bed, HYPERVISOR_VCPU_OP, [operation.into(), vcpu, argument, 0, 0])
}

#[test]
fn vcpus_that_do_not_exist_are_not_found() {
    broken_rules();
    let bed = Bed::new(128);
    let mut guest = bed.guest(1, 2);
    assert_eq!(vcpu_op(&bed, &mut guest, VCPUOP_IS_UP, 0, 0), 1);
    assert_eq!(vcpu_op(&bed, &mut guest, VCPUOP_IS_UP, 1, 0), Errno::NoEnt.as_return());
    assert_eq!(vcpu_op(&bed, &mut guest, VCPUOP_UP, 1, 0), Errno::NoEnt.as_return());
    assert_eq!(vcpu_op(&bed, &mut guest, 77, 0, 0), Errno::NoSys.as_return());
    assert_eq!(broken_rules(), ["SCH-01", "HYP-03"]);
}

#[test]
fn the_last_vcpu_that_goes_down_takes_its_domain_along() {
    let bed = Bed::new(128);
    let mut guest = bed.guest(1, 2);
    let other = bed.domain(2, 2);
    let second = other.vcpu(VcpuId(1)).unwrap();
    wait::take_down(&bed.hv, second);
    assert!(!second.is_runnable());
    wait::bring_up(&bed.hv, second);
    assert!(second.is_runnable());
    assert_eq!(vcpu_op(&bed, &mut guest, VCPUOP_DOWN, 0, 0), 0);
    assert_eq!(guest.domain.lifecycle.lock().shutdown, Some(SHUTDOWN_POWEROFF));
}

#[test]
fn vcpu_operations_refuse_as_xen_does() {
    broken_rules();
    let bed = Bed::new(160);
    let mut guest = bed.guest(1, 3);
    let inval = Errno::Inval.as_return();
    let place = guest.address(0);
    guest.running.vcpu.initialised.store(false, Ordering::SeqCst);
    assert_eq!(vcpu_op(&bed, &mut guest, VCPUOP_UP, 0, 0), inval);
    guest.running.vcpu.initialised.store(true, Ordering::SeqCst);
    assert_eq!(vcpu_op(&bed, &mut guest, VCPUOP_UP, 0, 0), 0);
    assert_eq!(vcpu_op(&bed, &mut guest, VCPUOP_INITIALISE, 0, place), Errno::Exist.as_return());
    guest.write(&bed, place, &(MS - 1));
    assert_eq!(vcpu_op(&bed, &mut guest, VCPUOP_SET_PERIODIC_TIMER, 0, place), inval);
    assert_eq!(vcpu_op(&bed, &mut guest, VCPUOP_SEND_NMI, 0, 1), inval);
    assert_eq!(vcpu_op(&bed, &mut guest, VCPUOP_SEND_NMI, 0, 0), 0);
    assert_eq!(guest.running.vcpu.work.load(Ordering::SeqCst) & work::NMI, work::NMI);
    assert_eq!(vcpu_op(&bed, &mut guest, VCPUOP_GET_PHYSID, 0, place), inval);
    guest.write(&bed, place, &0xffff_8000_0000_0000_u64);
    let fault = Errno::Fault.as_return();
    assert_eq!(vcpu_op(&bed, &mut guest, VCPUOP_REGISTER_RUNSTATE_MEMORY_AREA, 0, place), fault);
    assert_eq!(vcpu_op(&bed, &mut guest, VCPUOP_REGISTER_VCPU_TIME_MEMORY_AREA, 0, place), fault);
    assert_eq!(broken_rules(), ["SCH-02", "SCH-03", "SCH-05", "SCH-10", "SCH-11", "SCH-09", "SCH-09"]);
}

#[test]
fn another_vcpus_single_shot_timer_is_left_alone() {
    broken_rules();
    let bed = Bed::new(160);
    let domain = bed.domain(2, 2);
    assert_eq!(domain.vcpus.get().unwrap().len(), 2);
    let mut guest = bed.guest(1, 2);
    let own = guest.running.vcpu.clone();
    guest.running.vcpu = domain.vcpu(VcpuId(0)).unwrap().clone();
    let place = guest.address(0);
    for operation in [VCPUOP_SET_SINGLESHOT_TIMER, VCPUOP_STOP_SINGLESHOT_TIMER] {
        assert_eq!(vcpu_op(&bed, &mut guest, operation, 1, place), Errno::Inval.as_return());
    }
    guest.running.vcpu = own;
    assert_eq!(broken_rules(), ["SCH-04", "SCH-04"]);
}

#[test]
fn vcpu_info_is_registered_where_it_may_be() {
    let bed = Bed::new(160);
    let guest = bed.guest(1, 3);
    let vcpu = guest.running.vcpu.clone();
    let frame = guest.frames[1].0;
    let refused = |own, mfn, offset| {
        let outcome = register_vcpu_info(&bed.hv, &vcpu, own, mfn, offset);
        let refusal = outcome.expect_err("a refusal");
        (refusal.as_errno().expect("an errno"), refusal.rule)
    };
    assert_eq!(refused(true, frame, 4), (Errno::Nxio, rule::INFO_OFFSET));
    assert_eq!(refused(true, frame, 4096 - 56), (Errno::Nxio, rule::INFO_OFFSET));
    assert_eq!(refused(false, frame, 0), (Errno::Inval, rule::INFO_RUNNING));
    let table = guest.tables[3].0;
    assert_eq!(refused(true, table, 0), (Errno::Inval, rule::INFO_FRAME));
    assert_eq!(refused(true, 0, 0), (Errno::Inval, rule::INFO_FRAME));
    assert_eq!(register_vcpu_info(&bed.hv, &vcpu, true, frame, 4096 - 64), Ok(()));
    assert_eq!(refused(true, frame, 0), (Errno::Inval, rule::INFO_ONCE));
}

#[test]
fn dom0_alone_pins_its_vcpus() {
    broken_rules();
    let bed = Bed::new(160);
    let (mut dom0, mut guest) = (bed.guest(0, 2), bed.guest(1, 2));
    let call = SCHEDOP_PIN_OVERRIDE;
    let mut request = SchedPinOverride { pcpu: 0 };
    assert_eq!(guest.call_with(&bed, HYPERVISOR_SCHED_OP, call, &mut request), Errno::Perm.as_return());
    assert_eq!(dom0.call_with(&bed, HYPERVISOR_SCHED_OP, call, &mut request), 0);
    assert_eq!(dom0.call_with(&bed, HYPERVISOR_SCHED_OP, call, &mut request), Errno::Busy.as_return());
    let place = dom0.address(0);
    assert_eq!(vcpu_op(&bed, &mut dom0, VCPUOP_GET_PHYSID, 0, place), 0);
    let [apic, acpi] = bed.hv.machine.firmware_ids(CpuId(0)).map(u64::from);
    assert_eq!(dom0.read::<u64>(&bed, place), apic | acpi << 32);
    request.pcpu = 4;
    assert_eq!(dom0.call_with(&bed, HYPERVISOR_SCHED_OP, call, &mut request), Errno::Inval.as_return());
    request.pcpu = -1;
    assert_eq!(dom0.call_with(&bed, HYPERVISOR_SCHED_OP, call, &mut request), 0);
    assert_eq!(dom0.call_with(&bed, HYPERVISOR_SCHED_OP, call, &mut request), Errno::Inval.as_return());
    assert_eq!(vcpu_op(&bed, &mut dom0, VCPUOP_GET_PHYSID, 0, place), Errno::Inval.as_return());
    assert_eq!(dom0.call(&bed, HYPERVISOR_SCHED_OP, [99, 0, 0, 0, 0]), Errno::NoSys.as_return());
    assert_eq!(dom0.call(&bed, HYPERVISOR_SET_TIMER_OP, [0, 0, 0, 0, 0]), 0);
    assert_eq!(broken_rules(), ["SCH-17", "SCH-19", "SCH-16", "SCH-20", "SCH-11", "HYP-03"]);
}
