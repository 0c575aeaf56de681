//! The machine's network: smoltcp over the net front end, or natively over an NE2000 card.
//!
//! A thread (`network`) lets the stack work whenever the card has something or a timer of the stack runs out. Commands use
//! sockets through [`with`], and sleep in [`wait_for`] until the stack has made progress. The address comes from DHCP, or
//! from `ip=ADDRESS/BITS` and `gateway=ADDRESS` on the kernel's command line.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::fmt;

use frontends::net::{NetFront, Options, RxToken, TxToken};
use pv_bus::Store;
use pv_guest_kernel::boot::option;
use pv_guest_kernel::platform::native::ne2000;
use pv_guest_kernel::sync::SleepLock;
use pv_guest_kernel::task::{self, Signal};
use pv_guest_kernel::time::{SECOND_NS, now_ns};
use smoltcp::iface::{Config, Interface, PollResult, SocketHandle, SocketSet};
use smoltcp::phy::{self, DeviceCapabilities, Medium};
use smoltcp::socket::{AnySocket, dhcpv4, dns};
use smoltcp::time::Instant;
use smoltcp::wire::{EthernetAddress, HardwareAddress, IpAddress, IpCidr, Ipv4Address, Ipv4Cidr};

use crate::driver::{self, Hal};

/// How long a command waits for an address or a name.
const PATIENCE_NS: u64 = 15 * SECOND_NS;

/// Header of an Ethernet frame.
const ETHERNET_BYTES: usize = 14;

static STACK: SleepLock<Option<Stack>> = SleepLock::new(None);
/// Raised when the stack has worked.
static PROGRESS: Signal = Signal::new();
/// First port for connections from here.
const FIRST_PORT: u16 = 49152;

/// Why the network did not do it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum NetworkError {
    /// The domain was given no card.
    NoCard,
    /// Nobody gave the card an address.
    NoAddress,
    /// The name has no address.
    UnknownHost,
    /// Nothing came in time.
    TimedOut,
    /// The other side refused or closed the connection.
    Refused,
    /// What came is not HTTP.
    NotHttp,
}

impl fmt::Display for NetworkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoCard => "this machine has no network card",
            Self::NoAddress => "the network gave no address (DHCP); ip=ADDRESS/BITS gives one",
            Self::UnknownHost => "no such host",
            Self::TimedOut => "no answer in time",
            Self::Refused => "the connection was refused or broke",
            Self::NotHttp => "the answer is not HTTP",
        })
    }
}

/// The front end and what it runs on.
struct Front {
    hal: Hal,
    front: NetFront<Hal>,
}

/// The card, as smoltcp wants it.
enum Card {
    Front(Box<Front>),
    Ne2000(&'static SleepLock<ne2000::Card>),
}

/// A received frame.
pub(crate) enum Received {
    Front(RxToken),
    Ne2000(Vec<u8>),
}

impl phy::RxToken for Received {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, take: F) -> R {
        match self {
            Self::Front(token) => token.consume(take),
            Self::Ne2000(frame) => take(&frame),
        }
    }
}

/// The right to send a frame.
pub(crate) enum Sending<'a> {
    Front(TxToken<'a, Hal>),
    Ne2000(&'static SleepLock<ne2000::Card>),
}

impl phy::TxToken for Sending<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, fill: F) -> R {
        match self {
            Self::Front(token) => token.consume(len, fill),
            Self::Ne2000(card) => {
                let mut frame = alloc::vec![0; len];
                let result = fill(&mut frame);
                // A frame that the card does not take is lost, as on any wire.
                card.lock().send(&frame);
                result
            }
        }
    }
}

impl phy::Device for Card {
    type RxToken<'a> = Received;
    type TxToken<'a> = Sending<'a>;

    fn receive(&mut self, _now: Instant) -> Option<(Received, Sending<'_>)> {
        match self {
            Self::Front(card) => {
                let (received, sending) = card.front.receive_tokens(&mut card.hal)?;
                Some((Received::Front(received), Sending::Front(sending)))
            }
            Self::Ne2000(card) => {
                let frame = card.lock().receive()?;
                Some((Received::Ne2000(frame), Sending::Ne2000(card)))
            }
        }
    }

    fn transmit(&mut self, _now: Instant) -> Option<Sending<'_>> {
        match self {
            Self::Front(card) => card.front.transmit_token(&mut card.hal).map(Sending::Front),
            Self::Ne2000(card) => Some(Sending::Ne2000(card)),
        }
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = match self {
            Self::Front(card) => card.front.mtu() + ETHERNET_BYTES,
            Self::Ne2000(_) => ne2000::MAX_FRAME_BYTES,
        };
        capabilities
    }
}

impl Card {
    fn mac(&self) -> EthernetAddress {
        EthernetAddress(match self {
            Self::Front(card) => card.front.mac(),
            Self::Ne2000(card) => card.lock().mac(),
        })
    }

    /// Wakes the thread that serves it.
    fn call(&self) {
        match self {
            Self::Front(card) => card.hal.signal().raise(),
            Self::Ne2000(_) => ne2000::signal().raise(),
        }
    }

