// What every user program includes: system calls, output, the entry.

#[path = "abi.rs"]
pub mod abi;

use core::arch::asm;
use core::fmt::{self, Write};

pub fn call(number: u64, a: u64, b: u64, c: u64) -> i64 {
    let result: i64;
    // SAFETY: the kernel follows the addresses only inside this process.
    unsafe {
        asm!("syscall", inlateout("rax") number => result, in("rdi") a, in("rsi") b, in("rdx") c,
            lateout("rcx") _, lateout("r11") _, options(nostack));
    }
    result
}

pub struct Out;

impl Write for Out {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        call(abi::WRITE, 1, text.as_ptr() as u64, text.len() as u64);
        Ok(())
    }
}

#[macro_export]
macro_rules! say {
    ($($argument:tt)*) => {{
        use core::fmt::Write;
        let _ = writeln!($crate::sys::Out, $($argument)*);
    }};
}

pub fn exit(status: i32) -> ! {
    call(abi::EXIT, status as u64, 0, 0);
    unreachable!()
}

#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    say!("{info}");
    exit(101)
}

#[unsafe(no_mangle)]
extern "C" fn _start(arguments: *const u8, len: usize) -> ! {
    // SAFETY: the kernel wrote the arguments there.
    let bytes = unsafe { core::slice::from_raw_parts(arguments, len) };
    exit(crate::main(core::str::from_utf8(bytes).unwrap_or("")))
}
