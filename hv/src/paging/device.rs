//! Which device memory a domain may map.

use pv_abi::Mfn;

use crate::Hypervisor;
use crate::domain::Domain;
use crate::hardware::Machine;

/// Whether a domain has any device, and so may choose how its mappings are cached.
#[cold]
pub(super) fn has_devices(domain: &Domain) -> bool {
    domain.permissions.lock().has_devices()
}

/// Whether a domain may map a frame of device memory.
#[cold]
pub(super) fn may_map<M: Machine>(hv: &Hypervisor<M>, domain: &Domain, mfn: Mfn) -> bool {
    hv.machine.is_device_memory(mfn.address()) && domain.permissions.lock().allows_memory(mfn)
}
