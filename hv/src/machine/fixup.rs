//! Instructions that may fault and say so: guest memory, model-specific registers, segment selectors.
//!
//! Each such instruction has a row in the table of fixups: where it is and where to go on if it faults. The exception
//! handler looks the faulting address up ([`find`]) and changes nothing but `rip`, so the code after the instruction
//! sees the registers as the fault left them.

use core::arch::asm;
use core::mem::MaybeUninit;

use hv::hardware::GuestFault;
use zerocopy::FromBytes;

use super::layout::{HOLE_END, HOLE_START};
use super::smap::smap_site;

/// Declares that a fault at local label `$from` goes on at local label `$to`.
macro_rules! fixup {
    ($from:literal, $to:literal) => {
        concat!(".pushsection .fixups, \"a\"\n.long ", $from, " - .\n.long ", $to, " - .\n.popsection")
    };
}

pub(crate) use fixup;

/// Where code that faults at `rip` goes on, if it may fault there.
pub(crate) fn find(rip: u64) -> Option<u64> {
    unsafe extern "C" {
        static fixups_start: [i32; 2];
        static fixups_end: [i32; 2];
    }
    let mut row = &raw const fixups_start;
    while row < &raw const fixups_end {
        // SAFETY: between the linker's two symbols lie rows and nothing else.
        let [from, to] = unsafe { row.read() };
        let address = row as u64;
        if address.wrapping_add_signed(from.into()) == rip {
            return Some((address + 4).wrapping_add_signed(to.into()));
        }
        // SAFETY: at most one past the last row.
        row = unsafe { row.add(1) };
    }
    None
}

/// Whether bytes from `address` on are a guest's.
///
/// Only where they start needs a look: from the lower half on come addresses that are not canonical and fault, and from
/// the top of the upper half on comes the lower half, which is the guest's.
#[inline(always)]
fn is_guest(address: u64) -> bool {
    const SIZE_BITS: u32 = (HOLE_END - HOLE_START).trailing_zeros();
    address >> SIZE_BITS != HOLE_START >> SIZE_BITS
}

const _: () = assert!(HOLE_START.trailing_zeros() >= (HOLE_END - HOLE_START).trailing_zeros());
const _: () = assert!((HOLE_END - HOLE_START).is_power_of_two());

/// Reads guest memory.
#[inline(always)]
pub(crate) fn copy_from_guest(from: u64, into: &mut [u8]) -> Result<(), GuestFault> {
    if !is_guest(from) {
        return Err(GuestFault(from));
    }
    // SAFETY: `into` is writable for its length; the source is guest memory, which is never the hypervisor's.
    unsafe { copy::<true>(into.as_mut_ptr() as u64, from, into.len()) }
}

/// Reads a value from guest memory.
#[inline(always)]
pub(crate) fn read_from_guest<T: FromBytes>(from: u64) -> Result<T, GuestFault> {
    if !is_guest(from) {
        return Err(GuestFault(from));
    }
    let mut value = MaybeUninit::<T>::uninit();
    // SAFETY: `value` is writable for its length; the source is guest memory, which is never the hypervisor's.
    unsafe { copy::<true>(value.as_mut_ptr() as u64, from, size_of::<T>())? };
    // SAFETY: all of it was written, and any bytes are a value.
    Ok(unsafe { value.assume_init() })
}

/// Writes guest memory.
#[inline(always)]
pub(crate) fn copy_to_guest(to: u64, from: &[u8]) -> Result<(), GuestFault> {
    if !is_guest(to) {
        return Err(GuestFault(to));
    }
    // SAFETY: `from` is readable for its length; the target is guest memory, which is never the hypervisor's.
    unsafe { copy::<false>(to, from.as_ptr() as u64, from.len()) }
}

/// Copies one word of a register's width from or to guest memory; nothing where it faults.
macro_rules! copy_one {
    ($read:ident, $to:expr, $from:expr, $type:ty, $width:literal) => {{
        let refused: u32;
        let mut word: $type = 0;
        if $read {
            asm!(smap_site!("stac"), concat!("2: mov {word", $width, "}, [{place}]"), "xor {refused:e}, {refused:e}", "3:",
                fixup!("2b", "3b"), smap_site!("clac"), word = inout(reg) word, place = in(reg) $from,
                refused = inout(reg) 1_u32 => refused, options(nostack, readonly));
            ($to as *mut $type).write_unaligned(word);
        } else {
            word = ($from as *const $type).read_unaligned();
            asm!(smap_site!("stac"), concat!("2: mov [{place}], {word", $width, "}"), "xor {refused:e}, {refused:e}", "3:",
                fixup!("2b", "3b"), smap_site!("clac"), word = in(reg) word, place = in(reg) $to,
                refused = inout(reg) 1_u32 => refused, options(nostack));
        }
        (refused == 0).then_some(())
    }};
}

