//! From jobs to operations of the device, and back to responses.
//!
//! A job waits in the backlog until there is a buffer for it, is prepared (a write's data is copied here), waits for
//! the device to take it, is active, and is answered (a read's data is copied there).
//!
//! Invariants:
//! - A barrier at the head of the backlog starts only when nothing is prepared or active, and nothing behind it starts
//!   before it is answered. It is a flush, the write, and a flush again.
//! - A job of a connection that has ended is finished and not answered. A new connection is not made before all such
//!   jobs are finished, so that an old write cannot land on top of a new one.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;

use pv_bus::Hal;
use pv_bus::block::status;
use pv_bus::refusal::Refusals;

use super::connection::Connection;
use super::device::{BlockDevice, DeviceCompletion, DeviceError, DeviceOperation, Tag};
use super::request::{Job, Work};
use super::rules;
use super::transfer::{Direction, Transfer};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    FlushBefore,
    Write,
    FlushAfter,
}

struct Active<B> {
    job: Job,
    /// The data of a barrier that is not written yet.
    held: Option<B>,
    /// The connection it came from.
    epoch: u64,
    /// How far a barrier is.
    stage: Option<Stage>,
}

struct Prepared<B> {
    job: Job,
    buffer: Option<B>,
}

/// All jobs of one back end.
pub(super) struct Jobs<B> {
    backlog: VecDeque<Job>,
    prepared: VecDeque<Prepared<B>>,
    active: BTreeMap<Tag, Active<B>>,
    next_tag: u64,
    epoch: u64,
    waits: u64,
}

impl<B: AsRef<[u8]> + AsMut<[u8]>> Jobs<B> {
    pub(super) fn new() -> Self {
        Self {
            backlog: VecDeque::new(),
            prepared: VecDeque::new(),
            active: BTreeMap::new(),
            next_tag: 1,
            epoch: 0,
            waits: 0,
        }
    }

    /// How often a job had to wait for a buffer.
    pub(super) fn waits(&self) -> u64 {
        self.waits
    }

    pub(super) fn add(&mut self, job: Job) {
        self.backlog.push_back(job);
    }

    /// Whether the device has nothing of ours.
    pub(super) fn drained(&self) -> bool {
        self.active.is_empty()
    }

    /// Forgets what the device has not started; the rest will not be answered.
    pub(super) fn abandon<D: BlockDevice<Buffer = B>>(&mut self, device: &mut D) {
        self.epoch += 1;
        self.backlog.clear();
        for buffer in self.prepared.drain(..).filter_map(|prepared| prepared.buffer) {
            device.give_back(buffer);
        }
    }

    /// Takes what the device has finished and answers it. True when there was something.
    pub(super) fn finish<H: Hal, D: BlockDevice<Buffer = B>>(
        &mut self,
        hal: &mut H,
        device: &mut D,
        connection: Option<&mut Connection<H>>,
        refusals: &mut Refusals,
    ) -> bool {
        let mut finished = Vec::new();
        let mut any = false;
        while let Some(completion) = device.next_completion() {
            any = true;
            finished.extend(self.take_finished(device, completion));
        }
        if any {
            device.commit();
        }
        match connection {
            Some(connection) => answer(hal, device, connection, refusals, finished),
            None => finished.into_iter().filter_map(|done| done.buffer).for_each(|buffer| device.give_back(buffer)),
        }
        any
    }

    /// The job that is done with this completion, if one is.
    fn take_finished<D: BlockDevice<Buffer = B>>(
        &mut self,
        device: &mut D,
        completion: DeviceCompletion<B>,
    ) -> Option<Done<B>> {
        let Some(active) = self.active.remove(&completion.tag) else {
            log::error!("block.device.unknown_tag: {:?}", completion.tag);
            return None;
        };
        let current = active.epoch == self.epoch;
        match active.stage {
            Some(stage) if current && completion.result.is_ok() => {
                give_back_all(device, [completion.buffer]);
                self.advance(device, active.job, stage, active.held)
            }
            _ if current => {
                give_back_all(device, [active.held]);
                Some(Done { job: active.job, result: completion.result, buffer: completion.buffer })
            }
            _ => {
                give_back_all(device, [active.held, completion.buffer]);
                None
            }
        }
    }

