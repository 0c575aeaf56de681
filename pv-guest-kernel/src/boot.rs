//! What both platforms do once memory and the console work, and what the loader handed over.

use alloc::string::String;
use core::ops::Range;
use core::str::SplitWhitespace;

use crate::sync::IrqLock;

/// What the loader handed over.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Handover {
    pub(crate) command_line: &'static str,
    pub(crate) ramdisk: &'static [u8],
}

/// The first `count` frames in a row from `from` on that no range of `taken` touches.
pub(crate) fn find_free(taken: &[Range<u64>], from: u64, count: u64) -> Range<u64> {
    let mut first = from;
    while let Some(hit) = taken.iter().find(|range| range.start < first + count && first < range.end) {
        first = hit.end;
    }
    first..first + count
}

static HANDOVER: IrqLock<Handover> = IrqLock::new(Handover { command_line: "", ramdisk: &[] });

/// The kernel's command line.
#[must_use]
pub fn command_line() -> &'static str {
    HANDOVER.lock().command_line
}

/// The ramdisk; empty when there is none.
#[must_use]
pub fn ramdisk() -> &'static [u8] {
    HANDOVER.lock().ramdisk
}

/// The value of `name=value` or `name="a value with blanks"` on the command line.
#[must_use]
pub fn option(name: &str) -> Option<String> {
    find_option(command_line(), name)
}

fn find_option(command_line: &str, name: &str) -> Option<String> {
    let mut rest = command_line.trim_start();
    while !rest.is_empty() {
        let quoted = rest.find('"').filter(|quote| rest.find(' ').is_none_or(|blank| *quote < blank));
        let end = match quoted {
            Some(open) => rest[open + 1..].find('"').map_or(rest.len(), |close| open + close + 2),
            None => rest.find(' ').unwrap_or(rest.len()),
        };
        let (word, after) = rest.split_at(end);
        if let Some(value) = word.strip_prefix(name).and_then(|tail| tail.strip_prefix('=')) {
            return Some(value.trim_matches('"').into());
        }
        rest = after.trim_start();
    }
    None
}

/// True when the command line has the word `name`.
#[must_use]
pub fn has_flag(name: &str) -> bool {
    words().any(|word| word == name)
}

fn words() -> SplitWhitespace<'static> {
    command_line().split_whitespace()
}

/// The rest of the boot, the same on every platform: the log, the first thread, `main`. The platform has the heap, the
/// frames, the console, traps and time ready, and interrupts off. `start_devices` runs in the first thread.
#[cfg(target_os = "none")]
pub(crate) fn finish(handover: Handover, start_devices: fn()) -> ! {
    *HANDOVER.lock() = handover;
    let level = option("loglevel").and_then(|level| level.parse().ok());
    crate::console::init_log(level.unwrap_or(log::LevelFilter::Warn));
    crate::task::scheduler::start(move || {
        start_devices();
        call_main();
        crate::platform::current().shutdown(crate::platform::Shutdown::PowerOff)
    })
}

#[cfg(target_os = "none")]
use entry_point::call_main;

#[cfg(target_os = "none")]
mod entry_point {
    #![expect(unsafe_code, reason = "the binary's main is found by the linker")]

    unsafe extern "Rust" {
        fn pv_guest_kernel_main();
    }

    pub(super) fn call_main() {
        // SAFETY: `kernel_main!` defines it with this type.
        unsafe { pv_guest_kernel_main() }
    }
}

/// Makes `$main` (a `fn()`) the function that the first thread runs.
#[macro_export]
macro_rules! kernel_main {
    ($main:path) => {
        #[expect(unsafe_code, reason = "the kernel library finds main by this name")]
        #[unsafe(no_mangle)]
        fn pv_guest_kernel_main() {
            let main: fn() = $main;
            main()
        }

        /// Keeps both entries in the image.
        #[used]
        static KERNEL_ENTRIES: [unsafe extern "C" fn(); 2] = $crate::platform::ENTRIES;
    };
}

#[cfg(test)]
mod tests {
    use super::find_option;

    #[test]
    fn an_option_may_have_blanks_in_quotes() {
        let line = r#"quiet exec="ls /; ps" root=xvda"#;
        assert_eq!(find_option(line, "exec").as_deref(), Some("ls /; ps"));
        assert_eq!(find_option(line, "root").as_deref(), Some("xvda"));
        assert_eq!(find_option(line, "quiet"), None);
    }

    #[test]
    fn an_option_without_its_closing_quote_ends_with_the_line() {
        assert_eq!(find_option(r#"exec="ls /"#, "exec").as_deref(), Some("ls /"));
    }
}
