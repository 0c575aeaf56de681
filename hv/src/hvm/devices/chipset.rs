//! The devices put together: which port is whose, and how lines reach the interrupt controllers.
//!
//! A line of the ISA bus is an input of both controllers, the timer's that of the I/O APIC's input 2. A pin of a PCI
//! device is an input of the I/O APIC from 16 on, and through a link that the guest's firmware or toolstack routes also a
//! line of the 8259s. Lines are shared: one is high as long as anything holds it.
//!
//! Source: Xen: public/hvm/dm_op.h (`set_isa_irq_level`, `set_pci_intx_level`, `set_pci_link_route`).

use super::ioapic::{IoApic, Message, pci_inputs};
use super::pic::Pic;
use super::pit::Pit;
use super::pm::{BASES, PowerManagement};
use super::rtc::Rtc;

const TIMER: u8 = 0;
const ACPI: u8 = 9;
const CLOCK: u8 = 8;
/// Devices on bus 0, and links.
const DEVICES: u8 = 32;
const LINKS: usize = 4;

/// Whose a port is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Owner {
    Pic,
    Pit,
    Rtc,
    Pm,
}

/// All of them.
#[derive(Clone, Debug)]
pub struct Chipset {
    pic: Pic,
    pit: Pit,
    rtc: Rtc,
    pm: PowerManagement,
    ioapic: IoApic,
    /// Where [`PowerManagement`] is.
    pm_base: u16,
    /// Lines that are held from outside, and from inside.
    outside: u16,
    inside: u16,
    /// Pins that are held, bit 4 × device + pin.
    pins: u128,
    routes: [u8; LINKS],
}

impl Chipset {
    /// Devices as after a reset, the clock showing a time in ns since 1970.
    #[must_use]
    pub fn new(time_ns: u64, now_ns: u64) -> Self {
        Self {
            pic: Pic::default(),
            pit: Pit::default(),
            rtc: Rtc::new(time_ns, now_ns),
            pm: PowerManagement::default(),
            ioapic: IoApic::default(),
            pm_base: BASES[0],
            outside: 0,
            inside: 0,
            pins: 0,
            routes: [0; LINKS],
        }
    }

    /// Chooses where ACPI's registers are (`HVM_PARAM_ACPI_IOPORTS_LOCATION`); whether there is such a version.
    pub fn set_pm_version(&mut self, version: u64) -> bool {
        let base = usize::try_from(version).ok().and_then(|version| BASES.get(version));
        self.pm_base = base.copied().unwrap_or(self.pm_base);
        base.is_some()
    }

    fn owner(&self, port: u16) -> Option<Owner> {
        match port {
            0x20 | 0x21 | 0xa0 | 0xa1 | 0x4d0 | 0x4d1 => Some(Owner::Pic),
            0x40..=0x43 | 0x61 => Some(Owner::Pit),
            0x70 | 0x71 => Some(Owner::Rtc),
            _ => matches!(port.wrapping_sub(self.pm_base), 0..=3 | 8..=11).then_some(Owner::Pm),
        }
    }

    /// The owner of all ports of an access.
    fn owner_of(&self, port: u16, size: u8) -> Option<Owner> {
        let owner = self.owner(port)?;
        (1..u16::from(size)).all(|at| self.owner(port.wrapping_add(at)) == Some(owner)).then_some(owner)
    }

    /// Reads 1, 2 or 4 bytes; none where they are not all of one of these devices.
    pub fn read(&mut self, port: u16, size: u8, now_ns: u64, send: &mut impl FnMut(Message)) -> Option<u32> {
        let owner = self.owner_of(port, size)?;
        let mut bytes = [0; 4];
        for (byte, port) in bytes.iter_mut().zip(port..).take(size.into()) {
            let read = match owner {
                Owner::Pic => self.pic.read(port),
                Owner::Pit => self.pit.read(port, now_ns),
                Owner::Rtc => self.rtc.read(port, now_ns),
                Owner::Pm => self.pm.read(port - self.pm_base, now_ns),
            };
            *byte = read.unwrap_or(0xff);
        }
        self.advance(now_ns, send);
        Some(u32::from_le_bytes(bytes))
    }

    /// Writes 1, 2 or 4 bytes; false where they are not all of one of these devices.
    pub fn write(&mut self, port: u16, size: u8, value: u32, now_ns: u64, send: &mut impl FnMut(Message)) -> bool {
        let Some(owner) = self.owner_of(port, size) else {
            return false;
        };
        for (byte, port) in value.to_le_bytes().into_iter().zip(port..).take(size.into()) {
            match owner {
                Owner::Pic => self.pic.write(port, byte),
                Owner::Pit => self.pit.write(port, byte, now_ns),
                Owner::Rtc => self.rtc.write(port, byte, now_ns),
                Owner::Pm => self.pm.write(port - self.pm_base, byte, now_ns),
            };
        }
        self.advance(now_ns, send);
        true
    }

