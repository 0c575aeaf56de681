//! What the commands that look at things find.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use dom0::console::command::Format;
use dom0::ids::DomId;
use dom0::toolstack::report::{self, ListRow, TopRow};
use pv_guest_kernel::time::{SECOND_NS, now_ns};

use super::Service;
use crate::machine::queries;

impl Service {
    /// The guest with this name or number.
    ///
    /// # Errors
    /// One line that names those that there are.
    pub(super) fn find(&self, name: &str) -> Result<DomId, String> {
        let number = name.parse().ok().map(DomId);
        let named = self.guests.iter().find(|(_, guest)| guest.config.name == name);
        let found = named.or_else(|| self.guests.iter().find(|(domain, _)| Some(**domain) == number));
        found.map(|(domain, _)| *domain).ok_or_else(|| {
            let known: Vec<&str> = self.guests.values().map(|guest| guest.config.name.as_str()).collect();
            if known.is_empty() {
                format!("there is no guest \"{name}\": none runs")
            } else {
                format!("there is no guest \"{name}\": running are {}", known.join(", "))
            }
        })
    }

    /// The domain with this name or number, this one included.
    pub(super) fn find_any(&mut self, name: &str) -> Result<ListRow, String> {
        let mut rows = self.rows_of(None)?;
        let number = name.parse().ok().map(DomId);
        let found = rows.iter().position(|row| row.name == name);
        let found = found.or_else(|| rows.iter().position(|row| Some(row.info.domain) == number));
        match found {
            Some(place) => Ok(rows.swap_remove(place)),
            None => self.find(name).and(Err(format!("the hypervisor has no domain \"{name}\""))),
        }
    }

    fn rows_of(&mut self, guest: Option<String>) -> Result<Vec<ListRow>, String> {
        if let Some(guest) = guest {
            return Ok(alloc::vec![self.find_any(&guest)?]);
        }
        let domains = self.xen.domains();
        let row = |info: dom0::toolstack::control::DomainInfo| {
            let name = self.names.text(&format!("/local/domain/{}/name", info.domain.0));
            ListRow { name: name.unwrap_or_else(|| "(null)".to_string()), info }
        };
        Ok(domains.into_iter().map(row).collect())
    }

    pub(super) fn show_domains(&mut self, guest: Option<String>, format: Format) -> Result<String, String> {
        let rows = self.rows_of(guest)?;
        Ok(if format == Format::Json { report::list_json(&rows) } else { report::list(&rows) })
    }

    pub(super) fn show_vcpus(&mut self, guest: Option<String>) -> Result<String, String> {
        let mut vcpus = Vec::new();
        for row in self.rows_of(guest)? {
            vcpus.extend(self.xen.vcpus(&row.name, &row.info).map_err(|error| error.to_string())?);
        }
        let machine = queries::machine().map_err(|error| error.to_string())?;
        Ok(report::vcpu_list(&vcpus, machine.nr_cpus))
    }

    pub(super) fn show_disks(&mut self, domain: DomId) -> Result<String, String> {
        Ok(report::block_list(&self.block_list(domain)))
    }

    pub(super) fn show_interfaces(&mut self, domain: DomId) -> Result<String, String> {
        Ok(report::network_list(&self.network_list(domain)))
    }

    pub(super) fn show_uptime(&mut self, guest: Option<String>) -> Result<String, String> {
        let now_ns = now_ns();
        let rows = self.rows_of(guest)?;
        let row = |row: ListRow| {
            let started_ns = self.guests.get(&row.info.domain).map_or(self.started_ns, |guest| guest.started_ns);
            (row.name, row.info.domain, now_ns.saturating_sub(started_ns) / SECOND_NS)
        };
        Ok(report::uptime(&rows.into_iter().map(row).collect::<Vec<_>>()))
    }

    /// What the domains used since each had used what `before` says.
    pub(super) fn show_use(
        &mut self,
        before: &BTreeMap<DomId, u64>,
        measured_ns: u64,
        format: Format,
    ) -> Result<String, String> {
        let machine = queries::machine().map_err(|error| error.to_string())?;
        let domains = self.rows_of(None)?;
        let row = |domain: ListRow| {
            let info = &domain.info;
            let used_ns = info.cpu_time_ns - before.get(&info.domain).map_or(0, |used| (*used).min(info.cpu_time_ns));
            let config = self.guests.get(&info.domain).map(|guest| &guest.config);
            let (nets, vbds) = config.map_or((0, 0), |config| (config.vifs.len(), config.disks.len()));
            let net_bytes = self.devices.networks.bytes_of(info.domain);
            let asked = self.devices.disks.asked_by(info.domain);
            TopRow { domain, used_ns, nets, net_bytes, vbds, asked }
        };
        let rows: Vec<TopRow> = domains.into_iter().map(row).collect();
        Ok(match format {
            Format::Json => report::top_json(&rows, measured_ns, machine.total_pages),
            Format::Columns => report::top(&rows, measured_ns, machine.total_pages),
        })
    }

    /// The number of the disk that a guest knows by this name or number.
    pub(super) fn disk_number(&self, domain: DomId, name: &str) -> Result<u32, String> {
        let disks = self.guests.get(&domain).map_or(&[][..], |guest| &guest.config.disks);
        let named = disks.iter().find(|disk| disk.vdev == name).map(|disk| disk.number);
        named.or_else(|| name.parse().ok()).ok_or_else(|| {
            let known: Vec<&str> = disks.iter().map(|disk| disk.vdev.as_str()).collect();
            format!("the guest has no disk {name}: it has {}", or_nothing(&known))
        })
    }

    /// The number of the interface that has this number or address.
    pub(super) fn interface_number(&mut self, domain: DomId, name: &str) -> Result<u32, String> {
        let rows = self.network_list(domain);
        let addressed = rows.iter().find(|row| row.mac.as_deref() == Some(name)).map(|row| row.number);
        addressed.or_else(|| name.parse().ok()).ok_or_else(|| {
            let known: Vec<&str> = rows.iter().filter_map(|row| row.mac.as_deref()).collect();
            format!("the guest has no interface {name}: it has {}", or_nothing(&known))
        })
    }
}

fn or_nothing(names: &[&str]) -> String {
    if names.is_empty() { "none".to_string() } else { names.join(", ") }
}
