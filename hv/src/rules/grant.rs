//! Rules of the room `grant`.

crate::rules! {
}
