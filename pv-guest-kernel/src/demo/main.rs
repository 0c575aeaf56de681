//! The demo kernel.
#![no_std]
#![no_main]

extern crate alloc;

use pv_guest_kernel::{println, task, time};

pv_guest_kernel::kernel_main!(main);

fn main() {
    println!(
        "demo: command line {:?}, ramdisk {} bytes",
        pv_guest_kernel::command_line(),
        pv_guest_kernel::ramdisk().len()
    );
    let signal = alloc::sync::Arc::new(task::Signal::new());
    let threads: alloc::vec::Vec<_> = (0..3)
        .map(|n| {
            let signal = signal.clone();
            task::spawn(alloc::format!("worker {n}"), move || {
                let mut sum = 0_u64;
                let end = time::now_ns() + 100_000_000;
                let mut turns = 0;
                let mut last = time::now_ns();
                while time::now_ns() < end {
                    let now = time::now_ns();
                    if now - last > 1_000_000 {
                        turns += 1;
                    }
                    last = now;
                    sum += 1;
                }
                println!("worker {n}: {turns} turns {}", sum > 0);
                signal.raise();
            })
        })
        .collect();
    signal.wait();
    for thread in threads {
        thread.join();
    }
    let before = time::now_ns();
    task::sleep_ns(50_000_000);
    println!("slept {}", time::Seconds(time::now_ns() - before));
    for round in 0..3 {
        let process = pv_guest_kernel::process::start("selftest", "").expect("program");
        println!(
            "round {round} status {} free {}",
            process.wait(),
            pv_guest_kernel::mm::frames::FRAMES.lock().free()
        );
    }
    println!("switches {}", task::scheduler::switches());
    println!("free {}", pv_guest_kernel::mm::frames::FRAMES.lock().free());
}
