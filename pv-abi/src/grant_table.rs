//! Grant tables: a domain lets another one map, copy or take a page of its memory.
//!
//! A domain writes an entry of its own table (a word that the hypervisor reads and marks); the other domain names it by its
//! index. `HYPERVISOR_grant_table_op(cmd, array, count)`: each element carries its own `status`, a `GNTST_*`; the call
//! itself fails only where the array cannot be read or the command does not exist.
//!
//! Xen: `public/grant_table.h`.

use core::sync::atomic::{AtomicU16, AtomicU32};

use crate::layout::{atomics, constants, structs};

constants! {
    header "grant_table.h";

    /// Entries at the start of the table that the toolstack may fill.
    pub const GNTTAB_NR_RESERVED_ENTRIES: u32 = 8;
    /// Entry of the console ring.
    pub const GNTTAB_RESERVED_CONSOLE: u32 = 0;
    /// Entry of the xenstore ring.
    pub const GNTTAB_RESERVED_XENSTORE: u32 = 1;

    /// Entry type: grants nothing.
    pub const GTF_INVALID [GTF_invalid]: u16 = 0;
    /// Entry type: `domid` may map or copy `frame`.
    pub const GTF_PERMIT_ACCESS [GTF_permit_access]: u16 = 1;
    /// Entry type: `domid` may give a page, which then becomes ours.
    pub const GTF_ACCEPT_TRANSFER [GTF_accept_transfer]: u16 = 2;
    /// Entry type: passes on a grant of another domain (version 2).
    pub const GTF_TRANSITIVE [GTF_transitive]: u16 = 3;
    /// Mask of the entry type.
    pub const GTF_TYPE_MASK [GTF_type_mask]: u16 = 3;
    /// Access is read-only. Guest writes.
    pub const GTF_READONLY [GTF_readonly]: u16 = 1 << 2;
    /// Somebody reads. Hypervisor writes.
    pub const GTF_READING [GTF_reading]: u16 = 1 << 3;
    /// Somebody may write. Hypervisor writes.
    pub const GTF_WRITING [GTF_writing]: u16 = 1 << 4;
    /// Cache attribute of the mapping.
    pub const GTF_PWT: u16 = 1 << 5;
    /// Cache attribute of the mapping.
    pub const GTF_PCD: u16 = 1 << 6;
    /// Cache attribute of the mapping.
    pub const GTF_PAT: u16 = 1 << 7;
    /// Only part of the page may be copied (version 2).
    pub const GTF_SUB_PAGE [GTF_sub_page]: u16 = 1 << 8;
    /// Transfer entries: a transfer has begun. Hypervisor writes.
    pub const GTF_TRANSFER_COMMITTED [GTF_transfer_committed]: u16 = 1 << 2;
    /// Transfer entries: the frame number is in `frame`. Hypervisor writes.
    pub const GTF_TRANSFER_COMPLETED [GTF_transfer_completed]: u16 = 1 << 3;

    /// Maps granted pages; see [`GnttabMapGrantRef`].
    pub const GNTTABOP_MAP_GRANT_REF [GNTTABOP_map_grant_ref]: u32 = 0;
    /// Unmaps them; see [`GnttabUnmapGrantRef`].
    pub const GNTTABOP_UNMAP_GRANT_REF [GNTTABOP_unmap_grant_ref]: u32 = 1;
    /// Makes the table as large as asked and tells its frames; see [`GnttabSetupTable`].
    pub const GNTTABOP_SETUP_TABLE [GNTTABOP_setup_table]: u32 = 2;
    /// Prints the table on the hypervisor's console; see [`GnttabDumpTable`].
    pub const GNTTABOP_DUMP_TABLE [GNTTABOP_dump_table]: u32 = 3;
    /// Gives pages away; see [`GnttabTransfer`].
    pub const GNTTABOP_TRANSFER [GNTTABOP_transfer]: u32 = 4;
    /// Copies between granted or own pages; see [`GnttabCopy`].
    pub const GNTTABOP_COPY [GNTTABOP_copy]: u32 = 5;
    /// Tells the table's size; see [`GnttabQuerySize`].
    pub const GNTTABOP_QUERY_SIZE [GNTTABOP_query_size]: u32 = 6;
    /// Unmaps and puts another page in place; see [`GnttabUnmapAndReplace`].
    pub const GNTTABOP_UNMAP_AND_REPLACE [GNTTABOP_unmap_and_replace]: u32 = 7;
    /// Chooses version 1 or 2; see [`GnttabSetVersion`].
    pub const GNTTABOP_SET_VERSION [GNTTABOP_set_version]: u32 = 8;
    /// Tells the frames of the status words of version 2; see [`GnttabGetStatusFrames`].
    pub const GNTTABOP_GET_STATUS_FRAMES [GNTTABOP_get_status_frames]: u32 = 9;
    /// Tells the version; see [`GnttabGetVersion`].
    pub const GNTTABOP_GET_VERSION [GNTTABOP_get_version]: u32 = 10;
    /// Exchanges two entries; see [`GnttabSwapGrantRef`].
    pub const GNTTABOP_SWAP_GRANT_REF [GNTTABOP_swap_grant_ref]: u32 = 11;
    /// Writes back or drops cache lines; see [`GnttabCacheFlush`].
    pub const GNTTABOP_CACHE_FLUSH [GNTTABOP_cache_flush]: u32 = 12;

    /// [`GnttabCopy::flags`]: the source is a grant reference.
    pub const GNTCOPY_SOURCE_GREF [GNTCOPY_source_gref]: u16 = 1 << 0;
    /// [`GnttabCopy::flags`]: the destination is a grant reference.
    pub const GNTCOPY_DEST_GREF [GNTCOPY_dest_gref]: u16 = 1 << 1;

    /// [`GnttabCacheFlush::op`]: write back.
    pub const GNTTAB_CACHE_CLEAN: u32 = 1 << 0;
    /// [`GnttabCacheFlush::op`]: drop.
    pub const GNTTAB_CACHE_INVAL: u32 = 1 << 1;
    /// [`GnttabCacheFlush::op`]: the page is named by grant reference.
    pub const GNTTAB_CACHE_SOURCE_GREF: u32 = 1 << 31;

    /// Map for access by devices.
    pub const GNTMAP_DEVICE_MAP [GNTMAP_device_map]: u32 = 1 << 0;
    /// Map for access by the CPU.
    pub const GNTMAP_HOST_MAP [GNTMAP_host_map]: u32 = 1 << 1;
    /// Map read-only.
    pub const GNTMAP_READONLY [GNTMAP_readonly]: u32 = 1 << 2;
    /// Map for user mode too.
    pub const GNTMAP_APPLICATION_MAP [GNTMAP_application_map]: u32 = 1 << 3;
    /// `host_addr` is the machine address of the page-table entry to write, not an address to map at.
    pub const GNTMAP_CONTAINS_PTE [GNTMAP_contains_pte]: u32 = 1 << 4;
    /// Mask of the bits that go to the entry's bits for the guest's own use.
    pub const GNTMAP_GUEST_AVAIL_MASK [GNTMAP_guest_avail_mask]: u32 = 0xffff_0000;

    /// Done.
    pub const GNTST_OKAY [GNTST_okay]: i16 = 0;
    /// An error without a number of its own.
    pub const GNTST_GENERAL_ERROR [GNTST_general_error]: i16 = -1;
    /// No such domain.
    pub const GNTST_BAD_DOMAIN [GNTST_bad_domain]: i16 = -2;
    /// No such grant, or not for this domain.
    pub const GNTST_BAD_GNTREF [GNTST_bad_gntref]: i16 = -3;
    /// No such mapping.
    pub const GNTST_BAD_HANDLE [GNTST_bad_handle]: i16 = -4;
    /// The address to map at is not usable.
    pub const GNTST_BAD_VIRT_ADDR [GNTST_bad_virt_addr]: i16 = -5;
    /// The device address is not usable.
    pub const GNTST_BAD_DEV_ADDR [GNTST_bad_dev_addr]: i16 = -6;
    /// No room in the IOMMU.
    pub const GNTST_NO_DEVICE_SPACE [GNTST_no_device_space]: i16 = -7;
    /// Not permitted.
    pub const GNTST_PERMISSION_DENIED [GNTST_permission_denied]: i16 = -8;
    /// The page given is not usable.
    pub const GNTST_BAD_PAGE [GNTST_bad_page]: i16 = -9;
    /// The copy would cross a page.
    pub const GNTST_BAD_COPY_ARG [GNTST_bad_copy_arg]: i16 = -10;
    /// The transferred page has too large an address.
    pub const GNTST_ADDRESS_TOO_BIG [GNTST_address_too_big]: i16 = -11;
    /// Not done; try again.
    pub const GNTST_EAGAIN [GNTST_eagain]: i16 = -12;
    /// No room, for example for handles.
    pub const GNTST_NO_SPACE [GNTST_no_space]: i16 = -13;
}

