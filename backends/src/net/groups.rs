//! The groups that a front end wants frames of.
//!
//! A front end that asks for it gets only frames for groups that it has joined; broadcast always comes.
//!
//! Source: Xen `public/io/netif.h` (`feature-multicast-control`, `XEN_NETIF_EXTRA_TYPE_MCAST_{ADD,DEL}`).

use alloc::collections::BTreeSet;

use pv_bus::net::{Extra, Frame};
use pv_bus::refusal::Rule;

use super::rules;

/// Groups that one front end can join.
const MAX_GROUPS: usize = 64;
const BROADCAST: [u8; 6] = [255; 6];

/// The groups of one front end.
pub(super) struct Groups {
    joined: BTreeSet<[u8; 6]>,
    controlled: bool,
}

impl Groups {
    /// No groups yet. A front end that has not asked for control gets everything.
    pub(super) fn new(controlled: bool) -> Self {
        Self { joined: BTreeSet::new(), controlled }
    }

    /// Joins or leaves what extra information asks for. False when it asks for nothing of that kind.
    pub(super) fn change(&mut self, extras: &[Extra]) -> Result<bool, (Rule, u64)> {
        let mut any = false;
        for extra in extras {
            match *extra {
                Extra::JoinGroup(group) => {
                    let full = self.joined.len() >= MAX_GROUPS && !self.joined.contains(&group);
                    if full || group[0] & 1 == 0 {
                        return Err((rules::MULTICAST_FULL, self.joined.len() as u64));
                    }
                    self.joined.insert(group);
                }
                Extra::LeaveGroup(group) => drop(self.joined.remove(&group)),
                Extra::Oversize(_) | Extra::Other(_) => continue,
            }
            any = true;
        }
        Ok(any)
    }

    /// Whether the front end wants this frame.
    pub(super) fn want(&self, frame: &Frame) -> bool {
        let Some(destination) = frame.bytes.first_chunk::<6>() else {
            return true;
        };
        let group = destination[0] & 1 != 0 && *destination != BROADCAST;
        !self.controlled || !group || self.joined.contains(destination)
    }
}
