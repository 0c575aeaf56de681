//! What belongs to one CPU: its stacks, its descriptor tables, the vCPU it runs.
//!
//! All of it lies in one block ([`layout::CPU_BLOCK`]) that is aligned to its size, so any stack pointer in the block
//! leads to [`Cpu`]; no segment register is needed for that.
//!
//! - Only the CPU itself uses its block, with interrupts off: that is what makes the cells here sound.
//! - The one exception is an exception in the hypervisor itself: its handler uses nothing that the interrupted code
//!   may have borrowed, but to end in a panic.
//!
//! Source: AMD APM 2 §4.8 (descriptors), §6.1.1 (`syscall`), §8.9 (interrupt stacks).

use core::arch::asm;
use core::cell::{Cell, UnsafeCell};
use core::mem::offset_of;

use hv::Hypervisor;
use hv::domain::Running;
use hv::hvm::asid::Numbers;
use hv::registers::Registers;
use pv_abi::Mfn;
use x86_64::VirtAddr;
use x86_64::structures::tss::TaskStateSegment;

use super::hardware::Hardware;
use super::layout::{self, CPU_BLOCK, CPU_DATA, DIRECT_MAP, PAGE, selector};
use super::mapping::{Access, BootMemory, Tables};

/// A CPU's own data.
#[repr(C)]
pub(crate) struct Cpu {
    /// Whether the running vCPU is in guest-kernel mode; the entry code looks here.
    pub(crate) kernel_mode: Cell<bool>,
    /// Its number.
    pub(crate) id: u32,
    /// Its local APIC's id.
    pub(crate) apic_id: Cell<u8>,
    /// Guest-controlled bits of CR4 that are on.
    pub(crate) guest_cr4: Cell<u64>,
    /// XCR0 as it is.
    pub(crate) xcr0: Cell<u64>,
    /// Whether a guest's debug registers are armed.
    pub(crate) debugging: Cell<bool>,
    /// Guests in guest mode run here only after their translations were forgotten.
    pub(crate) forget_guests: Cell<bool>,
    /// Physical address of the block from which guest mode is left (svm.rs).
    pub(crate) own_block: Cell<u64>,
    /// The address-space numbers of its guests.
    pub(crate) numbers: Cell<Numbers>,
    /// The hypervisor, once there is one.
    hv: Cell<Option<&'static Hypervisor<Hardware>>>,
    /// The vCPU that runs here.
    running: UnsafeCell<Option<Running>>,
    /// The frame of a guest that is to go onto the empty main stack.
    pub(crate) raised: Cell<Registers>,
    /// The page-table entries of its descriptor windows.
    window: Cell<*mut u64>,
    tss: UnsafeCell<TaskStateSegment>,
}

const _: () = assert!(size_of::<Cpu>() as u64 <= CPU_BLOCK - CPU_DATA);
/// Bytes from the frame that `syscall` makes to the CPU's data.
pub(crate) const SYSCALL_FRAME: usize = size_of::<Registers>() + 8;
const _: () = assert!(SYSCALL_FRAME.is_multiple_of(16));
/// A page-table entry of the windows: present, writable (the CPU marks descriptors accessed), accessed, dirty, not
/// executable; not global, as it changes with the vCPU.
const WINDOW_ENTRY: u64 = 1 << 63 | 0x61 | WRITABLE;
const WRITABLE: u64 = 2;
/// The last page of the global table: the hypervisor's, and without descriptors.
const EMPTY_PAGE: usize = 15;
/// Page of the block with the `syscall` stubs.
const STUB_PAGE: u64 = 14;
/// Bytes of one stub.
const STUB: usize = 64;

