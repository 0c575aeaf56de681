use proptest::prelude::*;

use super::*;

/// 2026-11-22 15:04:05, a Sunday.
const TIME: u64 = 1_795_359_845;
const S: u64 = SECOND_NS;

fn clock() -> Rtc {
    Rtc::new(TIME * S, 0)
}

fn get(rtc: &mut Rtc, register: u8, now: u64) -> u8 {
    rtc.write(0x70, register | 0x80, now);
    rtc.read(0x71, now).unwrap()
}

fn put(rtc: &mut Rtc, register: u8, value: u8, now: u64) {
    rtc.write(0x70, register, now);
    rtc.write(0x71, value, now);
}

fn shown(rtc: &mut Rtc, now: u64) -> [u8; 8] {
    [CENTURY, 9, 8, 7, 4, 2, 0, 6].map(|register| get(rtc, register, now))
}

#[test]
fn it_shows_the_time_in_decimal_and_goes_on() {
    let mut rtc = clock();
    assert_eq!(shown(&mut rtc, 0), [0x20, 0x26, 0x11, 0x22, 0x15, 0x04, 0x05, 1]);
    assert_eq!(shown(&mut rtc, 9 * 3600 * S), [0x20, 0x26, 0x11, 0x23, 0x00, 0x04, 0x05, 2]);
}

#[test]
fn it_shows_it_in_binary_and_in_twelve_hours() {
    let mut rtc = clock();
    put(&mut rtc, 0x0b, b::BINARY, 0);
    assert_eq!(shown(&mut rtc, 0), [20, 26, 11, 22, 0x83, 4, 5, 1]);
    assert_eq!(get(&mut rtc, 4, 9 * 3600 * S), 12);
}

#[test]
fn a_guest_sets_it_while_it_stands() {
    let mut rtc = clock();
    put(&mut rtc, 0x0b, b::SET | b::HOURS_24, 0);
    for (register, value) in [(CENTURY, 0x19), (9, 0x99), (8, 0x12), (7, 0x31), (4, 0x23), (2, 0x59), (0, 0x58)] {
        put(&mut rtc, register, value, S);
    }
    assert_eq!(shown(&mut rtc, 50 * S)[6], 0x58);
    put(&mut rtc, 0x0b, b::HOURS_24, 50 * S);
    assert_eq!(shown(&mut rtc, 51 * S), [0x19, 0x99, 0x12, 0x31, 0x23, 0x59, 0x59, 6]);
    assert_eq!(shown(&mut rtc, 52 * S), [0x20, 0, 1, 1, 0, 0, 0, 7]);
}

#[test]
fn it_says_when_it_is_not_to_be_read() {
    let mut rtc = clock();
    assert_eq!(get(&mut rtc, 0x0a, 0), 0x26);
    assert_eq!(get(&mut rtc, 0x0a, S - UPDATE_NS / 2), 0xa6);
}

#[test]
fn each_second_interrupts_until_it_is_read() {
    let mut rtc = clock();
    put(&mut rtc, 0x0b, c::UPDATED | b::HOURS_24, S / 2);
    assert_eq!(rtc.next_interrupt(), Some(S));
    assert!(!rtc.asks(S - 1));
    assert!(rtc.asks(S));
    assert_eq!(rtc.next_interrupt(), None);
    assert_eq!(get(&mut rtc, 0x0c, S) & 0x90, 0x90);
    assert!(!rtc.asks(S));
    assert_eq!(rtc.next_interrupt(), Some(2 * S));
}

#[test]
fn a_rate_interrupts_each_period() {
    let mut rtc = clock();
    put(&mut rtc, 0x0a, 0x26, 0);
    put(&mut rtc, 0x0b, c::PERIODIC | b::HOURS_24, 0);
    let period = rtc.next_interrupt().unwrap();
    assert_eq!(period, S / 1024);
    for n in 1..10 {
        assert_eq!(rtc.next_interrupt(), Some(n * period));
        assert!(rtc.asks(n * period));
        assert_eq!(get(&mut rtc, 0x0c, n * period) & 0xe0, 0xc0);
    }
}

#[test]
fn an_alarm_comes_at_its_time_whatever_it_leaves_open() {
    let mut rtc = clock();
    put(&mut rtc, 1, 0x10, 0);
    put(&mut rtc, 3, 0xff, 0);
    put(&mut rtc, 5, 0xc0, 0);
    put(&mut rtc, 0x0b, c::ALARM | b::HOURS_24, 0);
    assert!(!rtc.asks(4 * S + S / 2));
    assert!(rtc.asks(5 * S));
    get(&mut rtc, 0x0c, 5 * S);
    assert!(!rtc.asks(64 * S));
    assert!(rtc.asks(65 * S));
}

#[test]
fn an_alarm_is_found_in_a_long_sleep() {
    let mut rtc = clock();
    for (register, value) in [(1, 0x04), (3, 0x04), (5, 0x15)] {
        put(&mut rtc, register, value, 0);
    }
    put(&mut rtc, 0x0b, c::ALARM | b::HOURS_24, 0);
    assert!(rtc.asks(400 * DAY_SECONDS * S));
}

#[test]
fn its_memory_keeps_what_is_written_but_not_over_its_registers() {
    let mut rtc = clock();
    rtc.set_memory(0x34, 7);
    rtc.set_memory(0x0b, 0xff);
    put(&mut rtc, 0x7f, 9, 0);
    assert_eq!([0x34, 0x7f, 0x0b, 0x0d].map(|register| get(&mut rtc, register, 0)), [7, 9, 2, 0x80]);
    put(&mut rtc, 0x0d, 0, 0);
    assert_eq!(get(&mut rtc, 0x0d, 0), 0x80);
}

proptest! {
    #[test]
    fn dates_go_there_and_back(second in 0_u64..10_000_000_000) {
        prop_assert_eq!(Civil::of(second).epoch_seconds(), second);
    }

    #[test]
    fn whatever_is_written_it_goes_on(
        steps in proptest::collection::vec((any::<u8>(), any::<u8>(), 0_u64..u64::MAX / 256), 0..100)
    ) {
        let mut rtc = clock();
        let mut now = 0_u64;
        for (register, value, wait) in steps {
            now = now.saturating_add(wait >> (value & 63)).min(u64::MAX / 2);
            put(&mut rtc, register, value, now);
            get(&mut rtc, register, now);
            rtc.asks(now);
            prop_assert!(rtc.next_interrupt().is_none_or(|at| at > now));
        }
    }
}
