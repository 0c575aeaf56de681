//! What a PV kernel finds at its start: the start-info page, and for the first domain the state of the screen.
//!
//! Xen: `public/xen.h`.

use crate::layout::{constants, structs};

/// Length of the kernel's command line in [`StartInfo`], with its terminating zero.
pub const MAX_GUEST_CMDLINE: usize = 1024;

/// What [`StartInfo::magic`] holds for a 64-bit guest, followed by zeros.
pub const START_INFO_MAGIC: &[u8] = b"xen-3.0-x86_64";

constants! {
    header "xen.h";
    /// In [`StartInfo::flags`]: the domain is privileged.
    pub const SIF_PRIVILEGED: u32 = 1 << 0;
    /// In [`StartInfo::flags`]: the domain is the first one.
    pub const SIF_INITDOMAIN: u32 = 1 << 1;
    /// In [`StartInfo::flags`]: `mod_start` is a list of multiboot modules.
    pub const SIF_MULTIBOOT_MOD: u32 = 1 << 2;
    /// In [`StartInfo::flags`]: `mod_start` is a frame number, the module is not mapped.
    pub const SIF_MOD_START_PFN: u32 = 1 << 3;
    /// In [`StartInfo::flags`]: tools understand a virtually mapped frame list.
    pub const SIF_VIRT_P2M_4TOOLS: u32 = 1 << 4;
    /// In [`StartInfo::flags`]: power-management bits of the first domain.
    pub const SIF_PM_MASK: u32 = 0xff << 8;
    /// [`Dom0VgaConsoleInfo::video_type`]: text mode.
    pub const XEN_VGATYPE_TEXT_MODE_3: u8 = 0x03;
    /// [`Dom0VgaConsoleInfo::video_type`]: a VESA linear frame buffer.
    pub const XEN_VGATYPE_VESA_LFB: u8 = 0x23;
    /// [`Dom0VgaConsoleInfo::video_type`]: an EFI linear frame buffer.
    pub const XEN_VGATYPE_EFI_LFB: u8 = 0x70;
}

