//! What a vCPU is made of.

use alloc::boxed::Box;

use pv_abi::Mfn;

use crate::hvm::{self, Vmcb};
use crate::registers::Registers;

/// Where a guest wants an exception to go (`trap_info`); address 0 for nowhere.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TrapGate {
    /// The handler.
    pub address: u64,
    /// Its code selector.
    pub cs: u16,
    /// Bits 0–1: lowest privilege that may raise it by `int`; bit 2: mask events on entry.
    pub flags: u8,
}

/// Where a guest wants something that is not an exception to go; address 0 for nowhere.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Callback {
    /// The entry point.
    pub address: u64,
    /// Mask events on entry.
    pub masks_events: bool,
}

/// All of a vCPU's callbacks (`CALLBACKTYPE_*`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "the ABI's names")]
pub struct Callbacks {
    pub event: Callback,
    pub failsafe: Callback,
    pub syscall: Callback,
    pub syscall32: Callback,
    pub sysenter: Callback,
    pub nmi: Callback,
}

/// Segment selectors and bases while the vCPU does not run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "the architecture's names")]
pub struct Segments {
    pub ds: u16,
    pub es: u16,
    pub fs: u16,
    pub gs: u16,
    pub fs_base: u64,
    pub gs_base_kernel: u64,
    pub gs_base_user: u64,
}

/// The guest's part of the global descriptor table: frames 0–13, each typed as a descriptor page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gdt {
    /// The frames; those past the table's end are unused.
    pub frames: [Mfn; 14],
    /// How many frames are used.
    pub frame_count: u8,
    /// How many descriptors.
    pub entries: u16,
}

impl Default for Gdt {
    fn default() -> Self {
        Self { frames: [Mfn(0); 14], frame_count: 0, entries: 0 }
    }
}

/// The local descriptor table: where the guest says it is; pages are mapped when first used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ldt {
    /// Guest virtual address.
    pub base: u64,
    /// Descriptors.
    pub entries: u32,
    /// Frames that are mapped and typed, by page.
    pub mapped: [Option<Mfn>; 16],
}

/// The last hypercalls of a vCPU, for the report of a crash.
#[derive(Clone, Copy, Debug)]
pub struct RecentCalls {
    /// Number, first and second argument.
    pub calls: [(u64, u64, u64); 16],
    /// How many there were ever.
    pub count: u64,
}

impl RecentCalls {
    /// Remembers one.
    #[inline]
    pub fn push(&mut self, number: u64, first: u64, second: u64) {
        self.calls[(self.count % 16) as usize] = (number, first, second);
        self.count = self.count.wrapping_add(1);
    }
}

