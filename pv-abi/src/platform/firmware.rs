//! What the firmware said at boot, and calls of EFI.
//!
//! Xen: `public/platform.h`.

use crate::layout::{constants, structs};
use crate::payload::payload;

constants! {
    header "platform.h";
    /// `firmware_info`: a disk, as int 13h tells.
    pub const XEN_FW_DISK_INFO: u32 = 1;
    /// `firmware_info`: the signature of a disk's boot record.
    pub const XEN_FW_DISK_MBR_SIGNATURE: u32 = 2;
    /// `firmware_info`: the display, as int 10h tells.
    pub const XEN_FW_VBEDDC_INFO: u32 = 3;
    /// `firmware_info`: EFI; the index says what of it.
    pub const XEN_FW_EFI_INFO: u32 = 4;
    /// `firmware_info`: shift keys, as int 16h tells.
    pub const XEN_FW_KBD_SHIFT_FLAGS: u32 = 5;
    /// EFI: version (`u32`).
    pub const XEN_FW_EFI_VERSION: u32 = 0;
    /// EFI: the configuration table.
    pub const XEN_FW_EFI_CONFIG_TABLE: u32 = 1;
    /// EFI: the maker.
    pub const XEN_FW_EFI_VENDOR: u32 = 2;
    /// EFI: the memory around an address.
    pub const XEN_FW_EFI_MEM_INFO: u32 = 3;
    /// EFI: version of the runtime services (`u32`).
    pub const XEN_FW_EFI_RT_VERSION: u32 = 4;
    /// EFI: the ROM of a device.
    pub const XEN_FW_EFI_PCI_ROM: u32 = 5;
    /// EFI: Apple's properties.
    pub const XEN_FW_EFI_APPLE_PROPERTIES: u32 = 6;

    /// EFI call: reads the clock.
    pub const XEN_EFI_GET_TIME [XEN_EFI_get_time]: u32 = 1;
    /// EFI call: sets the clock.
    pub const XEN_EFI_SET_TIME [XEN_EFI_set_time]: u32 = 2;
    /// EFI call: reads the alarm.
    pub const XEN_EFI_GET_WAKEUP_TIME [XEN_EFI_get_wakeup_time]: u32 = 3;
    /// EFI call: sets the alarm.
    pub const XEN_EFI_SET_WAKEUP_TIME [XEN_EFI_set_wakeup_time]: u32 = 4;
    /// EFI call: counts up.
    pub const XEN_EFI_GET_NEXT_HIGH_MONOTONIC_COUNT [XEN_EFI_get_next_high_monotonic_count]: u32 = 5;
    /// EFI call: reads a variable.
    pub const XEN_EFI_GET_VARIABLE [XEN_EFI_get_variable]: u32 = 6;
    /// EFI call: sets a variable.
    pub const XEN_EFI_SET_VARIABLE [XEN_EFI_set_variable]: u32 = 7;
    /// EFI call: names the next variable.
    pub const XEN_EFI_GET_NEXT_VARIABLE_NAME [XEN_EFI_get_next_variable_name]: u32 = 8;
    /// EFI call: tells the room for variables.
    pub const XEN_EFI_QUERY_VARIABLE_INFO [XEN_EFI_query_variable_info]: u32 = 9;
    /// EFI call: tells whether it would take a capsule.
    pub const XEN_EFI_QUERY_CAPSULE_CAPABILITIES [XEN_EFI_query_capsule_capabilities]: u32 = 10;
    /// EFI call: gives a capsule.
    pub const XEN_EFI_UPDATE_CAPSULE [XEN_EFI_update_capsule]: u32 = 11;
    /// EFI clock: setting it clears the nanoseconds.
    pub const XEN_EFI_GET_TIME_SET_CLEARS_NS: u32 = 1;
    /// EFI alarm: is on.
    pub const XEN_EFI_GET_WAKEUP_TIME_ENABLED: u32 = 1;
    /// EFI alarm: has rung.
    pub const XEN_EFI_GET_WAKEUP_TIME_PENDING: u32 = 2;
    /// EFI alarm: switches on.
    pub const XEN_EFI_SET_WAKEUP_TIME_ENABLE: u32 = 1;
    /// EFI alarm: switches on without setting it.
    pub const XEN_EFI_SET_WAKEUP_TIME_ENABLE_ONLY: u32 = 2;
    /// EFI variable: survives.
    pub const XEN_EFI_VARIABLE_NON_VOLATILE: u32 = 1;
    /// EFI variable: seen at boot.
    pub const XEN_EFI_VARIABLE_BOOTSERVICE_ACCESS: u32 = 2;
    /// EFI variable: seen at run time.
    pub const XEN_EFI_VARIABLE_RUNTIME_ACCESS: u32 = 4;
    /// EFI room for variables: as it was at boot.
    pub const XEN_EFI_VARINFO_BOOT_SNAPSHOT: u32 = 1;
}

