//! The virtual machine control block: what the CPU runs a guest by, and where it says why it stopped.
//!
//! Plain data: the library fills it in and reads it, the machine hands it to the CPU. Source: AMD APM 2, appendix B.

use crate::registers::Registers;

/// A segment register, as the block has it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
#[allow(missing_docs, reason = "the architecture's names")]
pub struct Segment {
    pub selector: u16,
    /// Bits 40 to 47 and 52 to 55 of a descriptor, together.
    pub attributes: u16,
    pub limit: u32,
    pub base: u64,
}

/// The block.
#[derive(Clone, Debug)]
#[repr(C, align(4096))]
#[allow(missing_docs, reason = "the architecture's names")]
pub struct Vmcb {
    pub control_register_intercepts: u32,
    pub debug_register_intercepts: u32,
    pub exception_intercepts: u32,
    /// [`intercept`].
    pub intercepts: [u32; 2],
    _reserved_1: [u32; 11],
    pub io_map: u64,
    pub msr_map: u64,
    pub tsc_offset: u64,
    pub asid: u32,
    /// 1: all translations are forgotten first.
    pub tlb_control: u32,
    /// [`interrupt`].
    pub interrupt_control: u64,
    /// 1: the instruction before was `sti` or `mov ss`.
    pub interrupt_shadow: u64,
    pub exit_code: u64,
    pub exit_info: [u64; 2],
    pub exit_event: u64,
    pub nested_paging: u64,
    _reserved_2: [u64; 2],
    /// An event to deliver: [`event`].
    pub event: u64,
    pub nested_root: u64,
    _reserved_3: [u64; 105],
    pub es: Segment,
    pub cs: Segment,
    pub ss: Segment,
    pub ds: Segment,
    pub fs: Segment,
    pub gs: Segment,
    pub gdtr: Segment,
    pub ldtr: Segment,
    pub idtr: Segment,
    pub tr: Segment,
    _reserved_4: [u8; 43],
    pub privilege: u8,
    _reserved_5: u32,
    pub efer: u64,
    _reserved_6: [u64; 14],
    pub cr4: u64,
    pub cr3: u64,
    pub cr0: u64,
    pub dr7: u64,
    pub dr6: u64,
    pub rflags: u64,
    pub rip: u64,
    _reserved_7: [u64; 11],
    pub rsp: u64,
    _reserved_8: [u64; 3],
    pub rax: u64,
    pub star: u64,
    pub lstar: u64,
    pub cstar: u64,
    pub syscall_mask: u64,
    pub kernel_gs_base: u64,
    pub sysenter_cs: u64,
    pub sysenter_esp: u64,
    pub sysenter_eip: u64,
    pub cr2: u64,
    _reserved_9: [u64; 4],
    pub page_attributes: u64,
    _reserved_10: [u64; 306],
}

const _: () = {
    use core::mem::offset_of;
    assert!(size_of::<Vmcb>() == 4096);
    assert!(offset_of!(Vmcb, io_map) == 0x40 && offset_of!(Vmcb, exit_code) == 0x70);
    assert!(offset_of!(Vmcb, event) == 0xa8 && offset_of!(Vmcb, nested_root) == 0xb0);
    assert!(offset_of!(Vmcb, es) == 0x400 && offset_of!(Vmcb, privilege) == 0x4cb && offset_of!(Vmcb, efer) == 0x4d0);
    assert!(offset_of!(Vmcb, cr4) == 0x548 && offset_of!(Vmcb, rip) == 0x578 && offset_of!(Vmcb, rsp) == 0x5d8);
    assert!(offset_of!(Vmcb, rax) == 0x5f8 && offset_of!(Vmcb, cr2) == 0x640);
    assert!(offset_of!(Vmcb, page_attributes) == 0x668);
};

/// Bits of [`Vmcb::intercepts`].
pub mod intercept {
    /// Of the control registers' word: CR8 is written.
    pub const CR8_WRITE: u32 = 1 << 24;
    /// In the first word: interrupts and the `V_IRQ` window.
    pub const VIRTUAL_INTERRUPT: u32 = 1 << 4;
    /// The first word: INTR, NMI, INIT, RDPMC, CPUID, INVD, HLT, INVLPGA, I/O, MSRs, task switches, shutdown.
    pub const FIRST: u32 = 0b1011_1101_0100_0100_1000_0000_0000_1011;
    /// The second word: VMRUN, VMMCALL, VMLOAD, VMSAVE, STGI, CLGI, SKINIT, RDTSCP, WBINVD, MONITOR, MWAIT, XSETBV.
    pub const SECOND: u32 = 0b0010_1110_1111_1111;
}

/// Bits of [`Vmcb::interrupt_control`].
pub mod interrupt {
    /// The guest's interrupt flag masks only what is injected; the task-priority register is its own.
    pub const MASKING: u64 = 1 << 24;
    /// An interrupt waits that ignores the task priority, at the highest priority.
    pub const WINDOW: u64 = 1 << 8 | 0xf << 16 | 1 << 20;
    /// Of these: one waits.
    pub const WAITS: u64 = 1 << 8;
    /// Where its vector is.
    pub const VECTOR_SHIFT: u32 = 32;
}

