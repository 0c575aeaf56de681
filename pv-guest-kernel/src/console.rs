//! The kernel's console: text out, lines and bytes in.
//!
//! Output goes to the platform at once, a `\n` as `\r\n`. Input is collected by the interrupt handler ([`on_input`]) into
//! a bounded queue that threads wait on.

use alloc::collections::VecDeque;
use alloc::string::String;
use core::fmt::{self, Write};

use crate::platform;
use crate::sync::{IrqGuard, IrqLock, IrqLockGuard, Spin};
use crate::task::WaitQueue;

/// Bytes that may wait for a reader; more are dropped.
const INPUT_BYTES: usize = 4096;

static INPUT: IrqLock<VecDeque<u8>> = IrqLock::new(VecDeque::new());
static READERS: WaitQueue = WaitQueue::new();

/// Text on its way out, collected so that a message goes to the platform in one piece or few.
struct Output {
    bytes: [u8; 256],
    used: usize,
}

impl Output {
    const fn new() -> Self {
        Self { bytes: [0; 256], used: 0 }
    }

    fn push(&mut self, byte: u8) {
        if self.used == self.bytes.len() {
            self.flush();
        }
        self.bytes[self.used] = byte;
        self.used += 1;
    }

    fn push_text(&mut self, text: &[u8]) {
        for byte in text {
            if *byte == b'\n' {
                self.push(b'\r');
            }
            self.push(*byte);
        }
    }

    fn flush(&mut self) {
        platform::current().console_write(&self.bytes[..self.used]);
        self.used = 0;
    }
}

impl Write for Output {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.push_text(text.as_bytes());
        Ok(())
    }
}

/// Writes text; `\n` becomes `\r\n`.
pub fn write_bytes(bytes: &[u8]) {
    for piece in bytes.chunks(PIECE_BYTES) {
        let _turn = turn();
        let mut output = Output::new();
        output.push_text(piece);
        output.flush();
    }
}

/// Writes bytes as they are.
pub fn write_raw(bytes: &[u8]) {
    for piece in bytes.chunks(PIECE_BYTES) {
        let _turn = turn();
        platform::current().console_write(piece);
    }
}

/// Held while text is written.
static TURN: IrqLock<()> = IrqLock::new(());
/// How often a message tries to get its turn: one that is printed while another is stuck comes out all the same.
const TRIES: usize = 1_000_000;
/// Bytes written in one turn, with interrupts off.
const PIECE_BYTES: usize = 128;

fn turn() -> Option<IrqLockGuard<'static, ()>> {
    let mut spin = Spin::default();
    (0..TRIES).find_map(|_| {
        spin.once();
        TURN.try_lock()
    })
}

/// For [`print!`](crate::print): one message is not interrupted by another.
pub fn write_fmt(arguments: fmt::Arguments<'_>) {
    let _irq = IrqGuard::new();
    let _turn = turn();
    let mut output = Output::new();
    let _ = output.write_fmt(arguments);
    output.flush();
}

/// Prints to the console.
#[macro_export]
macro_rules! print {
    ($($argument:tt)*) => { $crate::console::write_fmt(format_args!($($argument)*)) };
}

/// Prints a line to the console.
#[macro_export]
macro_rules! println {
    () => { $crate::print!("\n") };
    ($($argument:tt)*) => { $crate::console::write_fmt(format_args!("{}\n", format_args!($($argument)*))) };
}

/// Takes what the platform has received. Called by the console's interrupt handler, and by whoever polls.
pub fn on_input() {
    let mut chunk = [0; 64];
    loop {
        let mut input = INPUT.lock();
        let count = platform::current().console_read(&mut chunk);
        if count == 0 {
            break;
        }
        let room = INPUT_BYTES.saturating_sub(input.len()).min(count);
        input.extend(&chunk[..room]);
    }
    READERS.wake_all();
}

/// Takes one typed byte, if there is one.
pub fn try_read_byte() -> Option<u8> {
    INPUT.lock().pop_front()
}

/// Takes one typed byte; sleeps until there is one.
pub fn read_byte() -> u8 {
    let mut byte = None;
    READERS.wait_until(|| {
        byte = try_read_byte();
        byte.is_some()
    });
    byte.unwrap_or_default()
}

/// Takes what was typed, up to `into.len()` bytes; sleeps until there is something or `give_up` says so (checked when a
/// byte comes, and at each wake-up of the reader). Returns the number of bytes.
pub fn read_bytes(into: &mut [u8], give_up: impl Fn() -> bool) -> usize {
    let mut count = 0;
    READERS.wait_until(|| {
        while let Some(place) = into.get_mut(count) {
            let Some(byte) = try_read_byte() else { break };
            *place = byte;
            count += 1;
        }
        count > 0 || into.is_empty() || give_up()
    });
    count
}

/// Reads a line with echo and backspace; Ctrl-C gives an empty line. Not a terminal editor.
pub fn read_line() -> String {
    let mut line = String::new();
    loop {
        match read_byte() {
            b'\r' | b'\n' => break,
            3 => {
                line.clear();
                break;
            }
            8 | 127 if line.is_empty() => {}
            8 | 127 => {
                line.pop();
                write_raw(b"\x08 \x08");
            }
            byte @ b' '..=b'~' => {
                line.push(char::from(byte));
                write_raw(&[byte]);
            }
            _ => {}
        }
    }
    write_raw(b"\r\n");
    line
}

/// Sends log records to the console: `level target: message`.
struct ConsoleLog;

impl log::Log for ConsoleLog {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        metadata.level() <= log::max_level()
    }

    fn log(&self, record: &log::Record<'_>) {
        if self.enabled(record.metadata()) {
            let (level, target) = (record.level(), record.target());
            println!("{level:5} {target}: {}", record.args());
        }
    }

    fn flush(&self) {}
}

/// Makes the console the destination of `log`'s macros.
pub(crate) fn init_log(level: log::LevelFilter) {
    static LOG: ConsoleLog = ConsoleLog;
    if log::set_logger(&LOG).is_ok() {
        log::set_max_level(level);
    }
}
