//! The host's side of the TCP stream: pages as long as is asked for.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};

use anyhow::{Context, Result};

/// The longest page.
const MAX_BYTES: usize = 1 << 30;

/// Serves `/N`, a page of N bytes, until the program ends; the address as a guest of QEMU's user network has it.
pub(super) fn start() -> Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0").context("no port for the stream")?;
    let port = listener.local_addr()?.port();
    std::thread::spawn(move || {
        for stream in listener.incoming().filter_map(Result::ok) {
            // A guest that hangs up early is its own loss.
            let _ = answer(&stream);
        }
    });
    Ok(format!("http://10.0.2.2:{port}"))
}

fn answer(mut stream: &TcpStream) -> Result<()> {
    let mut request = BufReader::new(stream).lines();
    let first = request.next().context("no request")??;
    let path = first.split(' ').nth(1).unwrap_or_default();
    let bytes: usize = path.trim_start_matches('/').parse().unwrap_or(0);
    while request.next().transpose()?.is_some_and(|line| !line.is_empty()) {}
    let bytes = bytes.min(MAX_BYTES);
    write!(stream, "HTTP/1.0 200 OK\r\nContent-Length: {bytes}\r\n\r\n")?;
    let block = vec![0x5a; 64 << 10];
    let mut left = bytes;
    while left > 0 {
        let now = left.min(block.len());
        stream.write_all(&block[..now])?;
        left -= now;
    }
    Ok(())
}