structs! {
    header "platform.h";

    /// A disk, as int 13h tells.
    pub struct XenpfFirmwareInfoDiskInfo ["struct xenpf_firmware_info.u.disk_info"] {
        /// Out: its number.
        pub device: u8,
        /// Out: major version of the extensions.
        pub version: u8,
        /// Out: which extensions.
        pub interface_support: u16,
        /// Out: the highest cylinder.
        pub legacy_max_cylinder: u16,
        /// Out: the highest head.
        pub legacy_max_head: u8,
        /// Out: the highest sector.
        pub legacy_sectors_per_track: u8,
        /// In: address of a buffer for the extensions' parameters; its first `u16` is its size.
        pub edd_params: u64,
    }

    /// The signature of a disk's boot record.
    pub struct XenpfFirmwareInfoDiskMbrSignature ["struct xenpf_firmware_info.u.disk_mbr_signature"] {
        /// Out: the disk's number.
        pub device: u8,
        /// Padding.
        pub _pad0: [u8; 3],
        /// Out: the signature.
        pub mbr_signature: u32,
    }

    /// The display, as int 10h tells.
    pub struct XenpfFirmwareInfoVbeddcInfo ["struct xenpf_firmware_info.u.vbeddc_info"] {
        /// Out: what it can do.
        pub capabilities: u8,
        /// Out: seconds to fetch a block.
        pub edid_transfer_time: u8,
        /// Padding.
        pub _pad0: [u8; 6],
        /// In: address of 128 bytes.
        pub edid: u64,
    }

    /// EFI's configuration table.
    pub struct XenpfEfiInfoCfg ["union xenpf_efi_info.cfg"] {
        /// Out: machine address.
        pub addr: u64,
        /// Out: number of entries.
        pub nent: u32,
        /// Padding.
        pub _pad0: u32,
    }

    /// EFI's maker.
    pub struct XenpfEfiInfoVendor ["union xenpf_efi_info.vendor"] {
        /// Out: revision.
        pub revision: u32,
        /// In: bytes of the buffer.
        pub bufsz: u32,
        /// In: address of the buffer, UTF-16.
        pub name: u64,
    }

    /// EFI's memory around an address.
    pub struct XenpfEfiInfoMem ["union xenpf_efi_info.mem"] {
        /// In: machine address. Out: its region.
        pub addr: u64,
        /// In and out: bytes.
        pub size: u64,
        /// Out: attributes.
        pub attr: u64,
        /// Out: type.
        pub type_ ["type"]: u32,
        /// Padding.
        pub _pad0: u32,
    }

    /// The ROM of a device, as EFI has it.
    pub struct XenpfEfiInfoPciRom ["union xenpf_efi_info.pci_rom"] {
        /// In: segment.
        pub segment: u16,
        /// In: bus.
        pub bus: u8,
        /// In: device × 8 + function.
        pub devfn: u8,
        /// In: maker.
        pub vendor: u16,
        /// In: device.
        pub devid: u16,
        /// Out: machine address.
        pub address: u64,
        /// Out: bytes.
        pub size: u64,
    }

    /// Apple's properties.
    pub struct XenpfEfiInfoAppleProperties ["union xenpf_efi_info.apple_properties"] {
        /// Out: machine address.
        pub address: u64,
        /// Out: bytes.
        pub size: u64,
    }

    /// `XENPF_firmware_info`: what the firmware said. `u` is the struct of the type, or a plain `u32` or `u8`.
    #[repr(align(8))]
    pub struct XenpfFirmwareInfo ["struct xenpf_firmware_info"] {
        /// In: `XEN_FW_*`.
        pub type_ ["type"]: u32,
        /// In: which of that type.
        pub index: u32,
        /// Out: the answer.
        pub u: [u8; 32],
    }

    /// A time, as EFI has it.
    pub struct XenpfEfiTime ["struct xenpf_efi_time"] {
        /// Year.
        pub year: u16,
        /// Month, from 1.
        pub month: u8,
        /// Day, from 1.
        pub day: u8,
        /// Hour.
        pub hour: u8,
        /// Minute.
        pub min: u8,
        /// Second.
        pub sec: u8,
        /// Padding.
        pub _pad0: u8,
        /// Nanosecond.
        pub ns: u32,
        /// Minutes from UTC; 2047 for not said.
        pub tz: i16,
        /// Daylight saving.
        pub daylight: u8,
        /// Padding.
        pub _pad1: u8,
    }

    /// A GUID, as EFI has it.
    pub struct XenpfEfiGuid ["struct xenpf_efi_guid"] {
        /// First part.
        pub data1: u32,
        /// Second part.
        pub data2: u16,
        /// Third part.
        pub data3: u16,
        /// The rest.
        pub data4: [u8; 8],
    }

    /// EFI's clock.
    pub struct XenpfEfiGetTime ["struct xenpf_efi_runtime_call.u.get_time"] {
        /// Out: the time.
        pub time: XenpfEfiTime,
        /// Out: ticks a second.
        pub resolution: u32,
        /// Out: error in millionths of a million.
        pub accuracy: u32,
    }

    /// A variable of EFI, to read or to set.
    pub struct XenpfEfiVariable ["struct xenpf_efi_runtime_call.u.get_variable"] {
        /// In: address of its name, UTF-16.
        pub name: u64,
        /// In: bytes of the buffer. Out: bytes of the value.
        pub size: u64,
        /// In: address of the buffer.
        pub data: u64,
        /// In: its name space.
        pub vendor_guid: XenpfEfiGuid,
    }

    /// The next variable of EFI.
    pub struct XenpfEfiGetNextVariableName ["struct xenpf_efi_runtime_call.u.get_next_variable_name"] {
        /// In: bytes of the buffer. Out: bytes of the name.
        pub size: u64,
        /// In: address of the last name. Out: the next one there, UTF-16.
        pub name: u64,
        /// In and out: its name space.
        pub vendor_guid: XenpfEfiGuid,
    }

    /// The room for variables of EFI.
    pub struct XenpfEfiQueryVariableInfo ["struct xenpf_efi_runtime_call.u.query_variable_info"] {
        /// In: attributes.
        pub attr: u32,
        /// Padding.
        pub _pad0: u32,
        /// Out: bytes in all.
        pub max_store_size: u64,
        /// Out: bytes left.
        pub remain_store_size: u64,
        /// Out: bytes of one variable.
        pub max_size: u64,
    }

    /// Whether EFI would take a capsule.
    pub struct XenpfEfiQueryCapsuleCapabilities ["struct xenpf_efi_runtime_call.u.query_capsule_capabilities"] {
        /// In: address of headers.
        pub capsule_header_array: u64,
        /// In: their number.
        pub capsule_count: u64,
        /// Out: bytes it would take.
        pub max_capsule_size: u64,
        /// Out: the reset it needs.
        pub reset_type: u32,
        /// Padding.
        pub _pad0: u32,
    }

    /// A capsule for EFI.
    pub struct XenpfEfiUpdateCapsule ["struct xenpf_efi_runtime_call.u.update_capsule"] {
        /// In: address of headers.
        pub capsule_header_array: u64,
        /// In: their number.
        pub capsule_count: u64,
        /// In: machine address of the list of parts.
        pub sg_list: u64,
    }

    /// `XENPF_efi_runtime_call`: a call of EFI. `u` is the struct of the function.
    #[repr(align(8))]
    pub struct XenpfEfiRuntimeCall ["struct xenpf_efi_runtime_call"] {
        /// In: `XEN_EFI_*`.
        pub function: u32,
        /// In and out: flags of the function; the monotonic count.
        pub misc: u32,
        /// Out: EFI's status.
        pub status: u64,
        /// In and out: by function.
        pub u: [u8; 40],
    }
}

payload!(XenpfFirmwareInfo, 32);
payload!(XenpfEfiRuntimeCall, 40);
