//! What the commands print: the names and columns of `xl`, or JSON where a script wants it.
//!
//! Source: Xen `xl(1)`, `xentop(1)`.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::control::{DomainInfo, StopReason};
use super::cpus::CpuSet;
use crate::ids::DomId;

const SECOND_NS: u64 = 1_000_000_000;

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

fn mib(pages: u64) -> u64 {
    pages * 4 / 1024
}

fn tenths(ns: u64) -> String {
    format!("{}.{}", ns / SECOND_NS, ns / (SECOND_NS / 10) % 10)
}

fn lines(header: &str, rows: impl Iterator<Item = String>) -> String {
    core::iter::once(header.to_string()).chain(rows).collect::<Vec<_>>().join("\n")
}

/// The list of domains with the columns of `xl list`.
pub fn list(rows: &[ListRow]) -> String {
    let row = |row: &ListRow| {
        let info = &row.info;
        let (id, mem, time) = (info.domain.0, mib(info.pages), tenths(info.cpu_time_ns));
        format!("{:<40} {id:>5} {mem:>5} {:>5}     {}  {time:>8}", row.name, info.vcpus, state_letters(info))
    };
    lines("Name                                        ID   Mem VCPUs\tState\tTime(s)", rows.iter().map(row))
}

/// A text as JSON.
pub fn json_text(text: &str) -> String {
    let mut out = String::from("\"");
    for letter in text.chars() {
        match letter {
            '"' | '\\' => out.extend(['\\', letter]),
            control if u32::from(control) < 0x20 => out.push_str(&format!("\\u{:04x}", u32::from(control))),
            other => out.push(other),
        }
    }
    out.push('"');
    out
}

/// The list of domains as JSON.
pub fn list_json(rows: &[ListRow]) -> String {
    let row = |row: &ListRow| {
        let info = &row.info;
        let stopped = info.stopped.map_or("null".to_string(), |reason| json_text(&reason.to_string()));
        format!(
            "{{\"name\":{},\"domid\":{},\"memory_mib\":{},\"vcpus\":{},\"state\":\"{}\",\"shutdown\":{stopped},\"cpu_seconds\":{}}}",
            json_text(&row.name),
            info.domain.0,
            mib(info.pages),
            info.vcpus,
            state_letters(info),
            tenths(info.cpu_time_ns)
        )
    };
    format!("[{}]", rows.iter().map(row).collect::<Vec<_>>().join(","))
}

/// A virtual CPU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VcpuRow {
    /// Its domain's name.
    pub name: String,
    /// Its domain.
    pub domain: DomId,
    /// Its number.
    pub vcpu: u32,
    /// The CPU that it is or was on.
    pub cpu: u32,
    /// It is up.
    pub online: bool,
    /// It waits for an event.
    pub blocked: bool,
    /// It is on a CPU.
    pub running: bool,
    /// CPU time it has used.
    pub cpu_time_ns: u64,
    /// Where it may run, and likes to.
    pub affinity: (CpuSet, CpuSet),
}

/// Virtual CPUs with the columns of `xl vcpu-list`, on a machine with `cpus` CPUs.
pub fn vcpu_list(rows: &[VcpuRow], cpus: u32) -> String {
    let header = "Name                                ID  VCPU   CPU State   Time(s) Affinity (Hard / Soft)";
    let row = |row: &VcpuRow| {
        let letter = |set: bool, letter: char| if set { letter } else { '-' };
        let (cpu, state) = if row.online {
            (row.cpu.to_string(), format!("{}{}-", letter(row.running, 'r'), letter(row.blocked, 'b')))
        } else {
            ("-".to_string(), "--p".to_string())
        };
        let (hard, soft) = (row.affinity.0.text(cpus), row.affinity.1.text(cpus));
        let (id, time) = (row.domain.0, tenths(row.cpu_time_ns));
        format!("{:<32} {id:>5} {:>5} {cpu:>5}   {state} {time:>9}  {hard} / {soft}", row.name, row.vcpu)
    };
    lines(header, rows.iter().map(row))
}

