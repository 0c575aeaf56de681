//! What the back ends have in common: mapping the pages of a ring, the keys of several queues, and quoting a guest.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use pv_bus::xenbus::Link;
use pv_bus::{Access, DomId, GrantError, GrantRef, Grants, Store, StoreError};

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

/// How many queues a front end uses: one, unless it says otherwise.
///
/// # Errors
/// What it says, if that is no number from 1 to `most`.
pub(crate) fn queue_count<S: Store>(store: &mut S, link: &Link, most: u32) -> Result<u32, String> {
    match link.read_peer::<S, u32>(store, "multi-queue-num-queues") {
        Ok(count) if (1..=most.max(1)).contains(&count) => Ok(count),
        Ok(count) => Err(format!("{count}")),
        Err(StoreError::NoEntry) => Ok(1),
        Err(error) => Err(format!("{error}")),
    }
}

/// Where the keys of a queue are, below the front end's directory: a single one has no folder of its own.
pub(crate) fn queue_folder(count: u32, number: u32) -> String {
    if count == 1 { String::new() } else { format!("queue-{number}/") }
}
