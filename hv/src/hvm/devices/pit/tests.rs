use proptest::prelude::*;

use super::*;

const MS: u64 = 1_000_000;

fn programmed(control: u8, count: u16, now_ns: u64) -> Pit {
    let mut pit = Pit::default();
    let port = 0x40 + u16::from(control >> 6);
    pit.write(0x43, control, now_ns);
    for byte in count.to_le_bytes() {
        pit.write(port, byte, now_ns);
    }
    pit
}

fn word(pit: &mut Pit, port: u16, now_ns: u64) -> u16 {
    let mut byte = || pit.read(port, now_ns).unwrap();
    u16::from_le_bytes([byte(), byte()])
}

#[test]
fn a_count_that_ends_interrupts_once() {
    let mut pit = programmed(0x30, 11_932, 5 * MS);
    let edge = pit.next_edge().unwrap();
    assert!((15 * MS - 1000..15 * MS + 1000).contains(&edge), "{edge}");
    assert!(!pit.take_edge(edge - 1));
    assert!(pit.take_edge(edge));
    assert!(!pit.take_edge(edge + 100 * MS));
    assert_eq!(pit.next_edge(), None);
}

#[test]
fn a_rate_interrupts_each_period() {
    for control in [0x34, 0x36] {
        let mut pit = programmed(control, 11_932, 0);
        let mut now = 0;
        for period in 1..=20_u64 {
            now = pit.next_edge().unwrap();
            assert!(now.abs_diff(period * 10 * MS) < 2000 + period * 100, "{now}");
            assert!(pit.take_edge(now));
        }
        assert!(pit.take_edge(now + 100 * MS), "missed ones are one");
        assert!(!pit.take_edge(now + 100 * MS + 1));
    }
}

#[test]
fn no_count_interrupts_more_often_than_the_shortest_time() {
    for count in [0, 1, 2, 5] {
        let mut pit = programmed(0x34, count, 0);
        let mut now = 0;
        for _ in 0..10 {
            let next = pit.next_edge().unwrap();
            assert!(next >= now + SHORTEST_NS);
            assert!(pit.take_edge(next));
            now = next;
        }
    }
}

#[test]
fn a_latched_count_stays_until_it_is_read() {
    let mut pit = programmed(0x34, 0, 0);
    pit.write(0x43, 0, MS);
    let latched = word(&mut pit, 0x40, 5 * MS);
    assert_eq!(latched, (0x1_0000 - 1193) as u16);
    assert!(word(&mut pit, 0x40, 5 * MS) < latched);
}

#[test]
fn a_square_wave_counts_by_two_and_is_high_for_its_first_half() {
    let mut pit = programmed(0xb6, 1000, 0);
    pit.write(0x61, 1, 0);
    assert_eq!(word(&mut pit, 0x42, after(100)), 800);
    assert_eq!(pit.read(0x61, after(499)).unwrap() & 0x20, 0x20);
    assert_eq!(pit.read(0x61, after(500)).unwrap() & 0x20, 0);
    assert_eq!(pit.read(0x61, after(1000)).unwrap() & 0x20, 0x20);
}

#[test]
fn the_third_counter_measures_time_as_kernels_do() {
    let mut pit = Pit::default();
    pit.write(0x61, 0, 0);
    pit.write(0x43, 0xb0, 0);
    pit.write(0x42, 0xff, 0);
    pit.write(0x42, 0x7f, 0);
    assert_eq!(pit.read(0x61, 900 * MS).unwrap() & 0x21, 0, "its gate is closed");
    pit.write(0x61, 1, 900 * MS);
    let over = 900 * MS + after(0x7fff);
    assert_eq!(pit.read(0x61, over - 1000).unwrap() & 0x21, 1);
    assert_eq!(pit.read(0x61, over).unwrap() & 0x21, 0x21);
}

#[test]
fn a_new_rate_begins_when_the_period_is_over() {
    let mut pit = programmed(0x34, 10_000, 0);
    for byte in 1000_u16.to_le_bytes() {
        pit.write(0x40, byte, after(5000));
    }
    assert_eq!(word(&mut pit, 0x40, after(6000)), 4000);
    assert_eq!(pit.next_edge(), Some(after(10_000)));
    assert!(pit.take_edge(after(10_000)));
    assert_eq!(pit.next_edge().map(ticks), Some(11_000));
}

#[test]
fn a_closed_gate_stops_counting() {
    let mut pit = programmed(0xb0, 1000, 0);
    pit.write(0x61, 1, 0);
    pit.write(0x61, 0, after(400));
    assert_eq!(word(&mut pit, 0x42, after(5000)), 600);
    pit.write(0x61, 1, after(5000));
    assert_eq!(word(&mut pit, 0x42, after(5100)), 500);
}

#[test]
fn a_one_shot_waits_for_its_gate() {
    let mut pit = programmed(0xb2, 1000, 0);
    assert_eq!(pit.read(0x61, after(2000)).unwrap() & 0x20, 0x20);
    pit.write(0x61, 1, after(2000));
    assert_eq!(pit.read(0x61, after(2500)).unwrap() & 0x20, 0);
    assert_eq!(pit.read(0x61, after(3001)).unwrap() & 0x20, 0x20);
}

#[test]
fn a_read_back_gives_status_then_count() {
    let mut pit = programmed(0x34, 1000, 0);
    pit.write(0x43, 0xc2, after(100));
    assert_eq!(pit.read(0x40, after(200)), Some(0xb4));
    assert_eq!(word(&mut pit, 0x40, after(300)), 900);
}

#[test]
fn decimal_counts_are_decimal() {
    let mut pit = programmed(0x31, 0x1000, 0);
    assert_eq!(word(&mut pit, 0x40, after(1)), 0x0999);
    assert_eq!(pit.next_edge(), Some(after(1000)));
}

#[test]
fn a_strobe_is_low_for_one_count() {
    let mut pit = programmed(0x38, 1000, 0);
    assert_eq!(pit.next_edge(), Some(after(1001)));
    assert!(pit.take_edge(after(1001)));
    assert_eq!(pit.next_edge(), None);
}

proptest! {
    #[test]
    fn whatever_is_written_edges_come_after_now(
        steps in proptest::collection::vec((0_u16..5, any::<u8>(), 0_u64..u64::MAX / 256), 0..200)
    ) {
        let mut pit = Pit::default();
        let mut now = 0_u64;
        for (port, value, wait) in steps {
            let port = [0x40, 0x41, 0x42, 0x43, 0x61][usize::from(port)];
            now = now.saturating_add(wait >> (value & 63)).min(u64::MAX / 2);
            pit.write(port, value, now);
            prop_assert!(pit.read(port, now).is_some());
            pit.take_edge(now);
            prop_assert!(pit.next_edge().is_none_or(|edge| edge > now));
        }
    }
}
