//! Port I/O of a guest.
//!
//! Two questions: may the instruction run at all (the guest's own IOPL or I/O bitmap; else #GP to it), and what answers.
//! A port that the domain was given is the machine's; a few more are emulated (the address register of PCI
//! configuration, per domain; its data window, for dom0; the clock's index and data; channel 2 of the interval timer with
//! its gate, by which kernels calibrate); all others read as ones and take no writes. Source: abi-needs of Xen 4.17, §3.1.

use super::descriptors;
use super::page_fault;
use super::privileged::Step;
use crate::Hypervisor;
use crate::control::pci;
use crate::decode::Segment;
use crate::decode::privileged::StringIo;
use crate::domain::{Domain, Running};
use crate::hardware::Machine;
use crate::registers::{Registers, flags};

/// Repetitions of a string instruction that are done before the guest executes it again.
const BATCH: u64 = 32;
/// Ticks of the interval timer a second.
const TIMER_HZ: u64 = 1_193_182;

/// What a domain wrote to ports that are emulated for it.
#[derive(Debug, Default)]
pub struct LegacyPorts {
    /// The address register of PCI configuration (0xcf8).
    pub(crate) pci_address: u32,
    /// The clock's index (0x70).
    clock_index: u8,
    timer: Timer,
}

/// Channel 2 of the interval timer, and the gate and output bits of port 0x61.
#[derive(Debug, Default)]
struct Timer {
    /// Bits 0 (gate) and 1 (speaker) of port 0x61.
    gate: u8,
    /// Access mode: 1 low byte, 2 high byte, 3 both in turn.
    access: u8,
    /// Mode 0 counts down once; all others go round.
    mode: u8,
    reload: u32,
    started_ns: u64,
    low_written: Option<u8>,
    high_next: bool,
    latched: Option<u16>,
}

/// Whether port I/O, `cli` and `sti` may run by the guest's IOPL.
pub(super) fn may_input_output(running: &Running) -> bool {
    running.state.iopl >= if running.state.kernel_mode { 1 } else { 3 }
}

/// Whether a port instruction may run: by IOPL, or by the guest's bitmap, in which a zero allows.
fn may_reach<M: Machine>(hv: &Hypervisor<M>, running: &Running, port: u16, bytes: u8) -> bool {
    if may_input_output(running) {
        return true;
    }
    let (bitmap, ports) = running.state.io_bitmap;
    if u32::from(port) + u32::from(bytes) > ports {
        return false;
    }
    let mut two = [0; 2];
    let at = bitmap.wrapping_add(u64::from(port / 8));
    let last = u32::from(port % 8) + u32::from(bytes) - 1;
    let len = if last < 8 { 1 } else { 2 };
    let mask = ((1_u32 << bytes) - 1) << (port % 8);
    hv.machine.copy_from_guest(at, &mut two[..len]).is_ok() && u32::from(u16::from_le_bytes(two)) & mask == 0
}

/// `in`: none where the guest may not execute it.
pub(super) fn input<M: Machine>(hv: &Hypervisor<M>, running: &Running, port: u16, bytes: u8) -> Option<u32> {
    may_reach(hv, running, port, bytes).then(|| read(hv, &running.vcpu.domain, port, bytes))
}

/// `out`: none where the guest may not execute it.
pub(super) fn output<M: Machine>(
    hv: &Hypervisor<M>,
    running: &Running,
    port: u16,
    bytes: u8,
    value: u32,
) -> Option<()> {
    may_reach(hv, running, port, bytes).then(|| write(hv, &running.vcpu.domain, port, bytes, value))
}

/// Puts what was read into a register: a dword clears the upper half, less leaves the rest.
pub(super) const fn merge(register: &mut u64, bytes: u8, value: u32) {
    *register = match bytes {
        1 => *register & !0xff | (value & 0xff) as u64,
        2 => *register & !0xffff | (value & 0xffff) as u64,
        _ => value as u64,
    };
}

/// What a domain reads from ports.
fn read<M: Machine>(hv: &Hypervisor<M>, domain: &Domain, port: u16, bytes: u8) -> u32 {
    if domain.permissions.lock().allows_ports(port, bytes) {
        return hv.machine.read_port(port, bytes);
    }
    let mut value = 0;
    let mut done = 0;
    while done < bytes {
        let (part, size) = read_emulated(hv, domain, port.wrapping_add(done.into()), bytes - done);
        value |= part << (done * 8);
        done += size;
    }
    value
}

