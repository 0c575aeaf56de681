//! Time since the start, time of day, and durations in text.

use core::fmt;

use crate::platform;

/// Nanoseconds in a second.
pub const SECOND_NS: u64 = 1_000_000_000;
/// Nanoseconds in a millisecond.
pub const MILLISECOND_NS: u64 = 1_000_000;

/// Nanoseconds since the kernel (on Xen: the hypervisor) started; never goes back.
#[must_use]
pub fn now_ns() -> u64 {
    platform::current().now_ns()
}

/// Nanoseconds since 1970, UTC.
#[must_use]
pub fn wall_clock_ns() -> u64 {
    platform::current().wall_clock_ns()
}

/// A duration that prints as `12.345s`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Seconds(pub u64);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, rest) = (self.0 / SECOND_NS, self.0 % SECOND_NS / MILLISECOND_NS);
        write!(f, "{whole}.{rest:03}s")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::ToString;

    #[test]
    fn seconds_print_with_three_digits() {
        assert_eq!(Seconds(12_345_678_901).to_string(), "12.345s");
        assert_eq!(Seconds(1_000_000).to_string(), "0.001s");
    }
}
