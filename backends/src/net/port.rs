//! What is behind the back end of a network card.

use pv_bus::net::Frame;

/// A place where frames go and come from: a port of a [`Bridge`](super::bridge::Bridge), or a device.
pub trait NetPort {
    /// Whether [`transmit`](Self::transmit) takes frames with a blank checksum. If not, the back end fills it in.
    fn accepts_blank_checksums(&self) -> bool;

    /// Whether [`transmit`](Self::transmit) takes oversize frames. If not, the back end cuts them.
    fn accepts_oversize(&self) -> bool {
        false
    }

    /// Whether there is room for a ring full of frames. Until there is the back end leaves the guest's on its ring: what
    /// waits there is not lost, and a guest that sends too fast notices.
    fn has_room(&self) -> bool {
        true
    }

    /// Takes a frame from the guest. False when it was dropped for want of room.
    fn transmit(&mut self, frame: Frame) -> bool;

    /// The next frame for the guest.
    fn receive(&mut self) -> Option<Frame>;
}
