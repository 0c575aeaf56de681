//! Locks for several CPUs with interrupts.
//!
//! Words used:
//! - *interrupts*: what can enter the kernel at any instruction; on Xen the event upcall, on a PC the IRQs.
//! - [`IrqLock`]: a value that threads and interrupt handlers share. While it is held, interrupts are off, so the holder
//!   is neither interrupted nor preempted; only another CPU can find it taken, and spins. Hold it for short.
//! - [`SleepLock`]: a value that threads share and may keep for long. A thread that finds it taken sleeps.
//!
//! A virtual CPU that holds a lock may be descheduled by the hypervisor at any instruction. Whoever spins for longer than
//! a lock is ever held therefore gives its time away ([`Spin`]); and a lock is not handed on in the order of arrival, as the
//! next in line may be the one that does not run.
#![expect(unsafe_code, reason = "a lock hands out exclusive access to what it protects")]

use core::cell::{Cell, UnsafeCell};
use core::ops::{Deref, DerefMut};
use core::sync::atomic::{AtomicBool, Ordering};

use crate::platform;
use crate::task::WaitQueue;

/// Interrupts are off while this lives; dropping it restores what was before.
#[derive(Debug)]
pub struct IrqGuard {
    were_enabled: bool,
}

impl IrqGuard {
    /// Turns interrupts off.
    #[must_use]
    pub fn new() -> Self {
        Self { were_enabled: platform::current().interrupts_disable() }
    }
}

impl Default for IrqGuard {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for IrqGuard {
    fn drop(&mut self) {
        if self.were_enabled {
            platform::current().interrupts_enable();
        }
    }
}

/// How often a lock is tried before the time is given away.
const TRIES: u32 = 1000;

/// Waiting for another CPU to do something that takes it no time.
#[derive(Debug, Default)]
pub struct Spin {
    tries: u32,
}

impl Spin {
    /// One step of waiting.
    pub fn once(&mut self) {
        self.tries += 1;
        if self.tries.is_multiple_of(TRIES) {
            platform::current().relax();
        } else {
            core::hint::spin_loop();
        }
    }
}

/// A value shared between threads and interrupt handlers.
#[derive(Debug)]
pub struct IrqLock<T> {
    inner: spin::mutex::SpinMutex<T>,
}

impl<T> IrqLock<T> {
    /// Protects `value`.
    pub const fn new(value: T) -> Self {
        Self { inner: spin::mutex::SpinMutex::new(value) }
    }

    /// Takes the lock with interrupts off.
    pub fn lock(&self) -> IrqLockGuard<'_, T> {
        let irq = IrqGuard::new();
        let mut spin = Spin::default();
        loop {
            if let Some(value) = self.inner.try_lock() {
                return IrqLockGuard { value, _irq: irq };
            }
            spin.once();
        }
    }

    /// Takes the lock for whoever has interrupts off already, and leaves them so until it is given back.
    pub(crate) fn lock_masked(&self) -> impl DerefMut<Target = T> + '_ {
        let mut spin = Spin::default();
        loop {
            if let Some(value) = self.inner.try_lock() {
                return value;
            }
            spin.once();
        }
    }

    /// Takes the lock if it is free: for the panic path, which may have interrupted its holder.
    pub fn try_lock(&self) -> Option<IrqLockGuard<'_, T>> {
        let irq = IrqGuard::new();
        let value = self.inner.try_lock()?;
        Some(IrqLockGuard { value, _irq: irq })
    }
}

/// Access to an [`IrqLock`]'s value. The value is released before interrupts come back (field order).
#[derive(Debug)]
pub struct IrqLockGuard<'a, T> {
    value: spin::mutex::SpinMutexGuard<'a, T>,
    _irq: IrqGuard,
}

impl<T> Deref for IrqLockGuard<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T> DerefMut for IrqLockGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.value
    }
}

/// The lock of the heap: an [`IrqLock`] in the form the allocator wants.
#[derive(Debug)]
pub struct RawIrqLock {
    taken: AtomicBool,
    were_enabled: Cell<bool>,
}

// SAFETY: `were_enabled` is written and read only by the holder of `taken`.
unsafe impl Sync for RawIrqLock {}

// SAFETY: `taken` is changed by one atomic exchange, so at most one holder exists.
unsafe impl lock_api::RawMutex for RawIrqLock {
    const INIT: Self = Self { taken: AtomicBool::new(false), were_enabled: Cell::new(false) };
    type GuardMarker = lock_api::GuardNoSend;

    fn lock(&self) {
        let mut spin = Spin::default();
        while !self.try_lock() {
            spin.once();
        }
    }

    fn try_lock(&self) -> bool {
        let were_enabled = platform::current().interrupts_disable();
        let free = !self.taken.swap(true, Ordering::Acquire);
        if free {
            self.were_enabled.set(were_enabled);
        } else if were_enabled {
            platform::current().interrupts_enable();
        }
        free
    }

    unsafe fn unlock(&self) {
        let were_enabled = self.were_enabled.get();
        self.taken.store(false, Ordering::Release);
        if were_enabled {
            platform::current().interrupts_enable();
        }
    }
}

/// A value that threads share and may keep for long.
#[derive(Debug)]
pub struct SleepLock<T> {
    taken: AtomicBool,
    waiters: WaitQueue,
    value: UnsafeCell<T>,
}

// SAFETY: access to `value` goes through `taken`, which one thread at a time holds.
unsafe impl<T: Send> Sync for SleepLock<T> {}

impl<T> SleepLock<T> {
    /// Protects `value`.
    pub const fn new(value: T) -> Self {
        Self { taken: AtomicBool::new(false), waiters: WaitQueue::new(), value: UnsafeCell::new(value) }
    }

    /// Takes the lock; sleeps while another thread has it. Not for interrupt handlers.
    pub fn lock(&self) -> SleepLockGuard<'_, T> {
        self.waiters.wait_until(|| !self.taken.swap(true, Ordering::Acquire));
        SleepLockGuard { lock: self }
    }
}

/// Access to a [`SleepLock`]'s value.
#[derive(Debug)]
pub struct SleepLockGuard<'a, T> {
    lock: &'a SleepLock<T>,
}

impl<T> Deref for SleepLockGuard<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        // SAFETY: this guard exists, so `taken` is ours until it is dropped.
        unsafe { &*self.lock.value.get() }
    }
}

impl<T> DerefMut for SleepLockGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: this guard exists, so `taken` is ours until it is dropped; `&mut self` makes the borrow unique.
        unsafe { &mut *self.lock.value.get() }
    }
}

impl<T> Drop for SleepLockGuard<'_, T> {
    fn drop(&mut self) {
        self.lock.taken.store(false, Ordering::Release);
        self.lock.waiters.wake_one();
    }
}