    /// The next stage of a barrier; the job, when there is none.
    fn advance<D: BlockDevice<Buffer = B>>(
        &mut self,
        device: &mut D,
        job: Job,
        done: Stage,
        held: Option<B>,
    ) -> Option<Done<B>> {
        match (done, held) {
            (Stage::FlushBefore, Some(buffer)) => {
                let operation = DeviceOperation::Write { sector: job.sector, buffer };
                self.submit(device, job, operation, Some(Stage::Write), None);
                None
            }
            (Stage::Write, _) => {
                self.submit(device, job, DeviceOperation::Flush, Some(Stage::FlushAfter), None);
                None
            }
            (Stage::FlushBefore | Stage::FlushAfter, _) => Some(Done { job, result: Ok(()), buffer: None }),
        }
    }

    fn submit<D: BlockDevice<Buffer = B>>(
        &mut self,
        device: &mut D,
        job: Job,
        operation: DeviceOperation<B>,
        stage: Option<Stage>,
        held: Option<B>,
    ) {
        let tag = Tag(self.next_tag);
        self.next_tag += 1;
        device.submit(tag, operation);
        self.active.insert(tag, Active { job, held, epoch: self.epoch, stage });
    }

    fn barrier_is_active(&self) -> bool {
        self.active.values().any(|active| active.stage.is_some() && active.epoch == self.epoch)
    }

    /// Starts what can be started. True when something was started or answered.
    pub(super) fn start<H: Hal, D: BlockDevice<Buffer = B>>(
        &mut self,
        hal: &mut H,
        device: &mut D,
        connection: &mut Connection<H>,
        refusals: &mut Refusals,
    ) -> bool {
        if self.barrier_is_active() {
            return false;
        }
        let prepared = self.prepare(hal, device, connection, refusals);
        let started = self.submit_prepared(device);
        let barrier = self.start_barrier(hal, device, connection, refusals);
        if started || barrier {
            device.commit();
        }
        prepared || started || barrier
    }

    /// Gives buffers to the jobs before the next barrier and copies the data of writes, all in one go.
    fn prepare<H: Hal, D: BlockDevice<Buffer = B>>(
        &mut self,
        hal: &mut H,
        device: &mut D,
        connection: &mut Connection<H>,
        refusals: &mut Refusals,
    ) -> bool {
        let mut batch = Vec::new();
        let mut any = false;
        while self.backlog.front().is_some_and(|job| job.work != Work::Barrier) {
            let Some(job) = self.backlog.pop_front() else {
                break;
            };
            if job.len_bytes == 0 {
                batch.push(Prepared { job, buffer: None });
                continue;
            }
            match device.take_buffer(job.len_bytes) {
                Some(buffer) => batch.push(Prepared { job, buffer: Some(buffer) }),
                None if batch.is_empty() && self.prepared.is_empty() && self.active.is_empty() => {
                    refuse_for_want_of_a_buffer(hal, connection, refusals, &job);
                    any = true;
                }
                None => {
                    self.backlog.push_front(job);
                    self.waits += 1;
                    break;
                }
            }
        }
        any |= !batch.is_empty();
        let ready = copy_in(hal, device, connection, refusals, batch);
        self.prepared.extend(ready);
        any
    }

    fn submit_prepared<D: BlockDevice<Buffer = B>>(&mut self, device: &mut D) -> bool {
        let mut any = false;
        while device.can_submit() {
            let Some(Prepared { job, buffer }) = self.prepared.pop_front() else {
                break;
            };
            let sector = job.sector;
            let operation = match (job.work, buffer) {
                (Work::Read, Some(buffer)) => DeviceOperation::Read { sector, buffer },
                (_, Some(buffer)) => DeviceOperation::Write { sector, buffer },
                (Work::Discard { sectors, secure }, None) => DeviceOperation::Discard { sector, sectors, secure },
                (_, None) => DeviceOperation::Flush,
            };
            self.submit(device, job, operation, None, None);
            any = true;
        }
        any
    }

    fn start_barrier<H: Hal, D: BlockDevice<Buffer = B>>(
        &mut self,
        hal: &mut H,
        device: &mut D,
        connection: &mut Connection<H>,
        refusals: &mut Refusals,
    ) -> bool {
        let alone = self.active.is_empty() && self.prepared.is_empty() && device.can_submit();
        if !alone || self.backlog.front().is_none_or(|job| job.work != Work::Barrier) {
            return false;
        }
        let Some(job) = self.backlog.pop_front() else {
            return false;
        };
        let mut held = None;
        if job.len_bytes > 0 {
            let Some(buffer) = device.take_buffer(job.len_bytes) else {
                refuse_for_want_of_a_buffer(hal, connection, refusals, &job);
                return true;
            };
            let batch = alloc::vec![Prepared { job: job.clone(), buffer: Some(buffer) }];
            let Some(prepared) = copy_in(hal, device, connection, refusals, batch).pop() else {
                return true;
            };
            held = prepared.buffer;
        }
        self.submit(device, job, DeviceOperation::Flush, Some(Stage::FlushBefore), held);
        true
    }
}

