//! An access of a guest that a device model answers.
//!
//! A server of I/O requests has a page with an [`Ioreq`] for each vCPU. The hypervisor fills it in, makes it ready and
//! notifies the port in it; the vCPU waits. The device model takes it, answers in the same place, makes it answered and
//! notifies the port. Both sides order their writes by the state's.
//!
//! Xen: `public/hvm/ioreq.h`.

use crate::layout::{constants, structs};

constants! {
    header "hvm/ioreq.h";
    /// Direction: the guest reads.
    pub const IOREQ_READ: u8 = 1;
    /// Direction: the guest writes.
    pub const IOREQ_WRITE: u8 = 0;

    /// State: nothing is asked.
    pub const STATE_IOREQ_NONE: u8 = 0;
    /// State: asked.
    pub const STATE_IOREQ_READY: u8 = 1;
    /// State: the device model works on it.
    pub const STATE_IOREQ_INPROCESS: u8 = 2;
    /// State: answered.
    pub const STATE_IORESP_READY: u8 = 3;

    /// Type: an I/O port.
    pub const IOREQ_TYPE_PIO: u8 = 0;
    /// Type: memory.
    pub const IOREQ_TYPE_COPY: u8 = 1;
    /// Type: configuration space; see [`Ioreq::addr`].
    pub const IOREQ_TYPE_PCI_CONFIG: u8 = 2;
    /// Type: the guest set its clock.
    pub const IOREQ_TYPE_TIMEOFFSET: u8 = 7;
    /// Type: mappings of the guest's memory are to be forgotten.
    pub const IOREQ_TYPE_INVALIDATE: u8 = 8;

    /// Slots of the ring of buffered requests.
    pub const IOREQ_BUFFER_SLOT_NUM: usize = 511;

    /// ACPI's ports, version 0: events.
    pub const ACPI_PM1A_EVT_BLK_ADDRESS_V0: u16 = 0x1f40;
    /// ACPI's ports, version 0: control.
    pub const ACPI_PM1A_CNT_BLK_ADDRESS_V0: u16 = 0x1f44;
    /// ACPI's ports, version 0: timer.
    pub const ACPI_PM_TMR_BLK_ADDRESS_V0: u16 = 0x1f48;
    /// ACPI's ports, version 1: events.
    pub const ACPI_PM1A_EVT_BLK_ADDRESS_V1: u16 = 0xb000;
    /// ACPI's ports, version 1: control.
    pub const ACPI_PM1A_CNT_BLK_ADDRESS_V1: u16 = 0xb004;
    /// ACPI's ports, version 1: timer.
    pub const ACPI_PM_TMR_BLK_ADDRESS_V1: u16 = 0xb008;
}

structs! {
    header "hvm/ioreq.h";

    /// An access.
    pub struct Ioreq ["struct ioreq"] {
        /// The port or physical address; of a configuration space: segment, bus, device, function and offset in 16, 8, 5, 3
        /// and 32 bits.
        pub addr: u64,
        /// What is written or was read, or the physical address where that is.
        pub data: u64,
        /// How often, `size` bytes each; 1 without a repeat prefix.
        pub count: u32,
        /// 1, 2, 4 or 8 bytes.
        pub size: u32,
        /// The device model's port for this vCPU.
        pub vp_eport: u32,
        /// Padding.
        pub _pad0: u16,
        /// State in bits 0 to 3 and flags: C's bit fields have no offset. See [`Ioreq::state`].
        pub _pad_state: u8,
        /// `IOREQ_TYPE_*`.
        pub type_ ["type"]: u8,
    }
}

/// Bits of the byte that holds an [`Ioreq`]'s state.
mod bits {
    pub(super) const STATE: u8 = 0xf;
    pub(super) const DATA_IS_PTR: u8 = 1 << 4;
    pub(super) const READ: u8 = 1 << 5;
    pub(super) const DOWN: u8 = 1 << 6;
}

impl Ioreq {
    /// `STATE_*`.
    #[must_use]
    pub const fn state(&self) -> u8 {
        self._pad_state & bits::STATE
    }

    /// The same in another state.
    #[must_use]
    pub const fn with_state(mut self, state: u8) -> Self {
        self._pad_state = self._pad_state & !bits::STATE | state & bits::STATE;
        self
    }

    /// Whether [`Ioreq::data`] is an address.
    #[must_use]
    pub const fn data_is_ptr(&self) -> bool {
        self._pad_state & bits::DATA_IS_PTR != 0
    }

    /// Whether the guest reads.
    #[must_use]
    pub const fn is_read(&self) -> bool {
        self._pad_state & bits::READ != 0
    }

    /// Whether a repeated access goes down from the address of its data.
    #[must_use]
    pub const fn goes_down(&self) -> bool {
        self._pad_state & bits::DOWN != 0
    }

    /// The same with these flags: the guest reads, its data is at an address, and goes down from there.
    #[must_use]
    pub const fn with_flags(mut self, read: bool, data_is_ptr: bool, down: bool) -> Self {
        self._pad_state = self._pad_state & bits::STATE
            | if read { bits::READ } else { 0 }
            | if data_is_ptr { bits::DATA_IS_PTR } else { 0 }
            | if down { bits::DOWN } else { 0 };
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn state_and_flags_do_not_touch_each_other() {
        let request = Ioreq::default().with_flags(true, false, true).with_state(STATE_IORESP_READY);
        assert_eq!((request.is_read(), request.data_is_ptr(), request.goes_down()), (true, false, true));
        let request = request.with_flags(false, true, false);
        assert_eq!((request.is_read(), request.data_is_ptr(), request.goes_down()), (false, true, false));
        assert_eq!(request.state(), STATE_IORESP_READY);
        assert_eq!(request.with_state(STATE_IOREQ_NONE).state(), STATE_IOREQ_NONE);
    }
}
