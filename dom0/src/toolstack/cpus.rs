//! Sets of physical CPUs, as `xl` writes them: `all`, `0-3`, `0,2`, `0-7,^3`.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

/// Which CPUs. Bit n is CPU n.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CpuSet(pub u64);

impl CpuSet {
    /// Every CPU.
    pub const ALL: Self = Self(u64::MAX);

    /// Reads a list of CPUs and ranges of them; `^` takes out.
    ///
    /// # Errors
    /// One line that names what is wrong.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text == "all" {
            return Ok(Self::ALL);
        }
        let wrong = || format!("\"{text}\" names no CPUs: write all, or for example 0-3 or 0,2 (CPUs are 0 to 63)");
        let mut bits = 0;
        for part in text.split(',') {
            let (out, range) = part.strip_prefix('^').map_or((false, part), |range| (true, range));
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            let first: u32 = first.parse().map_err(|_| wrong())?;
            let last: u32 = last.parse().map_err(|_| wrong())?;
            if first > last || last > 63 {
                return Err(wrong());
            }
            let range = u64::MAX >> (63 - last) & u64::MAX << first;
            bits = if out { bits & !range } else { bits | range };
        }
        if bits == 0 { Err(wrong()) } else { Ok(Self(bits)) }
    }

    /// Writes it, where the machine has `count` CPUs.
    pub fn text(self, count: u32) -> String {
        let there = if count >= 64 { u64::MAX } else { (1 << count) - 1 };
        let bits = self.0 & there;
        if bits == there {
            return "all".to_string();
        }
        let has = |cpu: u32| cpu < 64 && bits >> cpu & 1 != 0;
        let starts = (0..64).filter(|cpu| has(*cpu) && (*cpu == 0 || !has(cpu - 1)));
        let ranges = starts.map(|first| {
            let last = (first..64).take_while(|cpu| has(*cpu)).last().unwrap_or(first);
            if first == last { first.to_string() } else { format!("{first}-{last}") }
        });
        ranges.collect::<Vec<_>>().join(",")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_are_read_and_written_as_xl_does() {
        for (text, bits, back) in
            [("0-3", 0xf, "0-3"), ("0,2", 5, "0,2"), ("0-7,^3", 0xf7, "0-2,4-7"), ("63", 1 << 63, "63")]
        {
            assert_eq!(CpuSet::parse(text), Ok(CpuSet(bits)), "{text}");
            assert_eq!(CpuSet(bits).text(64), back);
        }
        assert_eq!(CpuSet::parse("all"), Ok(CpuSet::ALL));
        assert_eq!(
            (CpuSet::ALL.text(4), CpuSet(3).text(2), CpuSet(1).text(2)),
            ("all".into(), "all".into(), "0".into())
        );
    }

    #[test]
    fn what_names_no_cpu_is_refused() {
        for text in ["", "x", "3-1", "64", "0,^0", "-1", "1-"] {
            assert!(CpuSet::parse(text).expect_err(text).contains("names no CPUs"), "{text}");
        }
    }
}
