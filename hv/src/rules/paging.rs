//! Rules of the room `paging`.

crate::rules! {
}
