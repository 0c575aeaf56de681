//! Error numbers as hypercalls return them.

use pv_abi::errno::Errno;

#[test]
fn every_error_survives_the_way_through_a_return_value() {
    for &errno in Errno::ALL {
        assert_eq!(Errno::result_of(errno.as_return()), Err(errno));
        assert_eq!(Errno::from_raw(errno.number()), Some(errno));
        assert_eq!(Errno::from_name(errno.name()), Some(errno));
        assert_eq!(errno.to_string(), errno.name());
    }
}

#[test]
fn errors_stand_in_the_order_of_their_numbers() {
    assert!(Errno::ALL.is_sorted_by(|a, b| a.number() < b.number()));
}

#[test]
fn a_value_that_is_not_negative_is_a_success() {
    assert_eq!(Errno::result_of(0), Ok(0));
    assert_eq!(Errno::result_of(i64::MAX), Ok(i64::MAX as u64));
}

#[test]
fn a_number_the_abi_does_not_know_is_an_invalid_argument() {
    assert_eq!(Errno::result_of(-15), Err(Errno::Inval));
    assert_eq!(Errno::result_of(-4096), Err(Errno::Inval));
    assert_eq!(Errno::result_of(i64::MIN), Err(Errno::Inval));
    assert_eq!(Errno::from_raw(0), None);
    assert_eq!(Errno::from_raw(15), None);
    assert_eq!(Errno::from_name("EWHAT"), None);
}

#[test]
fn try_again_and_would_block_are_one() {
    assert_eq!(Errno::WOULD_BLOCK, Errno::Again);
}
