//! The hypervisor's console: its ring, and who may read and write.
//!
//! What the hypervisor and dom0 print goes to the serial line and into a ring, which `XEN_SYSCTL_readconsole` shows.
//! What is typed goes to dom0. Indices into the ring run freely; a reader that fell behind by more than the ring's size
//! goes on with the oldest byte that is left. Source: Xen's `public/sysctl.h`, `public/xen.h` (`CONSOLEIO_*`).

use alloc::boxed::Box;
use alloc::vec;

use pv_abi::errno::Errno;
use pv_abi::xen::{CONSOLEIO_READ, CONSOLEIO_WRITE, VIRQ_CONSOLE};
use spin::Mutex;

use crate::call::Call;
use crate::hardware::Machine;
use crate::refusal::{Evidence, Refusal};
use crate::rules::{control as rule, core as core_rule};
use crate::{Hypervisor, evtchn};

/// Bytes of the ring; a power of two.
const RING: usize = 16 << 10;
/// Bytes moved between two looks at whether to stop.
const CHUNK: usize = 128;

/// The console's ring.
pub struct Console {
    ring: Mutex<Ring>,
}

struct Ring {
    bytes: Box<[u8]>,
    /// Index after the newest byte.
    produced: u32,
    /// Index of the oldest byte that a reader has not cleared.
    cleared: u32,
}

impl Default for Console {
    fn default() -> Self {
        Self { ring: Mutex::new(Ring { bytes: vec![0; RING].into_boxed_slice(), produced: 0, cleared: 0 }) }
    }
}

impl Console {
    /// Remembers what was printed.
    pub fn record(&self, bytes: &[u8]) {
        let mut ring = self.ring.lock();
        for part in bytes.chunks(RING) {
            let start = ring.produced as usize % RING;
            let first = part.len().min(RING - start);
            ring.bytes[start..start + first].copy_from_slice(&part[..first]);
            ring.bytes[..part.len() - first].copy_from_slice(&part[first..]);
            ring.produced = ring.produced.wrapping_add(part.len() as u32);
        }
        if ring.produced.wrapping_sub(ring.cleared) > RING as u32 {
            ring.cleared = ring.produced.wrapping_sub(RING as u32);
        }
    }

    /// Copies what was printed from index `from` on (or the oldest that is left); gives the index after what was copied
    /// and how many bytes that was.
    pub fn read(&self, from: Option<u32>, into: &mut [u8]) -> (u32, usize) {
        let ring = self.ring.lock();
        let mut at = from.unwrap_or(ring.cleared);
        let available = ring.produced.wrapping_sub(at);
        if available > ring.produced.wrapping_sub(ring.cleared) {
            at = ring.cleared;
        }
        let count = (ring.produced.wrapping_sub(at) as usize).min(into.len());
        let start = at as usize % RING;
        let first = count.min(RING - start);
        into[..first].copy_from_slice(&ring.bytes[start..start + first]);
        into[first..count].copy_from_slice(&ring.bytes[..count - first]);
        (at.wrapping_add(count as u32), count)
    }

    /// Forgets what was printed before index `until`.
    pub fn clear(&self, until: u32) {
        let mut ring = self.ring.lock();
        if ring.produced.wrapping_sub(until) <= ring.produced.wrapping_sub(ring.cleared) {
            ring.cleared = until;
        }
    }
}

/// Something was typed: dom0 is told.
pub fn on_input<M: Machine>(hv: &Hypervisor<M>) {
    evtchn::raise_global_virq(hv, VIRQ_CONSOLE);
}

/// `console_io(command, count, buffer*)`.
///
/// # Errors
/// `EPERM` for a domain that is not dom0 (a write is allowed to all with `guest_loglvl=debug`), `EFAULT` for a bad
/// pointer, `E2BIG` for reading more than 2 GiB, `ENOSYS` for an unknown command.
pub fn console_io<M: Machine>(call: &mut Call<'_, M>, args: [u64; 5]) -> Result<u64, Refusal> {
    let [command, count, buffer, ..] = args;
    let (command, count) = (command as u32, count as u32);
    let may = call.domain().privileged || command == CONSOLEIO_WRITE && call.hv.options.prints_guests();
    if !may {
        return Err(Refusal::errno(Errno::Perm, rule::CONSOLE_NOT_YOURS));
    }
    match command {
        CONSOLEIO_WRITE => write(call, count, buffer),
        CONSOLEIO_READ => read(call, count, buffer),
        _ => Err(Refusal::errno(Errno::NoSys, core_rule::UNKNOWN_OPERATION).with(Evidence::Value(command.into()))),
    }
}

/// Goes back when all is sent, so that a domain that prints faster than the line is slowed down, and alone.
fn write<M: Machine>(call: &mut Call<'_, M>, count: u32, buffer: u64) -> Result<u64, Refusal> {
    let mut done = 0;
    let mut bytes = [0; CHUNK];
    for step in 0_u64.. {
        let all_sent = call.hv.machine.console_send();
        if all_sent && done == count {
            break;
        }
        if step > 0 && call.should_stop() {
            let left = [CONSOLEIO_WRITE.into(), (count - done).into(), buffer.wrapping_add(done.into()), 0, 0];
            return Err(call.again(left));
        }
        if all_sent {
            let chunk = &mut bytes[..CHUNK.min((count - done) as usize)];
            call.read_bytes(buffer.wrapping_add(done.into()), chunk)?;
            call.hv.machine.console_write(chunk);
            call.hv.console.record(chunk);
            done += chunk.len() as u32;
        }
    }
    Ok(0)
}

fn read<M: Machine>(call: &Call<'_, M>, count: u32, buffer: u64) -> Result<u64, Refusal> {
    if count > i32::MAX as u32 {
        let evidence = Evidence::Limit { asked: count.into(), limit: i32::MAX as u64 };
        return Err(Refusal::errno(Errno::TooBig, rule::CONSOLE_COUNT).with(evidence));
    }
    let mut bytes = [0; CHUNK];
    let mut done = 0;
    while done < count {
        let chunk = &mut bytes[..CHUNK.min((count - done) as usize)];
        let got = call.hv.machine.console_read(chunk);
        call.write(buffer.wrapping_add(done.into()), &chunk[..got])?;
        done += got as u32;
        if got < chunk.len() {
            break;
        }
    }
    Ok(done.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ring_shows_what_was_printed_and_keeps_its_place() {
        let console = Console::default();
        console.record(b"hello ");
        let mut buffer = [0; 4];
        let (next, count) = console.read(None, &mut buffer);
        assert_eq!((&buffer[..count], next), (&b"hell"[..], 4));
        let (next, count) = console.read(Some(next), &mut buffer);
        assert_eq!((&buffer[..count], next), (&b"o "[..], 6));
        assert_eq!(console.read(Some(6), &mut buffer).1, 0);
    }

    #[test]
    fn a_reader_that_fell_behind_goes_on_with_the_oldest_byte() {
        let console = Console::default();
        console.record(&[b'a'; 10]);
        console.record(&[b'b'; RING]);
        let mut buffer = [0; 1];
        let (next, _) = console.read(Some(0), &mut buffer);
        assert_eq!((buffer[0], next), (b'b', 11));
    }

    #[test]
    fn what_was_cleared_is_not_shown_again() {
        let console = Console::default();
        console.record(b"secret new");
        console.clear(7);
        let mut buffer = [0; 16];
        let (_, count) = console.read(None, &mut buffer);
        assert_eq!(&buffer[..count], b"new");
    }
}
