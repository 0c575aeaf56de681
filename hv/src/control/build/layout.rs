//! Where everything of dom0 goes at its start: frames by number, and what is mapped.
//!
//! From the base up, mapped: the memory before the kernel, the kernel, its ramdisk (where it must be mapped), the list of
//! frames (where the kernel has no wish for it), `start_info`, page tables, the boot stack, and room: at least 512 KiB,
//! up to a multiple of 4 MiB. Above, unmapped: the ramdisk, the list of frames with its own page tables. Source:
//! abi-needs of Xen 4.17, §1.2.

use super::BuildError;

/// Frames of 4 KiB in 512 KiB.
const ROOM: u64 = 128;
/// Frames of 4 KiB in 4 MiB.
const ROUND: u64 = 1024;

/// Where things are, in frames of the domain from zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Layout {
    /// Frames the domain has.
    pub(super) frames: u64,
    /// The ramdisk: first frame and how many.
    pub(super) ramdisk: (u64, u64),
    /// The list of frames: first frame, and how many with its page tables.
    pub(super) p2m: (u64, u64),
    /// Frames of the list alone.
    pub(super) p2m_data: u64,
    /// `start_info`.
    pub(super) start_info: u64,
    /// Page tables: first frame and how many.
    pub(super) tables: (u64, u64),
    /// The boot stack.
    pub(super) stack: u64,
    /// How many frames are mapped from the base up.
    pub(super) mapped: u64,
}

/// What the layout is made from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wishes {
    /// Virtual address of frame 0.
    pub(super) base: u64,
    /// The kernel's end, in frames.
    pub(super) kernel_end: u64,
    /// Frames of the ramdisk, and whether it may stay unmapped.
    pub(super) ramdisk: u64,
    pub(super) ramdisk_unmapped: bool,
    /// Where the list of frames is wanted.
    pub(super) init_p2m: Option<u64>,
    /// Frames the domain has.
    pub(super) frames: u64,
}

/// How many page tables a range of addresses needs at a level: each covers 2^`shift` bytes.
const fn tables_at(start: u64, end: u64, shift: u32) -> u64 {
    ((end - 1) >> shift) - (start >> shift) + 1
}

/// How many page tables a range of addresses needs, without the root.
const fn tables_for(start: u64, end: u64) -> u64 {
    tables_at(start, end, 21) + tables_at(start, end, 30) + tables_at(start, end, 39)
}

impl Layout {
    /// Lays dom0 out.
    ///
    /// # Errors
    /// [`BuildError::TooLarge`] where it does not fit into its frames.
    pub(super) fn new(wishes: &Wishes) -> Result<Self, BuildError> {
        let mut layout =
            Self { frames: wishes.frames, p2m_data: (wishes.frames * 8).div_ceil(4096), ..Self::default() };
        let mut next = wishes.kernel_end;
        let mut place = |count: u64| {
            let first = next;
            next += count;
            (first, count)
        };
        if !wishes.ramdisk_unmapped {
            layout.ramdisk = place(wishes.ramdisk);
        }
        if wishes.init_p2m.is_none() {
            layout.p2m = place(layout.p2m_data);
        }
        layout.start_info = place(1).0;
        let fixed = next;
        let mut tables = 1;
        loop {
            let end = fixed + tables + 1;
            layout.mapped = round_mapped(wishes.base, end);
            let needed = 1 + tables_for(wishes.base, wishes.base + (layout.mapped << 12));
            if needed <= tables {
                break;
            }
            tables = needed;
        }
        layout.tables = (fixed, tables);
        layout.stack = fixed + tables;
        let mut above = layout.mapped;
        if wishes.ramdisk_unmapped {
            layout.ramdisk = (above, wishes.ramdisk);
            above += wishes.ramdisk;
        }
        if let Some(start) = wishes.init_p2m {
            let own_tables = tables_for(start, start + (layout.p2m_data << 12));
            layout.p2m = (above, layout.p2m_data + own_tables);
            above += layout.p2m.1;
        }
        if above > wishes.frames {
            return Err(BuildError::TooLarge { needs: above, has: wishes.frames });
        }
        Ok(layout)
    }
}

/// Frames mapped from `base` up for `end` frames in use: with room, to a multiple of 4 MiB of address.
const fn round_mapped(base: u64, end: u64) -> u64 {
    let first = base >> 12;
    (first + end + ROOM).next_multiple_of(ROUND) - first
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINUX: Wishes = Wishes {
        base: 0xffff_ffff_8000_0000,
        kernel_end: 0x4a00,
        ramdisk: 0x213,
        ramdisk_unmapped: true,
        init_p2m: Some(0x80_0000_0000),
        frames: 192 << 8,
    };

    #[test]
    fn linux_lies_as_xens_builder_lays_it() {
        let layout = Layout::new(&LINUX).unwrap();
        assert_eq!(layout.start_info, 0x4a00);
        assert_eq!(layout.mapped, 0x4c00);
        assert_eq!(layout.tables, (0x4a01, 0x29));
        assert_eq!(layout.stack, 0x4a2a);
        assert_eq!(layout.ramdisk, (0x4c00, 0x213));
        assert_eq!(layout.p2m, (0x4e13, 0x60 + 3));
    }

    #[test]
    fn a_kernel_that_wants_all_mapped_gets_it_below_the_room() {
        let wishes =
            Wishes { base: 0, kernel_end: 0x10, ramdisk: 5, ramdisk_unmapped: false, init_p2m: None, frames: 8192 };
        let layout = Layout::new(&wishes).unwrap();
        assert_eq!(layout.ramdisk, (0x10, 5));
        assert_eq!(layout.p2m, (0x15, 16));
        assert_eq!(layout.start_info, 0x25);
        assert!(layout.stack + ROOM <= layout.mapped && layout.mapped.is_multiple_of(ROUND));
    }

    #[test]
    fn what_does_not_fit_is_refused_with_both_sizes() {
        let wishes = Wishes { frames: 0x4b00, ..LINUX };
        assert!(matches!(Layout::new(&wishes), Err(BuildError::TooLarge { needs, has: 0x4b00 }) if needs > 0x4b00));
    }
}
