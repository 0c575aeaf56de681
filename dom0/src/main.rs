//! The service domain: one loop that serves all guests.
//!
//! Everything that happens raises one signal: an event channel of a guest, an interrupt of a device, a key. The loop
//! then lets each part do what it can, without waiting, until none has anything left, and sleeps.
#![no_std]
#![no_main]

extern crate alloc;

mod machine;
mod service;

use pv_guest_kernel::platform::pv::cpus;
use pv_guest_kernel::{println, task};

pv_guest_kernel::kernel_main!(main);

/// Unpacking a kernel takes more stack than a thread has by itself.
const STACK_PAGES: usize = 128;

fn main() {
    cpus::start_all();
    task::spawn_with_stack("service", STACK_PAGES, serve).join();
}

fn serve() {
    match service::Service::start() {
        Ok(mut service) => service.run(),
        Err(problem) => println!("dom0: {problem}"),
    }
}
