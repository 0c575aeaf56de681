//! Commands about CPUs.

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use pv_guest_kernel::cpus;
use pv_guest_kernel::platform::{self, pv};
use pv_guest_kernel::sync::{IrqGuard, IrqLock, Spin};
use pv_guest_kernel::time::{MILLISECOND_NS, SECOND_NS, now_ns};
use pv_guest_kernel::{println, task};

/// How long the CPUs may take to meet: they may have to share one.
const PATIENCE_NS: u64 = 20 * SECOND_NS;
/// How often each thread takes the common lock.
const TURNS: u64 = 10_000;

/// What the threads of one run share.
struct Race {
    threads: usize,
    /// How many have come to the meeting.
    here: AtomicUsize,
    /// How many saw all others there.
    met: AtomicUsize,
    counts: Vec<AtomicU64>,
    total: IrqLock<u64>,
}

/// `smp [MILLISECONDS]`: as many threads as CPUs, all at once.
pub(super) fn smp(arguments: &[String]) -> i32 {
    let duration_ms: u64 = arguments.first().and_then(|text| text.parse().ok()).unwrap_or(100);
    let threads = cpus::online().len();
    let race = Arc::new(Race {
        threads,
        here: AtomicUsize::new(0),
        met: AtomicUsize::new(0),
        counts: (0..threads).map(|_| AtomicU64::new(0)).collect(),
        total: IrqLock::new(0),
    });
    let runners: Vec<_> = (0..threads)
        .map(|number| {
            let race = race.clone();
            task::spawn(alloc::format!("racer/{number}"), move || race.run(number, duration_ms * MILLISECOND_NS))
        })
        .collect();
    runners.iter().for_each(|runner| runner.join());
    let met = race.met.load(Ordering::Acquire);
    let total = *race.total.lock();
    let counts: Vec<u64> = race.counts.iter().map(|count| count.load(Ordering::Relaxed)).collect();
    println!("{met} of {threads} CPUs met with interrupts off; {duration_ms} ms of counting: {counts:?}");
    println!("the common counter says {total}");
    i32::from(met != threads || total != threads as u64 * TURNS)
}

impl Race {
    fn run(&self, number: usize, duration_ns: u64) {
        if self.meet() {
            self.met.fetch_add(1, Ordering::AcqRel);
        }
        let end = now_ns() + duration_ns;
        while now_ns() < end {
            self.counts[number].fetch_add(1, Ordering::Relaxed);
        }
        for _ in 0..TURNS {
            *self.total.lock() += 1;
        }
    }

    /// Waits for all others without giving up the CPU: it succeeds only if each runs on a CPU of its own.
    fn meet(&self) -> bool {
        let _irq = IrqGuard::new();
        let deadline = now_ns() + PATIENCE_NS;
        self.here.fetch_add(1, Ordering::AcqRel);
        let mut spin = Spin::default();
        while self.here.load(Ordering::Acquire) < self.threads {
            if now_ns() > deadline {
                return false;
            }
            spin.once();
        }
        true
    }
}

/// `cpu [N online|offline]`: which CPUs there are; or takes one up or down.
pub(super) fn cpu(arguments: &[String]) -> i32 {
    match arguments {
        [] => {
            println!("online: {:?}", cpus::online().iter().collect::<Vec<_>>());
            0
        }
        [number, wish] if platform::is_xen() => match (number.parse(), wish.as_str()) {
            (Ok(number), "online") => report(pv::cpus::start(number)),
            (Ok(number), "offline") => report(pv::cpus::stop(number)),
            _ => usage(),
        },
        _ => usage(),
    }
}

fn usage() -> i32 {
    println!("cpu: nothing, or a number and online or offline");
    2
}

fn report(result: Result<(), pv_abi::errno::Errno>) -> i32 {
    match result {
        Ok(()) => 0,
        Err(errno) => {
            println!("cpu: {errno:?}");
            1
        }
    }
}
