//! Rules of the room `physdev`.

crate::rules! {
}
