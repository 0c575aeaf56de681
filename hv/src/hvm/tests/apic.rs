//! The local APIC of a PVH guest: its registers, interrupts from others, the start of other vCPUs.

use pv_abi::hvm::{HVMOP_SET_EVTCHN_UPCALL_VECTOR, HvmEvtchnUpcallVector};

use super::*;

const RDMSR: [u8; 2] = [0x0f, 0x32];
const WRMSR: [u8; 2] = [0x0f, 0x30];
const BASE: u32 = 0x1b;
const EOI: u32 = 0x80b;
const SPURIOUS: u32 = 0x80f;
const COMMAND: u32 = 0x830;

/// What the hypervisor said.
pub(super) fn said(bed: &Bed) -> alloc::string::String {
    alloc::string::String::from_utf8(bed.hv.machine.take_console()).unwrap()
}

impl Pvh {
    fn write_msr(&mut self, bed: &Bed, index: u32, value: u64) {
        (self.registers.rcx, self.registers.rax, self.registers.rdx) = (index.into(), value & 0xffff_ffff, value >> 32);
        self.vmcb().exit_info = [1, 0];
        let _ = self.exit(bed, 0x7c, &WRMSR);
    }

    fn read_msr(&mut self, bed: &Bed, index: u32) -> u64 {
        self.registers.rcx = index.into();
        self.vmcb().exit_info = [0, 0];
        let _ = self.exit(bed, 0x7c, &RDMSR);
        self.registers.rdx << 32 | self.registers.rax
    }

    /// Whether the last instruction raised #GP.
    fn faulted(&mut self) -> bool {
        core::mem::take(&mut self.vmcb().event) == event::VALID | event::EXCEPTION | event::HAS_ERROR | 13
    }

    /// The interrupt that comes as it goes on, if any.
    pub(super) fn enter(&mut self, bed: &Bed) -> Option<u8> {
        let _ = before_entry(&bed.hv, &mut self.running, &mut self.registers);
        let event = core::mem::take(&mut self.vmcb().event);
        (event != 0).then(|| {
            assert_eq!(event & !0xff, event::VALID);
            event as u8
        })
    }

    /// In x2APIC mode, taking interrupts.
    fn with_apic(mut self, bed: &Bed) -> Self {
        self.write_msr(bed, BASE, 0xfee0_0d00);
        self.write_msr(bed, SPURIOUS, 0x1ff);
        self.registers.rflags |= flags::IF;
        assert!(!self.faulted());
        self
    }
}

#[test]
fn an_upcall_by_a_vcpus_own_vector_comes_once_and_is_in_service_until_it_is_ended() {
    let bed = bed();
    let mut dom0 = bed.guest(0, 6);
    let domain = made(&bed, &mut dom0);
    let mut pvh = Pvh::new(&bed, &domain).with_apic(&bed);
    let by = |vcpu, vector| HvmEvtchnUpcallVector { vcpu, vector, ..Default::default() };
    let set = number::HYPERVISOR_HVM_OP;
    assert_eq!(pvh.call_with(&bed, set, HVMOP_SET_EVTCHN_UPCALL_VECTOR, &by(0, 0xf3)), 0);
    assert_eq!(pvh.enter(&bed), None);
    bed.hv.machine.swap_byte(domain.shared_info, 0, 1);
    assert_eq!(pvh.enter(&bed), Some(0xf3));
    assert_eq!(pvh.read_msr(&bed, 0x817), 1 << 19);
    // The guest ends it before it takes the flag back, as Linux does: it does not come twice.
    pvh.write_msr(&bed, EOI, 0);
    bed.hv.machine.swap_byte(domain.shared_info, 0, 0);
    let _ = pvh.enter(&bed);
    assert_eq!(pvh.read_msr(&bed, 0x817), pvh.read_msr(&bed, 0x810));
    let _ = broken_rules();
    assert!(pvh.call_with(&bed, set, HVMOP_SET_EVTCHN_UPCALL_VECTOR, &by(0, 15)) < 0);
    assert!(pvh.call_with(&bed, set, HVMOP_SET_EVTCHN_UPCALL_VECTOR, &by(7, 0xf3)) < 0);
    assert_eq!(broken_rules().len(), 2);
}

#[test]
fn an_interrupt_behind_an_upcall_stops_the_guest_as_soon_as_it_takes_one() {
    let bed = bed();
    let mut dom0 = bed.guest(0, 6);
    let domain = made(&bed, &mut dom0);
    let mut pvh = Pvh::new(&bed, &domain).with_apic(&bed);
    domain.hvm.as_ref().unwrap().callback.store(0x30, Ordering::Relaxed);
    bed.hv.machine.swap_byte(domain.shared_info, 0, 1);
    pvh.write_msr(&bed, 0x83f, 0x31);
    assert_eq!(pvh.enter(&bed), Some(0x30));
    assert_eq!(pvh.vmcb().interrupt_control & interrupt::WINDOW, interrupt::WINDOW);
    bed.hv.machine.swap_byte(domain.shared_info, 0, 0);
    assert_eq!(pvh.enter(&bed), Some(0x31));
    assert_eq!(pvh.vmcb().interrupt_control & interrupt::WINDOW, 0);
}

