//! How long a vCPU spent in which state (Xen: `public/vcpu.h`, `vcpu_runstate_info`).

use pv_abi::vcpu::{RUNSTATE_OFFLINE, VcpuRunstateInfo};

/// How long a vCPU spent in which state.
#[derive(Clone, Copy, Debug)]
pub struct Runstate {
    /// The state now and the times in earlier ones.
    info: VcpuRunstateInfo,
    /// Guest address where the guest wants a copy; 0 for none.
    pub(crate) area: u64,
    /// Guest address where the guest wants a copy of its time page; 0 for none.
    pub(crate) time_area: u64,
}

impl Default for Runstate {
    fn default() -> Self {
        let info = VcpuRunstateInfo { state: RUNSTATE_OFFLINE, ..VcpuRunstateInfo::default() };
        Self { info, area: 0, time_area: 0 }
    }
}

impl Runstate {
    /// Enters a state (`RUNSTATE_*`) at system time `now`.
    pub(crate) fn enter(&mut self, state: i32, now: u64) {
        self.info = self.at(now);
        self.info.state = state;
        self.info.state_entry_time = now;
    }

    /// Starts to count at system time `now`.
    pub(crate) fn begin(&mut self, now: u64) {
        self.info.state_entry_time = now;
    }

    /// As it was last entered.
    pub(crate) const fn entered(&self) -> &VcpuRunstateInfo {
        &self.info
    }

    /// With the time in the present state counted up to system time `now`.
    #[must_use]
    pub fn at(&self, now: u64) -> VcpuRunstateInfo {
        let mut info = self.info;
        let here = now.saturating_sub(info.state_entry_time);
        if let Some(time) = info.time.get_mut(info.state as usize) {
            *time += here;
        }
        info
    }
}
