//! An I/O APIC with 48 inputs: each has an entry that says which interrupt it is, for whom.
//!
//! An edge on an open input is one message. A level on an open input is a message when it rises, when the input is opened
//! and, as long as it is high, when the interrupt is ended; between a message and the end the input waits
//! ([`REMOTE`] is set). Edges on a masked input are lost, as the data sheet has it.
//!
//! Source: Intel 82093AA data sheet (290566); the register that ends interrupts: Intel ICH9, §13.5.

/// How many inputs there are: 16 of the ISA bus, 32 of PCI (Xen's number).
pub const INPUTS: u8 = 48;
/// Where it is in memory, when it is the only one.
pub const BASE: u64 = 0xfec0_0000;

const VERSION: u32 = 0x11 | (INPUTS as u32 - 1) << 16;
/// Entry: a level's message is out and not ended.
const REMOTE: u64 = 1 << 14;
/// Entry: the input is a level.
const LEVEL: u64 = 1 << 15;
/// Entry: the input is masked.
const MASKED: u64 = 1 << 16;
/// Entry: bits that a guest writes.
const WRITABLE: u64 = 0xff00_0000_0001_afff;

/// An interrupt on its way to local APICs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message {
    /// The vector.
    pub vector: u8,
    /// The delivery mode: 0 fixed, 1 lowest priority, 2 SMI, 4 NMI, 5 INIT, 7 as from an 8259.
    pub mode: u8,
    /// The destination is a logical one.
    pub logical: bool,
    /// For whom.
    pub destination: u8,
    /// It must be ended here too.
    pub level: bool,
}

impl Message {
    const fn of(entry: u64) -> Self {
        Self {
            vector: entry as u8,
            mode: (entry >> 8 & 7) as u8,
            logical: entry >> 11 & 1 != 0,
            destination: (entry >> 56) as u8,
            level: entry & LEVEL != 0,
        }
    }
}

/// The device. Whatever makes it send is given where messages go.
#[derive(Clone, Debug)]
pub struct IoApic {
    entries: [u64; INPUTS as usize],
    /// Inputs that are high.
    lines: u64,
    select: u8,
    id: u32,
}

impl Default for IoApic {
    fn default() -> Self {
        Self { entries: [MASKED; INPUTS as usize], lines: 0, select: 0, id: 0 }
    }
}

impl IoApic {
    /// Sets an input; others than the [`INPUTS`] are not there.
    pub fn set_line(&mut self, input: u8, level: bool, send: &mut impl FnMut(Message)) {
        if input >= INPUTS {
            return;
        }
        let rises = level && self.lines >> input & 1 == 0;
        self.lines = self.lines & !(1 << input) | u64::from(level) << input;
        let entry = self.entries[usize::from(input)];
        if rises && entry & (MASKED | LEVEL) == 0 {
            send(Message::of(entry));
        } else {
            self.deliver_level(input.into(), send);
        }
    }

    fn deliver_level(&mut self, input: usize, send: &mut impl FnMut(Message)) {
        let entry = &mut self.entries[input];
        if self.lines >> input & 1 != 0 && *entry & (MASKED | LEVEL | REMOTE) == LEVEL {
            *entry |= REMOTE;
            send(Message::of(*entry));
        }
    }

    /// A local APIC has ended a level's interrupt.
    pub fn end(&mut self, vector: u8, send: &mut impl FnMut(Message)) {
        for input in 0..usize::from(INPUTS) {
            let entry = &mut self.entries[input];
            if *entry as u8 == vector && *entry & REMOTE != 0 {
                *entry &= !REMOTE;
                self.deliver_level(input, send);
            }
        }
    }

    /// Whether some input would take messages as from an 8259 to a CPU.
    #[must_use]
    pub fn passes_pic(&self) -> bool {
        self.entries[0] & (MASKED | 7 << 8) == 7 << 8
    }

    /// Reads the register at an offset in its page.
    #[must_use]
    pub fn read(&self, offset: u16) -> u32 {
        match offset {
            0x00 => self.select.into(),
            0x10 => match self.select {
                0 | 2 => self.id,
                1 => VERSION,
                index => self.entry(index).map_or(0, |(input, high)| {
                    let entry = self.entries[input];
                    (if high { entry >> 32 } else { entry }) as u32
                }),
            },
            _ => 0,
        }
    }

    /// Writes the register at an offset in its page; what is not there is lost.
    pub fn write(&mut self, offset: u16, value: u32, send: &mut impl FnMut(Message)) {
        match offset {
            0x00 => self.select = value as u8,
            0x10 if self.select == 0 => self.id = value & 0x0f00_0000,
            0x10 => {
                if let Some((input, high)) = self.entry(self.select) {
                    self.write_entry(input, high, value.into(), send);
                }
            }
            0x40 => self.end(value as u8, send),
            _ => {}
        }
    }

    fn entry(&self, index: u8) -> Option<(usize, bool)> {
        let word = index.checked_sub(0x10)?;
        (word < 2 * INPUTS).then_some((usize::from(word >> 1), word & 1 != 0))
    }

