//! Rules of the room `control`.

crate::rules! {
}
