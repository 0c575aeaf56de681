//! Pages and grants that the peer has not let go of.
//!
//! A grant ends only while the peer does not use it. A peer that keeps a page mapped cannot make this side wait, nor
//! make it free a page that somebody else can still write: page and grant are kept here and tried again later.

use alloc::vec::Vec;

use pv_bus::{GrantError, GrantRef, Grants};

/// Grants that would not end, with the pages they are for.
pub(crate) struct Graveyard<P> {
    held: Vec<(GrantRef, P)>,
}

impl<P> Graveyard<P> {
    pub(crate) fn new() -> Self {
        Self { held: Vec::new() }
    }

    /// Ends a grant and frees its page, now or later.
    pub(crate) fn bury<H: Grants<Page = P>>(&mut self, hal: &mut H, grant: GrantRef, page: P) {
        match hal.end_access(grant) {
            Err(GrantError::InUse) => self.held.push((grant, page)),
            Ok(()) => hal.free_page(page),
            Err(error) => {
                log::error!("grant.not_ended: grant {grant} of a driver page: {error}; the page is not used again");
            }
        }
    }

    /// Tries again.
    pub(crate) fn retry<H: Grants<Page = P>>(&mut self, hal: &mut H) {
        for (grant, page) in core::mem::take(&mut self.held) {
            self.bury(hal, grant, page);
        }
    }

    /// How many pages are held.
    pub(crate) fn len(&self) -> usize {
        self.held.len()
    }
}
