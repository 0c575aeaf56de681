//! The memory of a guest that runs, page by page, for devices that reach it themselves.
//!
//! Pages that were used last stay mapped, a few of them. The guest can change what is in them at any time.

use alloc::collections::VecDeque;

use dom0::ids::DomId;
use dom0::models::Memory;
use pv_abi::Mfn;
use pv_guest_kernel::platform::pv::foreign::{Access, ForeignMapping};

/// Pages that stay mapped.
const KEPT: usize = 64;
const PAGE_BYTES: u64 = 4096;

/// A guest's memory.
pub(crate) struct View {
    domain: DomId,
    /// The page that was used last comes last.
    pages: VecDeque<(u64, ForeignMapping)>,
}

impl View {
    /// The memory of a guest.
    pub(crate) fn new(domain: DomId) -> Self {
        Self { domain, pages: VecDeque::new() }
    }

    /// Forgets all pages: the guest's memory has changed its place.
    pub(crate) fn forget(&mut self) {
        self.pages.clear();
    }

    fn page(&mut self, frame: u64) -> Option<&ForeignMapping> {
        match self.pages.iter().position(|(kept, _)| *kept == frame) {
            Some(at) => {
                let page = self.pages.remove(at)?;
                self.pages.push_back(page);
            }
            None => {
                // A frame without memory is none that can be mapped.
                let page = ForeignMapping::new(self.domain, &[Mfn(frame)], Access::ReadWrite).ok()?;
                if self.pages.len() >= KEPT {
                    self.pages.pop_front();
                }
                self.pages.push_back((frame, page));
            }
        }
        self.pages.back().map(|(_, page)| page)
    }

    /// Does something with each page of a range: its mapping, the offset in it, and which of the range's bytes it has.
    fn each(
        &mut self,
        at: u64,
        len: usize,
        mut act: impl FnMut(&ForeignMapping, usize, core::ops::Range<usize>),
    ) -> bool {
        let mut done = 0;
        while done < len {
            let Some(address) = at.checked_add(done as u64) else { return false };
            let offset = (address % PAGE_BYTES) as usize;
            let count = (PAGE_BYTES as usize - offset).min(len - done);
            let Some(page) = self.page(address / PAGE_BYTES) else { return false };
            act(page, offset, done..done + count);
            done += count;
        }
        true
    }
}

impl Memory for View {
    fn read(&mut self, at: u64, into: &mut [u8]) -> bool {
        self.each(at, into.len(), |page, offset, part| page.read(offset, &mut into[part]))
    }

    fn write(&mut self, at: u64, from: &[u8]) -> bool {
        self.each(at, from.len(), |page, offset, part| page.write(offset, &from[part]))
    }
}
