//! I/O ports, I/O memory and interrupts that a domain may use.
//!
//! Each is a set of numbers, kept as ranges that do not touch. dom0 starts with nearly all, other domains with none; the
//! toolstack gives and takes by `XEN_DOMCTL_{ioport,iomem,irq}_permission`.

use alloc::vec::Vec;

use pv_abi::Mfn;

/// A set of numbers, as ranges in order that do not touch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ranges(Vec<(u64, u64)>);

impl Ranges {
    /// Whether all of `first..=last` is in the set.
    #[must_use]
    pub fn contains(&self, first: u64, last: u64) -> bool {
        self.0.iter().any(|range| range.0 <= first && last <= range.1)
    }

    /// Whether the set is empty.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many ranges the set has.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.0.len()
    }

    /// Adds `first..=last`.
    pub fn add(&mut self, first: u64, last: u64) {
        let mut new = (first, last);
        self.0.retain(|range| {
            let touches = range.0 <= new.1.saturating_add(1) && new.0 <= range.1.saturating_add(1);
            if touches {
                new = (new.0.min(range.0), new.1.max(range.1));
            }
            !touches
        });
        let place = self.0.partition_point(|range| range.0 < new.0);
        self.0.insert(place, new);
    }

    /// Takes `first..=last` away.
    pub fn remove(&mut self, first: u64, last: u64) {
        let mut left = Vec::with_capacity(self.0.len() + 1);
        for range in self.0.drain(..) {
            if range.1 < first || last < range.0 {
                left.push(range);
                continue;
            }
            if range.0 < first {
                left.push((range.0, first - 1));
            }
            if last < range.1 {
                left.push((last + 1, range.1));
            }
        }
        self.0 = left;
    }
}

/// I/O ports, I/O memory and interrupts that a domain may use.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Permissions {
    /// Ports that its I/O instructions reach directly.
    pub ports: Ranges,
    /// Frames of device memory that it may map.
    pub memory: Ranges,
    /// Global system interrupts that it may map as pirqs.
    pub interrupts: Ranges,
}

impl Permissions {
    /// What dom0 starts with on a machine of so many interrupt lines and address bits: all but what the hypervisor keeps
    /// for itself. Ports: both interrupt controllers, the interval timer and its gate, the data window of PCI
    /// configuration, and the serial line where that is the hypervisor's console. Memory: local APIC, I/O APIC and the
    /// window of message-signalled interrupts.
    #[must_use]
    pub fn of_dom0(lines: u32, address_bits: u32, serial_console: bool) -> Self {
        let mut permissions = Self::default();
        permissions.ports.add(0, 0xffff);
        for (first, last) in [(0x20, 0x21), (0xa0, 0xa1), (0x40, 0x43), (0x61, 0x61), (0xcfc, 0xcff)] {
            permissions.ports.remove(first, last);
        }
        if serial_console {
            permissions.ports.remove(0x3f8, 0x3ff);
        }
        permissions.memory.add(0, (1 << (address_bits.clamp(32, 52) - 12)) - 1);
        permissions.memory.remove(0xfee00, 0xfeeff);
        permissions.memory.remove(0xfec00, 0xfec00);
        permissions.interrupts.add(0, u64::from(lines.saturating_sub(1)));
        permissions
    }

    /// Whether it may map this frame of device memory.
    #[must_use]
    pub fn allows_memory(&self, frame: Mfn) -> bool {
        self.memory.contains(frame.0, frame.0)
    }

    /// Whether its I/O instructions reach these ports directly. The dword at 0xcf8 and the clock's two ports never are:
    /// they hold an index that the hypervisor and others use too.
    #[must_use]
    pub fn allows_ports(&self, port: u16, bytes: u8) -> bool {
        let last = u64::from(port) + u64::from(bytes) - 1;
        let indexed = port == 0xcf8 && bytes == 4 || port <= 0x71 && last >= 0x70;
        !indexed && self.ports.contains(port.into(), last)
    }

    /// Whether it may use any device at all.
    #[must_use]
    pub const fn has_devices(&self) -> bool {
        !self.ports.is_empty() || !self.memory.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_that_touch_become_one() {
        let mut set = Ranges::default();
        set.add(10, 19);
        set.add(30, 39);
        set.add(20, 29);
        assert_eq!(set.len(), 1);
        assert!(set.contains(10, 39) && !set.contains(9, 10));
    }

    #[test]
    fn a_hole_splits_a_range() {
        let mut set = Ranges::default();
        set.add(0, u64::MAX);
        set.remove(5, 7);
        assert!(set.contains(0, 4) && set.contains(8, u64::MAX) && !set.contains(4, 5));
        set.remove(0, u64::MAX);
        assert!(set.is_empty());
    }

    #[test]
    fn dom0_reaches_devices_but_not_what_the_hypervisor_keeps() {
        let dom0 = Permissions::of_dom0(24, 40, false);
        assert!(dom0.allows_ports(0x3f8, 1) && dom0.allows_ports(0xc000, 4));
        for (port, bytes) in [(0x20, 1), (0xa1, 1), (0x42, 1), (0x61, 1), (0xcf8, 4), (0xcfc, 4), (0x71, 1), (0x6f, 2)]
        {
            assert!(!dom0.allows_ports(port, bytes), "{port:#x}");
        }
        assert!(dom0.allows_ports(0xcf9, 1));
        assert!(dom0.allows_memory(Mfn(0xfebf0)) && !dom0.allows_memory(Mfn(0xfee00)));
        assert!(!dom0.allows_memory(Mfn(1 << 28)));
        assert!(!Permissions::of_dom0(24, 40, true).allows_ports(0x3f8, 1));
        assert!(!Permissions::default().has_devices());
    }
}
