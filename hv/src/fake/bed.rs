//! A hypervisor on a fake machine, and guests for it.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;

use pv_abi::errno::Errno;
use pv_abi::{DomId, Mfn, VcpuId};
use spin::Mutex;
use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::{FakeMachine, entry};
use crate::Hypervisor;
use crate::call::Call;
use crate::domain::{self, Domain, DomainConfig, Running, Vcpu, stopped};
use crate::frames::{self, Frame, FrameTable};
use crate::hardware::{CpuId, Machine};
use crate::refusal::Refusal;
use crate::registers::Registers;
use crate::rules::Rule;
use crate::sched::Scheduler;
use crate::time::Timers;
use crate::{hypercall, paging, sched};

/// A hypervisor on a fake machine, with what tests need to set the scene.
pub struct Bed {
    /// The hypervisor.
    pub hv: Hypervisor<FakeMachine>,
}

impl Bed {
    /// A hypervisor on a machine of one CPU with this many frames, all free but frame 0.
    #[must_use]
    pub fn new(frames: usize) -> Self {
        Self::on(FakeMachine::new(frames))
    }

    /// A hypervisor on this machine, all its frames free but frame 0.
    #[must_use]
    pub fn on(machine: FakeMachine) -> Self {
        let records: Vec<Frame> = (0..machine.frame_count()).map(|_| Frame::default()).collect();
        let cpus = machine.cpu_count();
        let hv = Hypervisor {
            frames: FrameTable::new(Box::leak(records.into_boxed_slice())),
            allocator: Mutex::default(),
            domains: Default::default(),
            scheduler: Scheduler::new(cpus),
            timers: Timers::new(cpus),
            interrupts: Default::default(),
            console: Default::default(),
            options: Default::default(),
            machine,
        };
        frames::add_free(&hv, 1..hv.machine.frame_count());
        (0..cpus).for_each(|cpu| hv.frames.clock().enters_guest(CpuId(cpu), || ()));
        Self { hv }
    }

    /// A domain with this number and this many vCPUs that are up; number 0 is privileged. It may own as many frames as
    /// there are, and owns none.
    #[must_use]
    pub fn domain(&self, id: u16, vcpus: u32) -> Arc<Domain> {
        let config = DomainConfig { privileged: id == 0, ..DomainConfig::default() };
        let domain = Domain::new(&self.hv, DomId(id), config).expect("a free number and a free frame");
        domain::add_vcpus(&self.hv, &domain, vcpus).expect("a number of vCPUs that may be");
        domain.memory.lock().max = self.hv.machine.frame_count();
        domain.lifecycle.lock().paused_by_control = false;
        domain.pause_count.store(0, Ordering::Release);
        domain.loaded.store(1, Ordering::SeqCst);
        for vcpu in domain.vcpus.get().into_iter().flatten() {
            vcpu.stopped.fetch_and(!stopped::DOWN, Ordering::AcqRel);
            vcpu.initialised.store(true, Ordering::Release);
        }
        domain
    }

    /// A guest: a domain of one vCPU, whose hypercalls the test makes, with this many frames mapped writable from
    /// [`Guest::BASE`] on.
    #[must_use]
    pub fn guest(&self, id: u16, frames: usize) -> Guest {
        let domain = self.domain(id, 1);
        let vcpu = domain.vcpu(VcpuId(0)).expect("it has one").clone();
        let state = vcpu.state.lock().take().expect("nobody runs it");
        let mut guest = Guest {
            domain,
            running: Running { vcpu, state },
            registers: Registers::default(),
            frames: Vec::new(),
            tables: [Mfn(0); 4],
            continued: 0,
        };
        guest.build(self, frames);
        guest
    }

    /// Lets a vCPU wait for an event that wakes it and is not delivered: its domain has no callback.
    pub fn sleep(&self, vcpu: &Vcpu) {
        sched::block(&self.hv, vcpu);
        let (frame, offset) = vcpu.info_place();
        self.hv.machine.swap_byte(frame, offset + 1, 1);
    }

    /// Lets the scheduler run, waiting where nobody can, until a vCPU is about to go on; gives that vCPU.
    pub fn schedule(&self, slot: &mut Option<Running>) -> Arc<Vcpu> {
        sched::switch(&self.hv, slot, &mut Registers::default());
        slot.as_ref().expect("the scheduler gives a vCPU").vcpu.clone()
    }
}

/// A guest whose hypercalls a test makes.
pub struct Guest {
    /// Its domain.
    pub domain: Arc<Domain>,
    /// Its vCPU, running.
    pub running: Running,
    /// Its registers after the last hypercall.
    pub registers: Registers,
    /// Its frames that are mapped, in order.
    pub frames: Vec<Mfn>,
    /// Its page tables: L4, L3, L2, L1.
    pub tables: [Mfn; 4],
    /// How often hypercalls of it stopped in their middle and went on.
    pub continued: u32,
}

impl Guest {
    /// The address of its first frame.
    pub const BASE: u64 = 0x1000;

