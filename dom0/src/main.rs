//! The service domain.
#![no_std]
#![no_main]

extern crate alloc;

use pv_guest_kernel::println;

pv_guest_kernel::kernel_main!(main);

fn main() {
    println!("dom0: hello, {} bytes of ramdisk", pv_guest_kernel::ramdisk().len());
}
