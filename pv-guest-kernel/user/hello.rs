//! Says hello.
#![no_std]
#![no_main]

mod sys;

fn main(arguments: &str) -> i32 {
    let pid = sys::call(sys::abi::GETPID, 0, 0, 0);
    say!("hello from user mode, process {pid} {arguments}");
    0
}