impl Cpu {
    /// The CPU this runs on.
    #[inline(always)]
    pub(crate) fn current() -> &'static Self {
        let mut address: u64;
        // SAFETY: reads the stack pointer.
        unsafe { asm!("mov {}, rsp", out(reg) address, options(nomem, nostack, preserves_flags)) };
        address = (address & !(CPU_BLOCK - 1)) + CPU_DATA;
        // SAFETY: since `enter_block` all stacks lie in a CPU's block, whose data `prepare` made.
        unsafe { &*(address as *const Self) }
    }

    /// The hypervisor.
    #[inline(always)]
    pub(crate) fn hv(&self) -> Option<&'static Hypervisor<Hardware>> {
        self.hv.get()
    }

    /// Says what the hypervisor is; guests may run from now on.
    pub(crate) fn set_hv(&self, hv: &'static Hypervisor<Hardware>) {
        self.hv.set(Some(hv));
    }

    /// The place of the vCPU that runs here.
    #[expect(clippy::mut_from_ref, reason = "each way in borrows it once, and ways in do not nest")]
    #[inline(always)]
    pub(crate) fn running(&self) -> &mut Option<Running> {
        // SAFETY: only the outermost way in (an entry from a guest, or the idle loop) calls this.
        unsafe { &mut *self.running.get() }
    }

    /// Keeps a guest's frame until the entry code has left the stack; gives where.
    pub(crate) fn set_raised(&self, registers: Registers) -> *mut Registers {
        self.raised.set(registers);
        self.raised.as_ptr()
    }

    /// The linear address of its descriptor windows: global table, then local table.
    pub(crate) fn windows(id: u32) -> u64 {
        layout::WINDOWS + u64::from(id) * layout::WINDOW
    }

    /// Maps `frame` as page `page` (below 32) of the descriptor windows. Without a frame a page of the local table is not
    /// there, so that its first use is noticed, and one of the global table has no descriptors.
    pub(crate) fn set_window(&self, page: usize, frame: Option<Mfn>) {
        let entry = match frame {
            Some(frame) => frame.0 << 12 | WINDOW_ENTRY,
            None if page < 16 => self.window_entry(EMPTY_PAGE) & !WRITABLE,
            None => 0,
        };
        if self.window_entry(page) != entry {
            // SAFETY: `window` is the first of 32 entries that are this CPU's (`prepare`).
            let place = unsafe { self.window.get().add(page) };
            // SAFETY: as above.
            unsafe { place.write_volatile(entry) };
            let address = Self::windows(self.id) + page as u64 * PAGE;
            x86_64::instructions::tlb::flush(VirtAddr::new(address));
        }
    }

    fn window_entry(&self, page: usize) -> u64 {
        // SAFETY: `window` is the first of 32 entries that are this CPU's (`prepare`).
        let place = unsafe { self.window.get().add(page) };
        // SAFETY: as above, and a page-table entry is one aligned word.
        unsafe { place.read_volatile() }
    }

    /// Sets the length of the local table.
    pub(crate) fn set_local_table(&self, entries: u32) {
        let base = Self::windows(self.id) + layout::LDT_WINDOW;
        let table = Self::windows(self.id) as *mut u64;
        let descriptor = if entries == 0 { [0, 0] } else { system_descriptor(base, entries * 8 - 1, 0x82) };
        let selector = if entries == 0 { 0 } else { selector::LOCAL };
        for (index, word) in (usize::from(selector::LOCAL) / 8..).zip(descriptor) {
            // SAFETY: page 14 of the window is this CPU's own table (`prepare`).
            let place = unsafe { table.add(index) };
            // SAFETY: as above.
            unsafe { place.write_volatile(word) };
        }
        // SAFETY: the selector is null or names the descriptor just written.
        unsafe { asm!("lldt {:x}", in(reg) selector, options(nostack, preserves_flags)) };
    }
}

/// Where block `id` starts.
pub(crate) const fn block(id: u32) -> u64 {
    layout::CPU_BLOCKS + id as u64 * CPU_BLOCK
}

/// Makes the block and the descriptor windows of CPU `id`, before it uses them; gives the physical address of the
/// windows' page-table entries.
pub(crate) fn prepare(tables: &mut Tables, memory: &mut BootMemory, id: u32) -> Option<u64> {
    let block = block(id);
    for (first, pages) in layout::STACKS.into_iter().chain([(CPU_DATA / PAGE, 2)]) {
        let frames = zeroed(memory, pages)?;
        tables.map(memory, block + first * PAGE, frames..frames + pages * PAGE, Access::Write)?;
    }
    let stubs = zeroed(memory, 1)?;
    write_stubs(stubs, block + CPU_DATA - 8);
    tables.map(memory, block + STUB_PAGE * PAGE, stubs..stubs + PAGE, Access::Execute)?;

    let window = Cpu::windows(id);
    let entries = tables.table_of(memory, window)? + (window >> 12 & 511) * 8;
    let own = zeroed(memory, 2)?;
    let pages = (0..EMPTY_PAGE as u64 - 1).map(|page| (page, own + PAGE));
    for (page, frame) in pages.chain([(14, own), (15, own + PAGE)]) {
        let place = (entries + page * 8) as *mut u64;
        // SAFETY: the table was just made for these windows and is reached one to one while booting.
        unsafe { place.write(frame | WINDOW_ENTRY) };
    }
    write_descriptors(own, block);
    Some(entries)
}

fn zeroed(memory: &mut BootMemory, pages: u64) -> Option<u64> {
    let start = memory.take(pages * PAGE, PAGE)?;
    // SAFETY: the frames were just taken and are reached one to one while booting.
    unsafe { core::ptr::write_bytes(start as *mut u8, 0, (pages * PAGE) as usize) };
    Some(start)
}

/// `movabs [rax's place], rax; mov rax, rsp; movabs rsp, top; jmp entry`, for 64-bit and for 32-bit callers.
fn write_stubs(page: u64, top: u64) {
    unsafe extern "C" {
        fn entry_syscall();
        fn entry_syscall32();
    }
    let rax = top - (SYSCALL_FRAME - 8 - offset_of!(Registers, rax)) as u64;
    for (index, entry) in
        [entry_syscall as *const () as u64, entry_syscall32 as *const () as u64].into_iter().enumerate()
    {
        let mut stub = [0; STUB];
        let parts: [&[u8]; 7] = [
            &[0x48, 0xa3],
            &rax.to_le_bytes(),
            &[0x48, 0x89, 0xe0, 0x48, 0xbc],
            &top.to_le_bytes(),
            &[0xff, 0x25, 0, 0, 0, 0],
            &entry.to_le_bytes(),
            &[0xcc],
        ];
        let mut at = 0;
        for part in parts {
            stub[at..at + part.len()].copy_from_slice(part);
            at += part.len();
        }
        // SAFETY: the page was just taken and is reached one to one while booting.
        unsafe { ((page as usize + index * STUB) as *mut [u8; STUB]).write(stub) };
    }
}

