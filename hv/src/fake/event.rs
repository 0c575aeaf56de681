//! What the machine remembers.

use pv_abi::{MachineAddr, Mfn};

use crate::hardware::{CpuId, Flush, LineMode};

/// Something the machine was told to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A root table was loaded.
    LoadRoot(Mfn),
    /// Translations were forgotten.
    Flush(Flush),
    /// Another CPU was interrupted.
    Interrupt(CpuId),
    /// A timer interrupt was asked for, or none.
    Deadline(Option<u64>),
    /// The CPU waited for an interrupt.
    Wait,
    /// A port was written: port, bytes, value.
    PortWrite(u16, u8, u32),
    /// A dword of device memory was written.
    DeviceWrite(MachineAddr, u32),
    /// A port was read: port, bytes.
    PortRead(u16, u8),
    /// A model-specific register was written.
    MsrWrite(u32, u64),
    /// A word of memory was written (only while [`super::FakeMachine::remember_writes`] is on).
    Write(Mfn, usize, u64),
    /// A page of the local-descriptor-table window was mapped.
    MapLdt(usize, Mfn),
    /// The local-descriptor-table window was emptied; the table has this many entries.
    ResetLdt(u32),
    /// The global descriptor table was loaded.
    LoadGdt,
    /// A debug register was loaded.
    DebugRegister(usize, u64),
    /// CR0.TS was set or cleared.
    TaskSwitched(bool),
    /// A line was routed.
    RouteLine(u32, LineMode),
    /// A line was masked or unmasked.
    MaskLine(u32, bool),
    /// A segment base was set.
    SegmentBase(u32, u64),
}
