//! Which rules the hypervisor said were broken, for tests that show a rule firing.

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use std::cell::RefCell;
use std::sync::Once;

use log::{LevelFilter, Log, Metadata, Record};

std::thread_local! {
    static BROKEN: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

struct Listener;

impl Log for Listener {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        let line = record.args().to_string();
        let ids = crate::rules::tables().into_iter().flatten().map(|rule| rule.0.id);
        if let Some(id) = ids.into_iter().find(|id| line.contains(&alloc::format!(" {id}: "))) {
            BROKEN.with_borrow_mut(|broken| broken.push(id.to_string()));
        }
    }

    fn flush(&self) {}
}

/// The ids of the rules that were broken on this thread since the last call, in order, as far as they were printed: a
/// domain is heard 20 times a second. The first call begins to listen.
pub fn broken_rules() -> Vec<String> {
    static LISTEN: Once = Once::new();
    LISTEN.call_once(|| {
        if log::set_logger(&Listener).is_ok() {
            log::set_max_level(LevelFilter::Warn);
        }
    });
    BROKEN.take()
}