/// Copies words, then bytes. A fault leaves in `rcx` what was not copied, and the guest's pointer where it happened.
///
/// # Safety
/// The side that is not the guest's is memory of `len` bytes that may be accessed.
#[inline(always)]
unsafe fn copy<const READ: bool>(mut to: u64, mut from: u64, len: usize) -> Result<(), GuestFault> {
    let guest = |to, from| GuestFault(if READ { from } else { to });
    // Short ones by one or two words, which may overlap.
    if (4..=16).contains(&len) {
        let word = if len < 8 { 4 } else { 8 };
        for offset in [0, len - word] {
            let (to, from) = (to.wrapping_add(offset as u64), from.wrapping_add(offset as u64));
            let copied = if word == 4 {
                // SAFETY: the caller's promise; the word lies within the range.
                unsafe { copy_one!(READ, to, from, u32, ":e") }
            } else {
                // SAFETY: as above.
                unsafe { copy_one!(READ, to, from, u64, "") }
            };
            copied.ok_or(guest(to, from))?;
            if len == word {
                break;
            }
        }
        return Ok(());
    }
    if len >= 8 {
        let mut words = len / 8;
        // SAFETY: the caller's promise; faults on the guest's side have a fixup.
        unsafe {
            asm!(smap_site!("stac"), "2: rep movsq", "3:", fixup!("2b", "3b"), smap_site!("clac"),
                inout("rcx") words, inout("rdi") to, inout("rsi") from, options(nostack));
        }
        if words != 0 {
            return Err(guest(to, from));
        }
    }
    let mut bytes = len % 8;
    if bytes != 0 {
        // SAFETY: as above.
        unsafe {
            asm!(smap_site!("stac"), "2: rep movsb", "3:", fixup!("2b", "3b"), smap_site!("clac"),
                inout("rcx") bytes, inout("rdi") to, inout("rsi") from, options(nostack, preserves_flags));
        }
        if bytes != 0 {
            return Err(guest(to, from));
        }
    }
    Ok(())
}

/// Reads a model-specific register, unless the CPU refuses.
pub(crate) fn read_msr(register: u32) -> Option<u64> {
    let (low, high, refused): (u32, u32, u32);
    // SAFETY: reading a register changes nothing that the hypervisor relies on; a refusal has a fixup.
    unsafe {
        asm!("2: rdmsr", "xor {refused:e}, {refused:e}", "3:", fixup!("2b", "3b"), refused = inout(reg) 1_u32 => refused,
            in("ecx") register, out("eax") low, out("edx") high, options(nostack, nomem));
    }
    (refused == 0).then_some(u64::from(high) << 32 | u64::from(low))
}

/// Writes a model-specific register, unless the CPU refuses.
pub(crate) fn write_msr(register: u32, value: u64) -> Option<()> {
    let refused: u32;
    // SAFETY: callers write registers that are theirs to set; a refusal has a fixup.
    unsafe {
        asm!("2: wrmsr", "xor {refused:e}, {refused:e}", "3:", fixup!("2b", "3b"), refused = inout(reg) 1_u32 => refused,
            in("ecx") register, in("eax") value as u32, in("edx") (value >> 32) as u32, options(nostack));
    }
    (refused == 0).then_some(())
}

/// The segment registers that a guest may load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Segment {
    /// Data.
    Ds,
    /// Extra.
    Es,
    /// With a base of its own.
    Fs,
    /// With a base of its own.
    Gs,
}

/// Loads a segment register; `false` where the selector is bad, and then the register is null.
pub(crate) fn load_segment(segment: Segment, selector: u16) -> bool {
    macro_rules! load {
        ($name:literal) => {{
            let left: u32;
            // SAFETY: no data segment matters to 64-bit code; a bad selector has a fixup.
            unsafe {
                asm!(concat!("2: mov ", $name, ", {selector:e}"), "xor {left:e}, {left:e}", "3:", fixup!("2b", "3b"),
                    selector = in(reg) u32::from(selector), left = inout(reg) 1_u32 => left, options(nostack));
            }
            if left != 0 {
                // SAFETY: the null selector can always be loaded.
                unsafe { asm!(concat!("mov ", $name, ", {0:e}"), in(reg) 0, options(nostack, preserves_flags)) };
            }
            left == 0
        }};
    }
    match segment {
        Segment::Ds => load!("ds"),
        Segment::Es => load!("es"),
        Segment::Fs => load!("fs"),
        Segment::Gs => load!("gs"),
    }
}
