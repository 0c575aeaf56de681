//! What a block front end must not do.

use pv_bus::rules;

rules! {
    RING_OVERRUN = "block.ring.overrun": "the front end's index is at most one ring ahead";
    PROTOCOL_UNKNOWN = "block.connect.protocol": "the ring has the x86_64-abi layout";
    CONNECT_QUEUES = "block.connect.queues": "the front end uses at least one queue and no more than were offered";
    RING_ORDER = "block.connect.ring_order": "a ring has as many pages as the back end said it knows, a power of two";
    RING_KEYS = "block.connect.keys": "ring-ref and event-channel are numbers";
    RING_GRANT = "block.connect.grant": "the pages of the ring are granted to the back end for reading and writing";
    EVENT_CHANNEL = "block.connect.event_channel": "the event channel is open to the back end";
    OPERATION_UNKNOWN = "block.request.operation": "an operation is read, write, barrier, flush, discard or indirect";
    OPERATION_NOT_OFFERED = "block.request.not_offered": "an operation is one that the back end offered";
    INDIRECT_OPERATION = "block.request.indirect_operation": "an indirect request reads or writes";
    SEGMENT_COUNT = "block.request.segment_count": "a request has at least one segment and no more than agreed";
    SEGMENT_LAST = "block.segment.last_sector": "the last sector of a segment is at most 7";
    SEGMENT_BACKWARDS = "block.segment.backwards": "a segment does not end before it starts";
    SECTOR_RANGE = "block.request.sector_range": "all sectors of a request are on the device";
    SECTOR_ALIGNMENT = "block.request.sector_alignment": "a request covers whole sectors of the device";
    WRITE_READ_ONLY = "block.request.read_only": "a device that cannot be written is not written";
    INDIRECT_GRANT = "block.request.indirect_grant": "the pages of segments are granted to the back end";
    DATA_GRANT = "block.request.data_grant": "the pages of data are granted to the back end, for writing if it reads";
    NO_BUFFER = "block.request.no_buffer": "a request is not larger than the largest buffer of the device";
}
