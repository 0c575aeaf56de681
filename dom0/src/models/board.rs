//! A PC's devices put together: where they are, and how their lines leave.
//!
//! The interrupt controllers, the timer and the clock are the hypervisor's; the board has what is beside them: a serial
//! port, two ATA channels, a network card, the PCI bus they are on, and the ports that switch the machine off and reset it.
//! Everything is where firmware would leave it. What the outside has to be told collects as [`Change`]s.
//!
//! Source: Intel 82441FX, 82371SB (PIIX3); the addresses are QEMU's for its machine `pc`.

use alloc::vec::Vec;

use backends::block::BlockDevice;

use super::Memory;
use super::ata::Channel;
use super::ne2000::Ne2000;
use super::pci::{Bus, Function, Place};
use super::uart::Uart;

const SERIAL: u16 = 0x3f8;
const SERIAL_LINE: u8 = 4;
/// Command blocks, control registers and lines of the ATA channels.
const ATA: [(u16, u16, u8); 2] = [(0x1f0, 0x3f6, 14), (0x170, 0x376, 15)];
const ADDRESS: u16 = 0xcf8;
const RESET: u16 = 0xcf9;
/// ACPI's control register: where Xen's guests have it, and where firmware puts it on QEMU's machine.
const SLEEP: [u16; 2] = [0xb004, 0x604];
/// Where the network card is.
pub const CARD: Place = Place { device: 3, function: 0 };
const CARD_PORTS: u16 = 0x20;
const CARD_BASE: u16 = 0xc000;
/// The bus master's ports, eight for each channel.
const MASTER: Place = Place { device: 1, function: 1 };
const MASTER_PORTS: u16 = 0x10;
const MASTER_BASE: u16 = 0xc040;
const MASTER_BAR: usize = 4;
const SOUTH: Place = Place { device: 1, function: 0 };
/// The bridge's registers that route links to lines, and the bit that switches a link off.
const LINKS: core::ops::Range<u8> = 0x60..0x64;
const LINK_OFF: u8 = 0x80;
/// Lines that firmware routes the links to.
pub const LINES: [u8; 4] = [10, 10, 11, 11];

/// A range of ports, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ports {
    /// The first.
    pub first: u16,
    /// The last.
    pub last: u16,
}

/// What the outside is to be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// A line of the ISA bus has another level.
    Line {
        /// 0 to 15.
        line: u8,
        /// The level.
        level: bool,
    },
    /// A pin of a PCI device has another level.
    Pin {
        /// The device.
        device: u8,
        /// 0 to 3.
        pin: u8,
        /// The level.
        level: bool,
    },
    /// A link leads to another line, 0 for none.
    Link {
        /// 0 to 3.
        link: u8,
        /// The line.
        line: u8,
    },
    /// Ports are the board's.
    Map(Ports),
    /// Ports are no longer.
    Unmap(Ports),
    /// The guest switched itself off.
    PowerOff,
    /// The guest resets itself.
    Reset,
}

/// The devices.
pub struct Board<D: BlockDevice> {
    /// The serial port.
    pub uart: Uart,
    /// The network card, if any.
    pub card: Option<Ne2000>,
    channels: [Channel<D>; 2],
    bus: Bus,
    /// What was written to the address port last.
    address: u32,
    /// Where the ports of the card and of the bus master are mapped.
    card_ports: Option<u16>,
    master_ports: Option<u16>,
    /// Levels that the outside knows.
    lines: [bool; 4],
    links: [u8; 4],
    changes: Vec<Change>,
}

impl<D: BlockDevice> Board<D> {
    /// A board with these ATA channels and maybe a card.
    #[must_use]
    pub fn new(channels: [Channel<D>; 2], card: Option<Ne2000>) -> Self {
        let mut board = Self {
            uart: Uart::default(),
            bus: bus([channels[0].has_drives(), channels[1].has_drives()], card.is_some()),
            card,
            channels,
            address: 0,
            card_ports: None,
            master_ports: None,
            lines: [false; 4],
            links: [0; 4],
            changes: Vec::new(),
        };
        let fixed = [(SERIAL, 8), (SLEEP[0], 2), (SLEEP[1], 2), (ADDRESS, 4)];
        let ata = ATA.into_iter().flat_map(|(command, control, _)| [(command, 8), (control, 1)]);
        let ports = fixed.into_iter().chain(ata).map(|(first, count)| Ports { first, last: first + (count - 1) });
        board.changes.extend(ports.map(Change::Map));
        board.note();
        board
    }

