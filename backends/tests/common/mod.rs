//! A guest and a service domain in one process, with a real front end and a real back end between them.
#![allow(dead_code, unreachable_pub, missing_docs, reason = "each test file uses a part of this")]

pub mod attacker;
pub mod net;

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use backends::block::memory::MemoryDisk;
use backends::block::{BlockBack, BlockDevice, DeviceCompletion, DeviceOperation, Geometry, Tag};
use frontends::block::{BlockError, BlockFront, Operation, RequestId, Status};
use pv_bus::{Loopback, Store};

/// A disk whose owner keeps it when a back end dies, and that can finish late and out of order.
#[derive(Clone)]
pub struct SharedDisk {
    pub inner: Rc<RefCell<SlowDisk>>,
}

pub struct SlowDisk {
    pub disk: MemoryDisk,
    pub waiting: VecDeque<(Tag, DeviceOperation<Vec<u8>>)>,
    /// Operations run only when told to.
    pub manual: bool,
    /// The order in which operations ran.
    pub log: Vec<String>,
    pub room: usize,
    pub geometry: Option<Geometry>,
    pub buffers_out: isize,
    pub no_buffers: bool,
    /// Something of an earlier back end is under way.
    pub busy: bool,
}

impl SharedDisk {
    pub fn new(content: Vec<u8>) -> Self {
        let disk = MemoryDisk::new(content).with_volatile_cache();
        let inner = SlowDisk {
            disk,
            waiting: VecDeque::new(),
            manual: false,
            log: Vec::new(),
            room: usize::MAX,
            geometry: None,
            buffers_out: 0,
            no_buffers: false,
            busy: false,
        };
        Self { inner: Rc::new(RefCell::new(inner)) }
    }

    pub fn manual(self) -> Self {
        self.inner.borrow_mut().manual = true;
        self
    }

    /// Runs one waiting operation.
    pub fn run(&self, index: usize) -> bool {
        let mut inner = self.inner.borrow_mut();
        let Some((tag, operation)) = inner.waiting.remove(index) else {
            return false;
        };
        inner.log.push(describe(&operation));
        inner.disk.submit(tag, operation);
        true
    }

    pub fn run_all(&self) {
        while self.run(0) {}
    }

    pub fn waiting(&self) -> usize {
        self.inner.borrow().waiting.len()
    }

    pub fn medium(&self) -> Vec<u8> {
        self.inner.borrow().disk.medium().to_vec()
    }

    pub fn log(&self) -> Vec<String> {
        self.inner.borrow().log.clone()
    }
}

/// What a back end may never ask of its device, whatever a front end wrote.
fn assert_possible(geometry: &Geometry, operation: &DeviceOperation<Vec<u8>>) {
    let (sector, sectors) = match operation {
        DeviceOperation::Read { sector, buffer } => (*sector, buffer.len() as u64 / 512),
        DeviceOperation::Write { sector, buffer } => {
            assert!(!geometry.read_only);
            (*sector, buffer.len() as u64 / 512)
        }
        DeviceOperation::Flush => (0, 0),
        DeviceOperation::Discard { sector, sectors, .. } => (*sector, *sectors),
    };
    assert!(sector.checked_add(sectors).is_some_and(|end| end <= geometry.sectors), "{sector}+{sectors}");
}

fn describe(operation: &DeviceOperation<Vec<u8>>) -> String {
    match operation {
        DeviceOperation::Read { sector, buffer } => format!("read {sector}+{}", buffer.len() / 512),
        DeviceOperation::Write { sector, buffer } => {
            format!("write {sector}+{}", buffer.len() / 512)
        }
        DeviceOperation::Flush => "flush".into(),
        DeviceOperation::Discard { sector, sectors, .. } => format!("discard {sector}+{sectors}"),
    }
}

impl BlockDevice for SharedDisk {
    type Buffer = Vec<u8>;

    fn geometry(&self) -> Geometry {
        let inner = self.inner.borrow();
        inner.geometry.unwrap_or_else(|| inner.disk.geometry())
    }

    fn take_buffer(&mut self, len_bytes: usize) -> Option<Vec<u8>> {
        let mut inner = self.inner.borrow_mut();
        let buffer = if inner.no_buffers { None } else { inner.disk.take_buffer(len_bytes) };
        inner.buffers_out += isize::from(buffer.is_some());
        buffer
    }

    fn give_back(&mut self, _buffer: Vec<u8>) {
        self.inner.borrow_mut().buffers_out -= 1;
    }

    fn can_submit(&self) -> bool {
        let inner = self.inner.borrow();
        inner.waiting.len() < inner.room
    }