    /// Where its hypercalls are made.
    const RIP: u64 = 0x7000_0000;

    fn build(&mut self, bed: &Bed, frames: usize) {
        assert!(frames < 500, "the frames fit in one table");
        let hv = &bed.hv;
        let frame = || frames::allocate_domain_frame(hv, &self.domain).expect("a free frame");
        self.tables = [(); 4].map(|()| frame());
        self.frames = (0..frames).map(|_| frame()).collect();
        let [l4, l3, l2, l1] = self.tables;
        for (table, below) in [(l4, l3), (l3, l2), (l2, l1)] {
            hv.machine.write_word(table, 0, entry::to(below, true));
        }
        for (index, mfn) in self.frames.iter().enumerate() {
            hv.machine.write_word(l1, index + 1, entry::to(*mfn, true));
        }
        paging::pin_initial(hv, &self.domain, l4).expect("tables that may be");
        let root = paging::get_root(hv, l4.into(), self.domain.id).expect("a root that may be");
        self.running.state.kernel_root = Some(root);
    }

    /// The address of its frame `index`.
    #[must_use]
    pub fn address(&self, index: usize) -> u64 {
        assert!(index < self.frames.len(), "it has that frame");
        Self::BASE + index as u64 * 4096
    }

    /// Runs on this guest's page tables from now on.
    pub fn enter(&self, bed: &Bed) {
        if let Some(root) = self.running.state.kernel_root {
            bed.hv.machine.load_root(root);
        }
    }

    /// Does something as the handler of one of its hypercalls does.
    pub fn in_call<T>(&mut self, bed: &Bed, act: impl FnOnce(&mut Call<'_, FakeMachine>) -> T) -> T {
        self.enter(bed);
        act(&mut Call {
            hv: &bed.hv,
            running: &mut self.running,
            registers: &mut self.registers,
            next_arguments: None,
            in_multicall: false,
        })
    }

    /// Has a handler do one of its hypercalls, to the end where it is interrupted.
    ///
    /// # Errors
    /// Those of the handler.
    ///
    /// # Panics
    /// A handler wants to go on and does not say where.
    pub fn handled(
        &mut self,
        bed: &Bed,
        handler: impl Fn(&mut Call<'_, FakeMachine>, [u64; 5]) -> Result<u64, Refusal>,
        mut arguments: [u64; 5],
    ) -> Result<u64, Refusal> {
        loop {
            let (result, next) = self.in_call(bed, |call| (handler(call, arguments), call.next_arguments));
            if result != Err(Refusal::again()) {
                return result;
            }
            self.continued += 1;
            arguments = next.expect("a continuation says with which arguments");
        }
    }

    /// The rule that a handler refuses one of its hypercalls by, and the errno.
    ///
    /// # Panics
    /// It is not refused.
    pub fn refused(
        &mut self,
        bed: &Bed,
        handler: impl FnOnce(&mut Call<'_, FakeMachine>, [u64; 5]) -> Result<u64, Refusal>,
        args: [u64; 5],
    ) -> (Rule, Option<Errno>) {
        let refusal = self.in_call(bed, |call| handler(call, args)).expect_err("a call that is refused");
        (refusal.rule, refusal.as_errno())
    }

    /// Writes to its memory.
    pub fn write<T: IntoBytes + Immutable + ?Sized>(&self, bed: &Bed, address: u64, value: &T) {
        self.enter(bed);
        bed.hv.machine.copy_to_guest(address, value.as_bytes()).expect("memory that it may write");
    }

    /// Reads its memory.
    pub fn read<T: FromBytes + IntoBytes>(&self, bed: &Bed, address: u64) -> T {
        self.enter(bed);
        let mut value = T::new_zeroed();
        bed.hv.machine.copy_from_guest(address, value.as_mut_bytes()).expect("memory that it may read");
        value
    }

    /// Makes a hypercall, again and again where it stops in its middle; gives its result.
    pub fn call(&mut self, bed: &Bed, number: u64, arguments: [u64; 5]) -> i64 {
        self.enter(bed);
        let [rdi, rsi, rdx, r10, r8] = arguments;
        self.registers = Registers { rdi, rsi, rdx, r10, r8, ..self.registers };
        loop {
            self.registers.rax = number;
            self.registers.rip = Self::RIP + 2;
            hypercall::dispatch(&bed.hv, &mut self.running, &mut self.registers);
            if self.registers.rip != Self::RIP {
                return self.registers.rax.cast_signed();
            }
            self.continued += 1;
        }
    }

    /// Makes a hypercall whose second argument is the address of a structure, which is read back; gives its result.
    pub fn call_with<T>(&mut self, bed: &Bed, number: u64, operation: u32, value: &mut T) -> i64
    where
        T: FromBytes + IntoBytes + Immutable,
    {
        let place = self.address(0);
        self.write(bed, place, value);
        let result = self.call(bed, number, [operation.into(), place, 1, 0, 0]);
        *value = self.read(bed, place);
        result
    }
}
