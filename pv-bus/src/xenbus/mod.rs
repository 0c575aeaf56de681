//! One half of a device, as the store knows it: its own directory, its peer's directory, and the two states.

mod link;
mod state;

pub use link::{Link, LinkError, Side};
pub use state::{BackStep, FrontStep, Intent, Phase, XenbusState, back_step, front_step};