    /// The I/O APIC, for its page of memory and for local APICs that end interrupts.
    pub fn ioapic(&mut self) -> &mut IoApic {
        &mut self.ioapic
    }

    /// Lets the time pass.
    pub fn advance(&mut self, now_ns: u64, send: &mut impl FnMut(Message)) {
        if self.pit.take_edge(now_ns) {
            self.drive(TIMER, true, send);
            self.drive(TIMER, false, send);
        }
        let clock = self.rtc.asks(now_ns);
        self.hold_inside(CLOCK, clock, send);
        let acpi = self.pm.asks(now_ns);
        self.hold_inside(ACPI, acpi, send);
    }

    /// When the time has to pass the next time.
    #[must_use]
    pub fn next_ns(&self) -> Option<u64> {
        [self.pit.next_edge(), self.rtc.next_interrupt(), self.pm.next_interrupt()].into_iter().flatten().min()
    }

    /// Sets a line of the ISA bus from outside; false where there is none.
    pub fn set_isa_line(&mut self, line: u8, level: bool, send: &mut impl FnMut(Message)) -> bool {
        if line > 15 {
            return false;
        }
        self.outside = self.outside & !(1 << line) | u16::from(level) << line;
        self.update(line, send);
        true
    }

    /// Sets a pin of a device of PCI bus 0; false where there is none.
    pub fn set_pci_pin(&mut self, device: u8, pin: u8, level: bool, send: &mut impl FnMut(Message)) -> bool {
        if device >= DEVICES || pin > 3 {
            return false;
        }
        let bit = 1 << (4 * device + pin);
        self.pins = if level { self.pins | bit } else { self.pins & !bit };
        let (input, link) = pci_inputs(device, pin);
        let held = self.held().any(|(other, _)| other == input);
        self.ioapic.set_line(input, held, send);
        self.update(self.routes[usize::from(link)], send);
        true
    }

    /// Routes a link to a line of the ISA bus, 0 to none; false where there is no such link or line.
    pub fn set_link(&mut self, link: u8, line: u8, send: &mut impl FnMut(Message)) -> bool {
        let Some(route) = self.routes.get_mut(usize::from(link)).filter(|_| line <= 15) else {
            return false;
        };
        let before = core::mem::replace(route, line);
        self.update(before, send);
        self.update(line, send);
        true
    }

    /// Whether the 8259s ask for an interrupt.
    #[must_use]
    pub fn pic_asks(&self) -> bool {
        self.pic.asks()
    }

    /// Takes the interrupt of the 8259s.
    pub fn acknowledge(&mut self) -> u8 {
        self.pic.acknowledge()
    }

    /// Input and link of each pin that is held.
    fn held(&self) -> impl Iterator<Item = (u8, u8)> {
        let pins = self.pins;
        (0..4 * DEVICES).filter(move |bit| pins >> bit & 1 != 0).map(|bit| pci_inputs(bit >> 2, bit & 3))
    }

    fn hold_inside(&mut self, line: u8, level: bool, send: &mut impl FnMut(Message)) {
        if (self.inside >> line & 1 != 0) != level {
            self.inside ^= 1 << line;
            self.update(line, send);
        }
    }

    /// Works out whether a line is high.
    fn update(&mut self, line: u8, send: &mut impl FnMut(Message)) {
        let held = (self.outside | self.inside) >> line & 1 != 0;
        let linked = line != 0 && self.held().any(|(_, link)| self.routes[usize::from(link)] == line);
        self.drive(line, held || linked, send);
    }

