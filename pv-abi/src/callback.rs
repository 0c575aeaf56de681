//! Registering a PV kernel's entry points.
//!
//! `HYPERVISOR_callback_op(cmd, arg)`: `cmd` is a `CALLBACKOP_*`, `arg` the address of its struct.
//!
//! Xen: `public/callback.h`.

use crate::layout::{constants, structs};

constants! {
    header "callback.h";
    /// Entered for events.
    pub const CALLBACKTYPE_EVENT [CALLBACKTYPE_event]: u16 = 0;
    /// Entered where the guest's state could not be restored, for example a bad selector.
    pub const CALLBACKTYPE_FAILSAFE [CALLBACKTYPE_failsafe]: u16 = 1;
    /// Entered by `syscall` of a 64-bit user.
    pub const CALLBACKTYPE_SYSCALL [CALLBACKTYPE_syscall]: u16 = 2;
    /// 32-bit hypervisors only.
    pub const CALLBACKTYPE_SYSENTER_DEPRECATED [CALLBACKTYPE_sysenter_deprecated]: u16 = 3;
    /// Entered for an NMI.
    pub const CALLBACKTYPE_NMI [CALLBACKTYPE_nmi]: u16 = 4;
    /// Entered by `sysenter`.
    pub const CALLBACKTYPE_SYSENTER [CALLBACKTYPE_sysenter]: u16 = 5;
    /// Entered by `syscall` of a 32-bit user.
    pub const CALLBACKTYPE_SYSCALL32 [CALLBACKTYPE_syscall32]: u16 = 7;
    /// Enter with events masked; for event and NMI this is always so.
    pub const CALLBACKF_MASK_EVENTS [CALLBACKF_mask_events]: u16 = 1;
    /// Registers; see [`CallbackRegister`].
    pub const CALLBACKOP_REGISTER [CALLBACKOP_register]: u32 = 0;
    /// Unregisters; see [`CallbackUnregister`].
    pub const CALLBACKOP_UNREGISTER [CALLBACKOP_unregister]: u32 = 1;
}

structs! {
    header "callback.h";

    /// `CALLBACKOP_register`: which entry, where.
    pub struct CallbackRegister ["struct callback_register"] {
        /// In: `CALLBACKTYPE_*`.
        pub type_ ["type"]: u16,
        /// In: `CALLBACKF_*`.
        pub flags: u16,
        /// Padding.
        pub _pad0: u32,
        /// In: the address, canonical.
        pub address: u64,
    }

    /// `CALLBACKOP_unregister`: which entry. Event, failsafe and syscall cannot be.
    pub struct CallbackUnregister ["struct callback_unregister"] {
        /// In: `CALLBACKTYPE_*`.
        pub type_ ["type"]: u16,
        /// Padding.
        pub _pad0: u16,
    }
}
