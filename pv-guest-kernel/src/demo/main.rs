//! The demo kernel: a shell on the console.
//!
//! Under Xen it opens the disk and the network card that its domain was given, through the front ends; on a bare machine
//! the ATA disk and the NE2000 card. `exec="…"` on the command line runs commands and ends the machine.
#![no_std]
#![no_main]

extern crate alloc;

mod bench;
mod commands;
mod control;
mod disk;
mod driver;
mod files;
mod http;
mod network;

use pv_guest_kernel::platform::{self, Shutdown, pv};
use pv_guest_kernel::println;
use pv_guest_kernel::shell::Shell;

pv_guest_kernel::kernel_main!(main);

fn main() {
    let platform = platform::current();
    if platform::is_xen() {
        pv::cpus::start_all();
    }
    driver::start();
    let shell = Shell { commands: commands::COMMANDS, prompt: "demo> " };
    if shell.run_exec_option().is_some() {
        platform.shutdown(Shutdown::PowerOff);
    }
    println!("demo kernel, platform {}. `help` lists the commands.", platform.name());
    shell.interact();
}