    fn drive(&mut self, line: u8, level: bool, send: &mut impl FnMut(Message)) {
        self.pic.set_line(line, level);
        match line {
            TIMER => self.ioapic.set_line(2, level, send),
            2 => {}
            line => self.ioapic.set_line(line, level, send),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn no_message(message: Message) {
        panic!("{message:?}");
    }

    /// With the 8259s as Linux starts them and the ACPI registers where toolstacks want them.
    fn started() -> Chipset {
        let mut chipset = Chipset::new(0, 0);
        assert!(chipset.set_pm_version(1) && !chipset.set_pm_version(2));
        for (port, value) in [(0x20, 0x11), (0x21, 0x0430), (0x21, 1), (0xa0, 0x11), (0xa1, 0x0238), (0xa1, 1)] {
            for byte in value_bytes(value) {
                assert!(chipset.write(port, 1, byte, 0, &mut no_message));
            }
        }
        chipset
    }

    fn value_bytes(value: u32) -> Vec<u32> {
        if value > 0xff { vec![value & 0xff, value >> 8] } else { vec![value] }
    }

    fn open(chipset: &mut Chipset, input: u32, entry: u32) {
        chipset.ioapic().write(0, 0x10 + 2 * input, &mut no_message);
        chipset.ioapic().write(0x10, entry, &mut no_message);
    }

    #[test]
    fn the_timer_reaches_both_controllers() {
        let mut chipset = started();
        open(&mut chipset, 2, 0x60);
        for (port, byte) in [(0x43, 0x34), (0x40, 0x9c), (0x40, 0x2e)] {
            chipset.write(port, 1, byte, 0, &mut no_message);
        }
        let next = chipset.next_ns().unwrap();
        assert!((9_900_000..10_100_000).contains(&next));
        let mut sent = Vec::new();
        chipset.advance(next, &mut |message| sent.push(message.vector));
        assert_eq!(sent, [0x60]);
        assert!(chipset.pic_asks());
        assert_eq!(chipset.acknowledge(), 0x30);
    }

    #[test]
    fn a_pci_pin_is_an_input_and_through_its_link_a_line() {
        let mut chipset = started();
        open(&mut chipset, 28, 0xa070);
        assert!(chipset.set_link(3, 11, &mut no_message));
        chipset.write(0x4d1, 1, 1 << 3, 0, &mut no_message);
        let mut sent = Vec::new();
        assert!(chipset.set_pci_pin(3, 0, true, &mut |message| sent.push(message.vector)));
        assert_eq!(sent, [0x70]);
        assert_eq!(chipset.acknowledge(), 0x3b);
        assert!(chipset.set_pci_pin(3, 0, false, &mut no_message));
        chipset.write(0xa0, 1, 0x20, 0, &mut no_message);
        chipset.write(0x20, 1, 0x20, 0, &mut no_message);
        assert!(!chipset.pic_asks());
    }

    #[test]
    fn a_shared_line_is_high_as_long_as_one_holds_it() {
        let mut chipset = started();
        chipset.write(0x4d1, 1, 1 << 3, 0, &mut no_message);
        chipset.set_link(3, 11, &mut no_message);
        chipset.set_pci_pin(3, 0, true, &mut no_message);
        chipset.set_pci_pin(2, 1, true, &mut no_message);
        chipset.set_isa_line(11, true, &mut no_message);
        chipset.set_pci_pin(3, 0, false, &mut no_message);
        assert!(chipset.pic_asks());
        chipset.set_isa_line(11, false, &mut no_message);
        assert!(chipset.pic_asks());
        chipset.set_link(3, 0, &mut no_message);
        assert!(!chipset.pic_asks());
    }

    #[test]
    fn the_clock_and_acpi_have_their_lines() {
        let mut chipset = started();
        for (port, value) in [(0x70, 0x0b), (0x71, 0x12)] {
            chipset.write(port, 1, value, 0, &mut no_message);
        }
        chipset.advance(1_000_000_000, &mut no_message);
        assert_eq!(chipset.acknowledge(), 0x38);
        assert!(chipset.write(0xb002, 2, 1, 0, &mut no_message));
        assert_eq!(chipset.read(0xb008, 4, 1_000_000_000, &mut no_message), Some(3_579_545));
        assert_eq!(chipset.read(0xb000, 4, 1_000_000_000, &mut no_message), Some(1 << 16));
    }

    #[test]
    fn an_access_that_is_not_all_of_one_device_is_none_of_them() {
        let mut chipset = started();
        for (port, size) in [(0x22, 1), (0x21, 2), (0x43, 2), (0x3f, 2), (0x1f40, 1), (0xb002, 4), (0xffff, 4)] {
            assert_eq!(chipset.read(port, size, 0, &mut no_message), None, "{port:#x} {size}");
            assert!(!chipset.write(port, size, 0, 0, &mut no_message), "{port:#x} {size}");
        }
        assert!(!chipset.set_isa_line(16, true, &mut no_message));
        assert!(!chipset.set_pci_pin(32, 0, true, &mut no_message));
        assert!(!chipset.set_pci_pin(0, 4, true, &mut no_message));
        assert!(!chipset.set_link(4, 1, &mut no_message) && !chipset.set_link(0, 16, &mut no_message));
    }

    proptest! {
        #[test]
        fn whatever_is_asked_all_goes_on(
            steps in proptest::collection::vec((any::<u16>(), any::<u32>(), 1_u8..5, 0_u64..1 << 40), 0..100)
        ) {
            let mut chipset = Chipset::new(0, 0);
            let mut now = 0;
            for (port, value, size, wait) in steps {
                now += wait;
                let port = if port & 1 == 0 { port } else { port & 0x7f };
                chipset.write(port, size, value, now, &mut |_| {});
                chipset.read(port, size, now, &mut |_| {});
                chipset.set_isa_line(value as u8, value >> 8 & 1 != 0, &mut |_| {});
                chipset.set_pci_pin((value >> 9) as u8, (value >> 17) as u8 & 7, value >> 20 & 1 != 0, &mut |_| {});
                chipset.set_link((value >> 21) as u8 & 7, (value >> 24) as u8 & 31, &mut |_| {});
                chipset.advance(now, &mut |_| {});
                prop_assert!(chipset.next_ns().is_none_or(|next| next > now));
                chipset.acknowledge();
            }
        }
    }
}