structs! {
    header "grant_table.h";

    /// An entry of version 1. The granting guest writes `frame`, then `domid`, then `flags`, with barriers between.
    pub struct GrantEntryV1 ["struct grant_entry_v1"] {
        /// `GTF_*`. Guest writes type and `READONLY`; hypervisor sets and clears `READING` and `WRITING`.
        pub flags: u16,
        /// The domain it is for. Guest writes.
        pub domid: u16,
        /// The frame (PV: machine frame). Guest writes; after a transfer the hypervisor.
        pub frame: u32,
    }

    /// How every entry of version 2 begins.
    pub struct GrantEntryHeader ["struct grant_entry_header"] {
        /// `GTF_*`. Guest writes.
        pub flags: u16,
        /// The domain it is for. Guest writes.
        pub domid: u16,
    }

    /// An entry of version 2 as bytes; its form follows from the flags.
    #[repr(align(8))]
    pub struct GrantEntryV2 ["union grant_entry_v2"] {
        /// Flags and domain.
        pub hdr: GrantEntryHeader,
        /// Depends on the form: [`GrantEntryV2FullPage`], [`GrantEntryV2SubPage`], [`GrantEntryV2Transitive`].
        pub _pad0: [u32; 3],
    }

    /// An entry of version 2 for a whole page.
    pub struct GrantEntryV2FullPage ["union grant_entry_v2.full_page"] {
        /// Flags and domain.
        pub hdr: GrantEntryHeader,
        /// Zero.
        pub pad0: u32,
        /// The frame (PV: machine frame).
        pub frame: u64,
    }

    /// An entry of version 2 for part of a page (`GTF_SUB_PAGE`); for copies only.
    pub struct GrantEntryV2SubPage ["union grant_entry_v2.sub_page"] {
        /// Flags and domain.
        pub hdr: GrantEntryHeader,
        /// First byte.
        pub page_off: u16,
        /// Number of bytes.
        pub length: u16,
        /// The frame (PV: machine frame).
        pub frame: u64,
    }

    /// An entry of version 2 that passes on a grant made to us (`GTF_TRANSITIVE`); for copies only.
    pub struct GrantEntryV2Transitive ["union grant_entry_v2.transitive"] {
        /// Flags and domain.
        pub hdr: GrantEntryHeader,
        /// The domain that granted to us.
        pub trans_domid: u16,
        /// Zero.
        pub pad0: u16,
        /// Its entry.
        pub gref: u32,
    }

    /// `GNTTABOP_map_grant_ref`: maps a page that another domain granted.
    pub struct GnttabMapGrantRef ["struct gnttab_map_grant_ref"] {
        /// In: where to map; see `GNTMAP_CONTAINS_PTE`.
        pub host_addr: u64,
        /// In: `GNTMAP_*`.
        pub flags: u32,
        /// In: the entry.
        pub ref_ ["ref"]: u32,
        /// In: the domain that granted.
        pub dom: u16,
        /// Out: `GNTST_*`.
        pub status: i16,
        /// Out: names the mapping.
        pub handle: u32,
        /// Out: the page's machine address.
        pub dev_bus_addr: u64,
    }

    /// `GNTTABOP_unmap_grant_ref`: ends a mapping.
    pub struct GnttabUnmapGrantRef ["struct gnttab_unmap_grant_ref"] {
        /// In: where it is mapped, as it was given to map; 0 leaves the CPU's mapping.
        pub host_addr: u64,
        /// In: the device's address; 0 leaves the device's mapping.
        pub dev_bus_addr: u64,
        /// In: the mapping.
        pub handle: u32,
        /// Out: `GNTST_*`.
        pub status: i16,
        /// Padding.
        pub _pad0: u16,
    }

    /// `GNTTABOP_setup_table`: makes the table at least `nr_frames` large and tells its frames.
    pub struct GnttabSetupTable ["struct gnttab_setup_table"] {
        /// In: the domain.
        pub dom: u16,
        /// Padding.
        pub _pad0: u16,
        /// In: number of frames.
        pub nr_frames: u32,
        /// Out: `GNTST_*`.
        pub status: i16,
        /// Padding.
        pub _pad1: [u16; 3],
        /// In: address of an array of `u64`. Out: the frames, in it.
        pub frame_list: u64,
    }

    /// `GNTTABOP_dump_table`: prints a domain's table.
    pub struct GnttabDumpTable ["struct gnttab_dump_table"] {
        /// In: the domain.
        pub dom: u16,
        /// Out: `GNTST_*`.
        pub status: i16,
    }

    /// `GNTTABOP_transfer`: gives a page to a domain that accepts one.
    pub struct GnttabTransfer ["struct gnttab_transfer"] {
        /// In: the page.
        pub mfn: u64,
        /// In: the domain that gets it.
        pub domid: u16,
        /// Padding.
        pub _pad0: u16,
        /// In: its entry of type `GTF_ACCEPT_TRANSFER`.
        pub ref_ ["ref"]: u32,
        /// Out: `GNTST_*`.
        pub status: i16,
        /// Padding.
        pub _pad1: [u16; 3],
    }

    /// One end of a copy.
    pub struct GnttabCopyPtr ["struct gnttab_copy_ptr"] {
        /// A grant reference (32 bits) or a frame of the domain itself.
        pub u: u64,
        /// The domain whose grant or frame it is.
        pub domid: u16,
        /// First byte in the page.
        pub offset: u16,
        /// Padding.
        pub _pad0: u32,
    }

    /// `GNTTABOP_copy`: copies bytes within one page to within one page.
    pub struct GnttabCopy ["struct gnttab_copy"] {
        /// In: from where.
        pub source: GnttabCopyPtr,
        /// In: to where.
        pub dest: GnttabCopyPtr,
        /// In: number of bytes.
        pub len: u16,
        /// In: `GNTCOPY_*`.
        pub flags: u16,
        /// Out: `GNTST_*`.
        pub status: i16,
        /// Padding.
        pub _pad0: u16,
    }

    /// `GNTTABOP_query_size`: tells how large the table is and may become.
    pub struct GnttabQuerySize ["struct gnttab_query_size"] {
        /// In: the domain.
        pub dom: u16,
        /// Padding.
        pub _pad0: u16,
        /// Out: frames now.
        pub nr_frames: u32,
        /// Out: frames at most.
        pub max_nr_frames: u32,
        /// Out: `GNTST_*`.
        pub status: i16,
        /// Padding.
        pub _pad1: u16,
    }

    /// `GNTTABOP_unmap_and_replace`: ends a mapping and moves the mapping at `new_addr` to its place.
    pub struct GnttabUnmapAndReplace ["struct gnttab_unmap_and_replace"] {
        /// In: where it is mapped.
        pub host_addr: u64,
        /// In: what is mapped here is moved to `host_addr`.
        pub new_addr: u64,
        /// In: the mapping.
        pub handle: u32,
        /// Out: `GNTST_*`.
        pub status: i16,
        /// Padding.
        pub _pad0: u16,
    }

    /// `GNTTABOP_set_version`: chooses the form of entries; only while none but the reserved are in use.
    pub struct GnttabSetVersion ["struct gnttab_set_version"] {
        /// In: 1 or 2. Out: the version in use.
        pub version: u32,
    }

    /// `GNTTABOP_get_status_frames`: tells the frames of the status words of version 2.
    pub struct GnttabGetStatusFrames ["struct gnttab_get_status_frames"] {
        /// In: number of frames.
        pub nr_frames: u32,
        /// In: the domain.
        pub dom: u16,
        /// Out: `GNTST_*`.
        pub status: i16,
        /// In: address of an array of `u64`. Out: the frames, in it.
        pub frame_list: u64,
    }

    /// `GNTTABOP_get_version`: tells the version a domain uses.
    pub struct GnttabGetVersion ["struct gnttab_get_version"] {
        /// In: the domain.
        pub dom: u16,
        /// Zero.
        pub pad: u16,
        /// Out: 1 or 2.
        pub version: u32,
    }

    /// `GNTTABOP_swap_grant_ref`: exchanges the contents of two of one's own entries.
    pub struct GnttabSwapGrantRef ["struct gnttab_swap_grant_ref"] {
        /// In: one.
        pub ref_a: u32,
        /// In: the other.
        pub ref_b: u32,
        /// Out: `GNTST_*`.
        pub status: i16,
        /// Padding.
        pub _pad0: u16,
    }

    /// `GNTTABOP_cache_flush`: writes back or drops cache lines of a page.
    pub struct GnttabCacheFlush ["struct gnttab_cache_flush"] {
        /// In: device address or grant reference (32 bits).
        pub a: u64,
        /// In: first byte in the page.
        pub offset: u16,
        /// In: number of bytes; 0 and offset 0 stand for the page.
        pub length: u16,
        /// In: `GNTTAB_CACHE_*`.
        pub op: u32,
    }
}

