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

/// Text that is written in one call, so that processes on several CPUs do not write into each other's lines.
pub struct Out {
    bytes: [u8; 256],
    used: usize,
}

impl Out {
    pub fn new() -> Self {
        Self { bytes: [0; 256], used: 0 }
    }

    pub fn flush(&mut self) {
        call(abi::WRITE, 1, self.bytes.as_ptr() as u64, self.used as u64);
        self.used = 0;
    }
}

impl Write for Out {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            if self.used == self.bytes.len() {
                self.flush();
            }
            self.bytes[self.used] = byte;
            self.used += 1;
        }
        Ok(())
    }
}

#[macro_export]
macro_rules! say {
    ($($argument:tt)*) => {{
        use core::fmt::Write;
        let mut out = $crate::sys::Out::new();
        let _ = writeln!(out, $($argument)*);
        out.flush();
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
