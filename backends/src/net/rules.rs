//! What a network front end must not do.

use pv_bus::rules;

rules! {
    RING_OVERRUN = "net.ring.overrun": "the front end's index is at most one ring ahead";
    CONNECT_KEYS = "net.connect.keys": "ring references and event channels are numbers";
    CONNECT_RX_COPY = "net.connect.rx_copy": "the front end asks for received frames to be copied";
    CONNECT_QUEUES = "net.connect.queues": "the front end uses at least one queue and no more than were offered";
    CONTROL_RING = "net.connect.control_ring": "there is no control ring: a front end works without";
    RING_GRANT = "net.connect.grant": "the pages of the rings are granted to the back end for reading and writing";
    EVENT_CHANNEL = "net.connect.event_channel": "the event channels are open to the back end";
    TX_UNFINISHED = "net.tx.unfinished": "all slots of a frame are published together";
    TX_SLOTS = "net.tx.slots": "a frame takes at most 18 slots";
    TX_PAGE = "net.tx.page": "a piece of a frame lies within its page";
    TX_SIZE = "net.tx.size": "a frame is at least 14 bytes and as long as its pieces together";
    TX_EXTRA_TYPE = "net.tx.extra_type": "extra information has a type between 1 and 4";
    TX_EXTRA_NOT_OFFERED = "net.tx.extra_not_offered": "extra information is of a kind that the back end offered";
    TX_OVERSIZE = "net.tx.oversize": "an oversize frame is one TCP segment to be cut into pieces of at least 48 bytes";
    MULTICAST_FULL = "net.multicast.full": "a front end asks for at most 64 groups, each a group address";
    TX_GRANT = "net.tx.grant": "the pages of a frame are granted to the back end";
    TX_CHECKSUM = "net.tx.checksum": "a frame with a blank checksum has a TCP or UDP checksum to fill in";
    RX_GRANT = "net.rx.grant": "the pages that wait for frames are granted to the back end for writing";
}
