//! Event channels of the in-memory world.

use super::{Loopback, World};
use crate::EventError;
use crate::hal::Events;
use pv_abi::{DomId, Port};

const EINVAL: EventError = EventError(22);

/// One open port.
pub(super) struct Channel {
    remote: DomId,
    /// The other end, once there is one.
    remote_port: Option<u32>,
    masked: bool,
    pending: bool,
}

impl World {
    fn open_port(&mut self, owner: DomId, remote: DomId, remote_port: Option<u32>) -> u32 {
        let domain = self.domain(owner);
        let port = domain.next_port;
        domain.next_port += 1;
        domain.ports.insert(port, Channel { remote, remote_port, masked: true, pending: false });
        port
    }

    fn bind(&mut self, user: DomId, remote: DomId, remote_port: Port) -> Result<Port, EventError> {
        let domain = self.domains.get(&remote).ok_or(EINVAL)?;
        let channel = domain.ports.get(&remote_port.0).ok_or(EINVAL)?;
        if channel.remote != user || channel.remote_port.is_some() {
            return Err(EINVAL);
        }
        let port = self.open_port(user, remote, Some(remote_port.0));
        if let Some(channel) = self.domain(remote).ports.get_mut(&remote_port.0) {
            channel.remote_port = Some(port);
        }
        // A new binding is made pending at the binder, in case something happened before.
        self.raise(user, port);
        Ok(Port(port))
    }

    fn raise(&mut self, owner: DomId, port: u32) {
        let domain = self.domain(owner);
        let Some(channel) = domain.ports.get_mut(&port) else {
            return;
        };
        channel.pending = true;
        if !channel.masked {
            self.deliver(owner, port);
        }
    }

    fn deliver(&mut self, owner: DomId, port: u32) {
        let domain = self.domain(owner);
        let Some(channel) = domain.ports.get_mut(&port) else {
            return;
        };
        channel.pending = false;
        if !domain.pending.contains(&Port(port)) {
            domain.pending.push_back(Port(port));
        }
    }

    fn notify(&mut self, owner: DomId, port: u32) {
        let domain = self.domain(owner);
        domain.notifications += 1;
        let Some(channel) = domain.ports.get(&port) else {
            return;
        };
        let remote = channel.remote;
        if let Some(remote_port) = channel.remote_port {
            self.raise(remote, remote_port);
        }
    }

    fn close(&mut self, owner: DomId, port: u32) {
        let Some(channel) = self.domain(owner).ports.remove(&port) else {
            return;
        };
        self.domain(owner).pending.retain(|pending| pending.0 != port);
        let Some(remote_port) = channel.remote_port else {
            return;
        };
        let remote = self.domains.get_mut(&channel.remote);
        if let Some(other) = remote.and_then(|domain| domain.ports.get_mut(&remote_port)) {
            other.remote_port = None;
        }
    }

    pub(super) fn close_everything_of(&mut self, owner: DomId) {
        let ports: alloc::vec::Vec<u32> = self.domain(owner).ports.keys().copied().collect();
        for port in ports {
            self.close(owner, port);
        }
    }
}

impl Events for Loopback {
    fn alloc_unbound(&mut self, remote: DomId) -> Result<Port, EventError> {
        Ok(Port(self.world.borrow_mut().open_port(self.id, remote, None)))
    }

    fn bind_interdomain(&mut self, remote: DomId, remote_port: Port) -> Result<Port, EventError> {
        self.world.borrow_mut().bind(self.id, remote, remote_port)
    }

    fn notify(&mut self, port: Port) {
        self.world.borrow_mut().notify(self.id, port.0);
    }

    fn unmask(&mut self, port: Port) {
        let mut world = self.world.borrow_mut();
        let Some(channel) = world.domain(self.id).ports.get_mut(&port.0) else {
            return;
        };
        channel.masked = false;
        if channel.pending {
            world.deliver(self.id, port.0);
        }
    }

    fn close(&mut self, port: Port) {
        self.world.borrow_mut().close(self.id, port.0);
    }
}
