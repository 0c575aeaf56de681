//! A vCPU's local APIC: interrupts from other vCPUs, from its timer, and upcalls by a vector of its own.
//!
//! [`Apic`] is the vCPU's and changes while it runs; [`Inbox`] is where others put what they want of it. An interrupt is
//! *requested* in the inbox, *in service* from its delivery on, and ends with the guest's write to the EOI register. It is
//! delivered while its priority (the vector's upper four bits) is above that of the task and of what is in service. Where
//! it is a level's, the chipset is told of its end.
//!
//! - whoever requests looks afterwards whether the vCPU waits ([`request`]); a vCPU that waits says so first and looks then;
//! - the task priority is the CPU's while the guest runs (its CR8) and this APIC's else.
//!
//! It is reached by registers in memory at 0xfee00000 or, in x2APIC mode, by model-specific registers from 0x800 on.
//!
//! Source: Intel SDM 3 §10; AMD APM 2 §16; Xen: public/arch-x86/hvm/save.h (`hvm_hw_lapic`) for the identifiers.

mod command;
mod timer;

use alloc::sync::Arc;
use core::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering};

pub(super) use command::{message, send, write_command};
pub(crate) use timer::on_timer;
pub(super) use timer::{deadline, set_deadline};

use super::platform;
use crate::domain::{Running, Vcpu};
use crate::hardware::Machine;
use crate::{Hypervisor, sched};

/// Where its registers are in memory.
pub(super) const PLACE: u64 = 0xfee0_0000;
/// The base register: this is the first CPU; x2APIC mode; on.
const IS_FIRST: u64 = 1 << 8;
const X2APIC: u64 = 1 << 10;
const IS_ON: u64 = 1 << 11;
/// The spurious-interrupt register: the APIC takes interrupts.
const TAKES: u32 = 1 << 8;
/// A local vector is masked.
const MASKED: u32 = 1 << 16;
/// Vectors below this are none that an interrupt can have.
const FIRST_VECTOR: u8 = 16;

/// Registers, by their offset in memory.
mod register {
    pub(super) const ID: u32 = 0x20;
    pub(super) const VERSION: u32 = 0x30;
    pub(super) const TASK_PRIORITY: u32 = 0x80;
    pub(super) const ARBITRATION: u32 = 0x90;
    pub(super) const PROCESSOR_PRIORITY: u32 = 0xa0;
    pub(super) const END: u32 = 0xb0;
    pub(super) const LOGICAL: u32 = 0xd0;
    pub(super) const FORMAT: u32 = 0xe0;
    pub(super) const SPURIOUS: u32 = 0xf0;
    pub(super) const IN_SERVICE: u32 = 0x100;
    pub(super) const TRIGGER: u32 = 0x180;
    pub(super) const REQUESTED: u32 = 0x200;
    pub(super) const ERROR: u32 = 0x280;
    pub(super) const COMMAND: u32 = 0x300;
    pub(super) const COMMAND_HIGH: u32 = 0x310;
    pub(super) const LOCAL: u32 = 0x320;
    pub(super) const LAST_LOCAL: u32 = 0x370;
    pub(super) const INITIAL: u32 = 0x380;
    pub(super) const CURRENT: u32 = 0x390;
    pub(super) const DIVIDE: u32 = 0x3e0;
    pub(super) const SELF: u32 = 0x3f0;
}

/// The version register: integrated, six local vectors.
const VERSION: u32 = 0x5_0014;
const LOCAL_VECTORS: usize = 6;
/// The local vector of the first pin.
const LOCAL_PIN: usize = 3;
/// Bits that each local vector has (timer, thermal, counters, the two pins, errors), besides the one that masks.
const LOCAL_BITS: [u32; LOCAL_VECTORS] = [0x6_00ff, 0x7ff, 0x7ff, 0xa7ff, 0xa7ff, 0xff];

/// What others want of a vCPU.
#[derive(Debug)]
pub struct Inbox {
    /// A bit for each vector. Anybody sets one, the vCPU takes it.
    requested: [AtomicU32; 8],
    /// A bit for each vector whose last request was of a level.
    levels: [AtomicU32; 8],
    /// The first local pin passes the 8259s' interrupts.
    takes_pic: AtomicBool,
    /// The vector by which its upcalls come; 0 for none of its own.
    pub(super) upcall: AtomicU8,
    /// The local vector of its timer, which runs out elsewhere.
    timer: AtomicU32,
    /// The logical address, outside of x2APIC mode; and how it is read.
    logical: AtomicU32,
    is_cluster: AtomicBool,
    is_x2apic: AtomicBool,
    /// It was reset, and waits for the place to start at.
    pub(super) waits: AtomicBool,
}