/// A vCPU's registers and tables.
///
/// While it runs, the general registers are on its CPU's stack and the segments, the FPU and the debug registers may be
/// in the CPU ([`crate::Machine::save_context`] brings them back).
pub struct VcpuState {
    /// General registers, while it does not run.
    pub registers: Registers,
    /// Segments, while it does not run.
    pub segments: Segments,
    /// Whether it is in guest-kernel mode; a `syscall` is a hypercall only then.
    pub kernel_mode: bool,
    /// What it runs by with hardware assistance.
    pub hvm: Option<Box<Vmcb>>,
    /// What else it has with hardware assistance.
    pub assisted: Option<Box<hvm::Assisted>>,
    /// Root table of guest-kernel mode; referenced and typed L4.
    pub kernel_root: Option<Mfn>,
    /// Root table of guest-user mode; referenced and typed L4.
    pub user_root: Option<Mfn>,
    /// An old page table that is still to be taken apart.
    pub unfinished: Option<crate::paging::Unfinished>,
    /// How far a block came that is being given back.
    pub given: Option<crate::memory::Given>,
    /// Frames that are being exchanged. They are nobody's: [`crate::memory::abandon_exchange`] ends that.
    pub exchanging: Option<Box<crate::memory::Exchanging>>,
    /// Exception handlers.
    pub traps: Box<[TrapGate; 256]>,
    /// Other entry points.
    pub callbacks: Callbacks,
    /// Stack selector on entry from guest-user mode.
    pub kernel_ss: u64,
    /// Stack pointer on entry from guest-user mode.
    pub kernel_sp: u64,
    /// Global descriptor table.
    pub gdt: Gdt,
    /// Local descriptor table.
    pub ldt: Ldt,
    /// Debug registers 0–3, 6 and 7 (4 and 5 are unused), while it does not run.
    pub debug: [u64; 8],
    /// CR0.TS as the guest set it: its next floating-point instruction raises #NM to it.
    pub task_switched: bool,
    /// Guest-controlled bits of CR4.
    pub cr4: u64,
    /// XCR0.
    pub xcr0: u64,
    /// FPU state, while it does not run: an XSAVE area, 64-byte aligned.
    pub fpu: Box<FpuArea>,
    /// Whether the FPU state is in the CPU.
    pub fpu_loaded: bool,
    /// The privilege at which I/O instructions are emulated (`PHYSDEVOP_set_iopl`).
    pub iopl: u8,
    /// Guest address and length in ports of its I/O bitmap (`PHYSDEVOP_set_iobitmap`).
    pub io_bitmap: (u64, u32),
    /// Whether it is in a handler of a non-maskable interrupt: no other comes before its `iret`.
    pub nmi_masked: bool,
    /// Its last hypercalls.
    pub recent: RecentCalls,
}

/// Room for the FPU state of all features that a guest may use.
#[derive(Clone)]
#[repr(C, align(64))]
pub struct FpuArea(pub [u8; FPU_AREA_BYTES]);

/// Bytes of an XSAVE area for x87, SSE, AVX and AVX-512, with the header.
pub const FPU_AREA_BYTES: usize = 2816;

impl Default for FpuArea {
    /// The state after reset: FCW 0x37f, MXCSR 0x1f80 (AMD APM 2 §11.5).
    fn default() -> Self {
        let mut area = [0; FPU_AREA_BYTES];
        area[0..2].copy_from_slice(&0x37f_u16.to_le_bytes());
        area[24..28].copy_from_slice(&0x1f80_u32.to_le_bytes());
        Self(area)
    }
}

/// XSAVE state components that the first 512 bytes hold: x87 and SSE.
const LEGACY_COMPONENTS: u64 = 3;

impl VcpuState {
    /// Takes floating-point registers as `fxsave` has them.
    pub(crate) fn take_legacy_fpu(&mut self, registers: &[u8; 512]) {
        self.fpu.0[..512].copy_from_slice(registers);
        self.fpu.0[512..520].copy_from_slice(&LEGACY_COMPONENTS.to_le_bytes());
        self.fpu.0[520..576].fill(0);
        let control = u32::from_le_bytes([registers[24], registers[25], registers[26], 0]);
        self.fpu.0[24..28].copy_from_slice(&(control & 0xffff).to_le_bytes());
    }
}

impl Default for VcpuState {
    fn default() -> Self {
        Self {
            registers: Registers::default(),
            segments: Segments::default(),
            kernel_mode: true,
            hvm: None,
            assisted: None,
            kernel_root: None,
            user_root: None,
            unfinished: None,
            given: None,
            exchanging: None,
            traps: Box::new([TrapGate::default(); 256]),
            callbacks: Callbacks::default(),
            kernel_ss: 0,
            kernel_sp: 0,
            gdt: Gdt::default(),
            ldt: Ldt::default(),
            debug: [0, 0, 0, 0, 0, 0, 0xffff_0ff0, 0x400],
            task_switched: false,
            cr4: 0,
            xcr0: 3,
            fpu: Box::default(),
            fpu_loaded: false,
            iopl: 0,
            io_bitmap: (0, 0),
            nmi_masked: false,
            recent: RecentCalls { calls: [(0, 0, 0); 16], count: 0 },
        }
    }
}