/// Fields of [`Vmcb::event`] and [`Vmcb::exit_event`].
pub mod event {
    /// There is one.
    pub const VALID: u64 = 1 << 31;
    /// It has an error code, in the upper half.
    pub const HAS_ERROR: u64 = 1 << 11;
    /// It is a non-maskable interrupt: its type and its vector.
    pub const NMI: u64 = 2 << 8 | 2;
    /// It is an exception.
    pub const EXCEPTION: u64 = 3 << 8;
    /// The field of its type; 0 is an interrupt.
    pub const TYPE: u64 = 7 << 8;
    /// The type of software interrupts: they come again when their instruction does.
    pub const SOFTWARE: u64 = 4 << 8;
}

/// EFER: SVM is on, which the CPU wants of every guest and no guest sees.
pub const EFER_SVME: u64 = 1 << 12;
/// EFER: long mode is active.
pub const EFER_LMA: u64 = 1 << 10;
/// A code segment's attributes: 64-bit.
pub const CODE_LONG: u16 = 1 << 9;
/// A code segment's attributes: 32-bit, where it is not 64-bit.
pub const CODE_32: u16 = 1 << 10;

impl Vmcb {
    /// A vCPU after reset (AMD APM 2 §14.1.3), stopped by everything that is not its own.
    #[must_use]
    pub fn new(nested_root: u64) -> Self {
        let segment = |attributes, selector, base| Segment { selector, attributes, limit: 0xffff, base };
        let data = segment(0x93, 0, 0);
        Self {
            control_register_intercepts: 0,
            debug_register_intercepts: 0,
            exception_intercepts: 0,
            intercepts: [intercept::FIRST, intercept::SECOND],
            _reserved_1: [0; 11],
            io_map: 0,
            msr_map: 0,
            tsc_offset: 0,
            asid: 1,
            tlb_control: 0,
            interrupt_control: interrupt::MASKING,
            interrupt_shadow: 0,
            exit_code: 0,
            exit_info: [0; 2],
            exit_event: 0,
            nested_paging: 1,
            _reserved_2: [0; 2],
            event: 0,
            nested_root,
            _reserved_3: [0; 105],
            es: data,
            cs: segment(0x9b, 0xf000, 0xffff_0000),
            ss: data,
            ds: data,
            fs: data,
            gs: data,
            gdtr: segment(0, 0, 0),
            ldtr: segment(0x82, 0, 0),
            idtr: segment(0, 0, 0),
            tr: segment(0x8b, 0, 0),
            _reserved_4: [0; 43],
            privilege: 0,
            _reserved_5: 0,
            efer: EFER_SVME,
            _reserved_6: [0; 14],
            cr4: 0,
            cr3: 0,
            cr0: 0x10,
            dr7: 0x400,
            dr6: 0xffff_0ff0,
            rflags: 2,
            rip: 0xfff0,
            _reserved_7: [0; 11],
            rsp: 0,
            _reserved_8: [0; 3],
            rax: 0,
            star: 0,
            lstar: 0,
            cstar: 0,
            syscall_mask: 0,
            kernel_gs_base: 0,
            sysenter_cs: 0,
            sysenter_esp: 0,
            sysenter_eip: 0,
            cr2: 0,
            _reserved_9: [0; 4],
            page_attributes: 0x0007_0406_0007_0406,
            _reserved_10: [0; 306],
        }
    }

    /// Takes over what of the general registers the block holds while the guest runs, and makes an interrupt that is to
    /// be delivered one that waits.
    pub fn take(&mut self, registers: &Registers) {
        (self.rax, self.rip, self.rsp, self.rflags) = (registers.rax, registers.rip, registers.rsp, registers.rflags);
        self.post();
    }

    /// Gives it back.
    pub fn give(&mut self, registers: &mut Registers) {
        self.take_back();
        (registers.rax, registers.rip, registers.rsp, registers.rflags) = (self.rax, self.rip, self.rsp, self.rflags);
        (registers.cs, registers.ss) = (self.cs.selector.into(), self.ss.selector.into());
    }

    fn stops_for_window(&self) -> bool {
        self.intercepts[0] & intercept::VIRTUAL_INTERRUPT != 0
    }

    /// The guest takes an interrupt that waits as soon as one that is injected. QEMU delivers an injected one a second
    /// time, whatever the guest's flag, where a deadline of its own comes before the guest's next stop.
    fn post(&mut self) {
        if self.event & (event::VALID | event::TYPE) == event::VALID && !self.stops_for_window() {
            let vector = (self.event & 0xff) << interrupt::VECTOR_SHIFT;
            self.interrupt_control =
                self.interrupt_control & !(0xff << interrupt::VECTOR_SHIFT) | interrupt::WINDOW | vector;
            self.event = 0;
        }
    }

    /// An interrupt that still waits was interrupted before its delivery.
    fn take_back(&mut self) {
        if self.interrupt_control & interrupt::WAITS != 0 && !self.stops_for_window() {
            self.interrupt_control &= !interrupt::WINDOW;
            if self.exit_event & event::VALID == 0 {
                self.exit_event = event::VALID | self.interrupt_control >> interrupt::VECTOR_SHIFT & 0xff;
            }
        }
    }

    /// Whether the guest executes 64-bit code.
    #[must_use]
    pub const fn is_long(&self) -> bool {
        self.efer & EFER_LMA != 0 && self.cs.attributes & CODE_LONG != 0
    }

    /// Has the guest get an exception where it goes on.
    pub fn raise(&mut self, vector: u8, error: Option<u32>) {
        let error = error.map_or(0, |code| event::HAS_ERROR | (code as u64) << 32);
        self.event = event::VALID | event::EXCEPTION | error | vector as u64;
    }
}