impl Inbox {
    /// An empty one, of a vCPU that waits for its start unless it is the first.
    #[must_use]
    pub fn new(vcpu: u32) -> Self {
        Self {
            requested: Default::default(),
            levels: Default::default(),
            takes_pic: AtomicBool::new(false),
            upcall: AtomicU8::new(0),
            timer: AtomicU32::new(MASKED),
            logical: AtomicU32::new(0),
            is_cluster: AtomicBool::new(false),
            is_x2apic: AtomicBool::new(false),
            waits: AtomicBool::new(vcpu != 0),
        }
    }

    pub(super) fn set(&self, vector: u8) {
        self.requested[usize::from(vector / 32)].fetch_or(1 << (vector % 32), Ordering::SeqCst);
    }

    /// Notes whether the interrupt that is about to be requested is a level's.
    fn set_level(&self, vector: u8, level: bool) {
        let (word, bit) = (&self.levels[usize::from(vector / 32)], 1 << (vector % 32));
        if level {
            word.fetch_or(bit, Ordering::SeqCst);
        } else if word.load(Ordering::Relaxed) & bit != 0 {
            word.fetch_and(!bit, Ordering::SeqCst);
        }
    }

    fn is_level(&self, vector: u8) -> bool {
        self.levels[usize::from(vector / 32)].load(Ordering::SeqCst) >> (vector % 32) & 1 != 0
    }

    pub(super) fn takes_pic(&self) -> bool {
        self.takes_pic.load(Ordering::Relaxed)
    }

    fn take(&self, vector: u8) {
        self.requested[usize::from(vector / 32)].fetch_and(!(1 << (vector % 32)), Ordering::SeqCst);
    }

    fn highest(&self) -> Option<u8> {
        highest(|word| self.requested[word].load(Ordering::SeqCst))
    }

    pub(super) fn clear(&self) {
        self.requested.iter().chain(&self.levels).for_each(|word| word.store(0, Ordering::SeqCst));
        self.takes_pic.store(false, Ordering::Relaxed);
        self.timer.store(MASKED, Ordering::Relaxed);
        self.is_x2apic.store(false, Ordering::Relaxed);
    }
}

/// The highest vector in eight words.
fn highest(word: impl Fn(usize) -> u32) -> Option<u8> {
    (0..8).rev().find_map(|index| {
        let bits = word(index);
        (bits != 0).then(|| (index * 32 + 31 - bits.leading_zeros() as usize) as u8)
    })
}

/// The vCPU's own part.
#[derive(Clone, Debug)]
pub struct Apic {
    base: u64,
    task_priority: u8,
    in_service: [u32; 8],
    spurious: u32,
    error: u32,
    command: u64,
    local: [u32; LOCAL_VECTORS],
    timer: timer::Timer,
    /// The guest ended an upcall just now: that its flag is still set is no news.
    acknowledged: bool,
}

/// Why a register was not written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NoRegister;

impl Apic {
    /// After reset.
    #[must_use]
    pub fn new(vcpu: u32) -> Self {
        Self {
            base: PLACE | IS_ON | if vcpu == 0 { IS_FIRST } else { 0 },
            task_priority: 0,
            in_service: [0; 8],
            spurious: 0xff,
            error: 0,
            command: 0,
            local: [MASKED; LOCAL_VECTORS],
            timer: timer::Timer::default(),
            acknowledged: false,
        }
    }

    /// Back to the state after reset, but for the mode that the base register says.
    pub(super) fn reset(&mut self, vcpu: u32) {
        *self = Self::new(vcpu);
    }

    /// The base register.
    pub(super) const fn base(&self) -> u64 {
        self.base
    }

    /// Writes the base register: x2APIC mode is entered from the other and left by turning the APIC off.
    pub(super) fn set_base(&mut self, inbox: &Inbox, value: u64) -> Option<()> {
        let mode = |base: u64| (base & IS_ON != 0, base & X2APIC != 0);
        let no_way = matches!(
            (mode(self.base), mode(value)),
            (_, (false, true)) | ((true, true), (true, false)) | ((false, _), (true, true))
        );
        if no_way || value & !(PLACE | IS_FIRST | X2APIC | IS_ON) != 0 || value & !0xfff != PLACE {
            return None;
        }
        self.base = value & !IS_FIRST | self.base & IS_FIRST;
        inbox.is_x2apic.store(self.is_x2apic(), Ordering::Relaxed);
        self.wire(inbox);
        Some(())
    }

    /// Notes whether the 8259s' interrupts come through: an APIC that is off is not in their way.
    fn wire(&self, inbox: &Inbox) {
        const EXTERNAL: u32 = 7 << 8;
        let is_open = self.local[LOCAL_PIN] & (MASKED | EXTERNAL) == EXTERNAL;
        inbox.takes_pic.store(is_open || self.base & IS_ON == 0, Ordering::Relaxed);
    }