    fn write_entry(&mut self, input: usize, high: bool, value: u64, send: &mut impl FnMut(Message)) {
        let entry = &mut self.entries[input];
        let (half, value) = if high { (!0 << 32, value << 32) } else { (0xffff_ffff, value) };
        *entry = *entry & !(half & WRITABLE) | value & half & WRITABLE;
        if *entry & LEVEL == 0 {
            *entry &= !REMOTE;
        }
        self.deliver_level(input, send);
    }
}

/// The input that a pin (0 to 3 for A to D) of a PCI device on bus 0 is on, and the link of the 8259s that it is on.
///
/// Xen: `hvm_pci_intx_gsi`, `hvm_pci_intx_link`; what ACPI tables of its guests say.
#[must_use]
pub const fn pci_inputs(device: u8, pin: u8) -> (u8, u8) {
    let (device, pin) = (device & 31, pin & 3);
    (16 + (((device << 2) + (device >> 3) + pin) & 31), (device + pin) & 3)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn write(apic: &mut IoApic, index: u8, value: u32) -> Vec<Message> {
        let mut sent = Vec::new();
        apic.write(0, index.into(), &mut |_| unreachable!());
        apic.write(0x10, value, &mut |message| sent.push(message));
        sent
    }

    fn read(apic: &mut IoApic, index: u8) -> u32 {
        apic.write(0, index.into(), &mut |_| unreachable!());
        apic.read(0x10)
    }

    fn set(apic: &mut IoApic, input: u8, level: bool) -> usize {
        let mut sent = 0;
        apic.set_line(input, level, &mut |_| sent += 1);
        sent
    }

    #[test]
    fn it_says_what_it_is() {
        let mut apic = IoApic::default();
        assert_eq!(read(&mut apic, 1), 0x2f_0011);
        write(&mut apic, 0, 0xffff_ffff);
        assert_eq!((read(&mut apic, 0), read(&mut apic, 2)), (0x0f00_0000, 0x0f00_0000));
        assert_eq!((read(&mut apic, 0x10), read(&mut apic, 0x11)), (0x1_0000, 0));
        assert_eq!((read(&mut apic, 0x0f), read(&mut apic, 0x70), apic.read(0x20)), (0, 0, 0));
    }

    #[test]
    fn an_edge_is_one_message_and_lost_where_masked() {
        let mut apic = IoApic::default();
        assert_eq!(set(&mut apic, 4, true), 0);
        assert_eq!(write(&mut apic, 0x18, 0x34), []);
        write(&mut apic, 0x19, 0x0200_0000);
        set(&mut apic, 4, false);
        let mut sent = Vec::new();
        apic.set_line(4, true, &mut |message| sent.push(message));
        assert_eq!(sent, [Message { vector: 0x34, mode: 0, logical: false, destination: 2, level: false }]);
        assert_eq!(set(&mut apic, 4, true), 0);
    }

    #[test]
    fn a_level_comes_again_when_it_was_ended_and_is_still_high() {
        let mut apic = IoApic::default();
        set(&mut apic, 20, true);
        let sent = write(&mut apic, 0x10 + 40, 0x0000_a951);
        assert_eq!(sent, [Message { vector: 0x51, mode: 1, logical: true, destination: 0, level: true }]);
        assert_eq!(read(&mut apic, 0x10 + 40) & 0x4000, 0x4000);
        assert_eq!(set(&mut apic, 20, false) + set(&mut apic, 20, true), 0);
        let mut again = 0;
        apic.end(0x50, &mut |_| again += 1);
        assert_eq!(again, 0);
        apic.end(0x51, &mut |_| again += 1);
        assert_eq!(again, 1);
        set(&mut apic, 20, false);
        apic.write(0x40, 0x51, &mut |_| again += 1);
        assert_eq!(again, 1);
        assert_eq!(set(&mut apic, 20, true), 1);
    }

    #[test]
    fn pci_pins_have_inputs_as_on_xen() {
        assert_eq!(pci_inputs(0, 0), (16, 0));
        assert_eq!(pci_inputs(1, 0), (20, 1));
        assert_eq!(pci_inputs(3, 1), (29, 0));
        assert_eq!(pci_inputs(8, 0), (17, 0));
        assert!((0..=255).all(|device| (0..=255).all(|pin| pci_inputs(device, pin).0 < INPUTS)));
    }

    proptest! {
        #[test]
        fn whatever_is_written_a_guest_never_sets_what_is_the_devices(
            steps in proptest::collection::vec((any::<u8>(), any::<u32>(), any::<u8>(), any::<bool>()), 0..200)
        ) {
            let mut apic = IoApic::default();
            for (index, value, input, level) in steps {
                apic.write(0, index.into(), &mut |_| {});
                apic.write(0x10, value, &mut |_| {});
                apic.set_line(input, level, &mut |message| assert!(message.mode < 8));
                for entry in apic.entries {
                    prop_assert_eq!(entry & !(WRITABLE | REMOTE), 0);
                    prop_assert!(entry & REMOTE == 0 || entry & LEVEL != 0);
                }
            }
        }
    }
}