    /// Lets the front end's driver look at the store and the rings; an NE2000 has neither.
    fn work(&mut self) {
        let Self::Front(card) = self else { return };
        let Front { hal, front } = &mut **card;
        if hal.has_moved() {
            if let Err(error) = front.resume(hal) {
                log::error!("the card did not come along: {error}");
            }
            hal.settle_in();
        }
        while let Some(event) = hal.next_watch_event() {
            front.on_watch(hal, &event);
        }
        front.poll(hal);
    }

    /// What it is and what it did, as lines of text.
    fn describe(&self) -> [alloc::string::String; 2] {
        let mac = self.mac();
        match self {
            Self::Front(card) => {
                let front = &card.front;
                let counters = front.counters();
                let counts = alloc::format!(
                    "frames: {} received, {} broken; slots: {} sent, {} refused",
                    counters.received,
                    counters.receive_errors,
                    counters.transmitted_slots,
                    counters.transmit_errors
                );
                [alloc::format!("card {mac}, {:?}, mtu {}", front.status(), front.mtu()), counts]
            }
            Self::Ne2000(_) => [alloc::format!("card {mac}, NE2000"), alloc::string::String::new()],
        }
    }
}

/// Card, addresses and sockets.
pub(crate) struct Stack {
    card: Card,
    pub(crate) interface: Interface,
    pub(crate) sockets: SocketSet<'static>,
    dhcp: Option<SocketHandle>,
    dns: SocketHandle,
    servers: Vec<IpAddress>,
    next_port: u16,
    /// When the serving thread will work again by itself.
    planned_ns: u64,
}

/// smoltcp's clock.
pub(crate) fn now() -> Instant {
    Instant::from_micros((now_ns() / 1000) as i64)
}

/// Opens the card whose directory in the store is `path`, and starts the thread that serves it.
pub(crate) fn open(path: &str) {
    let Some(mut hal) = driver::connect() else {
        return;
    };
    let signal = hal.signal();
    match NetFront::open(&mut hal, path, Options::default()) {
        Ok(front) => {
            *STACK.lock() = Some(Stack::new(Card::Front(Box::new(Front { hal, front }))));
            task::spawn("network", move || serve(&signal));
        }
        Err(error) => log::error!("{path}: {error}"),
    }
}

/// Opens the NE2000 card of a bare machine, if it has one.
pub(crate) fn open_ne2000() {
    if let Some(card) = ne2000::open() {
        *STACK.lock() = Some(Stack::new(Card::Ne2000(card)));
        task::spawn("network", || serve(ne2000::signal()));
    }
}

/// The thread: sleeps until the card or a timer wants something.
fn serve(signal: &Signal) {
    loop {
        let worked = with(|stack| {
            let changed = stack.work();
            Ok((changed, stack.serve_at_ns()))
        });
        let (changed, wake_at_ns) = worked.unwrap_or((false, u64::MAX));
        if changed {
            PROGRESS.raise();
        }
        signal.wait_until(wake_at_ns);
    }
}

/// Does something with the stack.
///
/// # Errors
/// [`NetworkError::NoCard`], or whatever `action` returns.
pub(crate) fn with<R>(action: impl FnOnce(&mut Stack) -> Result<R, NetworkError>) -> Result<R, NetworkError> {
    action(STACK.lock().as_mut().ok_or(NetworkError::NoCard)?)
}

/// Lets the stack work until `look` finds what it looks for.
///
/// # Errors
/// [`NetworkError::TimedOut`] after `patience_ns`; whatever `look` returns.
pub(crate) fn wait_for<R>(
    patience_ns: u64,
    mut look: impl FnMut(&mut Stack) -> Result<Option<R>, NetworkError>,
) -> Result<R, NetworkError> {
    let deadline = now_ns() + patience_ns;
    loop {
        let (found, again) = with(|stack| {
            stack.work();
            let found = look(stack)?;
            // What the look has put into a socket goes out now; the serving thread learns of earlier timers.
            let again = stack.work();
            let planned = stack.planned_ns;
            if stack.serve_at_ns() < planned {
                stack.card.call();
            }
            Ok((found, again))
        })?;
        if let Some(found) = found {
            return Ok(found);
        }
        if now_ns() >= deadline {
            return Err(NetworkError::TimedOut);
        }
        if !again {
            PROGRESS.wait_until(deadline);
        }
    }
}

impl Stack {
    fn new(mut card: Card) -> Self {
        let address = card.mac();
        let mut config = Config::new(HardwareAddress::Ethernet(address));
        config.random_seed = now_ns() ^ u64::from_le_bytes([address.0[5]; 8]);
        let interface = Interface::new(config, &mut card, now());
        let mut sockets = SocketSet::new(Vec::new());
        let dns = sockets.add(dns::Socket::new(&[], Vec::new()));
        let mut stack = Self {
            card,
            interface,
            sockets,
            dhcp: None,
            dns,
            servers: Vec::new(),
            next_port: FIRST_PORT + (now_ns() / 1000 % 8192) as u16,
            planned_ns: u64::MAX,
        };
        match option("ip").and_then(|text| text.parse().ok()) {
            Some(address) => {
                let gateway = option("gateway").and_then(|text| text.parse().ok());
                stack.configure(address, gateway, &[]);
            }
            None => stack.dhcp = Some(stack.sockets.add(dhcpv4::Socket::new())),
        }
        stack
    }

