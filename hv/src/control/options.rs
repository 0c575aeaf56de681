//! The command line's options.

/// The command line's options.
#[derive(Debug, Default)]
pub struct Options;

impl Options {
    /// Whether refusals of this domain are printed (`guest_loglvl`).
    #[must_use]
    pub const fn explains(&self, _domain: pv_abi::DomId) -> bool {
        true
    }
}
