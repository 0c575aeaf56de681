//! What a compiler does, in small: it grows its heap, cuts a text into words, counts them in a hash table, sorts what it
//! found, and ends with a sum that says whether all went well.
#![no_std]
#![no_main]

mod sys;

use sys::{abi, call};

const PAGE: usize = 4096;
/// Bytes of text.
const TEXT: usize = 8 * PAGE;
const SLOTS: usize = 1024;

#[derive(Clone, Copy)]
struct Slot {
    hash: u32,
    count: u32,
}

fn main(_arguments: &str) -> i32 {
    let Some(text) = grow::<u8>(TEXT) else { return 1 };
    let Some(slots) = grow::<Slot>(SLOTS) else { return 1 };
    write(text);
    let words = count(text, slots);
    slots.sort_unstable_by_key(|slot| (slot.count, slot.hash));
    let sum: u32 = slots.iter().map(|slot| slot.count).sum();
    i32::from(sum != words || slots[SLOTS - 1].count == 0)
}

/// Room on the heap, zeroed by the kernel as it is touched.
fn grow<T>(count: usize) -> Option<&'static mut [T]> {
    let start = call(abi::BRK, 0, 0, 0) as usize;
    let end = start + (count * size_of::<T>()).next_multiple_of(PAGE);
    let reached = call(abi::BRK, end as u64, 0, 0);
    // SAFETY: the kernel just gave this room, page-aligned and zeroed; zeros are good values of what is asked for here.
    (reached == end as i64).then(|| unsafe { core::slice::from_raw_parts_mut(start as *mut T, count) })
}

/// Words of two to nine letters, from a generator with a fixed seed.
fn write(text: &mut [u8]) {
    let mut state = 0x9e37_79b9_u32;
    let mut left = 0;
    for letter in text {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        if left == 0 {
            *letter = b' ';
            left = 2 + state % 8;
        } else {
            *letter = b'a' + (state >> 8) as u8 % 6;
            left -= 1;
        }
    }
}

/// Counts words by their hash; how many there are.
fn count(text: &[u8], slots: &mut [Slot]) -> u32 {
    let mut words = 0;
    for word in text.split(|letter| *letter == b' ').filter(|word| !word.is_empty()) {
        let hash = word.iter().fold(0x811c_9dc5_u32, |hash, letter| (hash ^ u32::from(*letter)).wrapping_mul(0x0100_0193));
        let mut place = hash as usize % SLOTS;
        for _ in 0..4 {
            if slots[place].count == 0 || slots[place].hash == hash {
                break;
            }
            place = (place + 1) % SLOTS;
        }
        slots[place] = Slot { hash, count: slots[place].count + 1 };
        words += 1;
    }
    words
}
