//! Pages and grants of the in-memory world.

use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::RefCell;
use core::sync::atomic::Ordering;

use super::{Loopback, World};
use crate::hal::{Access, CopyBuffer, GrantCopy, Grants, Memory};
use crate::{GrantError, OutOfMemory, PAGE_SIZE, SharedPage};
use pv_abi::{DomId, GrantRef};

const GENERAL_ERROR: GrantError = GrantError::Status(-1);
const BAD_DOMAIN: GrantError = GrantError::Status(-2);
const BAD_GRANT: GrantError = GrantError::Status(-3);
const PERMISSION_DENIED: GrantError = GrantError::Status(-8);
const BAD_COPY_ARGUMENT: GrantError = GrantError::Status(-10);

type Frame = Rc<RefCell<[u8; PAGE_SIZE]>>;

/// A page of a domain's own memory.
pub struct LoopbackPage {
    frame: Frame,
}

/// A peer's page, mapped.
pub struct LoopbackMapping {
    frame: Frame,
    peer: DomId,
    grant: u32,
    access: Access,
}

pub(super) struct Grant {
    frame: Frame,
    peer: DomId,
    access: Access,
    maps: u32,
}

fn read_word<const N: usize>(frame: &Frame, offset: usize) -> [u8; N] {
    assert!(offset.is_multiple_of(N), "misaligned word at {offset:#x}");
    let mut word = [0; N];
    word.copy_from_slice(&frame.borrow()[offset..offset + N]);
    word
}

fn write_word(frame: &Frame, offset: usize, word: &[u8]) {
    assert!(offset.is_multiple_of(word.len()), "misaligned word at {offset:#x}");
    frame.borrow_mut()[offset..offset + word.len()].copy_from_slice(word);
}

impl LoopbackPage {
    fn check_writable(&self) {}
}

impl LoopbackMapping {
    fn check_writable(&self) {
        assert_eq!(self.access, Access::ReadWrite, "page fault: write to a read-only mapping of grant {}", self.grant);
    }
}

macro_rules! shared_page {
    ($page:ty) => {
        impl SharedPage for $page {
            fn read(&self, offset: usize, into: &mut [u8]) {
                into.copy_from_slice(&self.frame.borrow()[offset..offset + into.len()]);
            }

            fn write(&self, offset: usize, from: &[u8]) {
                self.check_writable();
                self.frame.borrow_mut()[offset..offset + from.len()].copy_from_slice(from);
            }

            fn load_u32(&self, offset: usize, _order: Ordering) -> u32 {
                u32::from_le_bytes(read_word(&self.frame, offset))
            }

            fn store_u32(&self, offset: usize, value: u32, _order: Ordering) {
                self.check_writable();
                write_word(&self.frame, offset, &value.to_le_bytes());
            }

            fn compare_exchange_u32(&self, offset: usize, current: u32, new: u32) -> Result<u32, u32> {
                let found = self.load_u32(offset, Ordering::SeqCst);
                if found != current {
                    return Err(found);
                }
                self.store_u32(offset, new, Ordering::SeqCst);
                Ok(found)
            }

            fn load_u64(&self, offset: usize, _order: Ordering) -> u64 {
                u64::from_le_bytes(read_word(&self.frame, offset))
            }

            fn store_u64(&self, offset: usize, value: u64, _order: Ordering) {
                self.check_writable();
                write_word(&self.frame, offset, &value.to_le_bytes());
            }

            fn compare_exchange_u64(&self, offset: usize, current: u64, new: u64) -> Result<u64, u64> {
                let found = self.load_u64(offset, Ordering::SeqCst);
                if found != current {
                    return Err(found);
                }
                self.store_u64(offset, new, Ordering::SeqCst);
                Ok(found)
            }
        }
    };
}

shared_page!(LoopbackPage);
shared_page!(LoopbackMapping);

impl Memory for Loopback {
    type Page = LoopbackPage;

    fn alloc_page(&mut self) -> Result<LoopbackPage, OutOfMemory> {
        let mut domain = self.domain_mut();
        if domain.page_limit.is_some_and(|limit| domain.pages >= limit) {
            return Err(OutOfMemory);
        }
        domain.pages += 1;
        Ok(LoopbackPage { frame: Rc::new(RefCell::new([0; PAGE_SIZE])) })
    }

    fn free_page(&mut self, page: LoopbackPage) {
        let mut domain = self.domain_mut();
        let granted = domain.grants.values().any(|grant| Rc::ptr_eq(&grant.frame, &page.frame));
        assert!(!granted, "a page was freed while it is granted");
        domain.pages -= 1;
    }
}