/// Fills the hypervisor's part of a global table; `table` is the frame of its page 14.
fn write_descriptors(table: u64, block: u64) {
    let tss = block + CPU_DATA + offset_of!(Cpu, tss) as u64;
    let [low, high] = system_descriptor(tss, size_of::<TaskStateSegment>() as u32 - 1, 0x89);
    let descriptors = [
        (selector::CODE, 0x00af_9b00_0000_ffff),
        (selector::STACK, 0x00cf_9300_0000_ffff),
        (selector::GUEST_CODE32, 0x00cf_fb00_0000_ffff),
        (selector::GUEST_STACK, 0x00cf_f300_0000_ffff),
        (selector::GUEST_CODE64, 0x00af_fb00_0000_ffff),
        (selector::TASK, low),
        (selector::TASK + 8, high),
    ];
    for (selector, descriptor) in descriptors {
        let offset = u64::from(selector & !7) - 14 * PAGE;
        // SAFETY: the frame was just taken and is reached one to one while booting.
        unsafe { ((table + offset) as *mut u64).write(descriptor) };
    }
}

/// A system descriptor of 16 bytes: base, limit in bytes, present and type.
fn system_descriptor(base: u64, limit: u32, kind: u64) -> [u64; 2] {
    let low = u64::from(limit & 0xffff)
        | (base & 0xff_ffff) << 16
        | kind << 40
        | u64::from(limit >> 16 & 0xf) << 48
        | (base >> 24 & 0xff) << 56;
    [low, base >> 32]
}

/// Loads everything of CPU `id` into the CPU this runs on and goes on with `then` on its stack.
///
/// # Safety
/// `prepare` made the block and the tables with it are loaded; nothing on the old stack is needed again.
pub(crate) unsafe fn enter_block(id: u32, windows: *mut u64, then: extern "C" fn() -> !) -> ! {
    let block = block(id);
    let cpu = (block + CPU_DATA) as *mut Cpu;
    let mut tss = TaskStateSegment::new();
    tss.privilege_stack_table[0] = VirtAddr::new(block + CPU_DATA);
    for index in 1..layout::STACKS.len() {
        tss.interrupt_stack_table[index - 1] = VirtAddr::new(block + layout::interrupt_stack_top(index));
    }
    let data = Cpu {
        kernel_mode: Cell::new(false),
        id,
        apic_id: Cell::new(0),
        guest_cr4: Cell::new(0),
        xcr0: Cell::new(0),
        debugging: Cell::new(false),
        forget_guests: Cell::new(true),
        own_block: Cell::new(0),
        numbers: Cell::new(Numbers::new(0)),
        hv: Cell::new(None),
        running: UnsafeCell::new(None),
        raised: Cell::new(Registers::default()),
        window: Cell::new(windows),
        tss: UnsafeCell::new(tss),
    };
    // SAFETY: the place is mapped, large enough (asserted above), aligned to a page and nobody's yet.
    unsafe { cpu.write(data) };
    // SAFETY: the table holds the selectors; the task state is in `cpu`.
    unsafe { load_tables(Cpu::windows(id)) };
    super::vectors::load(block + STUB_PAGE * PAGE, STUB as u64);
    // SAFETY: the block's main stack is mapped and unused, `then` never returns.
    unsafe {
        asm!("mov rsp, {stack}", "xor ebp, ebp", "call {then}", "ud2",
            stack = in(reg) block + CPU_DATA, then = in(reg) then, options(noreturn));
    }
}

/// # Safety
/// `base` is the linear address of a global table of 16 pages with the hypervisor's selectors.
unsafe fn load_tables(base: u64) {
    let pointer = x86_64::structures::DescriptorTablePointer { limit: 0xffff, base: VirtAddr::new(base) };
    // SAFETY: the caller's promise.
    unsafe { x86_64::instructions::tables::lgdt(&pointer) };
    // SAFETY: both selectors are in the table; the far return goes to the next instruction.
    unsafe {
        asm!("push {code}", "lea {next}, [rip + 2f]", "push {next}", "retfq", "2:", "mov ss, {stack:e}", "ltr {task:x}",
            "xor {next:e}, {next:e}", "mov ds, {next:e}", "mov es, {next:e}", "mov fs, {next:e}", "mov gs, {next:e}",
            code = in(reg) u64::from(selector::CODE), next = out(reg) _,
            stack = in(reg) u32::from(selector::STACK), task = in(reg) selector::TASK);
    }
}

/// The address at which RAM is mapped for the hypervisor.
#[inline(always)]
pub(crate) const fn direct(mfn: Mfn) -> u64 {
    DIRECT_MAP + (mfn.0 << 12)
}
