//! The pages that carry a disk's data.
//!
//! Data is copied between a caller's buffer and pages of this pool. With persistent grants a page keeps its grant for
//! life, so the back end can keep it mapped; the pool is a stack, so that few pages do most of the work. Without, a
//! page is granted for one request, read-only where the back end only reads.

use alloc::vec::Vec;

use pv_bus::{Access, DomId, GrantError, GrantRef, Hal};

use crate::graveyard::Graveyard;

/// A page of the pool, perhaps granted.
pub(super) struct Buffer<P> {
    pub(super) page: P,
    grant: Option<(GrantRef, Access)>,
}

/// The free pages, and how many there may be.
pub(super) struct Pool<P> {
    free: Vec<Buffer<P>>,
    made: usize,
    limit: usize,
}

impl<P> Buffer<P> {
    /// Makes sure `peer` has the access, and gives the grant.
    pub(super) fn grant<H: Hal<Page = P>>(
        &mut self,
        hal: &mut H,
        peer: DomId,
        access: Access,
    ) -> Result<GrantRef, GrantError> {
        if let Some((grant, had)) = self.grant {
            if had == access || had == Access::ReadWrite {
                return Ok(grant);
            }
            hal.end_access(grant)?;
            self.grant = None;
        }
        let grant = hal.grant_access(peer, &self.page, access)?;
        self.grant = Some((grant, access));
        Ok(grant)
    }
}

impl<P> Buffer<P> {
    /// Ends the grant, if nobody uses it.
    pub(super) fn end_grant<H: Hal<Page = P>>(&mut self, hal: &mut H) {
        if self.grant.is_some_and(|(grant, _)| hal.end_access(grant).is_ok()) {
            self.grant = None;
        }
    }
}

impl<P> Pool<P> {
    /// Ends the grants of all pages that are not in use.
    pub(super) fn end_grants<H: Hal<Page = P>>(&mut self, hal: &mut H) {
        self.free.iter_mut().for_each(|buffer| buffer.end_grant(hal));
    }

    pub(super) fn new(limit: usize) -> Self {
        Self { free: Vec::new(), made: 0, limit }
    }

    /// How many pages a request can get at most.
    pub(super) fn limit(&self) -> usize {
        self.limit
    }

    /// Takes one page.
    pub(super) fn take<H: Hal<Page = P>>(&mut self, hal: &mut H) -> Option<Buffer<P>> {
        if let Some(buffer) = self.free.pop() {
            return Some(buffer);
        }
        if self.made >= self.limit {
            return None;
        }
        let page = hal.alloc_page().ok()?;
        self.made += 1;
        Some(Buffer { page, grant: None })
    }

    /// Takes `count` pages or none.
    pub(super) fn take_many<H: Hal<Page = P>>(&mut self, hal: &mut H, count: usize) -> Option<Vec<Buffer<P>>> {
        let mut taken = Vec::with_capacity(count);
        while taken.len() < count {
            match self.take(hal) {
                Some(buffer) => taken.push(buffer),
                None => {
                    self.free.append(&mut taken);
                    return None;
                }
            }
        }
        Some(taken)
    }

    /// Puts a page back; its grant ends unless grants are kept.
    pub(super) fn give_back<H: Hal<Page = P>>(
        &mut self,
        hal: &mut H,
        grave: &mut Graveyard<P>,
        mut buffer: Buffer<P>,
        keep_grant: bool,
    ) {
        if keep_grant && matches!(buffer.grant, None | Some((_, Access::ReadWrite))) {
            self.free.push(buffer);
            return;
        }
        match buffer.grant.take() {
            None => self.free.push(buffer),
            Some((grant, _)) => match hal.end_access(grant) {
                Ok(()) => self.free.push(buffer),
                Err(_) => {
                    self.made -= 1;
                    grave.bury(hal, grant, buffer.page);
                }
            },
        }
    }

    /// Frees every page that is not in use.
    pub(super) fn release<H: Hal<Page = P>>(&mut self, hal: &mut H, grave: &mut Graveyard<P>) {
        for buffer in self.free.drain(..) {
            self.made -= 1;
            match buffer.grant {
                None => hal.free_page(buffer.page),
                Some((grant, _)) => grave.bury(hal, grant, buffer.page),
            }
        }
    }
}