    /// Whether its registers are model-specific ones.
    pub(super) const fn is_x2apic(&self) -> bool {
        self.base & (X2APIC | IS_ON) == X2APIC | IS_ON
    }

    /// Whether its registers are in memory.
    pub(super) const fn is_in_memory(&self) -> bool {
        self.base & (X2APIC | IS_ON) == IS_ON
    }

    const fn takes_interrupts(&self) -> bool {
        self.base & IS_ON != 0 && self.spurious & TAKES != 0
    }

    /// The task priority, as CR8 has it.
    pub(super) const fn cr8(&self) -> u8 {
        self.task_priority >> 4
    }

    /// Takes the task priority over from the CPU.
    pub(super) fn set_cr8(&mut self, value: u8) {
        if value != self.cr8() {
            self.task_priority = value << 4;
        }
    }

    fn highest_in_service(&self) -> Option<u8> {
        highest(|word| self.in_service[word])
    }

    fn priority(&self) -> u8 {
        let served = self.highest_in_service().unwrap_or(0);
        if served >> 4 > self.task_priority >> 4 { served & 0xf0 } else { self.task_priority }
    }

    /// The interrupt that is to be delivered next, if any is above what is in service; it may be below the task's priority.
    pub(super) fn next(&self, inbox: &Inbox) -> Option<u8> {
        let vector = inbox.highest().filter(|_| self.takes_interrupts())?;
        (vector >> 4 > self.highest_in_service().unwrap_or(0) >> 4).then_some(vector)
    }

    /// Whether the task's priority lets an interrupt through.
    pub(super) const fn lets(&self, vector: u8) -> bool {
        vector >> 4 > self.task_priority >> 4
    }

    /// An interrupt is being delivered.
    pub(super) fn serve(&mut self, inbox: &Inbox, vector: u8) {
        inbox.take(vector);
        self.in_service[usize::from(vector / 32)] |= 1 << (vector % 32);
    }

    /// Requests the upcall that is due, unless the guest has just ended one.
    pub(super) fn upcall(&mut self, inbox: &Inbox, is_due: bool) {
        let vector = inbox.upcall.load(Ordering::Relaxed);
        if is_due && vector != 0 && !self.acknowledged {
            inbox.set(vector);
        }
        self.acknowledged = false;
    }

    /// Ends the interrupt in service; the vector of one that was a level's.
    fn end(&mut self, inbox: &Inbox) -> Option<u8> {
        let vector = self.highest_in_service()?;
        self.in_service[usize::from(vector / 32)] &= !(1 << (vector % 32));
        self.acknowledged = vector == inbox.upcall.load(Ordering::Relaxed);
        inbox.is_level(vector).then_some(vector)
    }
}

/// The identifier of a vCPU's APIC: twice its number, as Xen has it.
#[must_use]
pub(super) const fn identifier(vcpu: u32) -> u32 {
    vcpu * 2
}

/// Its logical address in x2APIC mode.
const fn x2apic_logical(vcpu: u32) -> u32 {
    let id = identifier(vcpu);
    (id & !15) << 12 | 1 << (id & 15)
}

/// Requests an interrupt of a vCPU.
pub(super) fn request<M: Machine>(hv: &Hypervisor<M>, vcpu: &Vcpu, inbox: &Inbox, vector: u8) {
    inbox.set(vector);
    sched::notify(hv, vcpu);
}

/// Whether an interrupt is requested that a waiting vCPU takes.
pub(super) fn is_due(running: &Running) -> bool {
    let inbox = running.vcpu.inbox.as_deref();
    let apic = running.state.assisted.as_deref().map(|own| &own.apic);
    inbox.zip(apic).is_some_and(|(inbox, apic)| apic.next(inbox).is_some_and(|vector| apic.lets(vector)))
}

/// The parts of a running vCPU's APIC.
struct Parts<'a> {
    vcpu: &'a Arc<Vcpu>,
    inbox: &'a Inbox,
    apic: &'a mut Apic,
}

fn parts(running: &mut Running) -> Option<Parts<'_>> {
    let Running { vcpu, state } = running;
    Some(Parts { vcpu, inbox: vcpu.inbox.as_deref()?, apic: &mut state.assisted.as_deref_mut()?.apic })
}

