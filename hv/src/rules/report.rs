//! The one place that prints a refusal.

use log::warn;
use pv_abi::DomId;

use crate::Hypervisor;
use crate::domain::Domain;
use crate::hardware::Machine;
use crate::refusal::{Consequence, Evidence, Refusal};

/// How many refusals of a domain are printed in each second; the rest are counted.
const PER_SECOND: u32 = 20;

/// Limits what one domain can make the hypervisor print.
#[derive(Debug, Default)]
pub struct Limiter {
    second: u64,
    printed: u32,
    suppressed: u32,
}

impl Limiter {
    /// Whether one more line may be printed at `now_ns`; also how many were left out before it.
    pub fn admit(&mut self, now_ns: u64) -> Option<u32> {
        let second = now_ns / 1_000_000_000;
        if second != self.second {
            self.second = second;
            self.printed = 0;
        }
        if self.printed == PER_SECOND {
            self.suppressed = self.suppressed.saturating_add(1);
            return None;
        }
        self.printed += 1;
        Some(core::mem::take(&mut self.suppressed))
    }
}

/// Whether a refusal of this domain is printed now (`guest_loglvl`); also how many were left out before it.
#[cold]
pub fn admit<M: Machine>(hv: &Hypervisor<M>, domain: &Domain) -> Option<u32> {
    if !hv.options.explains(domain.id) {
        return None;
    }
    if hv.options.limits_refusals() { domain.limiter.lock().admit(hv.machine.now()) } else { Some(0) }
}

/// Prints why `domain` was refused `operation`, with its decoded `arguments` and what was in the way.
#[cold]
pub fn report(domain: DomId, operation: &str, arguments: &[u64], refusal: &Refusal) {
    let outcome = match refusal.consequence {
        Consequence::Errno(errno) => errno.as_return(),
        Consequence::Status(status) => status.into(),
        Consequence::Continue => return,
        Consequence::Crash => 0,
    };
    match refusal.evidence {
        Evidence::None => warn!("d{}: {operation}{arguments:x?} = {outcome}: {}", domain.0, refusal.rule),
        evidence => warn!("d{}: {operation}{arguments:x?} = {outcome}: {} [{evidence:x?}]", domain.0, refusal.rule),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_cut_and_counted() {
        let mut limiter = Limiter::default();
        let printed = (0..100).filter(|_| limiter.admit(5).is_some()).count();
        assert_eq!(printed, PER_SECOND as usize);
        assert_eq!(limiter.admit(1_000_000_000), Some(80));
    }
}
