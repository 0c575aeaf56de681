//! The disk: 4 KiB at random places, 128 KiB in a row. The last quarter of the disk is read and written; nobody else may
//! need it.

use alloc::string::ToString;
use alloc::vec;

use super::{Outcome, measure};
use crate::disk::{self, DiskError, SECTOR_BYTES};

const SMALL: usize = 4096;
const LARGE: usize = 128 << 10;

pub(super) fn bench(scale: u64) {
    measure::<16>("block_read_4k_random", 32 * scale, |times| random(times, false));
    measure::<17>("block_write_4k_random", 32 * scale, |times| random(times, true));
    measure::<18>("block_read_128k_sequential", 8 * scale, |times| sequential(times, false));
    measure::<19>("block_write_128k_sequential", 8 * scale, |times| sequential(times, true));
}

fn outcome(result: Result<(), DiskError>) -> Outcome {
    result.map_err(|error| error.to_string())
}

/// The last quarter of the disk, in blocks of `bytes`: the first sector and how many there are.
fn area(bytes: usize) -> Result<(u64, u64), DiskError> {
    let sectors = disk::sectors()?;
    Ok((sectors / 4 * 3, sectors / 4 / (bytes / SECTOR_BYTES) as u64))
}

fn transfer(sector: u64, data: &mut [u8], write: bool) -> Result<(), DiskError> {
    if write { disk::write(sector, data) } else { disk::read(sector, data) }
}

fn random(times: u64, write: bool) -> Outcome {
    outcome(area(SMALL).and_then(|(start, blocks)| {
        let mut data = vec![0; SMALL];
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        (0..times).try_for_each(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let block = (state >> 33) % blocks;
            transfer(start + block * (SMALL / SECTOR_BYTES) as u64, &mut data, write)
        })
    }))
}

fn sequential(times: u64, write: bool) -> Outcome {
    outcome(area(LARGE).and_then(|(start, blocks)| {
        let mut data = vec![0; LARGE];
        (0..times)
            .try_for_each(|block| transfer(start + block % blocks * (LARGE / SECTOR_BYTES) as u64, &mut data, write))
    }))
}
