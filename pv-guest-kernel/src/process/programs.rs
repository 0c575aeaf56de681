//! The user programs this kernel carries.

use alloc::vec::Vec;

macro_rules! programs {
    ($($name:literal),*) => {
        #[cfg(target_os = "none")]
        static PROGRAMS: &[(&str, &[u8])] = &[
            $( ($name, include_bytes!(concat!(env!("OUT_DIR"), "/", $name))), )*
        ];
        #[cfg(not(target_os = "none"))]
        static PROGRAMS: &[(&str, &[u8])] = &[ $( ($name, &[]), )* ];
    };
}

programs!["bench", "float", "hello", "mix", "nothing", "selftest", "spin"];

/// The ELF file of a program.
pub(super) fn find(name: &str) -> Option<&'static [u8]> {
    let row = PROGRAMS.iter().find(|(known, _)| *known == name);
    row.map(|(_, bytes)| *bytes)
}

/// The programs there are.
#[must_use]
pub fn names() -> Vec<&'static str> {
    PROGRAMS.iter().map(|(name, _)| *name).collect()
}
