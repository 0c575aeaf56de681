//! What the back ends have in common: mapping the pages of a ring, and quoting a guest.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use pv_bus::{Access, DomId, GrantError, GrantRef, Grants};

/// Maps `grants` of `peer` for reading and writing, in order.
pub(crate) fn map_all<H: Grants>(
    hal: &mut H,
    peer: DomId,
    grants: &[GrantRef],
) -> Result<Vec<H::Mapping>, (GrantRef, GrantError)> {
    let mut results = Vec::with_capacity(grants.len());
    hal.map_grants(peer, Access::ReadWrite, grants, &mut results);
    let mut pages = Vec::with_capacity(grants.len());
    let mut failed = None;
    for (grant, result) in grants.iter().zip(results) {
        match result {
            Ok(page) => pages.push(page),
            Err(error) => failed = Some((*grant, error)),
        }
    }
    match failed {
        None => Ok(pages),
        Some(failure) => {
            hal.unmap_grants(&mut pages);
            Err(failure)
        }
    }
}

/// What a guest wrote, fit for a log: at most 40 characters, nothing that moves a cursor.
pub(crate) fn quoted(text: &str) -> String {
    let start: String = text.chars().take(40).collect();
    format!("{start:?}")
}