/// What the emulated ports answer from `port` on: the value and how many bytes it has.
fn read_emulated<M: Machine>(hv: &Hypervisor<M>, domain: &Domain, port: u16, bytes: u8) -> (u32, u8) {
    let mut legacy = domain.ports.lock();
    match port {
        0x42 => (legacy.timer.read_count(hv.machine.now()).into(), 1),
        0x43 => (0, 1),
        0x61 => (legacy.timer.read_gate(hv.machine.now()).into(), 1),
        0x70 if domain.privileged => (legacy.clock_index.into(), 1),
        0x71 if domain.privileged => (pci::read_clock(hv, legacy.clock_index).into(), 1),
        0xcf8 if bytes == 4 => (legacy.pci_address, 4),
        0xcfc..=0xcff if domain.privileged => {
            let size = window_size(port, bytes);
            (pci::read(hv, legacy.pci_address, (port & 3) as u8, size), size)
        }
        _ if domain.permissions.lock().allows_ports(port, 1) => (hv.machine.read_port(port, 1), 1),
        _ => (0xff, 1),
    }
}

/// How many bytes of an access from `port` on stay in the data window of PCI configuration.
fn window_size(port: u16, bytes: u8) -> u8 {
    match bytes.min(4 - (port & 3) as u8) {
        3 => 2,
        size => size,
    }
}

fn write<M: Machine>(hv: &Hypervisor<M>, domain: &Domain, port: u16, bytes: u8, value: u32) {
    if domain.permissions.lock().allows_ports(port, bytes) {
        return hv.machine.write_port(port, bytes, value);
    }
    let mut done = 0;
    while done < bytes {
        done += write_emulated(hv, domain, port.wrapping_add(done.into()), bytes - done, value >> (done * 8));
    }
}

/// Does a write to the emulated ports from `port` on; gives how many bytes it took.
fn write_emulated<M: Machine>(hv: &Hypervisor<M>, domain: &Domain, port: u16, bytes: u8, value: u32) -> u8 {
    let mut legacy = domain.ports.lock();
    let byte = value as u8;
    match port {
        0x42 => legacy.timer.write_count(byte, hv.machine.now()),
        0x43 => legacy.timer.write_command(byte, hv.machine.now()),
        0x61 => legacy.timer.write_gate(byte, hv.machine.now()),
        0x70 if domain.privileged => legacy.clock_index = byte & 0x7f,
        0x71 if domain.privileged => pci::write_clock(hv, legacy.clock_index, byte),
        0xcf8 if bytes == 4 => {
            legacy.pci_address = value;
            return 4;
        }
        0xcfc..=0xcff if domain.privileged => {
            let size = window_size(port, bytes);
            pci::write(hv, legacy.pci_address, (port & 3) as u8, size, value);
            return size;
        }
        _ if domain.permissions.lock().allows_ports(port, 1) => hv.machine.write_port(port, 1, byte.into()),
        _ => {}
    }
    1
}

impl Timer {
    /// Ticks since the count was started.
    const fn ticks(&self, now_ns: u64) -> u64 {
        (now_ns.saturating_sub(self.started_ns) as u128 * TIMER_HZ as u128 / 1_000_000_000) as u64
    }

    fn count(&self, now_ns: u64) -> u16 {
        let reload = u64::from(self.reload.max(1));
        let ticks = if self.gate & 1 == 0 { 0 } else { self.ticks(now_ns) };
        let count = if self.mode == 0 { reload.wrapping_sub(ticks) } else { reload - ticks % reload };
        count as u16
    }

    /// Bit 5 of port 0x61: in mode 0 the output rises when the count has run out.
    fn read_gate(&self, now_ns: u64) -> u8 {
        let reload = u64::from(self.reload.max(1));
        let ticks = self.ticks(now_ns);
        let on = self.gate & 1 != 0
            && match self.mode {
                0 => ticks >= reload,
                _ => ticks % reload < reload / 2,
            };
        self.gate & 3 | u8::from(on) << 5
    }

    const fn write_gate(&mut self, value: u8, now_ns: u64) {
        if value & 1 != 0 && self.gate & 1 == 0 {
            self.started_ns = now_ns;
        }
        self.gate = value & 3;
    }

    /// A command for channel 2; those for other channels are the hypervisor's.
    fn write_command(&mut self, value: u8, now_ns: u64) {
        if value >> 6 != 2 {
            return;
        }
        match value >> 4 & 3 {
            0 => self.latched = Some(self.count(now_ns)),
            access => {
                self.access = access;
                self.mode = value >> 1 & 7;
                self.low_written = None;
                self.high_next = false;
            }
        }
    }

    const fn write_count(&mut self, value: u8, now_ns: u64) {
        let reload = match (self.access, self.low_written) {
            (1, _) => value as u32,
            (2, _) => (value as u32) << 8,
            (_, None) => {
                self.low_written = Some(value);
                return;
            }
            (_, Some(low)) => (value as u32) << 8 | low as u32,
        };
        self.low_written = None;
        self.reload = if reload == 0 { 0x1_0000 } else { reload };
        self.started_ns = now_ns;
    }

