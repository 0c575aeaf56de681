//! The store's rings with an honest guest, and with one that lies about its indices.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::atomic::Ordering;

use dom0::xenstore::ring::{RING_BYTES, RingFault, StoreRing};
use proptest::prelude::*;
use pv_bus::SharedPage;

#[derive(Clone)]
struct Page(Rc<RefCell<Vec<u8>>>);

impl Page {
    fn new() -> Self {
        Self(Rc::new(RefCell::new(vec![0; 4096])))
    }
}

impl SharedPage for Page {
    fn read(&self, offset: usize, into: &mut [u8]) {
        into.copy_from_slice(&self.0.borrow()[offset..offset + into.len()]);
    }

    fn write(&self, offset: usize, from: &[u8]) {
        self.0.borrow_mut()[offset..offset + from.len()].copy_from_slice(from);
    }

    fn load_u32(&self, offset: usize, _: Ordering) -> u32 {
        let mut word = [0; 4];
        self.read(offset, &mut word);
        u32::from_le_bytes(word)
    }

    fn store_u32(&self, offset: usize, value: u32, _: Ordering) {
        self.write(offset, &value.to_le_bytes());
    }

    fn compare_exchange_u32(&self, _: usize, _: u32, _: u32) -> Result<u32, u32> {
        unreachable!("the store's rings need none")
    }

    fn load_u64(&self, _: usize, _: Ordering) -> u64 {
        unreachable!("the store's rings need none")
    }

    fn store_u64(&self, _: usize, _: u64, _: Ordering) {
        unreachable!("the store's rings need none")
    }

    fn compare_exchange_u64(&self, _: usize, _: u64, _: u64) -> Result<u64, u64> {
        unreachable!("the store's rings need none")
    }
}

/// The guest's side, written as the protocol has it.
struct Guest(Page);

impl Guest {
    fn word(&self, offset: usize) -> u32 {
        self.0.load_u32(offset, Ordering::SeqCst)
    }

    fn send(&self, bytes: &[u8]) -> usize {
        let (cons, prod) = (self.word(2048), self.word(2052));
        let room = RING_BYTES - prod.wrapping_sub(cons) as usize;
        let count = room.min(bytes.len());
        for (byte, at) in bytes[..count].iter().zip(0_u32..) {
            self.0.write(prod.wrapping_add(at) as usize % RING_BYTES, &[*byte]);
        }
        self.0.store_u32(2052, prod.wrapping_add(count as u32), Ordering::SeqCst);
        count
    }

    fn receive(&self) -> Vec<u8> {
        let (cons, prod) = (self.word(2056), self.word(2060));
        let bytes = (0..prod.wrapping_sub(cons)).map(|at| {
            let mut byte = [0];
            self.0.read(RING_BYTES + cons.wrapping_add(at) as usize % RING_BYTES, &mut byte);
            byte[0]
        });
        let bytes: Vec<u8> = bytes.collect();
        self.0.store_u32(2056, prod, Ordering::SeqCst);
        bytes
    }
}

proptest! {
    #[test]
    fn bytes_arrive_in_order_in_both_directions_wherever_the_indices_stand(
        start in any::<u32>(),
        pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..1500), 1..10),
        limit in 1_usize..2000,
    ) {
        let page = Page::new();
        for index in [2048, 2052, 2056, 2060] {
            page.store_u32(index, start, Ordering::SeqCst);
        }
        let (mut ring, guest) = (StoreRing::attach(page.clone()), Guest(page));
        for piece in pieces {
            let (mut sent, mut got) = (0, Vec::new());
            while got.len() < piece.len() {
                sent += guest.send(&piece[sent..]);
                ring.receive(&mut got, limit).expect("honest");
            }
            prop_assert_eq!(&got, &piece);
            let (mut sent, mut got) = (0, Vec::new());
            while got.len() < piece.len() {
                sent += ring.send(&piece[sent..]).expect("honest");
                got.extend(guest.receive());
            }
            prop_assert_eq!(&got, &piece);
        }
    }

    #[test]
    fn a_guest_that_writes_anything_anywhere_gets_at_most_a_fault(
        writes in prop::collection::vec((0_usize..2090, any::<u32>()), 0..50),
    ) {
        let page = Page::new();
        let mut ring = StoreRing::attach(page.clone());
        let mut got = Vec::new();
        for (offset, value) in writes {
            page.store_u32(offset.min(2088) & !3, value, Ordering::SeqCst);
            let before = got.len();
            if let Ok(count) = ring.receive(&mut got, usize::MAX) {
                prop_assert!(count <= RING_BYTES && got.len() == before + count);
            }
            if let Ok(count) = ring.send(&[1; 100]) {
                prop_assert!(count <= 100);
            }
        }
    }
}

#[test]
fn indices_further_apart_than_the_ring_are_a_fault_that_the_guest_can_read() {
    let page = Page::new();
    let mut ring = StoreRing::attach(page.clone());
    page.store_u32(2052, 1025, Ordering::SeqCst);
    assert_eq!(ring.receive(&mut Vec::new(), 10), Err(RingFault::Indices));
    ring.report(RingFault::Indices);
    assert_eq!(page.load_u32(2072, Ordering::SeqCst), 2);
}

#[test]
fn a_reconnect_empties_both_rings() {
    let page = Page::new();
    let mut ring = StoreRing::attach(page.clone());
    ring.send(b"old").expect("room");
    page.store_u32(2068, 1, Ordering::SeqCst);
    assert!(ring.wants_reconnect());
    ring.reconnect();
    assert!(!ring.wants_reconnect());
    ring.send(b"new").expect("room");
    assert_eq!(Guest(page).receive(), b"new");
}