/// [`GrantEntryV1`] as both sides see it: flags and domain in one word, so that the hypervisor can mark the entry in use and
/// check whom it is for in one compare-and-exchange.
///
/// Xen: `struct grant_entry_v1` in `public/grant_table.h`.
#[repr(C)]
#[derive(Debug, Default)]
pub struct GrantEntryV1Atomic {
    /// Bits 0–15 `GTF_*`, bits 16–31 the domain. Guest writes; hypervisor sets and clears `READING` and `WRITING`.
    pub flags_and_domid: AtomicU32,
    /// The frame. Guest writes before the other word.
    pub frame: AtomicU32,
}

atomics! {
    GrantEntryV1Atomic ["struct grant_entry_v1"] { frame }
}

const _: () = {
    assert!(size_of::<GrantEntryV1>() == size_of::<GrantEntryV1Atomic>());
    assert!(core::mem::offset_of!(GrantEntryV1, frame) == core::mem::offset_of!(GrantEntryV1Atomic, frame));
};

/// A status word of version 2: `GTF_READING` and `GTF_WRITING`. Hypervisor writes.
///
/// Xen: `grant_status_t` in `public/grant_table.h`.
pub type GrantStatusAtomic = AtomicU16;

/// Entries of version 1 in a page.
pub const GRANTS_PER_PAGE_V1: usize = crate::PAGE_SIZE / size_of::<GrantEntryV1>();

