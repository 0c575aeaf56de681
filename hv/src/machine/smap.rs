//! Guests' pages out of reach, but where a copy reaches for them on purpose (SMAP).
//!
//! Where the CPU has it, the places that begin and end such a copy, and the ways in, are given the instructions for it
//! while the machine starts; until then each is an instruction that does nothing. QEMU's own emulation before 9.1
//! faults on a guest kernel's `iretq` with SMAP on, so there it is off unless asked for.
//!
//! Source: AMD APM 2 §5.6.6.

use core::arch::x86_64::{__cpuid, __cpuid_count};
use core::sync::atomic::{AtomicBool, Ordering};

use super::layout::IMAGE_BASE;

static ON: AtomicBool = AtomicBool::new(false);

/// A place that becomes `stac` or `clac`: an instruction of three bytes that does nothing, and a row that names it.
macro_rules! smap_site {
    ("stac") => {
        smap_site!(@ "0x00cb010f")
    };
    ("clac") => {
        smap_site!(@ "0x00ca010f")
    };
    (@ $bytes:literal) => {
        concat!("781: .byte 0x0f, 0x1f, 0x00\n.pushsection .smap_sites, \"a\"\n.long 781b - ., ", $bytes, "\n.popsection")
    };
}

pub(crate) use smap_site;

/// Turns the places into what they stand for, if the CPU has it and `asked` or it does it well. While booting: the
/// image is mapped for writing only then.
pub(crate) fn prepare(asked: Option<bool>) {
    let has = __cpuid(0).eax >= 7 && __cpuid_count(7, 0).ebx & 1 << 20 != 0;
    if !has || !asked.unwrap_or_else(|| !is_emulated()) {
        return;
    }
    unsafe extern "C" {
        static smap_sites_start: [u32; 2];
        static smap_sites_end: [u32; 2];
    }
    let mut row = &raw const smap_sites_start;
    while row < &raw const smap_sites_end {
        // SAFETY: between the linker's two symbols lie rows and nothing else.
        let [offset, bytes] = unsafe { row.read() };
        let place = (row as u64).wrapping_add_signed(i64::from(offset.cast_signed())) - IMAGE_BASE;
        let [a, b, c, _] = bytes.to_le_bytes();
        // SAFETY: the row names a three-byte instruction, which is mapped one to one, writable, while booting; no other
        // CPU runs, and this one serialises when it loads the hypervisor's own tables.
        unsafe { (place as *mut [u8; 3]).write([a, b, c]) };
        // SAFETY: at most one past the last row.
        row = unsafe { row.add(1) };
    }
    ON.store(true, Ordering::Relaxed);
}

/// Whether it is to be turned on.
pub(crate) fn is_on() -> bool {
    ON.load(Ordering::Relaxed)
}

/// Whether the CPU is QEMU's own emulation.
fn is_emulated() -> bool {
    let leaf = __cpuid(0x4000_0000);
    [leaf.ebx, leaf.ecx, leaf.edx]
        == [u32::from_le_bytes(*b"TCGT"), u32::from_le_bytes(*b"CGTC"), u32::from_le_bytes(*b"GTCG")]
}