/// Reads a register; what there is not reads as 0 in memory.
pub(super) fn read<M: Machine>(hv: &Hypervisor<M>, running: &mut Running, offset: u32) -> Option<u32> {
    let Parts { vcpu, inbox, apic } = parts(running)?;
    let x2apic = apic.is_x2apic();
    let word = |offset: u32| (offset >> 4 & 7) as usize;
    Some(match offset {
        register::ID if x2apic => identifier(vcpu.id.0),
        register::ID => identifier(vcpu.id.0) << 24,
        register::VERSION => VERSION,
        register::TASK_PRIORITY => apic.task_priority.into(),
        register::ARBITRATION if !x2apic => 0,
        register::PROCESSOR_PRIORITY => apic.priority().into(),
        register::LOGICAL if x2apic => x2apic_logical(vcpu.id.0),
        register::LOGICAL => inbox.logical.load(Ordering::Relaxed),
        register::FORMAT if !x2apic && inbox.is_cluster.load(Ordering::Relaxed) => 0x0fff_ffff,
        register::FORMAT if !x2apic => u32::MAX,
        register::SPURIOUS => apic.spurious,
        register::IN_SERVICE..register::TRIGGER => apic.in_service[word(offset)],
        register::TRIGGER..register::REQUESTED => inbox.levels[word(offset)].load(Ordering::Relaxed),
        register::REQUESTED..register::ERROR => inbox.requested[word(offset)].load(Ordering::Relaxed),
        register::ERROR => apic.error,
        register::COMMAND => apic.command as u32,
        register::COMMAND_HIGH => (apic.command >> 32) as u32,
        register::LOCAL..=register::LAST_LOCAL => apic.local[((offset - register::LOCAL) >> 4) as usize],
        register::INITIAL => apic.timer.initial,
        register::CURRENT => apic.timer.current(hv.machine.now()),
        register::DIVIDE => apic.timer.divide,
        _ => return None,
    })
}

/// Writes a register.
///
/// # Errors
/// There is no such register, or it cannot have this value (in memory that is passed over).
pub(super) fn write<M: Machine>(
    hv: &Hypervisor<M>,
    running: &mut Running,
    offset: u32,
    value: u32,
) -> Result<(), NoRegister> {
    let parts = parts(running).ok_or(NoRegister)?;
    let Parts { vcpu, inbox, apic } = parts;
    let x2apic = apic.is_x2apic();
    let check = |valid: bool| if valid { Ok(()) } else { Err(NoRegister) };
    match offset {
        register::TASK_PRIORITY => {
            check(!x2apic || value >> 8 == 0)?;
            apic.task_priority = value as u8;
        }
        register::END => {
            check(!x2apic || value == 0)?;
            if let Some(vector) = apic.end(inbox) {
                platform::ended(hv, &vcpu.domain, vector);
            }
        }
        register::LOGICAL if !x2apic => inbox.logical.store(value & 0xff00_0000, Ordering::Relaxed),
        register::FORMAT if !x2apic => inbox.is_cluster.store(value >> 28 == 0, Ordering::Relaxed),
        register::SPURIOUS => {
            check(!x2apic || value & !0x1ff == 0)?;
            apic.spurious = value & 0x1ff;
            if value & TAKES == 0 {
                apic.local.iter_mut().for_each(|local| *local |= MASKED);
                inbox.timer.fetch_or(MASKED, Ordering::Relaxed);
                apic.wire(inbox);
            }
        }
        register::ERROR => {
            check(!x2apic || value == 0)?;
            apic.error = 0;
        }
        register::COMMAND_HIGH if !x2apic => {
            apic.command = apic.command & 0xffff_ffff | u64::from(value) << 32;
        }
        register::COMMAND if !x2apic => {
            apic.command = apic.command & !0xffff_ffff | u64::from(value);
            let command = apic.command;
            command::write(hv, vcpu, inbox, command, false);
        }
        register::LOCAL..=register::LAST_LOCAL => set_local(hv, (vcpu, inbox, apic), offset, value),
        register::INITIAL => timer::start(hv, vcpu, apic, value),
        register::DIVIDE => apic.timer.divide = value & 0xb,
        register::SELF if x2apic => request(hv, vcpu, inbox, value as u8),
        _ => return Err(NoRegister),
    }
    Ok(())
}

fn set_local<M: Machine>(
    hv: &Hypervisor<M>,
    (vcpu, inbox, apic): (&Arc<Vcpu>, &Inbox, &mut Apic),
    offset: u32,
    value: u32,
) {
    let index = ((offset - register::LOCAL) >> 4) as usize;
    let forced = if apic.takes_interrupts() { 0 } else { MASKED };
    apic.local[index] = value & (LOCAL_BITS[index] | MASKED) | forced;
    if index == 0 {
        inbox.timer.store(apic.local[0], Ordering::Relaxed);
        timer::mode_changed(hv, vcpu, apic);
    } else if index == LOCAL_PIN {
        apic.wire(inbox);
    }
}
