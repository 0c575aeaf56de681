//! A hypervisor on a fake machine.

use spin::Mutex;

use super::FakeMachine;
use crate::Hypervisor;

/// A hypervisor on a fake machine, with what tests need to set the scene.
pub struct Bed {
    /// The hypervisor.
    pub hv: Hypervisor<FakeMachine>,
}

impl Bed {
    /// A hypervisor on a machine of one CPU with this many frames, all free.
    #[must_use]
    pub fn new(frames: usize) -> Self {
        Self::on(FakeMachine::new(frames))
    }

    /// A hypervisor on this machine.
    #[must_use]
    pub fn on(machine: FakeMachine) -> Self {
        Self {
            hv: Hypervisor {
                machine,
                frames: Default::default(),
                allocator: Mutex::default(),
                domains: Default::default(),
                scheduler: Default::default(),
                timers: Default::default(),
                interrupts: Default::default(),
                console: Default::default(),
                options: Default::default(),
            },
        }
    }
}
