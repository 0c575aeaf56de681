//! Commands that take time: what each waits for is looked at whenever something has happened.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use dom0::console::command::Format;
use dom0::ids::DomId;
use dom0::toolstack::control::{Control, StopReason};
use pv_guest_kernel::task;
use pv_guest_kernel::time::{SECOND_NS, now_ns};

use super::Service;
use super::commands::{Answer, Client, Outcome};

/// How long a guest may take to suspend.
const SUSPEND_NS: u64 = 60 * SECOND_NS;
/// How long `top` measures.
const MEASURE_NS: u64 = SECOND_NS;

/// What a command waits for.
pub(super) enum Wait {
    /// The guests have ended.
    Gone(Vec<DomId>),
    /// The guest has let go of a disk.
    DiskGone(DomId, u32),
    /// The guest has let go of a network interface.
    InterfaceGone(DomId, u32),
    /// The guest has suspended; then it is let go on.
    Suspended { domain: DomId, until_ns: u64 },
    /// CPU time has been used; each domain's before that is given.
    Measured { before: BTreeMap<DomId, u64>, since_ns: u64, format: Format },
    /// The guest has ended, or its console is left.
    Console(DomId),
}

impl Wait {
    /// Measures from now on.
    pub(super) fn measured(before: BTreeMap<DomId, u64>, format: Format) -> Self {
        Self::Measured { before, since_ns: now_ns(), format }
    }
}

/// A command that is not done yet.
pub(super) struct Job {
    pub(super) client: Client,
    pub(super) wait: Wait,
}

impl Service {
    /// Takes a command that is not done yet.
    pub(super) fn begin(&mut self, client: Client, wait: Wait) {
        match wait {
            Wait::Suspended { .. } => self.wake_after(SUSPEND_NS),
            Wait::Measured { .. } => self.wake_after(MEASURE_NS),
            _ => {}
        }
        self.jobs.push(Job { client, wait });
    }

    /// Sees to it that this domain looks again after a time.
    fn wake_after(&self, time_ns: u64) {
        let signal = self.signal.clone();
        task::spawn("waiting".to_string(), move || {
            task::sleep_ns(time_ns);
            signal.raise();
        });
    }

    /// Answers the commands whose time has come; says whether there was one.
    pub(super) fn serve_jobs(&mut self) -> bool {
        let mut any = false;
        for job in core::mem::take(&mut self.jobs) {
            match self.look_at(&job.wait) {
                Some(answer) => {
                    self.answer(job.client, answer);
                    any = true;
                }
                None => self.jobs.push(job),
            }
        }
        any
    }

    fn look_at(&mut self, wait: &Wait) -> Option<Result<String, String>> {
        let over = match wait {
            Wait::Gone(domains) => !domains.iter().any(|domain| self.guests.contains_key(domain)),
            Wait::DiskGone(domain, number) => !self.has_disk(*domain, *number),
            Wait::InterfaceGone(domain, index) => !self.has_vif(*domain, *index),
            Wait::Console(domain) => !self.guests.contains_key(domain) || !self.channel.has_console(*domain),
            Wait::Suspended { domain, until_ns } => return self.look_at_suspended(*domain, *until_ns),
            Wait::Measured { before, since_ns, format } => {
                let measured_ns = now_ns() - since_ns;
                return (measured_ns >= MEASURE_NS).then(|| self.show_use(before, measured_ns, *format));
            }
        };
        over.then(|| Ok(String::new()))
    }

    fn look_at_suspended(&mut self, domain: DomId, until_ns: u64) -> Option<Result<String, String>> {
        let Some(guest) = self.guests.get(&domain) else {
            return Some(Err("the guest ended instead of suspending".to_string()));
        };
        let name = guest.config.name.clone();
        match self.xen.info(domain) {
            Ok(info) if info.stopped == Some(StopReason::Suspend) => Some(self.go_on(domain).map(|()| String::new())),
            Ok(_) if now_ns() < until_ns => None,
            Ok(_) => {
                // Where the guest wakes up to it later, there is nothing to be done any more.
                let taken_back = self.write_control(domain, "shutdown", "");
                Some(taken_back.and(Err(format!("guest {name} did not suspend within 60 s: look at its console"))))
            }
            Err(error) => Some(Err(error.to_string())),
        }
    }

    /// Lets a guest that suspended go on where it was.
    fn go_on(&mut self, domain: DomId) -> Result<(), String> {
        self.xen.resume_cancelled(domain).map_err(|error| error.to_string())?;
        self.names.resume(domain).map_err(|error| format!("the store does not take the guest back: {error}"))?;
        if let Some(guest) = self.guests.get_mut(&domain) {
            guest.preserved = false;
        }
        Ok(())
    }

    /// Asks a guest to suspend, and lets it go on when it has.
    pub(super) fn suspend(&mut self, domain: DomId) -> Outcome {
        let until_ns = now_ns() + SUSPEND_NS;
        let suspended = self.xen.info(domain).is_ok_and(|info| info.stopped == Some(StopReason::Suspend));
        if !suspended {
            let node = format!("/local/domain/{}/control/feature-suspend", domain.0);
            if self.names.text(&node).as_deref() != Some("1") {
                return Err(format!("the guest does not say that it can suspend: {node} is not 1"));
            }
            self.write_control(domain, "shutdown", "suspend")?;
        }
        Ok(Answer::Later(Wait::Suspended { domain, until_ns }))
    }
}
