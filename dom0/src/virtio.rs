//! What both ends of a virtio queue compute alike.
//!
//! Source: Virtual I/O Device 1.2, §2.7.10.

/// Whether an index that went from `before` to `now` went past the one that the other end waits for. Indices wrap around.
#[must_use]
pub fn is_passed(event: u16, before: u16, now: u16) -> bool {
    now.wrapping_sub(event).wrapping_sub(1) < now.wrapping_sub(before)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_told_when_the_awaited_index_is_passed_and_not_before() {
        assert!(is_passed(4, 4, 5));
        assert!(is_passed(4, 0, 5));
        assert!(!is_passed(5, 0, 5));
        assert!(!is_passed(3, 4, 5), "it was told of already");
    }

    #[test]
    fn the_end_of_the_numbers_is_an_index_like_any_other() {
        for start in [0, 0x7fff, 0xfffd, 0xffff_u16] {
            let at = |step: u16| start.wrapping_add(step);
            assert!(is_passed(at(0), at(0), at(3)));
            assert!(is_passed(at(2), at(0), at(3)));
            assert!(!is_passed(at(3), at(0), at(3)));
            assert!(!is_passed(at(0), at(1), at(3)));
        }
    }
}