structs! {
    header "xen.h";

    /// The page that a PV kernel's `rsi` points at when it starts.
    ///
    /// Unions are flattened: the console of an ordinary domain is `console_domu_*`, the first domain reads the same bytes
    /// as [`StartInfo::console_dom0`].
    pub struct StartInfo ["struct start_info"] {
        /// [`START_INFO_MAGIC`].
        pub magic: [u8; 32],
        /// Pages that belong to the domain.
        pub nr_pages: u64,
        /// Machine address of the shared page.
        pub shared_info: u64,
        /// `SIF_*`.
        pub flags: u32,
        /// Padding.
        pub _pad0: u32,
        /// Machine frame of the xenstore ring.
        pub store_mfn: u64,
        /// Event channel of xenstore.
        pub store_evtchn: u32,
        /// Padding.
        pub _pad1: u32,
        /// Machine frame of the console ring.
        pub console_domu_mfn ["console.domU.mfn"]: u64,
        /// Event channel of the console.
        pub console_domu_evtchn ["console.domU.evtchn"]: u32,
        /// Padding.
        pub _pad2: u32,
        /// Address of the initial L4 table.
        pub pt_base: u64,
        /// Number of frames of the initial page tables.
        pub nr_pt_frames: u64,
        /// Address of the list of machine frames, one `u64` a page.
        pub mfn_list: u64,
        /// Address of the module, or its frame with `SIF_MOD_START_PFN`.
        pub mod_start: u64,
        /// Length of the module in bytes.
        pub mod_len: u64,
        /// The command line, ending in zero.
        pub cmd_line: [u8; MAX_GUEST_CMDLINE],
        /// First frame of the list of machine frames, where that lies outside the initial mapping.
        pub first_p2m_pfn: u64,
        /// Number of frames of that list, its page tables included.
        pub nr_p2m_frames: u64,
    }

    /// A multiboot module as the first domain may find it.
    pub struct MultibootModList ["struct xen_multiboot_mod_list"] {
        /// Address of the first byte.
        pub mod_start: u32,
        /// Address after the last byte.
        pub mod_end: u32,
        /// Address of the command line.
        pub cmdline: u32,
        /// Zero.
        pub pad: u32,
    }

    /// The screen, for the first domain. `u` holds a [`VgaTextMode3`] or a [`VgaVesaLfb`].
    pub struct Dom0VgaConsoleInfo ["struct dom0_vga_console_info"] {
        /// `XEN_VGATYPE_*`.
        pub video_type: u8,
        /// Padding.
        pub _pad0: [u8; 3],
        /// Depends on `video_type`.
        pub u: [u32; 9],
    }

    /// A text screen.
    pub struct VgaTextMode3 ["struct dom0_vga_console_info.u.text_mode_3"] {
        /// Height of a character in scan lines.
        pub font_height: u16,
        /// Cursor's column.
        pub cursor_x: u16,
        /// Cursor's row.
        pub cursor_y: u16,
        /// Number of rows.
        pub rows: u16,
        /// Number of columns.
        pub columns: u16,
    }

    /// A linear frame buffer.
    pub struct VgaVesaLfb ["struct dom0_vga_console_info.u.vesa_lfb"] {
        /// Pixels a line.
        pub width: u16,
        /// Lines.
        pub height: u16,
        /// Bytes from a line to the next.
        pub bytes_per_line: u16,
        /// Bits a pixel.
        pub bits_per_pixel: u16,
        /// Machine address, low word.
        pub lfb_base: u32,
        /// Size in units of 64 KiB.
        pub lfb_size: u32,
        /// First bit of red.
        pub red_pos: u8,
        /// Bits of red.
        pub red_size: u8,
        /// First bit of green.
        pub green_pos: u8,
        /// Bits of green.
        pub green_size: u8,
        /// First bit of blue.
        pub blue_pos: u8,
        /// Bits of blue.
        pub blue_size: u8,
        /// First reserved bit.
        pub rsvd_pos: u8,
        /// Reserved bits.
        pub rsvd_size: u8,
        /// VESA capabilities.
        pub gbl_caps: u32,
        /// VESA mode attributes.
        pub mode_attrs: u16,
        /// Zero.
        pub pad: u16,
        /// Machine address, high word.
        pub ext_lfb_base: u32,
    }
}

bitflags::bitflags! {
    /// [`StartInfo::flags`].
    ///
    /// Xen: `SIF_*` in `public/xen.h`.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
    pub struct StartFlags: u32 {
        /// The domain is privileged.
        const PRIVILEGED = SIF_PRIVILEGED;
        /// The domain is the first one.
        const INITDOMAIN = SIF_INITDOMAIN;
        /// `mod_start` is a list of multiboot modules.
        const MULTIBOOT_MOD = SIF_MULTIBOOT_MOD;
        /// `mod_start` is a frame number.
        const MOD_START_PFN = SIF_MOD_START_PFN;
        /// Tools understand a virtually mapped frame list.
        const VIRT_P2M_4TOOLS = SIF_VIRT_P2M_4TOOLS;
    }
}

impl StartInfo {
    /// Whether the magic is the one of a 64-bit PV guest.
    pub fn has_magic(&self) -> bool {
        self.magic.starts_with(b"xen-3.")
    }

    /// Where the first domain finds [`Dom0VgaConsoleInfo`]: offset in this page and size, both in bytes.
    ///
    /// Xen: `console.dom0.info_off`, `console.dom0.info_size`.
    pub const fn console_dom0(&self) -> (u32, u32) {
        (self.console_domu_mfn as u32, (self.console_domu_mfn >> 32) as u32)
    }

    /// Sets what [`StartInfo::console_dom0`] tells.
    pub const fn set_console_dom0(&mut self, info_off: u32, info_size: u32) {
        self.console_domu_mfn = (info_size as u64) << 32 | info_off as u64;
    }

    /// The command line up to its terminating zero.
    pub fn command_line(&self) -> &[u8] {
        let end = self.cmd_line.iter().position(|&byte| byte == 0);
        &self.cmd_line[..end.unwrap_or(MAX_GUEST_CMDLINE)]
    }
}