    fn submit(&mut self, tag: Tag, operation: DeviceOperation<Vec<u8>>) {
        assert_possible(&self.geometry(), &operation);
        let manual = {
            let mut inner = self.inner.borrow_mut();
            inner.waiting.push_back((tag, operation));
            inner.manual
        };
        if !manual {
            self.run(0);
        }
    }

    fn is_quiet(&self) -> bool {
        !self.inner.borrow().busy
    }

    fn next_completion(&mut self) -> Option<DeviceCompletion<Vec<u8>>> {
        self.inner.borrow_mut().disk.next_completion()
    }
}

/// A guest with a disk.
pub struct DiskPair {
    pub guest: Loopback,
    pub service: Loopback,
    pub front_path: String,
    pub back_path: String,
    pub front: Option<BlockFront<Loopback>>,
    pub back: Option<BlockBack<Loopback, SharedDisk>>,
    pub disk: SharedDisk,
    pub front_options: frontends::block::Options,
    pub back_options: backends::block::Options,
}

impl DiskPair {
    /// Both halves exist in the store, and nothing runs.
    pub fn cold(disk: SharedDisk) -> Self {
        let (guest, mut service) = Loopback::pair();
        let (front_path, back_path) = service.create_device(guest.id(), service.id(), "vbd", 51712);
        service.put(&format!("{front_path}/virtual-device"), 51712);
        Self {
            guest,
            service,
            front_path,
            back_path,
            front: None,
            back: None,
            disk,
            front_options: frontends::block::Options::default(),
            back_options: backends::block::Options::default(),
        }
    }

    /// Both halves run and are connected.
    pub fn connected(disk: SharedDisk) -> Self {
        Self::cold(disk).started()
    }

    pub fn started(mut self) -> Self {
        self.start_back();
        self.start_front();
        self.settle();
        assert_eq!(self.front().status(), Status::Ready);
        self
    }

    pub fn start_front(&mut self) {
        let front = BlockFront::open(&mut self.guest, &self.front_path, self.front_options);
        self.front = Some(front.expect("the device is in the store"));
    }

    pub fn start_back(&mut self) {
        let back = BlockBack::open(&mut self.service, &self.back_path, self.disk.clone(), self.back_options);
        self.back = Some(back.expect("the device is in the store"));
    }

    /// The service domain's driver dies without a word, and the hypervisor takes its mappings and ports away.
    pub fn kill_back(&mut self) {
        self.back = None;
        self.service.crash();
        self.disk.inner.borrow_mut().waiting.clear();
        while self.disk.clone().next_completion().is_some() {}
    }

    pub fn front(&mut self) -> &mut BlockFront<Loopback> {
        self.front.as_mut().expect("the front end runs")
    }

    pub fn back(&mut self) -> &mut BlockBack<Loopback, SharedDisk> {
        self.back.as_mut().expect("the back end runs")
    }

    /// Delivers what is pending once. False when there was nothing.
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
        while let Some(event) = self.service.next_watch_event() {
            any = true;
            if let Some(back) = &mut self.back {
                back.on_watch(&mut self.service, &event);
            }
        }
        while let Some(port) = self.service.take_event() {
            any = true;
            if let Some(back) = &mut self.back {
                back.on_event(&mut self.service, port);
            }
        }
        while self.back.as_ref().is_some_and(BlockBack::has_more) {
            any = true;
            self.back.as_mut().expect("just seen").poll(&mut self.service);
        }
        any
    }

    /// The device interrupts the back end.
    pub fn poll_back(&mut self) {
        if let Some(back) = &mut self.back {
            back.poll(&mut self.service);
        }
    }

    /// Delivers events until nothing happens any more. Nobody is polled: it must work by events alone.
    pub fn settle(&mut self) {
        for _ in 0..10_000 {
            if !self.pump() {
                return;
            }
        }
        panic!("the two never come to rest");
    }

    pub fn submit(&mut self, operation: Operation<'_>) -> RequestId {
        let front = self.front.as_mut().expect("the front end runs");
        let id = front.submit(&mut self.guest, operation).expect("the request is good");
        front.kick(&mut self.guest);
        id
    }

    pub fn take(&mut self) -> Option<(RequestId, Result<Vec<u8>, BlockError>)> {
        let front = self.front.as_mut().expect("the front end runs");
        front.next_completion(&mut self.guest, |completion, data| {
            let mut bytes = vec![0; data.len_bytes()];
            data.copy_to(0, &mut bytes);
            (completion.id, completion.result.map(|()| bytes))
        })
    }

    /// Submits and waits for the answer.
    pub fn call(&mut self, operation: Operation<'_>) -> Result<Vec<u8>, BlockError> {
        let id = self.submit(operation);
        self.settle();
        let (answered, result) = self.take().expect("the request was answered");
        assert_eq!(answered, id);
        result
    }
}
