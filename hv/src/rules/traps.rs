//! Rules of the room `traps`.

crate::rules! {
}