/// A device as the store describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceRow {
    /// The disk's number, or the interface's place.
    pub number: u32,
    /// The guest.
    pub front_domain: u32,
    /// The back end's domain.
    pub back_domain: u32,
    /// The front end's state, a number of `XenbusState`.
    pub state: u32,
    /// The guest's event channel; none before it has connected.
    pub event_channel: Option<u32>,
    /// The grants of its rings, as far as it has made them.
    pub ring_refs: Vec<u32>,
    /// The back end's directory.
    pub back_path: String,
    /// An interface's address.
    pub mac: Option<String>,
}

fn or_none(number: Option<u32>) -> String {
    number.map_or("-1".to_string(), |number| number.to_string())
}

/// Disks with the columns of `xl block-list`.
pub fn block_list(rows: &[DeviceRow]) -> String {
    let header = "Vdev  BE  handle state evt-ch ring-ref BE-path                       ";
    let row = |row: &DeviceRow| {
        let (channel, ring) = (or_none(row.event_channel), or_none(row.ring_refs.first().copied()));
        format!(
            "{:<5} {:<3} {:<6} {:<5} {channel:<6} {ring:<8} {:<30}",
            row.number, row.back_domain, row.front_domain, row.state, row.back_path
        )
    };
    lines(header, rows.iter().map(row))
}

/// Network interfaces with the columns of `xl network-list`.
pub fn network_list(rows: &[DeviceRow]) -> String {
    let header = "Idx BE Mac Addr.         handle state evt-ch   tx-/rx-ring-ref BE-path                       ";
    let row = |row: &DeviceRow| {
        let ring = |place: usize| or_none(row.ring_refs.get(place).copied());
        let (mac, channel) = (row.mac.as_deref().unwrap_or("-"), or_none(row.event_channel));
        format!(
            "{:<3} {:<2} {mac:<17} {:>6} {:>5} {channel:>6} {:>5}/{:<11} {:<30}",
            row.number,
            row.back_domain,
            row.number,
            row.state,
            ring(0),
            ring(1),
            row.back_path
        )
    };
    lines(header, rows.iter().map(row))
}

/// One row of `top`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopRow {
    /// The domain.
    pub domain: ListRow,
    /// CPU time it has used since the measuring began.
    pub used_ns: u64,
    /// Its network interfaces.
    pub nets: usize,
    /// Bytes that it sent and got by them.
    pub net_bytes: (u64, u64),
    /// Its disks.
    pub vbds: usize,
    /// What it asked of them.
    pub asked: BlockUse,
}

/// What a domain asked of its disks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BlockUse {
    /// How often a request had to wait.
    pub waits: u64,
    /// Requests to read and to write.
    pub requests: (u64, u64),
    /// Sectors of 512 bytes read and written.
    pub sectors: (u64, u64),
}

/// What the domains used in `measured_ns`, with the columns of `xentop` that this domain has figures for.
pub fn top(rows: &[TopRow], measured_ns: u64, machine_pages: u64) -> String {
    let header = "      NAME  STATE   CPU(sec) CPU(%)     MEM(k) MEM(%)  MAXMEM(k) MAXMEM(%) VCPUS \
        NETS NETTX(k) NETRX(k) VBDS   VBD_OO   VBD_RD   VBD_WR  VBD_RSECT  VBD_WSECT";
    let row = |row: &TopRow| {
        let info = &row.domain.info;
        let cpu = share(row.used_ns, measured_ns);
        let (mem, mem_share) = (info.pages * 4, share(info.pages, machine_pages));
        let limit = (info.max_pages < machine_pages).then_some(info.max_pages);
        let max = limit.map_or("no limit".to_string(), |pages| (pages * 4).to_string());
        let max_share = limit.map_or("n/a".to_string(), |pages| share(pages, machine_pages));
        let BlockUse { waits, requests: (reads, writes), sectors: (read, written) } = row.asked;
        format!(
            "{:>10.10} {} {:>10} {cpu:>6} {mem:>10} {mem_share:>6} {max:>10} {max_share:>9} {:>5} \
             {:>4} {:>8} {:>8} {:>4} {waits:>8} {reads:>8} {writes:>8} {read:>10} {written:>10}",
            row.domain.name,
            state_letters(info),
            info.cpu_time_ns / SECOND_NS,
            info.vcpus,
            row.nets,
            row.net_bytes.0 / 1024,
            row.net_bytes.1 / 1024,
            row.vbds
        )
    };
    lines(header, rows.iter().map(row))
}

