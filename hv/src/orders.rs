//! What one CPU has others do at once, waiting until they have.
//!
//! Interrupts are off in the hypervisor, and the CPU that gives an order may hold a lock that another waits for. So an
//! order comes by a non-maskable interrupt, whose handler takes no lock and touches nothing but the CPU's translations and
//! caches: every CPU answers whatever it does.
//!
//! - One order is on its way at a time: `one` is held from before it is written until all have answered.
//! - `pending` is written after `order` and read before it, so who sees its bit sees the order that goes with it.
//! - A CPU answers by clearing its bit, once it has done what it was told; the giver comes back when no bit is left.
//! - A non-maskable interrupt that finds no bit is not one of these, or one that was answered already.

use core::sync::atomic::{AtomicU64, Ordering};

use spin::Mutex;

use crate::hardware::{CpuId, CpuSet, Flush};

/// Something to do at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Forget translations.
    Forget(Flush),
    /// Write the caches back.
    WriteBack,
}

const ALL: u64 = 1;
const WRITE_BACK: u64 = 2;
const PAGE_BITS: u64 = 0xfff;

impl Order {
    /// As one word: a page's address, whose low bits are 0, or a number that no page has.
    const fn encode(self) -> u64 {
        match self {
            Self::Forget(Flush::Page(address)) => address & !PAGE_BITS,
            Self::Forget(Flush::All) => ALL,
            Self::WriteBack => WRITE_BACK,
        }
    }

    const fn decode(word: u64) -> Self {
        match word {
            ALL => Self::Forget(Flush::All),
            WRITE_BACK => Self::WriteBack,
            address => Self::Forget(Flush::Page(address)),
        }
    }
}

/// The order that is on its way, if any.
#[derive(Debug)]
pub struct Orders {
    one: Mutex<()>,
    order: AtomicU64,
    /// The CPUs that have not answered.
    pending: AtomicU64,
}

impl Default for Orders {
    fn default() -> Self {
        Self::new()
    }
}

impl Orders {
    /// None yet.
    #[must_use]
    pub const fn new() -> Self {
        Self { one: Mutex::new(()), order: AtomicU64::new(0), pending: AtomicU64::new(0) }
    }

    /// Has CPUs other than this one carry out an order; comes back when they have. `call` makes one of them
    /// [follow](Self::follow) soon.
    pub fn give(&self, to: CpuSet, order: Order, call: impl Fn(CpuId)) {
        let _one = self.one.lock();
        self.order.store(order.encode(), Ordering::Relaxed);
        self.pending.store(to.0, Ordering::SeqCst);
        to.iter().for_each(call);
        while self.pending.load(Ordering::Acquire) != 0 {
            core::hint::spin_loop();
        }
    }

    /// Carries out the order that this CPU was given, if it was.
    pub fn follow(&self, cpu: CpuId, act: impl FnOnce(Order)) {
        let own = CpuSet::of(cpu).0;
        if self.pending.load(Ordering::Acquire) & own != 0 {
            act(Order::decode(self.order.load(Ordering::Relaxed)));
            self.pending.fetch_and(!own, Ordering::Release);
        }
    }
}

#[cfg(test)]
mod tests {
    use core::sync::atomic::{AtomicBool, AtomicU32};
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn an_order_is_one_word() {
        for order in [Order::Forget(Flush::All), Order::WriteBack, Order::Forget(Flush::Page(0xffff_8800_0000_5000))] {
            assert_eq!(Order::decode(order.encode()), order);
        }
        assert_eq!(Order::decode(Order::Forget(Flush::Page(0)).encode()), Order::Forget(Flush::Page(0)));
    }

    #[test]
    fn who_was_not_told_does_nothing() {
        Orders::new().follow(CpuId(3), |_| panic!("nobody gave an order"));
    }

    /// What the CPUs of the test share: pages, of which each CPU has its own idea until it is told to forget it.
    struct Shared {
        orders: Orders,
        page: AtomicU64,
        lock: Mutex<()>,
        stale: AtomicBool,
        given: AtomicU32,
    }

    /// A CPU that gets non-maskable interrupts by a channel, and has a translation lookaside buffer of one word.
    fn receiver(shared: &Shared, id: u32, calls: &mpsc::Receiver<()>) {
        let mut cached = shared.page.load(Ordering::SeqCst);
        while calls.recv().is_ok() {
            if cached < shared.page.load(Ordering::SeqCst).saturating_sub(8) {
                shared.stale.store(true, Ordering::SeqCst);
            }
            shared.orders.follow(CpuId(id), |_| cached = shared.page.load(Ordering::SeqCst));
        }
    }

    #[test]
    fn whoever_comes_back_knows_that_all_have_forgotten_and_two_givers_wait_for_each_other() {
        const ROUNDS: u32 = 2_000;
        let shared = Shared {
            orders: Orders::new(),
            page: AtomicU64::new(0),
            lock: Mutex::new(()),
            stale: AtomicBool::new(false),
            given: AtomicU32::new(0),
        };
        std::thread::scope(|scope| {
            let lines: Vec<_> = (2..4)
                .map(|id| {
                    let (line, calls) = mpsc::channel();
                    let shared = &shared;
                    scope.spawn(move || receiver(shared, id, &calls));
                    line
                })
                .collect();
            for _giver in 0..2 {
                let (lines, shared) = (lines.clone(), &shared);
                scope.spawn(move || {
                    for _ in 0..ROUNDS {
                        let held = shared.lock.lock();
                        shared.page.fetch_add(1, Ordering::SeqCst);
                        let all = CpuSet(0b1100);
                        shared.orders.give(all, Order::Forget(Flush::All), |cpu| {
                            lines[cpu.0 as usize - 2].send(()).expect("it listens");
                        });
                        drop(held);
                        shared.given.fetch_add(1, Ordering::SeqCst);
                    }
                });
            }
        });
        assert_eq!(shared.given.load(Ordering::SeqCst), 2 * ROUNDS);
        assert!(!shared.stale.load(Ordering::SeqCst));
    }
}
