//! What happens when guests stop.

use alloc::string::String;
use alloc::vec::Vec;

use super::config::{Action, GuestConfig};
use super::control::{DomainInfo, StopReason};

/// The action a guest's description asks for when it stops for `reason`.
pub fn action(config: &GuestConfig, reason: StopReason) -> Action {
    match reason {
        StopReason::Poweroff | StopReason::Suspend => config.on_poweroff,
        StopReason::Reboot => config.on_reboot,
        StopReason::Crash | StopReason::Watchdog | StopReason::Other(_) => config.on_crash,
    }
}

/// The six letters by which `xl list` shows a domain's state.
pub fn state_letters(info: &DomainInfo) -> String {
    let crashed = matches!(info.stopped, Some(StopReason::Crash | StopReason::Watchdog));
    let flags = [
        (info.running, 'r'),
        (info.blocked, 'b'),
        (info.paused, 'p'),
        (info.stopped.is_some() && !crashed, 's'),
        (crashed, 'c'),
        (info.dying, 'd'),
    ];
    flags.iter().map(|(set, letter)| if *set { *letter } else { '-' }).collect()
}

/// One row of the list of domains.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListRow {
    /// The domain's name.
    pub name: String,
    /// What the hypervisor knows of it.
    pub info: DomainInfo,
}

/// The list of domains with the columns of `xl list`.
pub fn list(rows: &[ListRow]) -> String {
    let header =
        alloc::format!("{:<40} {:>5} {:>5} {:>5} {:>8} {:>11}", "Name", "ID", "Mem", "VCPUs", "State", "Time(s)");
    let lines = rows.iter().map(|row| {
        let info = &row.info;
        let seconds = alloc::format!("{}.{}", info.cpu_time_ns / 1_000_000_000, info.cpu_time_ns / 100_000_000 % 10);
        let (id, mib) = (info.domain.0, info.pages * 4 / 1024);
        alloc::format!("{:<40} {id:>5} {mib:>5} {:>5} {:>8} {seconds:>11}", row.name, info.vcpus, state_letters(info))
    });
    let lines: Vec<String> = core::iter::once(header).chain(lines).collect();
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::DomId;
    use pv_abi::Mfn;

    fn info() -> DomainInfo {
        DomainInfo {
            domain: DomId(3),
            dying: false,
            stopped: None,
            paused: false,
            blocked: true,
            running: false,
            pages: 16384,
            vcpus: 1,
            shared_info: Mfn(1),
            cpu_time_ns: 12_340_000_000,
        }
    }

    #[test]
    fn the_list_has_xls_columns() {
        let text = list(&[ListRow { name: "demo".into(), info: info() }]);
        let rows: Vec<&str> = text.lines().collect();
        assert_eq!(rows[0].split_whitespace().collect::<Vec<_>>(), ["Name", "ID", "Mem", "VCPUs", "State", "Time(s)"]);
        assert_eq!(rows[1].split_whitespace().collect::<Vec<_>>(), ["demo", "3", "64", "1", "-b----", "12.3"]);
    }

    #[test]
    fn a_crash_is_shown_apart_from_a_shutdown() {
        let stopped = DomainInfo { blocked: false, stopped: Some(StopReason::Crash), ..info() };
        assert_eq!(state_letters(&stopped), "----c-");
        let stopped = DomainInfo { blocked: false, stopped: Some(StopReason::Poweroff), ..info() };
        assert_eq!(state_letters(&stopped), "---s--");
    }
}
