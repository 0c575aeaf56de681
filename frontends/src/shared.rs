//! What the front ends have in common: pages that are granted for as long as a connection lasts (the rings), and the
//! keys of several queues.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use pv_bus::xenbus::Link;
use pv_bus::{Access, DomId, GrantError, GrantRef, Hal, OutOfMemory, Store, StoreError, Transaction, store};

use crate::graveyard::Graveyard;

/// Why a ring could not be shared.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum ShareError {
    Memory(OutOfMemory),
    Grant(GrantError),
}

impl core::fmt::Display for ShareError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Memory(error) => error.fmt(f),
            Self::Grant(error) => error.fmt(f),
        }
    }
}

/// Takes `count` pages and grants them to `peer` for reading and writing: all of them or none.
pub(crate) fn share_pages<H: Hal>(
    hal: &mut H,
    grave: &mut Graveyard<H::Page>,
    peer: DomId,
    count: usize,
) -> Result<(Vec<H::Page>, Vec<GrantRef>), ShareError> {
    let mut pages = Vec::with_capacity(count);
    let mut grants = Vec::with_capacity(count);
    for _ in 0..count {
        match share_page(hal, peer) {
            Ok((page, grant)) => {
                pages.push(page);
                grants.push(grant);
            }
            Err(error) => {
                unshare_pages(hal, grave, pages, grants);
                return Err(error);
            }
        }
    }
    Ok((pages, grants))
}

fn share_page<H: Hal>(hal: &mut H, peer: DomId) -> Result<(H::Page, GrantRef), ShareError> {
    let page = hal.alloc_page().map_err(ShareError::Memory)?;
    match hal.grant_access(peer, &page, Access::ReadWrite) {
        Ok(grant) => Ok((page, grant)),
        Err(error) => {
            hal.free_page(page);
            Err(ShareError::Grant(error))
        }
    }
}

/// Takes the pages back, at once or as soon as the peer lets go.
pub(crate) fn unshare_pages<H: Hal>(
    hal: &mut H,
    grave: &mut Graveyard<H::Page>,
    pages: Vec<H::Page>,
    grants: Vec<GrantRef>,
) {
    for (page, grant) in pages.into_iter().zip(grants) {
        grave.bury(hal, grant, page);
    }
}

/// Says how many queues there are, where there is more than one, and gives that number.
pub(crate) fn write_queue_count<S: Store>(
    store: &mut S,
    link: &Link,
    open: Transaction,
    count: usize,
) -> Result<usize, StoreError> {
    const KEY: &str = "multi-queue-num-queues";
    match count {
        1 => store.rm(open, &store::join(link.path(), KEY)).or_else(ignore_missing).map(|()| 1),
        _ => link.write(store, open, KEY, count).map(|()| count),
    }
}

/// Where the keys of a queue are, below this half's directory: a single one has no folder of its own.
pub(crate) fn queue_folder(count: usize, number: usize) -> String {
    if count == 1 { String::new() } else { format!("queue-{number}/") }
}

/// What is to be gone and was not there is gone.
pub(crate) fn ignore_missing(error: StoreError) -> Result<(), StoreError> {
    if error == StoreError::NoEntry { Ok(()) } else { Err(error) }
}
