//! Commands that end the machine.

use alloc::string::String;

use pv_guest_kernel::platform::pv::suspend;
use pv_guest_kernel::platform::{self, Shutdown};
use pv_guest_kernel::println;

pub(super) fn reboot(_arguments: &[String]) -> i32 {
    platform::current().shutdown(Shutdown::Reboot)
}

pub(super) fn poweroff(_arguments: &[String]) -> i32 {
    platform::current().shutdown(Shutdown::PowerOff)
}

pub(super) fn suspend(_arguments: &[String]) -> i32 {
    if !platform::is_xen() {
        println!("suspend: this is a bare machine");
        return 1;
    }
    match suspend::suspend() {
        Ok(outcome) => {
            println!("suspend: {outcome:?}");
            0
        }
        Err(errno) => {
            println!("suspend: {errno:?}");
            1
        }
    }
}

pub(super) fn crash(arguments: &[String]) -> i32 {
    match arguments.first().map_or("panic", String::as_str) {
        "panic" => panic!("as asked"),
        "null" => pv_guest_kernel::fault::touch_null(),
        "text" => pv_guest_kernel::fault::write_text(),
        other => {
            println!("crash: {other}: panic, null or text");
            2
        }
    }
}
