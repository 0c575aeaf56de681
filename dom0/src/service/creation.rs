//! Guests from their description to their first instruction.
//!
//! A kernel takes long to unpack: a thread of its own does it, so that the other guests are served meanwhile.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;

use dom0::ids::{DomId, Port};
use dom0::ramdisk::Ramdisk;
use dom0::toolstack::build::{self, Built, Request};
use dom0::toolstack::config::{self, GuestConfig};
use dom0::toolstack::control::{Control, GuestKind};
use dom0::toolstack::cpus::CpuSet;
use dom0::toolstack::nodes::{self, Entry};
use pv_bus::{Store, StoreError};
use pv_guest_kernel::boot;
use pv_guest_kernel::sync::IrqLock;
use pv_guest_kernel::task;
use pv_guest_kernel::time::now_ns;

use super::Service;
use super::consoles::GuestConsole;
use super::emulated;
use super::guests::Guest;
use super::jobs::Wait;
use crate::machine::queries;

/// The stack that unpacking takes.
const STACK_PAGES: usize = 128;

/// Why a guest that needs hardware assistance is not started.
const NO_ASSISTANCE: &str = "the hypervisor has no hardware assistance (AMD SVM with nested paging) on this machine: give QEMU \
                             a CPU that has it (-cpu max), or write type = \"pv\"";

/// A file that a guest's description names.
#[derive(Clone, Debug)]
pub(super) enum File {
    /// It is in the ramdisk.
    Ramdisk(&'static [u8]),
    /// It was brought.
    Brought(Arc<Vec<u8>>),
}

impl AsRef<[u8]> for File {
    fn as_ref(&self) -> &[u8] {
        match self {
            Self::Ramdisk(bytes) => bytes,
            Self::Brought(bytes) => bytes,
        }
    }
}

/// Files that came with a request, by name.
#[derive(Debug, Default)]
pub(super) struct Brought(pub(super) BTreeMap<String, Arc<Vec<u8>>>);

impl Brought {
    /// The file with this name: one that came along, or one of the ramdisk.
    pub(super) fn get(&self, name: &str, ramdisk: &Ramdisk<'static>) -> Option<File> {
        let brought = self.0.get(name).cloned().map(File::Brought);
        brought.or_else(|| ramdisk.file(name).map(File::Ramdisk))
    }
}

/// What a guest is built from.
pub(super) struct Plan {
    pub(super) config: GuestConfig,
    pub(super) brought: Brought,
    pub(super) autostarted: bool,
    /// It is left paused.
    pub(super) paused: bool,
}

/// A guest whose kernel is being unpacked.
pub(super) struct Unpacking {
    pub(super) plan: Plan,
    /// Whoever asked for the guest gets its console.
    pub(super) console: bool,
    kernel: File,
    result: Arc<IrqLock<Option<Unpacked>>>,
}

/// The unpacked kernel, or none where the file is it already.
type Unpacked = Result<Option<Vec<u8>>, String>;

fn unpack(kernel: &File) -> Unpacked {
    let unpacked = build::unpack(kernel.as_ref()).map_err(|error| error.to_string())?;
    Ok(match unpacked {
        alloc::borrow::Cow::Owned(bytes) => Some(bytes),
        alloc::borrow::Cow::Borrowed(_) => None,
    })
}

impl Plan {
    /// What the description in `text` asks for.
    ///
    /// # Errors
    /// One line: what is wrong with it.
    pub(super) fn read(file: &str, text: &str) -> Result<Self, String> {
        let config = config::parse(file, text).map_err(|error| error.to_string())?;
        Ok(Self { config, brought: Brought::default(), autostarted: false, paused: false })
    }

    fn about(&self, problem: &str) -> String {
        format!("guest {}: {problem}", self.config.name)
    }
}

impl Service {
    /// Starts a guest together with this domain.
    pub(super) fn create_first(&mut self, file: &str, text: &str) -> Result<DomId, String> {
        let mut plan = Plan { autostarted: true, ..Plan::read(file, text)? };
        if let Some(commands) = boot::option("exec") {
            plan.config.extra = format!("{} exec=\"{commands}\"", plan.config.extra).trim().to_string();
        }
        self.check_name(&plan)?;
        let kernel = self.file(&plan, "kernel", &plan.config.kernel)?;
        let unpacked = unpack(&kernel);
        self.build(plan, &kernel, unpacked)
    }

    /// Begins to start a guest; it is started when what is given back has happened.
    ///
    /// # Errors
    /// One line: a name that is taken, or a file that is missing.
    pub(super) fn create(&mut self, plan: Plan, console: bool) -> Result<Wait, String> {
        self.check_name(&plan)?;
        let kernel = self.file(&plan, "kernel", &plan.config.kernel)?;
        let result = Arc::new(IrqLock::new(None));
        let unpacking = Unpacking { plan, console, kernel: kernel.clone(), result: result.clone() };
        let signal = self.signal.clone();
        task::spawn_with_stack("unpacking", STACK_PAGES, move || {
            let unpacked = unpack(&kernel);
            *result.lock() = Some(unpacked);
            signal.raise();
        });
        Ok(Wait::Unpacked(Box::new(unpacking)))
    }

    /// Builds the guest if its kernel is unpacked; gives the wait back if it is not.
    pub(super) fn go_on_creating(
        &mut self,
        unpacking: Box<Unpacking>,
    ) -> Result<Result<DomId, String>, Box<Unpacking>> {
        let unpacked = unpacking.result.lock().take();
        match unpacked {
            Some(unpacked) => Ok(self.build(unpacking.plan, &unpacking.kernel, unpacked)),
            None => Err(unpacking),
        }
    }

