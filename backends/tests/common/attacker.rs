//! A guest that plays a front end by hand, and what it can try.

use std::sync::atomic::Ordering;

use proptest::prelude::*;
use pv_bus::block::{Body, Request, Segment};
use pv_bus::loopback::{LoopbackMapping, LoopbackPage};
use pv_bus::{Access, DomId, Events, GrantRef, Grants, Loopback, Memory, Port, SharedPage};

pub const SERVICE: DomId = DomId(0);

/// A guest that plays a front end by hand.
pub struct Attacker {
    pub guest: Loopback,
    pub ring: LoopbackPage,
    pub ring_grant: GrantRef,
    pub port: Port,
    pub writable: LoopbackPage,
    pub writable_grant: GrantRef,
    pub read_only: LoopbackPage,
    pub read_only_grant: GrantRef,
    /// Granted to somebody else.
    pub foreign: LoopbackPage,
    pub foreign_grant: GrantRef,
}

impl Attacker {
    pub fn new(guest: &Loopback) -> Self {
        let mut guest = guest.handle();
        let mut page = |peer, access, fill| {
            let page = guest.alloc_page().unwrap();
            page.fill(0, 4096, fill);
            let grant = guest.grant_access(peer, &page, access).unwrap();
            (page, grant)
        };
        let (ring, ring_grant) = page(SERVICE, Access::ReadWrite, 0);
        let (writable, writable_grant) = page(SERVICE, Access::ReadWrite, 0x77);
        let (read_only, read_only_grant) = page(SERVICE, Access::ReadOnly, 0x55);
        let (foreign, foreign_grant) = page(DomId(9), Access::ReadWrite, 0x66);
        let port = guest.alloc_unbound(SERVICE).unwrap();
        Self {
            guest,
            ring,
            ring_grant,
            port,
            writable,
            writable_grant,
            read_only,
            read_only_grant,
            foreign,
            foreign_grant,
        }
    }

    pub fn grants(&self) -> [u32; 6] {
        [self.writable_grant.0, self.read_only_grant.0, self.foreign_grant.0, self.ring_grant.0, 0, u32::MAX]
    }

    pub fn put(&mut self, path: &str, value: impl std::fmt::Display) {
        self.guest.put(path, value);
    }

    pub fn assert_untouched(&self) {
        for (page, fill) in [(&self.read_only, 0x55), (&self.foreign, 0x66)] {
            let mut bytes = vec![0; 4096];
            page.read(0, &mut bytes);
            assert!(bytes.iter().all(|byte| *byte == fill));
        }
        let _ = &self.writable;
    }
}

pub fn hostile_segment(grants: [u32; 6]) -> impl Strategy<Value = Segment> {
    let grant = prop_oneof![3 => Just(grants[0]), 4 => prop::sample::select(grants.to_vec()), 1 => any::<u32>()];
    let sector = || prop_oneof![4 => 0..8_u8, 1 => any::<u8>()];
    (grant, sector(), sector()).prop_map(|(grant, first, last)| Segment { grant: GrantRef(grant), first, last })
}

pub fn hostile_request(grants: [u32; 6]) -> impl Strategy<Value = Request> {
    let sector = || prop_oneof![4 => 0..200_u64, 1 => any::<u64>()];
    let operation = || prop_oneof![6 => 0..7_u8, 1 => any::<u8>()];
    let page = move || prop::sample::select(grants.to_vec());
    let body = prop_oneof![
        (operation(), prop_oneof![4 => 0..13_u8, 1 => any::<u8>()], prop::collection::vec(hostile_segment(grants), 11))
            .prop_map(|(operation, count, segments)| Body::Direct {
                operation,
                count,
                segments: segments.try_into().unwrap(),
            }),
        (operation(), prop_oneof![4 => 0..300_u16, 1 => any::<u16>()], prop::collection::vec(page(), 8)).prop_map(
            |(operation, count, pages)| Body::Indirect {
                operation,
                count,
                pages: std::array::from_fn(|page| GrantRef(pages[page])),
            }
        ),
        (any::<u8>(), sector()).prop_map(|(flag, sectors)| Body::Discard { flag, sectors }),
    ];
    (any::<u64>(), sector(), body).prop_map(|(id, sector, body)| Request { id, sector, body })
}

/// One thing a hostile guest does.
#[derive(Clone, Debug)]
pub enum Attack {
    Request(Request),
    Bytes { at: usize, bytes: Vec<u8> },
    Word { at: usize, value: u32 },
    Publish(u32),
    Key { key: &'static str, value: String },
    State(u32),
    Notify,
    EndGrant(usize),
    ClosePort,
}

/// The grants of an [`Attacker`] in a new world are always these.
pub const GRANTS: [u32; 6] = [9, 10, 11, 8, 0, u32::MAX];

pub fn attack(keys: &'static [&'static str]) -> impl Strategy<Value = Attack> {
    prop_oneof![
        12 => hostile_request(GRANTS).prop_map(Attack::Request),
        2 => (64..4080_usize, prop::collection::vec(any::<u8>(), 16)).prop_map(|(at, bytes)| Attack::Bytes { at, bytes }),
        1 => (0..16_usize, any::<u32>()).prop_map(|(word, value)| Attack::Word { at: word * 4, value }),
        4 => (0..40_u32).prop_map(Attack::Publish),
        1 => (prop::sample::select(keys), prop_oneof!["[0-9]{1,10}", "\\PC{0,12}"])
            .prop_map(|(key, value)| Attack::Key { key, value }),
        1 => (0..10_u32).prop_map(Attack::State),
        2 => Just(Attack::Notify),
        1 => (0..4_usize).prop_map(Attack::EndGrant),
        1 => Just(Attack::ClosePort),
    ]
}

impl Attacker {
    pub fn commit(&mut self, front: &str, attack: &Attack, next: &mut u32) {
        match attack {
            Attack::Request(request) => {
                self.ring.write(64 + (*next as usize % 32) * 112, &request.encode(51712));
                *next = next.wrapping_add(1);
                self.ring.store_u32(0, *next, Ordering::SeqCst);
            }
            Attack::Bytes { at, bytes } => self.ring.write(*at, bytes),
            Attack::Word { at, value } => self.ring.store_u32(*at, *value, Ordering::SeqCst),
            Attack::Publish(count) => {
                *next = next.wrapping_add(*count);
                self.ring.store_u32(0, *next, Ordering::SeqCst);
            }
            Attack::Key { key, value } => self.put(&format!("{front}/{key}"), value),
            Attack::State(state) => self.put(&format!("{front}/state"), state),
            Attack::Notify => self.guest.notify(self.port),
            Attack::EndGrant(which) => {
                let _ = self.guest.end_access(GrantRef(GRANTS[*which]));
            }
            Attack::ClosePort => self.guest.close(self.port),
        }
    }
}

/// Maps the ring whose grant is at this path once more, as a back end that the real one knows nothing of.
pub fn ring_of(service: &mut Loopback, guest: &mut Loopback, path: &str) -> LoopbackMapping {
    let grant = GrantRef(guest.get(path).parse().unwrap());
    let mut mapped = Vec::new();
    service.map_grants(guest.id(), Access::ReadWrite, &[grant], &mut mapped);
    mapped.remove(0).unwrap()
}
