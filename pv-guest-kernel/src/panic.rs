//! The kernel cannot go on: say why, end the machine.

use core::panic::PanicInfo;
use core::sync::atomic::{AtomicBool, Ordering};

use crate::platform::{self, Shutdown};

static PANICKING: AtomicBool = AtomicBool::new(false);

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    platform::current().interrupts_disable();
    if !PANICKING.swap(true, Ordering::Relaxed) {
        crate::println!("\nkernel panic: {info}");
    }
    platform::current().shutdown(Shutdown::Crash)
}
