//! When Linux came to its first process, in the hypervisor's time.
//!
//! The kernel's log says when, in microseconds of the kernel's own clock. That clock began at the start of `xen_start_kernel`:
//! what the hypervisor's clock showed then stands in the variable `xen_sched_clock_offset`, which is read from the kernel's
//! memory (`/proc/kcore`). The sum is a moment that whoever let the domain run can compare with his own.

use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::{FileExt, OpenOptionsExt};

/// The kernel's variable, a `u64` of nanoseconds.
const CLOCK_START: &str = "xen_sched_clock_offset";
/// What the kernel logs right before its first process.
const FIRST_PROCESS: &str = "Run /init as init process";
/// Bytes of a record of the kernel's log, at most.
const RECORD_BYTES: usize = 8192;

/// Nanoseconds of the hypervisor's time at which the first process was about to run.
///
/// # Errors
/// Where the kernel does not show its log, its symbols or its memory, or is no guest of Xen's.
pub(crate) fn first_process_ns() -> io::Result<u64> {
    let symbols = std::fs::read_to_string("/proc/kallsyms")?;
    let address = symbol(&symbols, CLOCK_START).ok_or_else(|| missing(CLOCK_START))?;
    let start_ns = read_kernel(&File::open("/proc/kcore")?, address)?;
    Ok(start_ns + logged_us(FIRST_PROCESS)? * 1000)
}

fn missing(what: &str) -> io::Error {
    io::Error::new(ErrorKind::NotFound, format!("the kernel has no {what}"))
}

/// The address of a symbol in a list of lines `ADDRESS KIND NAME`.
fn symbol(list: &str, name: &str) -> Option<u64> {
    let line = list.lines().find(|line| line.split_ascii_whitespace().nth(2) == Some(name))?;
    u64::from_str_radix(line.split(' ').next()?, 16).ok().filter(|address| *address != 0)
}

/// Reads a word of the kernel's memory, which is an ELF file with a segment a range of addresses.
fn read_kernel(memory: &File, address: u64) -> io::Result<u64> {
    let word = |at: u64| {
        let mut bytes = [0; 8];
        memory.read_exact_at(&mut bytes, at).map(|()| u64::from_le_bytes(bytes))
    };
    let (headers, sizes) = (word(32)?, word(54)?);
    let (size, count) = (sizes & 0xffff, sizes >> 16 & 0xffff);
    for header in (0..count).map(|index| headers + index * size) {
        let (offset, start, bytes) = (word(header + 8)?, word(header + 16)?, word(header + 32)?);
        if let Some(within) = address.checked_sub(start).filter(|within| within + 8 <= bytes) {
            return word(offset + within);
        }
    }
    Err(missing("memory at this address"))
}

/// The time of the record with this text, in microseconds.
fn logged_us(text: &str) -> io::Result<u64> {
    let mut log = File::options().read(true).custom_flags(libc::O_NONBLOCK).open("/dev/kmsg")?;
    let mut record = [0; RECORD_BYTES];
    loop {
        match log.read(&mut record) {
            Ok(length) => {
                if let Some(time_us) = time_of(&String::from_utf8_lossy(&record[..length]), text) {
                    return Ok(time_us);
                }
            }
            // Older records made room for newer ones; the next read goes on with those that there are.
            Err(error) if error.raw_os_error() == Some(libc::EPIPE) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Err(missing(text)),
            Err(error) => return Err(error),
        }
    }
}

/// The time of a record `PRIORITY,NUMBER,MICROSECONDS,FLAGS;TEXT`, if it has this text.
fn time_of(record: &str, text: &str) -> Option<u64> {
    let (head, rest) = record.split_once(';')?;
    rest.starts_with(text).then(|| head.split(',').nth(2)?.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_s_time_is_its_third_number() {
        assert_eq!(time_of("6,321,1234567,-;Run /init as init process\n", FIRST_PROCESS), Some(1_234_567));
        assert_eq!(time_of("6,322,1234568,-;  with arguments:\n", FIRST_PROCESS), None);
    }

    #[test]
    fn a_symbol_is_found_by_its_whole_name_and_not_where_addresses_are_hidden() {
        let list = "ffffffff82000000 d other\nffffffff82000008 d clock\nffffffff82000010 d clock_2\n";
        assert_eq!(symbol(list, "clock"), Some(0xffff_ffff_8200_0008));
        assert_eq!(symbol("0000000000000000 d clock\n", "clock"), None);
    }

    #[test]
    fn a_word_of_memory_is_read_through_its_segment() {
        let mut file = vec![0_u8; 256];
        let mut put = |at: usize, value: u64| file[at..at + 8].copy_from_slice(&value.to_le_bytes());
        put(32, 64);
        put(54, 56 | 1 << 16);
        put(64 + 8, 200);
        put(64 + 16, 0xffff_ffff_8100_0000);
        put(64 + 32, 32);
        put(200 + 16, 41_000_000_000);
        let path = std::env::temp_dir().join(format!("linux-bench-{}", std::process::id()));
        std::fs::write(&path, &file).expect("the file can be written");
        let memory = File::open(&path).expect("the file can be read");
        std::fs::remove_file(&path).expect("the file can be removed");
        assert_eq!(read_kernel(&memory, 0xffff_ffff_8100_0010).ok(), Some(41_000_000_000));
        assert!(read_kernel(&memory, 0xffff_ffff_8200_0000).is_err());
    }
}
