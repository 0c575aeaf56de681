//! Commands that look at the kernel and run programs in it.

use alloc::string::String;
use alloc::sync::Arc;
use core::sync::atomic::Ordering;

use pv_abi::DomId;
use pv_abi::errno::Errno;
use pv_abi::xen::DOMID_SELF;

use pv_guest_kernel::mm::PAGE_SIZE;
use pv_guest_kernel::mm::frames::FRAMES;
use pv_guest_kernel::platform::pv::{balloon, events, grants, hypercall};
use pv_guest_kernel::process::{self, Pid};
use pv_guest_kernel::task::{Signal, scheduler};
use pv_guest_kernel::time::{SECOND_NS, Seconds, now_ns, wall_clock_ns};
use pv_guest_kernel::{cpus, platform, println, task};

pub(super) fn ps(_arguments: &[String]) -> i32 {
    show_threads();
    0
}

/// Threads and processes.
pub(crate) fn show_threads() {
    println!("{:>4} {:>3} {:>10} {:14} NAME", "TID", "CPU", "TIME", "STATE");
    for thread in scheduler::threads() {
        let used = Seconds(thread.cpu_ns.load(Ordering::Relaxed));
        let state = match thread.state() {
            task::State::Runnable if thread.is_running() => "running",
            task::State::Runnable => "runnable",
            task::State::Waiting { deadline_ns: None } => "waiting",
            task::State::Waiting { .. } => "sleeping",
            task::State::Dead => "dead",
        };
        println!("{:>4} {:>3} {used:>10} {state:14} {}", thread.id.0, thread.cpu(), thread.name);
    }
    let processes = process::list();
    if processes.is_empty() {
        return;
    }
    println!("{:>4} {:>4} {:>3} {:>10} {:>6} {:>6} NAME", "PID", "PPID", "CPU", "TIME", "PAGES", "TABLES");
    for process in processes {
        let parent = process.parent().map_or(0, |pid| pid.0);
        let (used, usage) = (Seconds(process.cpu_ns()), process.usage());
        println!(
            "{:>4} {parent:>4} {:>3} {used:>10} {:>6} {:>6} {}",
            process.pid.0,
            process.cpu(),
            usage.resident,
            usage.tables,
            process.name()
        );
    }
}

/// Free and used memory.
pub(crate) fn show_memory() {
    let (free, mut all) = {
        let frames = FRAMES.lock();
        (frames.free(), frames.len())
    };
    if platform::is_xen() {
        all = balloon::pages() as usize;
    }
    let mib = |frames: usize| frames * PAGE_SIZE / MIB;
    println!("memory: {} of {} MiB free", mib(free), mib(all));
}

const MIB: usize = 1 << 20;

pub(super) fn memory(arguments: &[String]) -> i32 {
    let wanted = arguments.first().map(|text| text.parse::<u64>());
    let reached = match wanted {
        None => true,
        Some(Ok(mib)) if platform::is_xen() => {
            let pages = mib * (MIB / PAGE_SIZE) as u64;
            balloon::set_target(pages) == pages
        }
        Some(_) => {
            println!("memory: how many MiB? On a bare machine they are what they are");
            return 2;
        }
    };
    show_memory();
    i32::from(!reached)
}

pub(super) fn top(_arguments: &[String]) -> i32 {
    show_memory();
    println!("ramdisk: {} bytes", pv_guest_kernel::ramdisk().len());
    println!("thread switches: {}", scheduler::switches());
    for cpu in cpus::online().iter() {
        println!("cpu {cpu}: idle for {} of {}", Seconds(scheduler::idle_ns(cpu)), Seconds(now_ns()));
    }
    if !platform::is_xen() {
        println!("hypercalls: none, this is a bare machine");
        return 0;
    }
    let (upcalls, delivered) = events::counts();
    println!("events: {delivered} in {upcalls} upcalls");
    println!("grant entries free: {}", grants::free_entries());
    println!("hypercalls:");
    for (number, count) in hypercall::counts().into_iter().enumerate() {
        if count > 0 {
            println!("{count:>10} {}", hypercall::name(number));
        }
    }
    0
}

pub(super) fn uptime(_arguments: &[String]) -> i32 {
    let seconds = wall_clock_ns() / SECOND_NS;
    let in_day = seconds % 86_400;
    println!("up {}, {:02}:{:02}:{:02} UTC", Seconds(now_ns()), in_day / 3600, in_day / 60 % 60, in_day % 60);
    0
}

pub(super) fn run(arguments: &[String]) -> i32 {
    let (arguments, waits) = match arguments.split_last() {
        Some((last, rest)) if last == "&" => (rest, false),
        _ => (arguments, true),
    };
    let Some((program, arguments)) = arguments.split_first() else {
        println!("run: which program? There are: {}", process::program_names().join(", "));
        return 2;
    };
    match process::start(program, &arguments.join(" ")) {
        Ok(process) if waits => process.wait(),
        Ok(process) => {
            println!("[{}]", process.pid);
            task::spawn("reaper", move || {
                let status = process.wait();
                println!("[{}] ended with status {status}", process.pid);
            });
            0
        }
        Err(error) => {
            println!("run: {program}: {error}");
            1
        }
    }
}

/// Events a round of `events` sends unless told otherwise.
const EVENTS: u64 = 1000;

pub(super) fn send_events(arguments: &[String]) -> i32 {
    if !platform::is_xen() {
        println!("events: this is a bare machine");
        return 1;
    }
    let count = arguments.first().and_then(|count| count.parse().ok()).unwrap_or(EVENTS);
    match measure_events(count) {
        Ok(took_ns) => {
            println!("{count} events in {}", Seconds(took_ns));
            0
        }
        Err(errno) => {
            println!("events: {errno:?}");
            1
        }
    }
}

/// Sends events to this domain itself, each when the one before has been seen; the nanoseconds it took.
fn measure_events(count: u64) -> Result<u64, Errno> {
    let me = DomId(DOMID_SELF);
    let near = events::alloc_unbound(me)?;
    let far = events::bind_interdomain(me, near)?;
    let seen = Arc::new(Signal::new());
    events::raise(near, &seen);
    let start = now_ns();
    for _ in 0..count {
        events::notify(far)?;
        seen.wait();
    }
    let took_ns = now_ns() - start;
    events::close(far)?;
    events::close(near)?;
    Ok(took_ns)
}

pub(super) fn kill(arguments: &[String]) -> i32 {
    let pid = arguments.first().and_then(|pid| pid.parse().ok());
    match pid.and_then(|pid| process::find(Pid(pid))) {
        Some(process) => {
            process.kill();
            0
        }
        None => {
            println!("kill: no such process");
            1
        }
    }
}

pub(super) fn sleep(arguments: &[String]) -> i32 {
    match arguments.first().and_then(|seconds| seconds.parse().ok()) {
        Some(seconds) => {
            let seconds: u64 = seconds;
            task::sleep_ns(seconds.saturating_mul(SECOND_NS));
            0
        }
        None => {
            println!("sleep: how many seconds?");
            2
        }
    }
}

pub(super) fn echo(arguments: &[String]) -> i32 {
    println!("{}", arguments.join(" "));
    0
}

pub(super) fn loglevel(arguments: &[String]) -> i32 {
    match arguments.first().and_then(|level| level.parse().ok()) {
        Some(level) => {
            log::set_max_level(level);
            0
        }
        None => {
            println!("loglevel: error, warn, info, debug or trace");
            2
        }
    }
}
