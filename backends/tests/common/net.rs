//! A guest with a network card.

use std::collections::VecDeque;

use backends::Progress;
use backends::net::{NetBack, NetPort};
use frontends::net::{NetFront, Options, Status};
use pv_bus::net::{Checksum, Frame, Oversize};
use pv_bus::{Loopback, Store};

/// Bytes that tell where they are, as a frame without known headers.
pub fn frame(len: usize, seed: u8) -> Vec<u8> {
    (0..len).map(|at| (at as u8).wrapping_mul(13).wrapping_add((at >> 8) as u8).wrapping_add(seed)).collect()
}

/// A TCP segment over IPv4 with a blank checksum, from one of several ports.
pub fn tcp(port: u8, len: usize) -> Vec<u8> {
    let mut bytes = vec![2; 12];
    bytes.extend([8, 0, 0x45, 0]);
    bytes.extend((40 + len as u16).to_be_bytes());
    bytes.extend([0, 1, 0x40, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2, 0x12, port, 0, 80]);
    bytes.extend([0, 0, 0, 1, 0, 0, 0, 9, 0x50, 0x10, 1, 0, 0, 0, 0, 0]);
    bytes.extend((0..len).map(|at| (at % 251) as u8));
    bytes
}

/// How a long segment of [`tcp`] is cut.
pub const PIECES: Oversize = Oversize { ipv6: false, segment_bytes: 1000 };

/// A long segment.
pub fn oversize(port: u8, len: usize) -> Frame {
    Frame { bytes: tcp(port, len), checksum: Checksum::Blank, oversize: Some(PIECES) }
}

/// A wire whose other end is the test.
#[derive(Default)]
pub struct Wire {
    pub to_guest: VecDeque<Frame>,
    pub from_guest: VecDeque<Frame>,
    pub limit: Option<usize>,
    pub accepts_blank: bool,
    pub accepts_oversize: bool,
}

impl NetPort for Wire {
    fn accepts_blank_checksums(&self) -> bool {
        self.accepts_blank
    }

    fn accepts_oversize(&self) -> bool {
        self.accepts_oversize
    }

    fn transmit(&mut self, frame: Frame) -> bool {
        if self.limit.is_some_and(|limit| self.from_guest.len() >= limit) {
            return false;
        }
        self.from_guest.push_back(frame);
        true
    }

    fn receive(&mut self) -> Option<Frame> {
        self.to_guest.pop_front()
    }
}

pub struct NetPair {
    pub guest: Loopback,
    pub service: Loopback,
    pub front_path: String,
    pub back_path: String,
    pub front: Option<NetFront<Loopback>>,
    pub back: Option<NetBack<Loopback>>,
    pub wire: Wire,
    pub options: Options,
    pub pause_ns: u64,
}

impl NetPair {
    pub fn cold() -> Self {
        let (guest, mut service) = Loopback::pair();
        let (front_path, back_path) = service.create_device(guest.id(), service.id(), "vif", 0);
        service.put(&format!("{front_path}/mac"), "00:16:3e:00:00:01");
        Self {
            guest,
            service,
            front_path,
            back_path,
            front: None,
            back: None,
            wire: Wire { accepts_blank: true, ..Wire::default() },
            options: Options::default(),
            pause_ns: 0,
        }
    }

    pub fn connected() -> Self {
        Self::cold().started()
    }

    pub fn started(mut self) -> Self {
        self.start_back();
        self.start_front();
        self.settle();
        assert_eq!(self.front().status(), Status::Ready);
        self
    }

    pub fn start_front(&mut self) {
        let front = NetFront::open(&mut self.guest, &self.front_path, self.options);
        self.front = Some(front.expect("the device is in the store"));
    }

    pub fn start_back(&mut self) {
        let back = NetBack::open(&mut self.service, &self.back_path, 4);
        self.back = Some(back.expect("the device is in the store").with_pauses(self.pause_ns));
    }

    pub fn kill_back(&mut self) {
        self.back = None;
        self.service.crash();
    }

    pub fn front(&mut self) -> &mut NetFront<Loopback> {
        self.front.as_mut().expect("the front end runs")
    }

    pub fn back(&mut self) -> &mut NetBack<Loopback> {
        self.back.as_mut().expect("the back end runs")
    }

    pub fn poll_back(&mut self) {
        if let Some(back) = &mut self.back {
            for _ in 0..1000 {
                if back.poll(&mut self.service, &mut self.wire) == Progress::Idle {
                    return;
                }
            }
            panic!("the back end never comes to rest");
        }
    }

    pub fn pump(&mut self) -> bool {
        let mut any = false;
        while let Some(event) = self.guest.next_watch_event() {
            any = true;
            if let Some(front) = &mut self.front {
                front.on_watch(&mut self.guest, &event);
            }
        }
        while let Some(port) = self.guest.take_event() {
            any = true;
            if let Some(front) = &mut self.front {
                front.on_event(&mut self.guest, port);
            }
        }
        let mut wanted = false;
        while let Some(event) = self.service.next_watch_event() {
            any = true;
            wanted |= self.back.as_mut().is_some_and(|back| back.on_watch(&event));
        }
        while let Some(port) = self.service.take_event() {
            any = true;
            wanted |= self.back.as_ref().is_some_and(|back| back.owns(port));
        }
        if wanted || !self.wire.to_guest.is_empty() {
            let before = self.wire.to_guest.len();
            self.poll_back();
            any |= before != self.wire.to_guest.len();
        }
        any
    }

    pub fn settle(&mut self) {
        for _ in 0..10_000 {
            if !self.pump() {
                return;
            }
        }
        panic!("the two never come to rest");
    }

    pub fn receive(&mut self) -> Option<Frame> {
        let front = self.front.as_mut().expect("the front end runs");
        front.receive(&mut self.guest)
    }
}
