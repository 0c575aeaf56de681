//! The line between the kernel and what it runs on.
//!
//! [`Platform`] lists everything the portable kernel cannot do by itself. `native` does it with privileged
//! instructions, `pv` with hypercalls and shared memory; the sections of `PORTING.md` follow this list. `pvh` has the CPU
//! of the one and the devices of the other.
//! The entry that started the kernel sets the platform once, before anything else runs.

use core::sync::atomic::{AtomicU8, Ordering};

use crate::mm::{Entry, EntryUpdate, Pfn};

pub(crate) mod fpu;
pub mod frame;
mod host;

/// The methods of [`Platform`] that each platform has as functions in files of the same names: `clock`, `console`, `paging`,
/// `traps`.
#[cfg(target_os = "none")]
macro_rules! platform_in_files {
    () => {
        platform_in_files! {
            clock {
                fn now_ns() -> u64;
                fn wall_clock_ns() -> u64;
                fn set_timer(deadline_ns: u64);
            }
            console {
                fn console_write(bytes: &[u8]);
                fn console_read(into: &mut [u8]) -> usize;
            }
            paging {
                fn prepare_user(kernel_stack_top: usize, root: Option<Pfn>);
                fn kernel_root() -> Pfn;
                fn read_entry(table: Pfn, index: usize) -> Entry;
                fn write_entries(updates: &[EntryUpdate]);
                fn make_table(table: Pfn, level: u8);
                fn retire_tables(tables: &[(Pfn, u8)]);
                fn flush_page(addr: usize);
                fn flush_user(root: Pfn, addr: Option<usize>);
            }
            traps {
                fn user_frame(entry: usize, stack: usize) -> TrapFrame;
                fn enter_user(frame: &TrapFrame) -> !;
            }
        }
    };
    ($($file:ident { $(fn $name:ident($($argument:ident: $type:ty),*) $(-> $result:ty)?;)* })*) => { $( $(
        fn $name(&self $(, $argument: $type)*) $(-> $result)? {
            $file::$name($($argument),*)
        }
    )* )* };
}

#[cfg(target_os = "none")]
pub mod native;
#[cfg(target_os = "none")]
pub mod pv;
#[cfg(target_os = "none")]
pub mod pvh;
#[cfg(target_os = "none")]
pub(crate) mod switch;

pub use frame::TrapFrame;

/// How a domain or machine ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Shutdown {
    /// Off, as asked.
    PowerOff,
    /// Start again.
    Reboot,
    /// Off, because the kernel cannot go on.
    Crash,
}

/// What the kernel needs from the machine or the hypervisor. Functions that change page tables or switch user state are
/// called by the kernel only, with frames it owns.
pub trait Platform: Sync {
    /// `native`, `pv` or `pvh`.
    fn name(&self) -> &'static str;

    /// Turns interrupts off and says whether they were on.
    fn interrupts_disable(&self) -> bool;

    /// Turns interrupts on; what is pending is delivered before this returns.
    fn interrupts_enable(&self);

    /// Called with interrupts off: waits for one with interrupts on, without a gap in which it could be missed. Returns
    /// with interrupts off.
    fn wait_for_interrupt(&self);

    /// The number of this CPU. Interrupts are off, or it may be another's by the time it is used.
    fn cpu(&self) -> usize;

    /// Called again and again while another CPU is waited for: lets it run, if it shares this one's time.
    fn relax(&self);

    /// Interrupts another CPU, which then looks whether it has something to do.
    fn kick(&self, cpu: usize);

    /// Stops this CPU until it is started again. Interrupts are off.
    fn cpu_down(&self);

    /// Nanoseconds since the start; never goes back.
    fn now_ns(&self) -> u64;

    /// Nanoseconds since 1970, UTC.
    fn wall_clock_ns(&self) -> u64;

    /// Asks for a timer interrupt at `deadline_ns` (on the clock of [`now_ns`](Self::now_ns)); replaces the one before.
    fn set_timer(&self, deadline_ns: u64);

    /// Writes to the console; returns when all is handed over.
    fn console_write(&self, bytes: &[u8]);

    /// Takes what was typed, without waiting; returns the number of bytes.
    fn console_read(&self, into: &mut [u8]) -> usize;

    /// The next entry from user mode lands on `kernel_stack_top`, and user mode runs in `root` (none: no user mode).
    fn prepare_user(&self, kernel_stack_top: usize, root: Option<Pfn>);

    /// The top-level table of the kernel's own address space.
    fn kernel_root(&self) -> Pfn;

    /// Reads one entry of a page table.
    fn read_entry(&self, table: Pfn, index: usize) -> Entry;

    /// Writes entries of live page tables, in order.
    fn write_entries(&self, updates: &[EntryUpdate]);

    /// Turns a zeroed frame into an empty page table of `level` (4 is the top).
    fn make_table(&self, table: Pfn, level: u8);

    /// Turns page tables that nothing links to any more back into ordinary memory. The root comes first.
    fn retire_tables(&self, tables: &[(Pfn, u8)]);

    /// Forgets cached translations of a kernel address, on all CPUs.
    fn flush_page(&self, addr: usize);

    /// Forgets cached translations of a user address in the space of `root` (all of them without one), wherever it is loaded.
    fn flush_user(&self, root: Pfn, addr: Option<usize>);

    /// Registers with which user mode starts at `entry` with the stack `stack`.
    fn user_frame(&self, entry: usize, stack: usize) -> TrapFrame;

    /// Goes to user mode with `frame`. Interrupts are off.
    fn enter_user(&self, frame: &TrapFrame) -> !;

    /// Ends the machine.
    fn shutdown(&self, how: Shutdown) -> !;
}

const HOST: u8 = 0;
#[cfg(target_os = "none")]
const PV: u8 = 1;
#[cfg(target_os = "none")]
const NATIVE: u8 = 2;
#[cfg(target_os = "none")]
const PVH: u8 = 3;

static CURRENT: AtomicU8 = AtomicU8::new(HOST);

/// The platform this kernel was started on.
#[inline]
pub fn current() -> &'static dyn Platform {
    match CURRENT.load(Ordering::Relaxed) {
        #[cfg(target_os = "none")]
        PV => &pv::Pv,
        #[cfg(target_os = "none")]
        NATIVE => &native::Native,
        #[cfg(target_os = "none")]
        PVH => &pvh::Pvh,
        _ => &host::Host,
    }
}

/// True when the kernel runs as a Xen PV guest.
#[must_use]
pub fn is_pv() -> bool {
    CURRENT.load(Ordering::Relaxed) == 1
}

/// True when the kernel runs as a Xen guest with hardware assistance.
#[must_use]
pub fn is_pvh() -> bool {
    CURRENT.load(Ordering::Relaxed) == 3
}

/// True when a hypervisor with Xen's interface is below, so that there are event channels, grants and a store.
#[must_use]
pub fn is_xen() -> bool {
    is_pv() || is_pvh()
}

#[cfg(target_os = "none")]
pub(crate) fn select_pvh() {
    CURRENT.store(PVH, Ordering::Relaxed);
}

#[cfg(target_os = "none")]
pub(crate) fn select_pv() {
    CURRENT.store(PV, Ordering::Relaxed);
}

#[cfg(target_os = "none")]
pub(crate) fn select_native() {
    CURRENT.store(NATIVE, Ordering::Relaxed);
}

/// The ways into the kernel; [`kernel_main!`](crate::kernel_main) keeps them in the image.
#[cfg(target_os = "none")]
pub const ENTRIES: [unsafe extern "C" fn(); 2] = [pv::pv_entry, native::native_entry];