    /// A port for a new connection.
    pub(crate) fn next_port(&mut self) -> u16 {
        self.next_port = self.next_port.checked_add(1).unwrap_or(FIRST_PORT);
        self.next_port
    }

    /// Lets card and stack work; true when a socket may have changed.
    fn work(&mut self) -> bool {
        self.card.work();
        let result = self.interface.poll(now(), &mut self.card, &mut self.sockets);
        self.follow_dhcp() || result == PollResult::SocketStateChanged
    }

    /// When a timer of the stack runs out: the serving thread plans to work then.
    fn serve_at_ns(&mut self) -> u64 {
        let delay = self.interface.poll_delay(now(), &self.sockets);
        self.planned_ns = delay.map_or(u64::MAX, |delay| now_ns() + delay.total_micros() * 1000);
        self.planned_ns
    }

    /// Takes what DHCP says; true when it said something.
    fn follow_dhcp(&mut self) -> bool {
        let Some(dhcp) = self.dhcp else { return false };
        let event = self.sockets.get_mut::<dhcpv4::Socket>(dhcp).poll();
        let Some(event) = event else { return false };
        match event {
            dhcpv4::Event::Configured(config) => {
                let servers: Vec<_> = config.dns_servers.iter().copied().map(IpAddress::Ipv4).collect();
                let (address, router) = (config.address, config.router);
                self.configure(address, router, &servers);
            }
            dhcpv4::Event::Deconfigured => {
                self.interface.update_ip_addrs(|addresses| addresses.clear());
                self.interface.routes_mut().remove_default_ipv4_route();
            }
        }
        true
    }

    fn configure(&mut self, address: Ipv4Cidr, gateway: Option<Ipv4Address>, servers: &[IpAddress]) {
        self.interface.update_ip_addrs(|addresses| {
            addresses.clear();
            // The list has room for more than one.
            let _ = addresses.push(IpCidr::Ipv4(address));
        });
        if let Some(gateway) = gateway {
            let _ = self.interface.routes_mut().add_default_ipv4_route(gateway);
        }
        self.servers = servers.to_vec();
        self.sockets.get_mut::<dns::Socket>(self.dns).update_servers(servers);
    }

    /// What the card and its addresses are, as lines of text.
    pub(crate) fn describe(&self) -> alloc::string::String {
        let [card, counts] = self.card.describe();
        let mut text = card + "\n";
        for address in self.interface.ip_addrs() {
            text += &alloc::format!("address {address}\n");
        }
        for server in &self.servers {
            text += &alloc::format!("name server {server}\n");
        }
        text + &counts
    }
}

/// Sleeps until the card has an address.
///
/// # Errors
/// [`NetworkError::NoCard`], [`NetworkError::NoAddress`].
pub(crate) fn wait_for_address() -> Result<(), NetworkError> {
    let found = wait_for(PATIENCE_NS, |stack| Ok((!stack.interface.ip_addrs().is_empty()).then_some(())));
    found.map_err(|error| match error {
        NetworkError::TimedOut => NetworkError::NoAddress,
        other => other,
    })
}

/// The address of a host: the text itself if it is one, or what the name server says.
///
/// # Errors
/// [`NetworkError`].
pub(crate) fn resolve(host: &str) -> Result<IpAddress, NetworkError> {
    wait_for_address()?;
    if let Ok(address) = host.parse::<Ipv4Address>() {
        return Ok(IpAddress::Ipv4(address));
    }
    let query = with(|stack| {
        if stack.servers.is_empty() {
            return Err(NetworkError::UnknownHost);
        }
        let socket = stack.sockets.get_mut::<dns::Socket>(stack.dns);
        let kind = smoltcp::wire::DnsQueryType::A;
        socket.start_query(stack.interface.context(), host, kind).map_err(|_| NetworkError::UnknownHost)
    })?;
    let answer = wait_for(PATIENCE_NS, |stack| {
        let socket = stack.sockets.get_mut::<dns::Socket>(stack.dns);
        match socket.get_query_result(query) {
            Ok(addresses) => Ok(Some(addresses.first().copied())),
            Err(dns::GetQueryResultError::Pending) => Ok(None),
            Err(dns::GetQueryResultError::Failed) => Err(NetworkError::UnknownHost),
        }
    })?;
    answer.ok_or(NetworkError::UnknownHost)
}

/// Adds a socket for the length of `action`.
///
/// # Errors
/// [`NetworkError::NoCard`], or whatever `action` returns.
pub(crate) fn with_socket<S: AnySocket<'static>, R>(
    socket: S,
    action: impl FnOnce(SocketHandle) -> Result<R, NetworkError>,
) -> Result<R, NetworkError> {
    let handle = with(|stack| Ok(stack.sockets.add(socket)))?;
    let result = action(handle);
    with(|stack| {
        stack.sockets.remove(handle);
        Ok(())
    })?;
    result
}