    /// Guests that are about to be.
    pub(super) fn plans(&self) -> impl Iterator<Item = &Plan> {
        self.jobs.iter().filter_map(|job| match &job.wait {
            Wait::Unpacked(unpacking) => Some(&unpacking.plan),
            _ => None,
        })
    }

    fn check_name(&self, plan: &Plan) -> Result<(), String> {
        let name = &plan.config.name;
        let running = self.guests.values().map(|guest| &guest.config);
        let known = running.chain(self.plans().map(|plan| &plan.config)).any(|config| config.name == *name);
        let taken = || format!("a guest named \"{name}\" runs already: destroy it or choose another name");
        if known { Err(taken()) } else { Ok(()) }
    }

    fn file(&self, plan: &Plan, what: &str, path: &str) -> Result<File, String> {
        let missing = || plan.about(&format!("the {what} {path} is not in the ramdisk: add it or correct {what} ="));
        plan.brought.get(path, &self.ramdisk).ok_or_else(missing)
    }

    fn build(&mut self, plan: Plan, kernel: &File, unpacked: Unpacked) -> Result<DomId, String> {
        let config = &plan.config;
        let unpacked = unpacked.map_err(|problem| plan.about(&problem))?;
        if config.kind.is_assisted() && !queries::has_assistance() {
            return Err(plan.about(NO_ASSISTANCE));
        }
        if config.kind == GuestKind::Hvm {
            emulated::check(config).map_err(|problem| plan.about(&problem))?;
        }
        let ramdisk = config.ramdisk.as_ref().map(|path| self.file(&plan, "ramdisk", path)).transpose()?;
        self.created += 1;
        let handle = handle(self.created);
        let request = Request {
            kernel: unpacked.as_deref().unwrap_or(kernel.as_ref()),
            ramdisk: ramdisk.as_ref().map(AsRef::as_ref),
            command_line: &config.extra,
            memory_mib: config.memory_mib,
            maxmem_mib: config.maxmem_mib,
            max_vcpus: config.max_vcpus,
            kind: config.kind,
            tsc: config.tsc,
            handle,
            server: DomId(0),
        };
        let built = build::build(&mut self.xen, &request).map_err(|error| plan.about(&error.to_string()))?;
        let handle = handle_text(&handle);
        match self.connect(&plan, &built, &handle) {
            Ok(console) => {
                let Plan { config, brought, autostarted, .. } = plan;
                let started_ns = now_ns();
                let guest = Guest { config, console, handle, autostarted, preserved: false, started_ns, brought };
                self.guests.insert(built.domain, guest);
                self.terminal.multiplexer.add(built.domain);
                Ok(built.domain)
            }
            Err(problem) => {
                self.take_down(built.domain, &handle);
                Err(plan.about(&problem))
            }
        }
    }

    /// Connects a domain that was built, and lets it run.
    fn connect(&mut self, plan: &Plan, built: &Built, handle: &str) -> Result<GuestConsole, String> {
        let (config, domain) = (&plan.config, built.domain);
        let mut entries = nodes::home(config, built, handle);
        // What is emulated has no half that looks for another.
        let is_emulated = config.kind == GuestKind::Hvm;
        if !is_emulated {
            entries.extend(config.disks.iter().flat_map(|disk| nodes::disk(domain, disk)));
            entries.extend((0..).zip(&config.vifs).flat_map(|(index, vif)| nodes::vif(domain, index, vif)));
        }
        self.write_nodes(&entries).map_err(|error| format!("its store entries were refused: {error}"))?;
        self.names
            .introduce(domain, built.store_frame.0, built.store_port.0)
            .map_err(|error| format!("the store does not take it: {error}"))?;
        self.attach_devices(domain, config, &plan.brought)?;
        if config.cpus != CpuSet::ALL {
            let pin = |vcpu| self.xen.pin(domain, vcpu, Some(config.cpus), None);
            (0..config.max_vcpus).try_for_each(pin).map_err(|error| error.to_string())?;
        }
        let port = Port(built.console_port.0);
        let console = match is_emulated {
            true => GuestConsole::serial(),
            false => GuestConsole::attach(&mut self.hal, domain, port, &config.name)?,
        };
        let starts_ns = now_ns();
        let started = if plan.paused { Ok(()) } else { self.xen.unpause(domain) };
        match started {
            Ok(()) => {
                log::info!("guest {} started {starts_ns} ns after the hypervisor", config.name);
                Ok(console)
            }
            Err(error) => {
                console.detach(&mut self.hal);
                Err(error.to_string())
            }
        }
    }

    pub(super) fn write_nodes(&mut self, entries: &[Entry]) -> Result<(), StoreError> {
        pv_bus::store::transaction(&mut self.names, |store, transaction| {
            for entry in entries {
                store.write(transaction, &entry.path, entry.value.as_bytes())?;
                if let Some(perms) = &entry.perms {
                    store.set_permissions(transaction, &entry.path, perms)?;
                }
            }
            Ok(())
        })
    }
}

/// A handle that no other guest of this machine's run has.
fn handle(number: u64) -> [u8; 16] {
    let mut handle = [0; 16];
    handle[..8].copy_from_slice(&pv_guest_kernel::time::wall_clock_ns().to_be_bytes());
    handle[8..].copy_from_slice(&number.to_be_bytes());
    handle
}

fn handle_text(handle: &[u8; 16]) -> String {
    let digits: String = handle.iter().map(|byte| format!("{byte:02x}")).collect();
    [&digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..]].join("-")
}