    /// Configuration spaces that are the board's.
    pub fn places(&self) -> impl Iterator<Item = Place> {
        self.bus.functions().iter().map(|function| function.place)
    }

    /// The media of its disks.
    pub fn media_mut(&mut self) -> impl Iterator<Item = &mut D> {
        self.channels.iter_mut().flat_map(Channel::media_mut)
    }

    /// Its ATA channels, for whoever takes the disks back.
    pub fn into_channels(self) -> [Channel<D>; 2] {
        self.channels
    }

    /// Takes what the outside is to be told, in order.
    pub fn take_changes(&mut self) -> Vec<Change> {
        core::mem::take(&mut self.changes)
    }

    /// Lets the devices do what they can; whether one did something.
    pub fn turn(&mut self, memory: &mut dyn Memory) -> bool {
        let mut busy = false;
        for channel in &mut self.channels {
            busy |= channel.turn(memory);
        }
        self.note();
        busy
    }

    /// Reads 1, 2 or 4 bytes from a port; ones where nothing is.
    pub fn read(&mut self, port: u16, size: u8) -> u32 {
        let ones = u32::MAX >> (32 - 8 * u32::from(size.clamp(1, 4)));
        let value = self.read_device(port, size).unwrap_or(u32::MAX);
        self.note();
        value & ones
    }

    /// Writes 1, 2 or 4 bytes to a port.
    pub fn write(&mut self, port: u16, size: u8, value: u32) {
        match self.device(port) {
            Some(Device::Serial(at)) => each(at, 8, size, value, |at, byte| self.uart.write(at, byte)),
            Some(Device::Ata(channel, 0)) => self.channels[channel].write(0, size, value),
            Some(Device::Ata(channel, at)) => {
                each(at, 8, size, value, |at, byte| self.channels[channel].write(at, 1, byte.into()));
            }
            Some(Device::AtaControl(channel)) => self.channels[channel].write_control(value as u8),
            Some(Device::Card(at)) => {
                if let Some(card) = &mut self.card {
                    card.write(at, size, value);
                }
            }
            Some(Device::Master(channel, at)) => {
                each(at, 8, size, value, |at, byte| self.channels[channel].write_master(at, byte));
            }
            Some(Device::Sleep(at)) => self.sleep(at, size, value),
            None if port == ADDRESS && size == 4 => self.address = value,
            None if port == RESET && size == 1 && value & 4 != 0 => self.changes.push(Change::Reset),
            None => {}
        }
        self.note();
    }

    /// Reads from a configuration space of bus 0.
    #[must_use]
    pub fn read_config(&self, place: Place, offset: u32, size: u8) -> u32 {
        self.bus.read(place, offset, size.into()) & u32::MAX >> (32 - 8 * u32::from(size.clamp(1, 4)))
    }

    /// Writes to one.
    pub fn write_config(&mut self, place: Place, offset: u32, size: u8, value: u32) {
        self.bus.write(place, offset, size.into(), value);
        self.note();
    }

    fn device(&self, port: u16) -> Option<Device> {
        let within = |base: u16, count: u16| port.checked_sub(base).filter(|at| *at < count);
        if let Some(at) = within(SERIAL, 8) {
            return Some(Device::Serial(at));
        }
        for (channel, (command, control, _)) in ATA.into_iter().enumerate() {
            if let Some(at) = within(command, 8) {
                return Some(Device::Ata(channel, at));
            }
            if port == control {
                return Some(Device::AtaControl(channel));
            }
        }
        if let Some(at) = SLEEP.into_iter().find_map(|base| within(base, 2)) {
            return Some(Device::Sleep(at));
        }
        let master = self.master_ports.and_then(|base| within(base, MASTER_PORTS));
        if let Some(at) = master {
            return Some(Device::Master(usize::from(at >> 3), at & 7));
        }
        within(self.card_ports?, CARD_PORTS).map(Device::Card)
    }