    fn read_count(&mut self, now_ns: u64) -> u8 {
        let count = self.latched.unwrap_or_else(|| self.count(now_ns));
        let high = match self.access {
            1 => false,
            2 => true,
            _ => {
                self.high_next = !self.high_next;
                !self.high_next
            }
        };
        if high || self.access == 1 {
            self.latched = None;
        }
        if high { (count >> 8) as u8 } else { count as u8 }
    }
}

/// `ins` and `outs`, a batch of repetitions at most.
pub(super) fn string<M: Machine>(
    hv: &Hypervisor<M>,
    running: &mut Running,
    registers: &mut Registers,
    io: StringIo,
) -> Option<Step> {
    let port = registers.rdx as u16;
    let long_mode = descriptors::code_segment(hv, &running.state, registers.cs as u16).0;
    let width = if long_mode != io.prefixes.address {
        if long_mode { u64::MAX } else { 0xffff_ffff }
    } else if long_mode {
        0xffff_ffff
    } else {
        0xffff
    };
    let count = if io.prefixes.repeats() { registers.rcx & width } else { 1 };
    if !may_reach(hv, running, port, io.bytes) {
        return None;
    }
    let base = match io.prefixes.segment {
        Some(Segment::Fs) if io.out => hv.machine.segment_bases(&running.state)[0],
        Some(Segment::Gs) if io.out => hv.machine.segment_bases(&running.state)[1],
        _ => 0,
    };
    for _ in 0..count.min(BATCH) {
        let index = if io.out { registers.rsi } else { registers.rdi } & width;
        if let Err(address) = one(hv, &running.vcpu.domain, port, io, base.wrapping_add(index)) {
            let write = if io.out { 0 } else { 2 };
            page_fault::deliver(hv, running, registers, write, address);
            return Some(Step::Again);
        }
        advance(registers, io, width);
    }
    Some(if count > BATCH { Step::Again } else { Step::Next })
}

/// One repetition; where the memory cannot be reached, its address.
fn one<M: Machine>(hv: &Hypervisor<M>, domain: &Domain, port: u16, io: StringIo, address: u64) -> Result<(), u64> {
    let mut bytes = [0; 4];
    let part = ..usize::from(io.bytes);
    if io.out {
        hv.machine.copy_from_guest(address, &mut bytes[part]).map_err(|fault| fault.0)?;
        write(hv, domain, port, io.bytes, u32::from_le_bytes(bytes));
        return Ok(());
    }
    hv.machine.copy_from_guest(address, &mut bytes[part]).map_err(|fault| fault.0)?;
    hv.machine.copy_to_guest(address, &bytes[part]).map_err(|fault| fault.0)?;
    bytes = read(hv, domain, port, io.bytes).to_le_bytes();
    hv.machine.copy_to_guest(address, &bytes[part]).map_err(|fault| fault.0)
}

fn advance(registers: &mut Registers, io: StringIo, width: u64) {
    let step = u64::from(io.bytes);
    let delta = if registers.rflags & flags::DF == 0 { step } else { step.wrapping_neg() };
    let index = if io.out { &mut registers.rsi } else { &mut registers.rdi };
    *index = *index & !width | index.wrapping_add(delta) & width;
    if io.prefixes.repeats() {
        registers.rcx = registers.rcx & !width | registers.rcx.wrapping_sub(1) & width;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn channel_2_counts_down_and_raises_its_output() {
        let mut timer = Timer::default();
        timer.write_gate(1, 0);
        timer.write_command(0xb0, 0);
        timer.write_count(0xff, 0);
        timer.write_count(0xff, 0);
        assert_eq!(timer.read_gate(0) & 0x20, 0);
        let low = timer.read_count(10_000_000);
        let high = timer.read_count(10_000_000);
        assert_eq!(u16::from_le_bytes([low, high]), 0xffff - 11_931);
        assert_eq!(timer.read_gate(60_000_000) & 0x20, 0x20);
    }

    #[test]
    fn commands_for_other_channels_change_nothing() {
        let mut timer = Timer::default();
        timer.write_command(0xb6, 0);
        timer.write_command(0x34, 0);
        assert_eq!((timer.access, timer.mode), (3, 3));
    }

    #[test]
    fn a_register_keeps_what_a_narrow_read_does_not_reach() {
        let mut register = 0x1111_2222_3333_4444;
        merge(&mut register, 1, 0xaabb);
        assert_eq!(register, 0x1111_2222_3333_44bb);
        merge(&mut register, 4, 0xffff_ffff);
        assert_eq!(register, 0xffff_ffff);
    }

    #[test]
    fn an_access_ends_at_the_data_windows_edge() {
        assert_eq!(window_size(0xcfc, 4), 4);
        assert_eq!(window_size(0xcfd, 4), 2);
        assert_eq!(window_size(0xcff, 2), 1);
    }
}
