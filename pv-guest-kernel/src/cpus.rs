//! The CPUs that run this kernel. What a CPU has of its own lies in arrays of [`MAX_CPUS`], indexed by its number.
//!
//! A number is only worth something while the thread that asked for it cannot be moved, that is with interrupts off.

use core::sync::atomic::{AtomicU64, Ordering};

use crate::platform;

/// CPUs that this kernel can use. On Xen a CPU's number is that of its vCPU.
pub const MAX_CPUS: usize = 64;

/// A set of CPUs.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct CpuSet(pub u64);

impl CpuSet {
    /// None.
    pub const EMPTY: Self = Self(0);

    /// The set with `cpu` alone.
    #[must_use]
    pub const fn only(cpu: usize) -> Self {
        Self(1 << cpu)
    }

    /// True when `cpu` is in it.
    #[must_use]
    pub const fn contains(self, cpu: usize) -> bool {
        self.0 >> cpu & 1 != 0
    }

    /// Puts `cpu` in.
    pub const fn insert(&mut self, cpu: usize) {
        self.0 |= 1 << cpu;
    }

    /// Takes `cpu` out; says whether it was in.
    pub const fn remove(&mut self, cpu: usize) -> bool {
        let was_in = self.contains(cpu);
        self.0 &= !(1 << cpu);
        was_in
    }

    /// How many.
    #[must_use]
    pub const fn len(self) -> usize {
        self.0.count_ones() as usize
    }

    /// True without any.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The lowest number.
    #[must_use]
    pub fn first(self) -> Option<usize> {
        (!self.is_empty()).then(|| self.0.trailing_zeros() as usize)
    }

    /// The numbers, from the lowest on.
    pub fn iter(self) -> impl Iterator<Item = usize> {
        (0..MAX_CPUS).filter(move |cpu| self.contains(*cpu))
    }
}

static ONLINE: AtomicU64 = AtomicU64::new(1);

/// The CPUs that run threads. The first one always does.
#[must_use]
pub fn online() -> CpuSet {
    CpuSet(ONLINE.load(Ordering::SeqCst))
}

/// `cpu` runs threads from now on, or no longer.
pub(crate) fn set_online(cpu: usize, is_online: bool) {
    match is_online {
        true => ONLINE.fetch_or(1 << cpu, Ordering::SeqCst),
        false => ONLINE.fetch_and(!(1 << cpu), Ordering::SeqCst),
    };
}

/// The number of this CPU.
#[must_use]
pub fn current() -> usize {
    platform::current().cpu()
}

#[cfg(test)]
mod tests {
    use super::CpuSet;
    use std::vec::Vec;

    #[test]
    fn a_set_gives_its_members_from_the_lowest_on() {
        let mut set = CpuSet::only(63);
        set.insert(5);
        assert_eq!(set.iter().collect::<Vec<_>>(), [5, 63]);
        assert_eq!((set.first(), set.len()), (Some(5), 2));
        assert!(set.remove(5) && !set.remove(5));
        assert_eq!(set, CpuSet::only(63));
    }
}