    fn read_device(&mut self, port: u16, size: u8) -> Option<u32> {
        let mut bytes = [0; 4];
        let each = bytes.iter_mut().take(size.into());
        match self.device(port) {
            None if port == ADDRESS && size == 4 => return Some(self.address),
            None => return None,
            Some(Device::Ata(channel, 0)) => return Some(self.channels[channel].read(0, size)),
            Some(Device::Ata(channel, at)) => {
                each.zip(at..8).for_each(|(byte, at)| *byte = self.channels[channel].read(at, 1) as u8);
            }
            Some(Device::AtaControl(channel)) => return Some(self.channels[channel].read_control().into()),
            Some(Device::Card(at)) => return self.card.as_mut().map(|card| card.read(at, size)),
            Some(Device::Serial(at)) => each.zip(at..8).for_each(|(byte, at)| *byte = self.uart.read(at)),
            Some(Device::Master(channel, at)) => {
                each.zip(at..8).for_each(|(byte, at)| *byte = self.channels[channel].read_master(at));
            }
            // It says that ACPI is on, and no more.
            Some(Device::Sleep(at)) => return Some(if at == 0 { 1 } else { 0 }),
        }
        Some(u32::from_le_bytes(bytes))
    }

    /// The bit that lets the machine sleep, with the type of the state that is off.
    fn sleep(&mut self, at: u16, size: u8, value: u32) {
        let control = (value << (8 * at)) as u16;
        if usize::from(at) + usize::from(size) >= 2 && control & 0x3c00 == 0x2000 {
            self.changes.push(Change::PowerOff);
        }
    }

    /// Notes what changed since the outside was told.
    fn note(&mut self) {
        let (bus, changes) = (&self.bus, &mut self.changes);
        let mut note_ports = |known: &mut Option<u16>, place: Place, bar: usize, count: u16| {
            let ports = bus.at(place).and_then(|function| function.ports(bar));
            let before = core::mem::replace(known, ports);
            if ports != before {
                let range = |first: u16| Ports { first, last: first | (count - 1) };
                changes.extend(before.map(range).map(Change::Unmap));
                changes.extend(ports.map(range).map(Change::Map));
            }
        };
        note_ports(&mut self.card_ports, CARD, 0, CARD_PORTS);
        note_ports(&mut self.master_ports, MASTER, MASTER_BAR, MASTER_PORTS);
        for link in 0..4_u8 {
            let register = self.bus.at(SOUTH).map_or(LINK_OFF, |south| south.byte(LINKS.start + link));
            let line = if register & LINK_OFF != 0 { 0 } else { register & 0xf };
            if core::mem::replace(&mut self.links[usize::from(link)], line) != line {
                self.changes.push(Change::Link { link, line });
            }
        }
        let card = self.card.as_ref().is_some_and(Ne2000::asks);
        let levels = [self.uart.asks(), self.channels[0].asks(), self.channels[1].asks(), card];
        let lines = [SERIAL_LINE, ATA[0].2, ATA[1].2];
        for (at, level) in levels.into_iter().enumerate() {
            if core::mem::replace(&mut self.lines[at], level) != level {
                self.changes.push(match lines.get(at) {
                    Some(line) => Change::Line { line: *line, level },
                    None => Change::Pin { device: CARD.device, pin: 0, level },
                });
            }
        }
    }
}

/// Whose a port is, and which of its registers.
enum Device {
    Serial(u16),
    Ata(usize, u16),
    AtaControl(usize),
    Card(u16),
    Master(usize, u16),
    Sleep(u16),
}

/// Splits a write into bytes, of registers below a limit.
fn each(at: u16, limit: u16, size: u8, value: u32, mut write: impl FnMut(u16, u8)) {
    (at..limit).zip(value.to_le_bytes()).take(size.into()).for_each(|(at, byte)| write(at, byte));
}

/// The bus as firmware leaves it.
fn bus(channels: [bool; 2], card: bool) -> Bus {
    let mut bus = Bus::default();
    bus.add(Function::new(Place { device: 0, function: 0 }, 0x8086, 0x1237, [6, 0, 0]));
    let south = Function::new(SOUTH, 0x8086, 0x7000, [6, 1, 0]);
    bus.add(south.with(0x0e, &[0x80], 0).with(LINKS.start, &LINES, 0x8f));
    // The channels decode their ports where there is a disk.
    let decodes = channels.map(|there| if there { 0x80 } else { 0 });
    let ide = Function::new(MASTER, 0x8086, 0x7010, [1, 1, 0x80]).with_ports(MASTER_BAR, MASTER_BASE, MASTER_PORTS);
    bus.add(ide.with(0x40, &[0, decodes[0], 0, decodes[1]], 0xff));
    if card {
        let card = Function::new(CARD, 0x10ec, 0x8029, [2, 0, 0]);
        bus.add(card.with_ports(0, CARD_BASE, CARD_PORTS).with_pin(1, LINES[3]));
    }
    bus
}

#[cfg(test)]
mod tests;