/// The same as JSON.
pub fn top_json(rows: &[TopRow], measured_ns: u64, machine_pages: u64) -> String {
    let row = |row: &TopRow| {
        let info = &row.domain.info;
        let BlockUse { waits, requests: (reads, writes), sectors: (read, written) } = row.asked;
        let max = (info.max_pages < machine_pages).then_some(info.max_pages * 4);
        format!(
            "{{\"name\":{},\"domid\":{},\"state\":\"{}\",\"cpu_seconds\":{},\"cpu_percent\":{},\"memory_kib\":{},\"max_memory_kib\":{},\"vcpus\":{},\"nets\":{},\"net_tx_bytes\":{},\"net_rx_bytes\":{},\"vbds\":{},\"vbd_waits\":{waits},\"vbd_reads\":{reads},\"vbd_writes\":{writes},\"vbd_read_sectors\":{read},\"vbd_written_sectors\":{written}}}",
            json_text(&row.domain.name),
            info.domain.0,
            state_letters(info),
            tenths(info.cpu_time_ns),
            share(row.used_ns, measured_ns),
            info.pages * 4,
            max.map_or("null".to_string(), |kib| kib.to_string()),
            info.vcpus,
            row.nets,
            row.net_bytes.0,
            row.net_bytes.1,
            row.vbds
        )
    };
    format!("[{}]", rows.iter().map(row).collect::<Vec<_>>().join(","))
}

/// A part of a whole in percent, with a tenth.
fn share(part: u64, whole: u64) -> String {
    let thousandths = part.saturating_mul(1000).checked_div(whole).unwrap_or(0);
    format!("{}.{}", thousandths / 10, thousandths % 10)
}

/// How long domains have run, with the columns of `xl uptime`.
pub fn uptime(rows: &[(String, DomId, u64)]) -> String {
    let row = |(name, domain, seconds): &(String, DomId, u64)| {
        let (days, rest) = (seconds / 86_400, seconds % 86_400);
        let days = match days {
            0 => String::new(),
            1 => "1 day, ".to_string(),
            more => format!("{more} days, "),
        };
        format!("{name:<33} {:>4} {days}{}:{:02}:{:02}", domain.0, rest / 3600, rest / 60 % 60, rest % 60)
    };
    lines("Name                                ID Uptime", rows.iter().map(row))
}

