use super::*;

const OWNER: DomId = DomId(3);

fn owned() -> Frame {
    let frame = Frame::new();
    frame.assign(OWNER, 1, CountWord::ALLOCATED | CountWord::LISTED);
    frame
}

#[test]
fn only_the_owner_gets_a_reference() {
    let frame = owned();
    assert!(!frame.get(DomId(4)));
    assert!(frame.get(OWNER));
    assert_eq!(frame.count_word().count(), 2);
    frame.disown();
    assert!(!frame.get(OWNER));
    assert_eq!(frame.count_word().count(), 2);
}

#[test]
fn a_free_frame_is_nobodys() {
    assert!(!Frame::new().get(DomId(0)));
    assert!(!Frame::new().get(NOBODY));
}

#[test]
fn a_type_in_use_excludes_all_others() {
    let frame = owned();
    assert_eq!(frame.acquire_type(PageType::Writable), Acquired::Ready);
    assert_eq!(frame.acquire_type(PageType::L1), Acquired::Conflict);
    assert_eq!(frame.release_type(0), Released::Done);
    assert_eq!(frame.acquire_type(PageType::L1), Acquired::Changed { foreign: false });
    assert_eq!(frame.acquire_type(PageType::L1), Acquired::Busy);
    assert_eq!(frame.acquire_type(PageType::Writable), Acquired::Conflict);
}

#[test]
fn who_changes_the_type_has_it_alone_until_stale_translations_are_forgotten() {
    let frame = owned();
    assert_eq!(frame.acquire_type(PageType::Writable), Acquired::Ready);
    assert_eq!(frame.release_type(7), Released::Done);
    assert_eq!(frame.stamp(), 7);
    assert_eq!(frame.acquire_type(PageType::Writable), Acquired::Ready);
    frame.set_foreign();
    assert_eq!(frame.release_type(8), Released::Done);
    assert_eq!(frame.acquire_type(PageType::L1), Acquired::Changed { foreign: true });
    assert_eq!(frame.acquire_type(PageType::L1), Acquired::Busy);
    frame.forget_type(9);
    assert_eq!(frame.acquire_type(PageType::Writable), Acquired::Changed { foreign: false });
    assert_eq!(frame.acquire_type(PageType::Writable), Acquired::Busy);
    frame.set_validated();
    assert_eq!(frame.acquire_type(PageType::Writable), Acquired::Ready);
}

#[test]
fn the_latest_of_several_stamps_counts() {
    let frame = owned();
    for _ in 0..3 {
        assert_eq!(frame.acquire_type(PageType::Writable), Acquired::Ready);
    }
    frame.release_writable(5);
    frame.release_writable(9);
    frame.release_writable(6);
    assert_eq!((frame.stamp(), frame.type_word().count()), (9, 0));
    assert_eq!(frame.acquire_type(PageType::Writable), Acquired::Ready);
    frame.release_writable(9_u32.wrapping_sub(1 << 30));
    assert_eq!(frame.stamp(), 9_u32.wrapping_sub(1 << 30), "an old one is not the later because the clock wrapped");
}

#[test]
fn a_partial_table_is_taken_over_by_the_next_who_asks() {
    let frame = owned();
    let _ = frame.acquire_type(PageType::L2);
    frame.set_partial(17);
    assert_eq!(frame.acquire_type(PageType::L1), Acquired::Conflict);
    assert_eq!(frame.acquire_type(PageType::L2), Acquired::Check { from: 17, resumed: true });
    frame.set_partial(18);
    assert_eq!(frame.take_partial(PageType::L2), Some(18));
    assert_eq!(frame.take_partial(PageType::L2), None);
}

#[test]
fn the_last_user_of_a_table_must_take_it_apart() {
    let frame = owned();
    let _ = frame.acquire_type(PageType::L3);
    frame.set_validated();
    assert!(frame.acquire_type_in_use(PageType::L3));
    assert_eq!(frame.release_type(0), Released::Done);
    assert_eq!(frame.release_type(0), Released::TakeApart(3));
    assert!(!frame.acquire_type_in_use(PageType::L3));
    frame.forget_type(5);
    assert_eq!(frame.type_word().count(), 0);
    assert_eq!(frame.stamp(), 5);
}

#[test]
fn only_an_unused_frame_is_stolen() {
    let frame = owned();
    assert!(!frame.steal(OWNER));
    assert!(frame.get(OWNER));
    assert!(!frame.steal(DomId(4)));
    assert!(frame.steal(OWNER));
    assert!(!frame.get(OWNER));
}
