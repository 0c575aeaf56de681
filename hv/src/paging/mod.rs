//! Page tables that guests write and the hypervisor checks.
//!
//! Guests run on their own page tables, with machine frame numbers in the entries ("direct paging"). That is safe
//! because a frame in use as a page table is mapped writable nowhere, and each change comes through here:
//!
//! | way | file |
//! |---|---|
//! | `mmu_update`, a list of entries by machine address | `mmu_update` |
//! | `update_va_mapping`, one L1 entry by the address it maps | `va_mapping` |
//! | `mmuext_op`: pins, roots, flushes, whole frames | `extended` |
//! | a write to an L1 table that faults and is emulated | `write_fault` |
//! | a grant that is mapped or unmapped | `grants` |
//!
//! Below them: `entry` knows the bits, `leaf` what an L1 entry may map, `upper` the levels above, `table` how a frame
//! becomes a page table and stops being one, `roots` what a vCPU runs on, `walk` finds entries.
//!
//! Invariants (a test scans all tables for them after random operations of hostile guests):
//! - a frame that a guest can write is no page table and no descriptor page;
//! - each present entry of a checked table holds exactly the references it needs;
//! - no entry maps a frame of another domain but a foreign mapping of a privileged one, or a grant;
//! - slots 256–271 of each L4 table are the hypervisor's.

mod batch;
mod device;
pub mod entry;
mod extended;
mod flush;
mod foreign;
mod grants;
mod ldt;
mod leaf;
mod mmu_update;
mod roots;
mod table;
mod upper;
mod va_mapping;
mod walk;
mod write_fault;

pub use extended::mmuext_op;
pub use grants::{GrantPlace, create_grant_mapping, destroy_grant_mapping};
pub use ldt::{drop_ldt, map_ldt_page, release_pages as release_ldt_pages};
pub use mmu_update::mmu_update;
pub use roots::{drop_root, get_root, load_guest_root, pin_initial, put_root};
pub use table::{Owners, Stop, Unfinished, Work};
pub(crate) use table::{finish_partial, put_table};
pub use va_mapping::{update_va_mapping, update_va_mapping_otherdomain};
pub use walk::walk;
pub use write_fault::on_write_fault;

use pv_abi::Mfn;

use crate::Hypervisor;
use crate::hardware::Machine;

/// Gives back what kept an L1 table one while an entry was changed. Where that was the last use of the table, it is
/// taken apart at once: 512 entries are a bounded piece of work.
#[inline(never)]
fn release<M: Machine>(hv: &Hypervisor<M>, table: Mfn) {
    let _ = put_table(hv, table, &mut Work::whole());
}

#[cfg(test)]
mod tests;
