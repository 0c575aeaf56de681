//! Whose frames a page-table operation is about: `foreigndom`.

use alloc::sync::Arc;

use pv_abi::DomId;
use pv_abi::errno::Errno;
use pv_abi::xen::{DOMID_FIRST_RESERVED, DOMID_IO, DOMID_SELF, DOMID_XEN};

use super::entry;
use super::table::Owners;
use crate::Hypervisor;
use crate::call::Call;
use crate::domain::Domain;
use crate::hardware::Machine;
use crate::hvm;
use crate::refusal::{Evidence, Refusal};
use crate::rules;

/// The domain whose frames are named.
pub(super) enum PageOwner {
    /// The caller.
    Own,
    /// Another domain.
    Other(Arc<Domain>),
    /// Device memory.
    Io,
    /// What the hypervisor shares.
    Hypervisor,
}

impl PageOwner {
    /// The domain that `foreigndom` names.
    ///
    /// # Errors
    /// `ESRCH` where it is the caller by its number, or none.
    pub(super) fn named<M: Machine>(call: &Call<'_, M>, named: u16) -> Result<Self, Refusal> {
        match named {
            DOMID_SELF => Ok(Self::Own),
            DOMID_IO => Ok(Self::Io),
            DOMID_XEN => Ok(Self::Hypervisor),
            _ if named >= DOMID_FIRST_RESERVED || named == call.domain().id.0 => Err(no_such(named)),
            _ => call.hv.domains.get(DomId(named)).map(Self::Other).ok_or_else(|| no_such(named)),
        }
    }

    /// Whether the caller may name it.
    ///
    /// # Errors
    /// `EPERM` where the caller is not privileged and it is not the caller or device memory.
    #[inline]
    pub(super) fn permitted<M: Machine>(&self, call: &Call<'_, M>) -> Result<(), Refusal> {
        match self {
            Self::Own | Self::Io => Ok(()),
            Self::Other(_) | Self::Hypervisor => privileged(call),
        }
    }

    /// With the domain whose tables are changed.
    #[inline]
    pub(super) fn with_table<'a>(&'a self, caller: &'a Domain, table: &'a Domain) -> Owners<'a> {
        match self {
            Self::Own => Owners { table, page: caller.id, device: caller },
            Self::Other(domain) => Owners { table, page: domain.id, device: domain },
            Self::Io => Owners { table, page: DomId(DOMID_IO), device: caller },
            Self::Hypervisor => Owners { table, page: DomId(DOMID_XEN), device: caller },
        }
    }

    /// An L1 entry that maps one of its frames, with the machine's frame number: of a domain with hardware assistance,
    /// callers name guest frames.
    #[inline]
    pub(super) fn machine_entry<M: Machine>(&self, hv: &Hypervisor<M>, value: u64) -> u64 {
        match self {
            Self::Other(domain) if domain.hvm.is_some() && entry::is_present(value) => {
                let claimed = hvm::named(hv, domain, entry::claimed(value).0);
                value & !entry::FRAME | claimed.0 << 12 & entry::FRAME
            }
            _ => value,
        }
    }

    /// Whether it is the domain whose tables are changed.
    pub(super) fn is(&self, caller: &Domain, table: &Domain) -> bool {
        match self {
            Self::Own => caller.id == table.id,
            Self::Other(domain) => domain.id == table.id,
            Self::Io | Self::Hypervisor => false,
        }
    }
}

/// Passes only a privileged caller.
pub(super) fn privileged<M: Machine>(call: &Call<'_, M>) -> Result<(), Refusal> {
    if call.domain().privileged { Ok(()) } else { Err(Refusal::errno(Errno::Perm, rules::paging::FOREIGN)) }
}

#[cold]
fn no_such(named: u16) -> Refusal {
    Refusal::errno(Errno::Srch, rules::paging::FOREIGN_SELF).with(Evidence::Value(named.into()))
}
