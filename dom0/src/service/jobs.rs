//! Commands that take time: what each waits for is looked at whenever something has happened.

use alloc::boxed::Box;
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
use super::creation::Unpacking;

/// How long a guest may take to suspend.
const SUSPEND_NS: u64 = 60 * SECOND_NS;
/// How long `top` measures.
const MEASURE_NS: u64 = SECOND_NS;

/// What a command waits for.
pub(super) enum Wait {
    /// The guests have ended, and those that start anew have done so.
    Gone(Vec<(DomId, String)>),
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
    /// The guest's kernel is unpacked; then it is built.
    Unpacked(Box<Unpacking>),
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
        self.jobs.push_back(Job { client, wait });
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
        for _ in 0..self.jobs.len() {
            // The others stay where they can be seen.
            let Some(Job { client, wait }) = self.jobs.pop_front() else {
                break;
            };
            match self.look_at(client, wait) {
                Ok(Answer::Now(text)) => self.answer(client, Ok(text)),
                Ok(Answer::Later(wait)) => {
                    self.jobs.push_back(Job { client, wait });
                    continue;
                }
                Err(problem) => self.answer(client, Err(problem)),
            }
            any = true;
        }
        any
    }

    fn look_at(&mut self, client: Client, wait: Wait) -> Outcome {
        let over = match &wait {
            Wait::Gone(guests) => guests.iter().all(|(domain, name)| {
                !self.guests.contains_key(domain) && !self.plans().any(|plan| plan.config.name == *name)
            }),
            Wait::DiskGone(domain, number) => !self.has_disk(*domain, *number),
            Wait::InterfaceGone(domain, index) => !self.has_vif(*domain, *index),
            Wait::Console(domain) => !self.guests.contains_key(domain) || !self.channel.has_console(*domain),
            Wait::Suspended { domain, until_ns } => return self.look_at_suspended(*domain, *until_ns),
            Wait::Measured { before, since_ns, format } => {
                let measured_ns = now_ns() - since_ns;
                if measured_ns >= MEASURE_NS {
                    return self.show_use(before, measured_ns, *format).map(Answer::Now);
                }
                false
            }
            Wait::Unpacked(_) => return self.look_at_unpacked(client, wait),
        };
        Ok(if over { Answer::Now(String::new()) } else { Answer::Later(wait) })
    }

    fn look_at_unpacked(&mut self, client: Client, wait: Wait) -> Outcome {
        let Wait::Unpacked(unpacking) = wait else {
            return Ok(Answer::Later(wait));
        };
        let console = unpacking.console;
        match self.go_on_creating(unpacking) {
            Err(unpacking) => Ok(Answer::Later(Wait::Unpacked(unpacking))),
            Ok(Ok(domain)) if console => Ok(self.give_console(client, domain)),
            Ok(Ok(_)) => Ok(Answer::Now(String::new())),
            Ok(Err(problem)) => {
                self.end_if_last();
                Err(problem)
            }
        }
    }

    fn look_at_suspended(&mut self, domain: DomId, until_ns: u64) -> Outcome {
        let Some(guest) = self.guests.get(&domain) else {
            return Err("the guest ended instead of suspending".to_string());
        };
        let name = guest.config.name.clone();
        let info = self.xen.info(domain).map_err(|error| error.to_string())?;
        if info.stopped == Some(StopReason::Suspend) {
            return self.go_on(domain).map(|()| Answer::Now(String::new()));
        }
        if now_ns() < until_ns {
            return Ok(Answer::Later(Wait::Suspended { domain, until_ns }));
        }
        // Where the guest wakes up to it later, there is nothing to be done any more.
        self.write_control(domain, "shutdown", "")?;
        Err(format!("guest {name} did not suspend within 60 s: look at its console"))
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
