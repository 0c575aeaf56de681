//! `cargo xtask doctor`: what this machine lacks and how to get it.

use anyhow::Result;

use crate::{tools, xen};

/// Prints a line a tool; status 1 where something is missing without which `run` cannot work.
pub(crate) fn run() -> Result<u8> {
    let mut missing = false;
    for tool in tools::ALL {
        if tool.is_present() {
            println!("ok       {:<18} {}", tool.packages[0], tool.purpose);
        } else {
            println!("missing  {:<18} {}; {}", tool.packages[0], tool.purpose, tool.cure());
            missing = true;
        }
    }
    match tools::ensure_target() {
        Ok(()) => println!("ok       {:<18} builds the kernels", "x86_64-unknown-none"),
        Err(error) => {
            println!("missing  {error}");
            missing = true;
        }
    }
    match xen::image() {
        Ok(_) => println!("ok       {:<18} real Xen, for tests and figures beside it", "xen-4.17"),
        Err(error) => println!("without  {:<18} figures have no Xen beside them: {error:#}", "xen-4.17"),
    }
    Ok(u8::from(missing))
}
