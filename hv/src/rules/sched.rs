//! Rules of the room `sched`.

crate::rules! {
}
