//! A hypercall on its way: who asks, with which registers, and how to reach the caller's memory.

use pv_abi::DomId;
use pv_abi::errno::Errno;
use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::Hypervisor;
use crate::domain::{Domain, Running, Vcpu, VcpuState};
use crate::hardware::{GuestFault, Machine};
use crate::hvm::walk;
use crate::refusal::{Evidence, Refusal};
use crate::registers::Registers;
use crate::rules;

/// A hypercall being handled.
///
/// Every handler has the signature `fn name<M: Machine>(call: &mut Call<'_, M>, args: [u64; 5]) -> Result<u64, Refusal>`:
/// it reads its arguments once, calls the room that owns the state, and gives what goes into `rax`.
pub struct Call<'a, M: Machine> {
    /// Everything.
    pub hv: &'a Hypervisor<M>,
    /// The caller and its state.
    pub running: &'a mut Running,
    /// The caller's general registers; in a multicall, those of the whole.
    pub registers: &'a mut Registers,
    /// The arguments with which a continued hypercall goes on; set by [`Call::again`].
    pub next_arguments: Option<[u64; 5]>,
    /// Whether this call is an entry of a multicall.
    pub in_multicall: bool,
}

impl<M: Machine> Call<'_, M> {
    /// The calling vCPU.
    #[inline]
    #[must_use]
    pub fn vcpu(&self) -> &Vcpu {
        &self.running.vcpu
    }

    /// The calling domain.
    #[inline]
    #[must_use]
    pub fn domain(&self) -> &Domain {
        &self.running.vcpu.domain
    }

    /// The calling vCPU's own state.
    #[inline]
    pub fn state(&mut self) -> &mut VcpuState {
        &mut self.running.state
    }

    /// Reads one argument structure, once.
    ///
    /// # Errors
    /// `EFAULT` where it is not readable guest memory.
    #[inline]
    pub fn read<T: FromBytes + IntoBytes>(&self, from: u64) -> Result<T, Refusal> {
        match self.hv.machine.read_from_guest(from) {
            Ok(value) => Ok(value),
            Err(fault) => {
                // Apart from the value of the usual way, which so never needs to be in memory.
                let mut value = T::new_zeroed();
                self.read_bytes_apart(value.as_mut_bytes(), fault).map(|()| value)
            }
        }
    }

    /// Writes one result structure.
    ///
    /// # Errors
    /// `EFAULT` where it is not writable guest memory.
    #[inline]
    pub fn write<T: IntoBytes + Immutable + ?Sized>(&self, to: u64, value: &T) -> Result<(), Refusal> {
        self.hv.machine.copy_to_guest(to, value.as_bytes()).or_else(|fault| self.write_apart(value.as_bytes(), fault))
    }

    /// Reads bytes, once.
    ///
    /// # Errors
    /// `EFAULT` where they are not readable guest memory.
    #[inline]
    pub fn read_bytes(&self, from: u64, into: &mut [u8]) -> Result<(), Refusal> {
        self.hv.machine.copy_from_guest(from, into).or_else(|fault| self.read_bytes_apart(into, fault))
    }

    /// The tables of a caller with hardware assistance are never loaded here: its memory is found by a walk of them. The
    /// fault is at the first byte then.
    #[cold]
    #[inline(never)]
    fn read_bytes_apart(&self, into: &mut [u8], fault: GuestFault) -> Result<(), Refusal> {
        if self.running.state.hvm.is_none() {
            return Err(memory_refusal(fault.0));
        }
        walk::copy_from(self.hv, self.running, fault.0, into).map_err(|fault| memory_refusal(fault.0))
    }

    #[cold]
    #[inline(never)]
    fn write_apart(&self, from: &[u8], fault: GuestFault) -> Result<(), Refusal> {
        if self.running.state.hvm.is_none() {
            return Err(memory_refusal(fault.0));
        }
        walk::copy_to(self.hv, self.running, fault.0, from).map_err(|fault| memory_refusal(fault.0))
    }

    /// Reads element `index` of an array in guest memory.
    ///
    /// # Errors
    /// `EFAULT`, also where the index leads out of the address space.
    #[inline]
    pub fn read_element<T: FromBytes + IntoBytes>(&self, array: u64, index: u64) -> Result<T, Refusal> {
        self.read(element::<T>(array, index)?)
    }

    /// Writes element `index` of an array in guest memory.
    ///
    /// # Errors
    /// `EFAULT`, also where the index leads out of the address space.
    #[inline]
    pub fn write_element<T: IntoBytes + Immutable>(&self, array: u64, index: u64, value: &T) -> Result<(), Refusal> {
        self.write(element::<T>(array, index)?, value)
    }

    /// An address is not one of readable or writable guest memory: `EFAULT`.
    #[cold]
    pub fn fault(&self, address: u64) -> Refusal {
        memory_refusal(address)
    }

    /// Stops a long operation here: the guest executes it again with these arguments.
    #[cold]
    pub fn again(&mut self, arguments: [u64; 5]) -> Refusal {
        self.next_arguments = Some(arguments);
        Refusal::again()
    }

    /// Whether a long operation should stop and go on later. Ask after each bounded piece of work.
    #[inline]
    #[must_use]
    pub fn should_stop(&self) -> bool {
        self.hv.machine.interrupt_waiting()
    }

    /// The domain that an argument names: `DOMID_SELF`, the caller's own id, or, for a privileged caller, any other.
    ///
    /// # Errors
    /// `ESRCH` where there is none, `EPERM` where the caller may not.
    pub fn target(&self, named: DomId) -> Result<alloc::sync::Arc<Domain>, Refusal> {
        let own = &self.running.vcpu.domain;
        if named.0 == pv_abi::xen::DOMID_SELF || named == own.id {
            return Ok(own.clone());
        }
        self.privileged()?;
        self.hv.domains.get(named).ok_or_else(|| no_such_domain(named))
    }

    /// Passes only a privileged caller.
    ///
    /// # Errors
    /// `EPERM`.
    #[inline]
    pub fn privileged(&self) -> Result<(), Refusal> {
        if self.running.vcpu.domain.privileged {
            Ok(())
        } else {
            Err(Refusal::errno(Errno::Perm, rules::core::PRIVILEGED))
        }
    }
}

/// What the second argument has above its count when an operation with one argument goes on: callers do not set it.
const RESUMED: u64 = 0x5845_4e43 << 32;

/// The arguments with which an operation that has one goes on behind its first `done` elements.
#[must_use]
pub const fn resume(argument: u64, done: u32) -> [u64; 5] {
    [argument, RESUMED | done as u64, 0, 0, 0]
}

/// How many elements are done, by the second argument.
#[must_use]
pub const fn resumed_at(second_argument: u64) -> u32 {
    if second_argument >> 32 == RESUMED >> 32 { second_argument as u32 } else { 0 }
}

#[inline]
fn element<T>(array: u64, index: u64) -> Result<u64, Refusal> {
    index
        .checked_mul(size_of::<T>() as u64)
        .and_then(|offset| array.checked_add(offset))
        .ok_or_else(|| memory_refusal(array))
}

#[cold]
fn memory_refusal(address: u64) -> Refusal {
    Refusal::errno(Errno::Fault, rules::core::GUEST_MEMORY).with(Evidence::Value(address))
}

#[cold]
fn no_such_domain(named: DomId) -> Refusal {
    Refusal::errno(Errno::Srch, rules::core::NO_SUCH_DOMAIN).with(Evidence::Value(named.0.into()))
}
