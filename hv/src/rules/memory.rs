//! Rules of the room `memory`.

crate::rules! {
}
