//! Clocks and timers.

use crate::Hypervisor;
use crate::domain::Running;
use crate::hardware::Machine;

/// What is due when, on all CPUs.
#[derive(Debug, Default)]
pub struct Timers;

/// A vCPU's timers.
#[derive(Debug, Default)]
pub struct VcpuTimers;

/// How long a vCPU spent in which state.
#[derive(Debug, Default)]
pub struct Runstate;

/// Does what is due, and asks for the next timer interrupt.
pub fn on_timer<M: Machine>(_hv: &Hypervisor<M>) {}

/// Writes the running vCPU's time page and runstate area.
pub fn update_guest_clock<M: Machine>(_hv: &Hypervisor<M>, _running: &mut Running) {}
