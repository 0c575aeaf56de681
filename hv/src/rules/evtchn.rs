//! Rules of the room `evtchn`.

crate::rules! {
}