#[test]
fn the_task_priority_holds_an_interrupt_back_until_it_is_lowered() {
    let bed = bed();
    let mut dom0 = bed.guest(0, 6);
    let domain = made(&bed, &mut dom0);
    let mut pvh = Pvh::new(&bed, &domain).with_apic(&bed);
    pvh.write_msr(&bed, 0x808, 0x50);
    assert_eq!((pvh.enter(&bed), pvh.vmcb().interrupt_control & 0xff), (None, 5));
    pvh.write_msr(&bed, 0x83f, 0x51);
    assert_eq!(pvh.enter(&bed), None);
    assert_ne!(pvh.vmcb().control_register_intercepts, 0, "it is watched for");
    // mov cr8, r9
    pvh.registers.r9 = 4;
    let _ = pvh.exit(&bed, 0x18, &[0x45, 0x0f, 0x22, 0xc1]);
    assert_eq!(pvh.registers.rip, CODE + 4);
    assert_eq!((pvh.enter(&bed), pvh.vmcb().control_register_intercepts), (Some(0x51), 0));
    pvh.write_msr(&bed, 0x83f, 0x41);
    assert_eq!(pvh.enter(&bed), None, "below what is in service");
    pvh.write_msr(&bed, 0x83f, 0x61);
    assert_eq!(pvh.enter(&bed), Some(0x61));
}

#[test]
fn registers_that_cannot_be_fault_in_x2apic_mode_and_are_passed_over_in_memory() {
    let bed = bed();
    let mut dom0 = bed.guest(0, 6);
    let domain = made(&bed, &mut dom0);
    let mut pvh = Pvh::new(&bed, &domain);
    let _ = pvh.read_msr(&bed, 0x802);
    assert!(pvh.faulted(), "not in x2APIC mode");
    // mov eax, [rbx]; mov [rbx], eax; and an instruction that is no move
    pvh.vmcb().exit_info = [4, 0xfee0_0030];
    let _ = pvh.exit(&bed, 0x400, &[0x8b, 0x03]);
    assert_eq!((pvh.registers.rax, pvh.registers.rip), (0x5_0014, CODE + 2));
    pvh.vmcb().exit_info = [6, 0xfee0_0030];
    let _ = pvh.exit(&bed, 0x400, &[0x89, 0x03]);
    assert_eq!(pvh.registers.rip, CODE + 2);
    let mut pvh = pvh.with_apic(&bed);
    for (index, value) in [(EOI, 1), (0x80d, 1), (0x808, 0x100), (0x840, 0), (0x802, 1)] {
        pvh.write_msr(&bed, index, value);
        assert!(pvh.faulted(), "{index:#x}");
    }
    for base in [0xfee0_0500, 0xfee0_0900, 0xfee0_1d00] {
        pvh.write_msr(&bed, BASE, base);
        assert!(pvh.faulted(), "{base:#x}");
    }
    pvh.vmcb().exit_info = [6, 0xfee0_0030];
    let _ = pvh.exit(&bed, 0x400, &[0x89, 0x03]);
    assert!(said(&bed).contains("HVM-17"), "nothing is in memory any more");
}

#[test]
fn another_instruction_at_the_apic_ends_the_domain() {
    let bed = bed();
    let mut dom0 = bed.guest(0, 6);
    let domain = made(&bed, &mut dom0);
    let mut pvh = Pvh::new(&bed, &domain);
    pvh.vmcb().exit_info = [6, 0xfee0_0080];
    assert_eq!(pvh.exit(&bed, 0x400, &[0xff, 0x03]), Next::Switch);
    assert_eq!(domain.lifecycle.lock().shutdown, Some(3));
    let said = said(&bed);
    assert!(said.contains("HVM-36") && said.contains("at 0x8000: [ff, 03"), "{said}");
}

