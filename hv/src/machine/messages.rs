//! The hypervisor's own messages: to the serial console, and into the ring that dom0 can read.

use alloc::format;

use hv::Hypervisor;
use hv::control::options::Options;
use log::{Level, Log, Metadata, Record};
use spin::Once;

use super::hardware::{CONSOLE, Hardware};

struct Logger;
static LOGGER: Logger = Logger;
static HV: Once<&'static Hypervisor<Hardware>> = Once::new();

impl Log for Logger {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        let level = match record.level() {
            Level::Error => "error: ",
            Level::Warn => "warning: ",
            _ => "",
        };
        let line = format!("(hv) {level}{}\n", record.args());
        CONSOLE.write(line.as_bytes());
        if let Some(hv) = HV.get() {
            hv.console.record(line.as_bytes());
        }
    }

    fn flush(&self) {}
}

/// Starts with all messages.
pub(crate) fn start() {
    // Only a second logger could be refused.
    let _ = log::set_logger(&LOGGER);
    log::set_max_level(log::LevelFilter::Info);
}

/// Keeps to the options' levels: the higher of both, as messages about guests are cut where they are made.
pub(crate) fn follow(options: &Options) {
    log::set_max_level(options.log_level.max(options.guest_log_level));
}

/// The hypervisor, once it is put together.
pub(crate) fn hypervisor() -> Option<&'static Hypervisor<Hardware>> {
    HV.get().copied()
}

/// From now on messages also go into the ring.
pub(crate) fn record_in(hv: &'static Hypervisor<Hardware>) {
    HV.call_once(|| hv);
}