#[cfg(test)]
mod tests {
    use super::*;
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
            max_pages: 16640,
            vcpus: 1,
            max_vcpu: 0,
            shared_info: Mfn(1),
            cpu_time_ns: 12_340_000_000,
        }
    }

    fn columns(text: &str, line: usize) -> Vec<&str> {
        text.lines().nth(line).expect("a line").split_whitespace().collect()
    }

    #[test]
    fn the_list_has_xls_columns() {
        let text = list(&[ListRow { name: "demo".into(), info: info() }]);
        assert_eq!(columns(&text, 0), ["Name", "ID", "Mem", "VCPUs", "State", "Time(s)"]);
        assert_eq!(columns(&text, 1), ["demo", "3", "64", "1", "-b----", "12.3"]);
    }

    #[test]
    fn a_crash_is_shown_apart_from_a_shutdown() {
        let stopped = DomainInfo { blocked: false, stopped: Some(StopReason::Crash), ..info() };
        assert_eq!(state_letters(&stopped), "----c-");
        let stopped = DomainInfo { blocked: false, stopped: Some(StopReason::Poweroff), ..info() };
        assert_eq!(state_letters(&stopped), "---s--");
    }

    #[test]
    fn json_keeps_what_a_guest_may_be_called() {
        let text = list_json(&[ListRow { name: "a\"b\\\n".into(), info: info() }]);
        assert!(text.starts_with(r#"[{"name":"a\"b\\\u000a","domid":3,"memory_mib":64,"#), "{text}");
        assert!(text.ends_with(r#""shutdown":null,"cpu_seconds":12.3}]"#), "{text}");
    }

    #[test]
    fn virtual_cpus_that_are_down_have_no_place() {
        let up = VcpuRow {
            name: "demo".into(),
            domain: DomId(3),
            vcpu: 0,
            cpu: 1,
            online: true,
            blocked: true,
            running: false,
            cpu_time_ns: 1_500_000_000,
            affinity: (CpuSet(1), CpuSet::ALL),
        };
        let down = VcpuRow { vcpu: 1, online: false, ..up.clone() };
        let text = vcpu_list(&[up, down], 2);
        assert_eq!(columns(&text, 1), ["demo", "3", "0", "1", "-b-", "1.5", "0", "/", "all"]);
        assert_eq!(columns(&text, 2), ["demo", "3", "1", "-", "--p", "1.5", "0", "/", "all"]);
    }

    #[test]
    fn devices_that_have_not_connected_have_no_channel() {
        let device = DeviceRow {
            number: 51712,
            front_domain: 3,
            back_domain: 0,
            state: 1,
            event_channel: None,
            ring_refs: Vec::new(),
            back_path: "/local/domain/0/backend/vbd/3/51712".into(),
            mac: None,
        };
        assert_eq!(columns(&block_list(core::slice::from_ref(&device)), 1)[..6], ["51712", "0", "3", "1", "-1", "-1"]);
        let vif = DeviceRow { number: 0, ring_refs: [8, 9].into(), mac: Some("00:16:3e:00:00:01".into()), ..device };
        let text = network_list(&[vif]);
        assert_eq!(columns(&text, 1)[..6], ["0", "0", "00:16:3e:00:00:01", "0", "1", "-1"]);
        assert!(text.contains("8/9"), "{text}");
    }

    #[test]
    fn top_shows_shares_of_the_machine() {
        let row = TopRow {
            domain: ListRow { name: "demo".into(), info: info() },
            used_ns: 250_000_000,
            nets: 1,
            net_bytes: (3 << 10, 5 << 10),
            vbds: 2,
            asked: BlockUse { waits: 7, requests: (8, 9), sectors: (64, 72) },
        };
        let text = top(core::slice::from_ref(&row), SECOND_NS, 65536);
        let wanted = ["demo", "-b----", "12", "25.0", "65536", "25.0", "66560", "25.3", "1", "1", "3", "5", "2"];
        assert_eq!(columns(&text, 1)[..13], wanted);
        assert_eq!(columns(&text, 1)[13..], ["7", "8", "9", "64", "72"]);
        assert_eq!(columns(&text, 0).len(), columns(&text, 1).len());
        let unbounded = DomainInfo { max_pages: u64::MAX, ..info() };
        let row = TopRow { domain: ListRow { info: unbounded, ..row.domain }, ..row };
        assert!(top(&[row], 0, 0).contains("no limit"));
    }

    #[test]
    fn uptime_counts_days() {
        let text = uptime(&[("a".into(), DomId(0), 59), ("b".into(), DomId(2), 2 * 86_400 + 3661)]);
        assert_eq!(columns(&text, 1), ["a", "0", "0:00:59"]);
        assert_eq!(columns(&text, 2), ["b", "2", "2", "days,", "1:01:01"]);
    }
}