#[test]
fn a_vcpu_is_reset_and_started_by_another() {
    let bed = bed();
    let mut dom0 = bed.guest(0, 6);
    let domain = made_with(&bed, &mut dom0, 2);
    let mut pvh = Pvh::new(&bed, &domain).with_apic(&bed);
    let other = domain.vcpu(VcpuId(1)).unwrap();
    let down = |vcpu: &Vcpu| vcpu.stopped.load(Ordering::SeqCst) & stopped::DOWN != 0;
    assert!(down(other));
    pvh.write_msr(&bed, COMMAND, 2 << 32 | 0xc500);
    assert!(down(other));
    pvh.write_msr(&bed, COMMAND, 2 << 32 | 0x8500);
    pvh.write_msr(&bed, COMMAND, 2 << 32 | 0x699);
    assert!(!down(other));
    {
        let state = other.state.lock();
        let block = state.as_ref().unwrap().hvm.as_deref().unwrap();
        assert_eq!((block.cs.selector, block.cs.base, block.cr0 & 1), (0x9900, 0x9_9000, 0));
    }
    // A second start finds it running already.
    pvh.write_msr(&bed, COMMAND, 2 << 32 | 0x612);
    assert_eq!(other.state.lock().as_ref().unwrap().hvm.as_deref().unwrap().cs.selector, 0x9900);
    // An interrupt to all others reaches it, and not the sender; one to nobody is lost.
    pvh.write_msr(&bed, COMMAND, 3 << 18 | 0x70);
    pvh.write_msr(&bed, COMMAND, 9 << 32 | 0x71);
    pvh.write_msr(&bed, COMMAND, 0x5);
    assert_eq!(pvh.enter(&bed), None);
    let mut second = Assisted::new(1);
    let inbox = other.inbox.as_deref().unwrap();
    assert_eq!(second.apic.next(inbox), None, "it takes none yet");
    second.apic.set_base(inbox, 0xfee0_0c00).unwrap();
    let mut state = other.state.lock().take().unwrap();
    *state.assisted.as_deref_mut().unwrap() = second;
    let mut running = Running { vcpu: other.clone(), state };
    assert_eq!(crate::hvm::apic::write(&bed.hv, &mut running, 0xf0, 0x1ff), Ok(()));
    assert_eq!(running.state.assisted.as_deref().unwrap().apic.next(inbox), Some(0x70));
}

#[test]
fn the_timer_runs_out_once_or_again_and_again() {
    let bed = bed();
    let mut dom0 = bed.guest(0, 6);
    let domain = made(&bed, &mut dom0);
    let mut pvh = Pvh::new(&bed, &domain).with_apic(&bed);
    // Divided by 1: 100,000 counts are a millisecond.
    pvh.write_msr(&bed, 0x83e, 0xb);
    pvh.write_msr(&bed, 0x832, 0x40);
    pvh.write_msr(&bed, 0x838, 100_000);
    assert_eq!((pvh.enter(&bed), pvh.read_msr(&bed, 0x839)), (None, 100_000));
    bed.hv.machine.set_now(bed.hv.machine.now() + 400_000);
    assert_eq!(pvh.read_msr(&bed, 0x839), 60_000);
    bed.hv.machine.set_now(bed.hv.machine.now() + 600_000);
    crate::time::on_timer(&bed.hv);
    assert_eq!((pvh.enter(&bed), pvh.read_msr(&bed, 0x839)), (Some(0x40), 0));
    pvh.write_msr(&bed, EOI, 0);
    bed.hv.machine.set_now(bed.hv.machine.now() + 5_000_000);
    crate::time::on_timer(&bed.hv);
    assert_eq!(pvh.enter(&bed), None, "once");
    pvh.write_msr(&bed, 0x832, 0x2_0041);
    pvh.write_msr(&bed, 0x838, 100_000);
    for _ in 0..3 {
        bed.hv.machine.set_now(bed.hv.machine.now() + 1_000_000);
        crate::time::on_timer(&bed.hv);
        assert_eq!(pvh.enter(&bed), Some(0x41));
        pvh.write_msr(&bed, EOI, 0);
    }
    // Another mode stops it.
    pvh.write_msr(&bed, 0x832, 0x4_0042);
    bed.hv.machine.set_now(bed.hv.machine.now() + 2_000_000);
    crate::time::on_timer(&bed.hv);
    assert_eq!(pvh.enter(&bed), None);
}

#[test]
fn memory_types_are_kept_and_checked() {
    let bed = bed();
    let mut dom0 = bed.guest(0, 6);
    let domain = made(&bed, &mut dom0);
    let mut pvh = Pvh::new(&bed, &domain);
    assert_eq!((pvh.read_msr(&bed, 0xfe), pvh.read_msr(&bed, 0x2ff)), (0x508, 0x806));
    for (index, value) in [(0x200, 0xf000_0000), (0x201, 0xf_f000_0800), (0x250, 0x0606_0606_0606_0606), (0x2ff, 0)] {
        pvh.write_msr(&bed, index, value);
        assert!(!pvh.faulted());
        assert_eq!(pvh.read_msr(&bed, index), value);
    }
    for (index, value) in [(0x200, 2), (0x250, 0x0200), (0x2ff, 0x1000), (0xfe, 0), (0x251, 0)] {
        pvh.write_msr(&bed, index, value);
        assert!(pvh.faulted(), "{index:#x}");
    }
}