/// Entries of version 2 in a page.
pub const GRANTS_PER_PAGE_V2: usize = crate::PAGE_SIZE / size_of::<GrantEntryV2>();

bitflags::bitflags! {
    /// The flags of a grant entry, beside its type.
    ///
    /// Xen: `GTF_*` in `public/grant_table.h`.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
    pub struct GrantFlags: u16 {
        /// The type `GTF_PERMIT_ACCESS`; the type is a number of two bits, not two flags.
        const PERMIT_ACCESS = GTF_PERMIT_ACCESS;
        /// Access is read-only.
        const READONLY = GTF_READONLY;
        /// Somebody reads.
        const READING = GTF_READING;
        /// Somebody may write.
        const WRITING = GTF_WRITING;
        /// Cache attribute.
        const PWT = GTF_PWT;
        /// Cache attribute.
        const PCD = GTF_PCD;
        /// Cache attribute.
        const PAT = GTF_PAT;
        /// Part of the page only.
        const SUB_PAGE = GTF_SUB_PAGE;
    }

    /// How to map a granted page.
    ///
    /// Xen: `GNTMAP_*` in `public/grant_table.h`.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
    pub struct MapFlags: u32 {
        /// For devices.
        const DEVICE_MAP = GNTMAP_DEVICE_MAP;
        /// For the CPU.
        const HOST_MAP = GNTMAP_HOST_MAP;
        /// Read-only.
        const READONLY = GNTMAP_READONLY;
        /// For user mode too.
        const APPLICATION_MAP = GNTMAP_APPLICATION_MAP;
        /// `host_addr` is the machine address of an entry.
        const CONTAINS_PTE = GNTMAP_CONTAINS_PTE;
    }

    /// Which ends of a copy are grant references.
    ///
    /// Xen: `GNTCOPY_*` in `public/grant_table.h`.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
    pub struct CopyFlags: u16 {
        /// The source.
        const SOURCE_GREF = GNTCOPY_SOURCE_GREF;
        /// The destination.
        const DEST_GREF = GNTCOPY_DEST_GREF;
    }
}

/// What a `GNTST_*` means, in words.
pub const fn status_message(status: i16) -> &'static str {
    match status {
        GNTST_OKAY => "okay",
        GNTST_GENERAL_ERROR => "undefined error",
        GNTST_BAD_DOMAIN => "unrecognised domain id",
        GNTST_BAD_GNTREF => "invalid grant reference",
        GNTST_BAD_HANDLE => "invalid mapping handle",
        GNTST_BAD_VIRT_ADDR => "invalid virtual address",
        GNTST_BAD_DEV_ADDR => "invalid device address",
        GNTST_NO_DEVICE_SPACE => "no spare translation slot in the I/O MMU",
        GNTST_PERMISSION_DENIED => "permission denied",
        GNTST_BAD_PAGE => "bad page",
        GNTST_BAD_COPY_ARG => "copy arguments cross page boundary",
        GNTST_ADDRESS_TOO_BIG => "page address size too large",
        GNTST_EAGAIN => "operation not done; try again",
        GNTST_NO_SPACE => "out of space",
        _ => "unknown status",
    }
}