impl World {
    /// The grant `granter` made for `user`, if the access fits.
    fn granted(
        &mut self,
        granter: DomId,
        user: DomId,
        grant: GrantRef,
        access: Access,
    ) -> Result<&mut Grant, GrantError> {
        let domain = self.domains.get_mut(&granter).ok_or(BAD_DOMAIN)?;
        let entry = domain.grants.get_mut(&grant.0).ok_or(BAD_GRANT)?;
        if entry.peer != user {
            return Err(PERMISSION_DENIED);
        }
        if entry.access == Access::ReadOnly && access == Access::ReadWrite {
            return Err(GENERAL_ERROR);
        }
        Ok(entry)
    }

    fn map(
        &mut self,
        user: DomId,
        peer: DomId,
        grant: GrantRef,
        access: Access,
    ) -> Result<LoopbackMapping, GrantError> {
        let entry = self.granted(peer, user, grant, access)?;
        entry.maps += 1;
        let frame = Rc::clone(&entry.frame);
        self.domain(user).mappings += 1;
        Ok(LoopbackMapping { frame, peer, grant: grant.0, access })
    }

    fn unmap(&mut self, user: DomId, mapping: &LoopbackMapping) {
        self.domain(user).mappings -= 1;
        let domain = self.domains.get_mut(&mapping.peer);
        if let Some(entry) = domain.and_then(|domain| domain.grants.get_mut(&mapping.grant)) {
            entry.maps -= 1;
        }
    }

    fn copy(&mut self, user: DomId, peer: DomId, copy: &mut GrantCopy<'_>) -> Result<(), GrantError> {
        let access = match copy.buffer {
            CopyBuffer::FromPeer(_) => Access::ReadOnly,
            CopyBuffer::ToPeer(_) => Access::ReadWrite,
        };
        let end = copy.offset.checked_add(copy.buffer.len_bytes());
        let end = end.filter(|end| *end <= PAGE_SIZE).ok_or(BAD_COPY_ARGUMENT)?;
        let entry = self.granted(peer, user, copy.grant, access)?;
        let mut frame = entry.frame.borrow_mut();
        match &mut copy.buffer {
            CopyBuffer::FromPeer(into) => into.copy_from_slice(&frame[copy.offset..end]),
            CopyBuffer::ToPeer(from) => frame[copy.offset..end].copy_from_slice(from),
        }
        Ok(())
    }

    pub(super) fn unmap_everything_of(&mut self, user: DomId) {
        for domain in self.domains.values_mut() {
            for grant in domain.grants.values_mut().filter(|grant| grant.peer == user) {
                grant.maps = 0;
            }
        }
        self.domain(user).mappings = 0;
    }
}

impl Grants for Loopback {
    type Mapping = LoopbackMapping;

    fn grant_access(&mut self, peer: DomId, page: &LoopbackPage, access: Access) -> Result<GrantRef, GrantError> {
        let mut domain = self.domain_mut();
        let number = domain.next_grant;
        domain.next_grant += 1;
        domain.grants.insert(number, Grant { frame: Rc::clone(&page.frame), peer, access, maps: 0 });
        Ok(GrantRef(number))
    }

    fn end_access(&mut self, grant: GrantRef) -> Result<(), GrantError> {
        let mut domain = self.domain_mut();
        let entry = domain.grants.get(&grant.0).ok_or(BAD_GRANT)?;
        if entry.maps > 0 {
            return Err(GrantError::InUse);
        }
        domain.grants.remove(&grant.0);
        Ok(())
    }

    fn map_grants(
        &mut self,
        peer: DomId,
        access: Access,
        grants: &[GrantRef],
        mapped: &mut Vec<Result<LoopbackMapping, GrantError>>,
    ) {
        let mut world = self.world.borrow_mut();
        mapped.extend(grants.iter().map(|grant| world.map(self.id, peer, *grant, access)));
    }

    fn unmap_grants(&mut self, mappings: &mut Vec<LoopbackMapping>) {
        let mut world = self.world.borrow_mut();
        for mapping in mappings.drain(..) {
            world.unmap(self.id, &mapping);
        }
    }

    fn copy_grants(&mut self, peer: DomId, batch: &mut [GrantCopy<'_>]) {
        let mut world = self.world.borrow_mut();
        for copy in batch {
            copy.result = world.copy(self.id, peer, copy);
        }
    }
}
