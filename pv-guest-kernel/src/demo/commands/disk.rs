//! Commands on files.

use alloc::string::String;

use pv_guest_kernel::{console, println};

use crate::files::{self, FileError, MOUNT_POINT};

/// The part of a path below the mount point.
fn on_disk(path: &str) -> Option<&str> {
    let rest = path.strip_prefix(MOUNT_POINT)?;
    (rest.is_empty() || rest.starts_with('/')).then_some(rest)
}

/// Prints why a command failed; its status.
fn failed(command: &str, path: &str, error: &FileError) -> i32 {
    match error {
        embedded_sdmmc::Error::DeviceError(error) => println!("{command}: {path}: {error}"),
        embedded_sdmmc::Error::FilenameError(_) => {
            println!("{command}: {path}: a new file's name has at most 8 characters, a dot, and 3 more");
        }
        error => println!("{command}: {path}: {error}"),
    }
    1
}

fn outside(command: &str, path: &str) -> i32 {
    println!("{command}: {path}: no such file; the disk is at {MOUNT_POINT}");
    1
}

pub(super) fn ls(arguments: &[String]) -> i32 {
    let path = arguments.first().map_or("/", String::as_str);
    if path == "/" {
        println!("{:>10} {}/", "", &MOUNT_POINT[1..]);
        return 0;
    }
    let Some(inner) = on_disk(path) else {
        return outside("ls", path);
    };
    match files::list(inner) {
        Ok(listings) => {
            for listing in listings {
                let slash = if listing.is_directory { "/" } else { "" };
                println!("{:>10} {}{slash}", listing.len_bytes, listing.name);
            }
            0
        }
        Err(error) => failed("ls", path, &error),
    }
}

pub(super) fn cat(arguments: &[String]) -> i32 {
    if arguments.is_empty() {
        println!("cat: which file?");
        return 2;
    }
    let mut status = 0;
    for path in arguments {
        let result = match on_disk(path) {
            Some(inner) => print_file(inner).map_err(|error| failed("cat", path, &error)),
            None => Err(outside("cat", path)),
        };
        status = result.err().unwrap_or(status);
    }
    status
}

fn print_file(path: &str) -> Result<(), FileError> {
    let content = files::read(path)?;
    console::write_bytes(&content);
    if content.last().is_some_and(|byte| *byte != b'\n') {
        println!();
    }
    Ok(())
}

pub(super) fn write(arguments: &[String]) -> i32 {
    let Some((path, words)) = arguments.split_first() else {
        println!("write: which file?");
        return 2;
    };
    let Some(inner) = on_disk(path) else {
        return outside("write", path);
    };
    let mut content = words.join(" ");
    content.push('\n');
    match files::write(inner, content.as_bytes()) {
        Ok(()) => 0,
        Err(error) => failed("write", path, &error),
    }
}