fn give_back_all<D: BlockDevice>(device: &mut D, buffers: impl IntoIterator<Item = Option<D::Buffer>>) {
    buffers.into_iter().flatten().for_each(|buffer| device.give_back(buffer));
}

/// A job that is done but not answered.
struct Done<B> {
    job: Job,
    result: Result<(), DeviceError>,
    buffer: Option<B>,
}

fn refuse_for_want_of_a_buffer<H: Hal>(hal: &H, connection: &mut Connection<H>, refusals: &mut Refusals, job: &Job) {
    refusals.refuse(hal.now_ns(), rules::NO_BUFFER, format_args!("{} bytes", job.len_bytes));
    connection.answer(job.ticket, status::ERROR);
}

/// Copies the data of the writes here; what cannot be copied is answered with an error.
fn copy_in<H: Hal, D: BlockDevice>(
    hal: &mut H,
    device: &mut D,
    connection: &mut Connection<H>,
    refusals: &mut Refusals,
    mut batch: Vec<Prepared<D::Buffer>>,
) -> Vec<Prepared<D::Buffer>> {
    let mut writes: Vec<_> = batch
        .iter_mut()
        .filter(|prepared| prepared.job.work != Work::Read)
        .filter_map(|prepared| transfer(&prepared.job, prepared.buffer.as_mut(), Direction::FromPeer))
        .collect();
    connection.mapped.run(hal, connection.peer, &mut writes);
    let failed: Vec<_> = writes.iter().map(|write| write.failed).collect();
    let mut failed = failed.into_iter();
    let mut ready = Vec::with_capacity(batch.len());
    for prepared in batch {
        let is_write = prepared.job.work != Work::Read && prepared.buffer.is_some();
        let failure = if is_write { failed.next().flatten() } else { None };
        match failure {
            None => ready.push(prepared),
            Some((grant, error)) => {
                let id = prepared.job.id;
                refusals.refuse(
                    hal.now_ns(),
                    rules::DATA_GRANT,
                    format_args!("request {id:#x}, grant {grant}: {error}"),
                );
                connection.answer(prepared.job.ticket, status::ERROR);
                if let Some(buffer) = prepared.buffer {
                    device.give_back(buffer);
                }
            }
        }
    }
    ready
}

fn transfer<'a, B: AsMut<[u8]>>(job: &'a Job, buffer: Option<&'a mut B>, direction: Direction) -> Option<Transfer<'a>> {
    let buffer = buffer?.as_mut();
    Some(Transfer { pieces: &job.pieces, buffer, direction, failed: None })
}

/// Copies the data of the reads there, and answers.
fn answer<H: Hal, D: BlockDevice>(
    hal: &mut H,
    device: &mut D,
    connection: &mut Connection<H>,
    refusals: &mut Refusals,
    mut finished: Vec<Done<D::Buffer>>,
) {
    let is_read = |done: &Done<D::Buffer>| done.job.work == Work::Read && done.result.is_ok() && done.buffer.is_some();
    let mut reads: Vec<_> = finished
        .iter_mut()
        .filter(|done| is_read(done))
        .filter_map(|done| transfer(&done.job, done.buffer.as_mut(), Direction::ToPeer))
        .collect();
    connection.mapped.run(hal, connection.peer, &mut reads);
    let failed: Vec<_> = reads.iter().map(|read| read.failed).collect();
    let mut failed = failed.into_iter();
    for done in finished {
        let failure = if is_read(&done) { failed.next().flatten() } else { None };
        let id = done.job.id;
        let code = match (failure, done.result) {
            (None, Ok(())) => status::OKAY,
            (None, Err(DeviceError::NotSupported)) => status::NOT_SUPPORTED,
            (None, Err(DeviceError::Failed)) => status::ERROR,
            (Some((grant, error)), _) => {
                refusals.refuse(
                    hal.now_ns(),
                    rules::DATA_GRANT,
                    format_args!("request {id:#x}, grant {grant}: {error}"),
                );
                status::ERROR
            }
        };
        connection.answer(done.job.ticket, code);
        if let Some(buffer) = done.buffer {
            device.give_back(buffer);
        }
    }
}
