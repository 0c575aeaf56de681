//! The way in, hypercalls, and the verdicts on the console.

use core::arch::{asm, global_asm};
use core::fmt::{self, Write};
use core::panic::PanicInfo;
use core::sync::atomic::{AtomicPtr, Ordering};

use pv_abi::xen::{HYPERVISOR_CONSOLE_IO, HYPERVISOR_SCHED_OP, StartInfo};

global_asm!(include_str!("entry.s"));

static START_INFO: AtomicPtr<StartInfo> = AtomicPtr::new(core::ptr::null_mut());

unsafe extern "Rust" {
    /// The test; [`guest_test!`] makes it.
    safe fn guest_main();
}

/// Names the function that is the test.
#[macro_export]
macro_rules! guest_test {
    ($main:path) => {
        /// Called by the runtime's entry.
        #[unsafe(no_mangle)]
        #[expect(unsafe_code, reason = "the runtime calls it by name")]
        pub fn guest_main() {
            $main();
        }
    };
}

/// Called by the entry code with the address that the hypervisor passed in `rsi`.
#[unsafe(no_mangle)]
extern "C" fn guest_start(start_info: *mut StartInfo) -> ! {
    START_INFO.store(start_info, Ordering::Relaxed);
    crate::traps::install_traps();
    guest_main();
    println("guest-test: done");
    shutdown()
}

/// What the hypervisor told the guest at start.
#[must_use]
pub fn start_info() -> &'static StartInfo {
    // SAFETY: The boot contract maps start_info for the guest's life, and nothing writes it.
    unsafe { &*START_INFO.load(Ordering::Relaxed) }
}

/// Issues a hypercall; the result as the hypervisor gave it.
///
/// A guest test may ask for anything: what it breaks is itself.
#[inline(always)]
pub fn hypercall(number: u64, arguments: [u64; 5]) -> i64 {
    let result: i64;
    // SAFETY: `syscall` from the guest kernel is a hypercall; it clobbers rcx and r11 and perhaps its arguments. What
    // the hypervisor writes is where the arguments point.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") number => result,
            inlateout("rdi") arguments[0] => _,
            inlateout("rsi") arguments[1] => _,
            inlateout("rdx") arguments[2] => _,
            inlateout("r10") arguments[3] => _,
            inlateout("r8") arguments[4] => _,
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    result
}

/// A hypercall whose second argument is a structure, as most are: `op(command, &structure)`.
#[inline(always)]
pub fn operation<T>(number: u64, command: u32, structure: &mut T) -> i64 {
    hypercall(number, [u64::from(command), core::ptr::from_mut(structure) as u64, 0, 0, 0])
}

/// The time-stamp counter.
#[inline(always)]
#[must_use]
pub fn tsc() -> u64 {
    // SAFETY: `rdtsc` reads a counter and nothing else.
    unsafe { core::arch::x86_64::_rdtsc() }
}

/// Prints on the hypervisor's console.
pub fn print(text: &str) {
    hypercall(HYPERVISOR_CONSOLE_IO, [0, text.len() as u64, text.as_ptr() as u64, 0, 0]);
}

/// Prints a line.
pub fn println(text: &str) {
    let mut line = Line::default();
    let _ = writeln!(line, "{text}");
    line.flush();
}

/// Formats a line on the stack and prints it whole.
#[derive(Debug)]
pub struct Line {
    bytes: [u8; 256],
    len: usize,
}

impl Default for Line {
    fn default() -> Self {
        Self { bytes: [0; 256], len: 0 }
    }
}

impl Line {
    /// Prints what was written; text past 256 bytes is cut.
    pub fn flush(&self) {
        print(core::str::from_utf8(&self.bytes[..self.len]).unwrap_or("(not text)\n"));
    }
}

impl Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = (self.bytes.len() - self.len).min(text.len());
        self.bytes[self.len..self.len + room].copy_from_slice(&text.as_bytes()[..room]);
        self.len += room;
        Ok(())
    }
}

/// Prints a formatted line.
#[macro_export]
macro_rules! say {
    ($($argument:tt)*) => {{
        use core::fmt::Write;
        let mut line = $crate::Line::default();
        let _ = writeln!(line, $($argument)*);
        line.flush();
    }};
}

/// Names the operations that the checks from here on are about, by their C names in Xen's public headers
/// (`EVTCHNOP_send`, `update_va_mapping`), several with spaces between them. `docs/abi.md` lists the checks of each.
pub fn about(operations: &str) {
    say!("guest-test-about: {operations}");
}

/// Says that `name` (a sentence) holds where `seen` is `expected`.
pub fn expect<T: PartialEq + fmt::Debug>(name: &str, seen: T, expected: T) {
    if seen == expected {
        say!("guest-test: {name}: ok");
    } else {
        say!("guest-test: {name}: FAILED saw {seen:?}, expected {expected:?}");
    }
}

/// Says which of two values was seen, where hv differs from Xen on purpose (docs/compat.md).
pub fn differs<T: PartialEq + fmt::Debug>(name: &str, seen: T, on_hv: T, on_xen: T) {
    if seen == on_hv {
        say!("guest-test: {name}: ok as hv");
    } else if seen == on_xen {
        say!("guest-test: {name}: ok as Xen");
    } else {
        say!("guest-test: {name}: FAILED saw {seen:?}, expected {on_hv:?} on hv and {on_xen:?} on Xen");
    }
}

/// Ends the domain.
pub fn shutdown() -> ! {
    let mut reason = 0_u32;
    loop {
        operation(HYPERVISOR_SCHED_OP, pv_abi::sched::SCHEDOP_SHUTDOWN, &mut reason);
    }
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    say!("guest-test: no panic: FAILED {info}");
    println("guest-test: done");
    shutdown()
}
