//! Address-space numbers, by which a CPU keeps translations of several vCPUs apart.
//!
//! Each CPU gives its own: a vCPU has the number of the CPU that it ran on last. To forget the translations of all guests,
//! or of a domain whose memory changed, is to give new numbers; once there are no more, the CPU does forget them, and
//! begins anew. A CPU that runs a vCPU meanwhile is interrupted after the change is counted, one that does not looks here.
//!
//! Source: AMD APM 2 §15.16.

/// The number of a vCPU, and which CPU gave it in which round; none yet by default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tag {
    cpu: u32,
    round: u64,
    changes: u64,
    number: u32,
}

/// The numbers of a CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Numbers {
    count: u32,
    next: u32,
    round: u64,
    forget: bool,
}

impl Numbers {
    /// Of a CPU that has this many; 0 is its own.
    #[must_use]
    pub const fn new(count: u32) -> Self {
        Self { count: if count < 2 { 2 } else { count }, next: 1, round: 1, forget: true }
    }

    /// No translation of a guest is used any more.
    pub const fn forget(&mut self) {
        self.round += 1;
    }

    /// The number of a vCPU that runs on this CPU next, and whether the CPU must forget all translations first; `changes`
    /// is how often its domain's memory has changed.
    pub const fn of(&mut self, cpu: u32, changes: u64, tag: &mut Tag) -> (u32, bool) {
        if tag.round != self.round || tag.cpu != cpu || tag.changes != changes {
            if self.next >= self.count {
                (self.next, self.forget) = (1, true);
                self.round += 1;
            }
            *tag = Tag { cpu, round: self.round, changes, number: self.next };
            self.next += 1;
        }
        (tag.number, core::mem::replace(&mut self.forget, false))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vcpu_keeps_its_number_until_translations_are_forgotten() {
        let mut numbers = Numbers::new(8);
        let (mut first, mut second) = (Tag::default(), Tag::default());
        assert_eq!(numbers.of(0, 0, &mut first), (1, true));
        assert_eq!(numbers.of(0, 0, &mut second), (2, false));
        assert_eq!(numbers.of(0, 0, &mut first), (1, false));
        assert_eq!(numbers.of(0, 1, &mut first), (3, false), "its domain's memory changed");
        numbers.forget();
        assert_eq!(numbers.of(0, 0, &mut second), (4, false));
        assert_eq!(numbers.of(0, 1, &mut first), (5, false));
    }

    #[test]
    fn on_another_cpu_it_gets_another() {
        let (mut here, mut there) = (Numbers::new(8), Numbers::new(8));
        let mut tag = Tag::default();
        assert_eq!(here.of(0, 0, &mut tag).0, 1);
        assert_eq!(there.of(1, 0, &mut Tag::default()).0, 1);
        assert_eq!(there.of(1, 0, &mut tag).0, 2);
        assert_eq!(here.of(0, 0, &mut tag).0, 2, "what is here of its first number is not its any more");
    }

    #[test]
    fn numbers_come_again_only_after_all_is_forgotten() {
        let mut numbers = Numbers::new(3);
        let mut tags = [Tag::default(); 3];
        assert_eq!(numbers.of(0, 0, &mut tags[0]), (1, true));
        assert_eq!(numbers.of(0, 0, &mut tags[1]), (2, false));
        assert_eq!(numbers.of(0, 0, &mut tags[2]), (1, true));
        assert_eq!(numbers.of(0, 0, &mut tags[0]), (2, false));
        assert_eq!(numbers.of(0, 0, &mut tags[2]), (1, false));
        assert_eq!(numbers.of(0, 0, &mut tags[1]), (1, true), "and all are given anew");
        let mut few = Numbers::new(0);
        assert_eq!((few.of(0, 0, &mut tags[0]), few.of(0, 0, &mut tags[1])), ((1, true), (1, true)));
    }
}
