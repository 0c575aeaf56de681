//! The network protocol: one ring for each direction (as the guest sees it), and one for control.
//!
//! A packet takes one or more slots; all but the last carry `more_data`. Slots after the first may be [`NetifExtraInfo`]
//! where the slot before says `extra_info`. The first slot's `size` of a transmitted packet is the whole packet's.
//!
//! Xen: `public/io/netif.h`.

use crate::layout::{constants, structs};

constants! {
    header "io/netif.h";
    /// Slots that every back end takes for one packet.
    pub const XEN_NETIF_NR_SLOTS_MIN: u32 = 18;
    /// Bytes of a packet at most.
    pub const XEN_NETIF_MAX_TX_SIZE: u32 = 0xffff;

    /// Transmit: the checksum is not filled in.
    pub const NETTXF_CSUM_BLANK [NETTXF_csum_blank]: u16 = 1 << 0;
    /// Transmit: the data are known to be good.
    pub const NETTXF_DATA_VALIDATED [NETTXF_data_validated]: u16 = 1 << 1;
    /// Transmit: the packet goes on in the next slot.
    pub const NETTXF_MORE_DATA [NETTXF_more_data]: u16 = 1 << 2;
    /// Transmit: the next slot is a [`NetifExtraInfo`].
    pub const NETTXF_EXTRA_INFO [NETTXF_extra_info]: u16 = 1 << 3;
    /// Receive: the data are known to be good.
    pub const NETRXF_DATA_VALIDATED [NETRXF_data_validated]: u16 = 1 << 0;
    /// Receive: the checksum is not filled in.
    pub const NETRXF_CSUM_BLANK [NETRXF_csum_blank]: u16 = 1 << 1;
    /// Receive: the packet goes on in the next slot.
    pub const NETRXF_MORE_DATA [NETRXF_more_data]: u16 = 1 << 2;
    /// Receive: the next slot is a [`NetifExtraInfo`].
    pub const NETRXF_EXTRA_INFO [NETRXF_extra_info]: u16 = 1 << 3;
    /// Receive: segmentation of the older kind.
    pub const NETRXF_GSO_PREFIX [NETRXF_gso_prefix]: u16 = 1 << 4;

    /// [`NetifExtraInfo::type_`]: none.
    pub const XEN_NETIF_EXTRA_TYPE_NONE: u8 = 0;
    /// [`NetifExtraInfo::type_`]: segmentation.
    pub const XEN_NETIF_EXTRA_TYPE_GSO: u8 = 1;
    /// [`NetifExtraInfo::type_`]: join a multicast group.
    pub const XEN_NETIF_EXTRA_TYPE_MCAST_ADD: u8 = 2;
    /// [`NetifExtraInfo::type_`]: leave a multicast group.
    pub const XEN_NETIF_EXTRA_TYPE_MCAST_DEL: u8 = 3;
    /// [`NetifExtraInfo::type_`]: the packet's hash.
    pub const XEN_NETIF_EXTRA_TYPE_HASH: u8 = 4;
    /// Number of types.
    pub const XEN_NETIF_EXTRA_TYPE_MAX: u8 = 5;
    /// [`NetifExtraInfo::flags`]: one more follows.
    pub const XEN_NETIF_EXTRA_FLAG_MORE: u8 = 1;
    /// Segmentation: none.
    pub const XEN_NETIF_GSO_TYPE_NONE: u8 = 0;
    /// Segmentation: TCP over IPv4.
    pub const XEN_NETIF_GSO_TYPE_TCPV4: u8 = 1;
    /// Segmentation: TCP over IPv6.
    pub const XEN_NETIF_GSO_TYPE_TCPV6: u8 = 2;

    /// Status: dropped.
    pub const NETIF_RSP_DROPPED: i16 = -2;
    /// Status: failed.
    pub const NETIF_RSP_ERROR: i16 = -1;
    /// Status: done.
    pub const NETIF_RSP_OKAY: i16 = 0;
    /// Status: no packet, the slot was a [`NetifExtraInfo`].
    pub const NETIF_RSP_NULL: i16 = 1;

    /// Hash over the IPv4 addresses.
    pub const XEN_NETIF_CTRL_HASH_TYPE_IPV4: u32 = 1 << 0;
    /// Hash over the IPv4 addresses and TCP ports.
    pub const XEN_NETIF_CTRL_HASH_TYPE_IPV4_TCP: u32 = 1 << 1;
    /// Hash over the IPv6 addresses.
    pub const XEN_NETIF_CTRL_HASH_TYPE_IPV6: u32 = 1 << 2;
    /// Hash over the IPv6 addresses and TCP ports.
    pub const XEN_NETIF_CTRL_HASH_TYPE_IPV6_TCP: u32 = 1 << 3;
    /// No hash.
    pub const XEN_NETIF_CTRL_HASH_ALGORITHM_NONE: u32 = 0;
    /// The Toeplitz hash.
    pub const XEN_NETIF_CTRL_HASH_ALGORITHM_TOEPLITZ: u32 = 1;
    /// Control: no request.
    pub const XEN_NETIF_CTRL_TYPE_INVALID: u16 = 0;
    /// Control: which hashes there are.
    pub const XEN_NETIF_CTRL_TYPE_GET_HASH_FLAGS: u16 = 1;
    /// Control: which hashes to use.
    pub const XEN_NETIF_CTRL_TYPE_SET_HASH_FLAGS: u16 = 2;
    /// Control: the hash's key.
    pub const XEN_NETIF_CTRL_TYPE_SET_HASH_KEY: u16 = 3;
    /// Control: how large the map from hash to queue may be.
    pub const XEN_NETIF_CTRL_TYPE_GET_HASH_MAPPING_SIZE: u16 = 4;
    /// Control: how large it shall be.
    pub const XEN_NETIF_CTRL_TYPE_SET_HASH_MAPPING_SIZE: u16 = 5;
    /// Control: the map.
    pub const XEN_NETIF_CTRL_TYPE_SET_HASH_MAPPING: u16 = 6;
    /// Control: the algorithm.
    pub const XEN_NETIF_CTRL_TYPE_SET_HASH_ALGORITHM: u16 = 7;
    /// Control: how many grants may be kept mapped.
    pub const XEN_NETIF_CTRL_TYPE_GET_GREF_MAPPING_SIZE: u16 = 8;
    /// Control: keep grants mapped.
    pub const XEN_NETIF_CTRL_TYPE_ADD_GREF_MAPPING: u16 = 9;
    /// Control: unmap them.
    pub const XEN_NETIF_CTRL_TYPE_DEL_GREF_MAPPING: u16 = 10;
    /// Control status: done.
    pub const XEN_NETIF_CTRL_STATUS_SUCCESS: u32 = 0;
    /// Control status: no such request.
    pub const XEN_NETIF_CTRL_STATUS_NOT_SUPPORTED: u32 = 1;
    /// Control status: bad parameter.
    pub const XEN_NETIF_CTRL_STATUS_INVALID_PARAMETER: u32 = 2;
    /// Control status: too long.
    pub const XEN_NETIF_CTRL_STATUS_BUFFER_OVERFLOW: u32 = 3;
    /// [`NetifGref::flags`]: read-only.
    pub const XEN_NETIF_CTRLF_GREF_READONLY [XEN_NETIF_CTRLF_GREF_readonly]: u16 = 1;
}

structs! {
    header "io/netif.h";

    /// A piece of a packet to send.
    pub struct NetifTxRequest ["struct netif_tx_request"] {
        /// Grant of the page.
        pub gref: u32,
        /// First byte in the page.
        pub offset: u16,
        /// `NETTXF_*`.
        pub flags: u16,
        /// Echoed.
        pub id: u16,
        /// Bytes of the whole packet in the first slot, of the piece in others.
        pub size: u16,
    }

    /// The outcome of a [`NetifTxRequest`].
    pub struct NetifTxResponse ["struct netif_tx_response"] {
        /// The request's.
        pub id: u16,
        /// `NETIF_RSP_*`.
        pub status: i16,
    }

    /// A page to receive into.
    pub struct NetifRxRequest ["struct netif_rx_request"] {
        /// Echoed.
        pub id: u16,
        /// Zero.
        pub pad: u16,
        /// Grant of the page.
        pub gref: u32,
    }

    /// A piece of a received packet.
    pub struct NetifRxResponse ["struct netif_rx_response"] {
        /// The request's.
        pub id: u16,
        /// First byte in the page.
        pub offset: u16,
        /// `NETRXF_*`.
        pub flags: u16,
        /// Number of bytes, or a negative `NETIF_RSP_*`.
        pub status: i16,
    }

    /// A slot that says something of the packet. `u` depends on the type: [`NetifExtraGso`], [`NetifExtraMcast`],
    /// [`NetifExtraHash`].
    pub struct NetifExtraInfo ["struct netif_extra_info"] {
        /// `XEN_NETIF_EXTRA_TYPE_*`.
        pub type_ ["type"]: u8,
        /// 0 or [`XEN_NETIF_EXTRA_FLAG_MORE`].
        pub flags: u8,
        /// What it says.
        pub u: [u16; 3],
    }

    /// Cut the packet into pieces.
    pub struct NetifExtraGso ["struct netif_extra_info.u.gso"] {
        /// Payload bytes of a piece.
        pub size: u16,
        /// `XEN_NETIF_GSO_TYPE_*`.
        pub type_ ["type"]: u8,
        /// Zero.
        pub pad: u8,
        /// Zero.
        pub features: u16,
    }

    /// Join or leave a multicast group.
    pub struct NetifExtraMcast ["struct netif_extra_info.u.mcast"] {
        /// Its Ethernet address.
        pub addr: [u8; 6],
    }

    /// The packet's hash.
    pub struct NetifExtraHash ["struct netif_extra_info.u.hash"] {
        /// Bit number of `XEN_NETIF_CTRL_HASH_TYPE_*`.
        pub type_ ["type"]: u8,
        /// `XEN_NETIF_CTRL_HASH_ALGORITHM_*`.
        pub algorithm: u8,
        /// The value, lowest byte first.
        pub value: [u8; 4],
    }

    /// A control request.
    pub struct NetifCtrlRequest ["struct xen_netif_ctrl_request"] {
        /// Echoed.
        pub id: u16,
        /// `XEN_NETIF_CTRL_TYPE_*`.
        pub type_ ["type"]: u16,
        /// Depends on the type.
        pub data: [u32; 3],
    }

    /// The outcome of a [`NetifCtrlRequest`].
    pub struct NetifCtrlResponse ["struct xen_netif_ctrl_response"] {
        /// The request's.
        pub id: u16,
        /// The request's.
        pub type_ ["type"]: u16,
        /// `XEN_NETIF_CTRL_STATUS_*`.
        pub status: u32,
        /// Depends on the type.
        pub data: u32,
    }

    /// A grant to keep mapped.
    pub struct NetifGref ["struct xen_netif_gref"] {
        /// The grant.
        pub ref_ ["ref"]: u32,
        /// 0 or [`XEN_NETIF_CTRLF_GREF_READONLY`].
        pub flags: u16,
        /// Out: `XEN_NETIF_CTRL_STATUS_*`.
        pub status: u16,
    }
}

bitflags::bitflags! {
    /// Flags of a piece to send.
    ///
    /// Xen: `NETTXF_*` in `public/io/netif.h`.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
    pub struct TxFlags: u16 {
        /// The checksum is not filled in.
        const CSUM_BLANK = NETTXF_CSUM_BLANK;
        /// The data are known to be good.
        const DATA_VALIDATED = NETTXF_DATA_VALIDATED;
        /// The packet goes on in the next slot.
        const MORE_DATA = NETTXF_MORE_DATA;
        /// The next slot is a [`NetifExtraInfo`].
        const EXTRA_INFO = NETTXF_EXTRA_INFO;
    }

    /// Flags of a received piece.
    ///
    /// Xen: `NETRXF_*` in `public/io/netif.h`.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
    pub struct RxFlags: u16 {
        /// The data are known to be good.
        const DATA_VALIDATED = NETRXF_DATA_VALIDATED;
        /// The checksum is not filled in.
        const CSUM_BLANK = NETRXF_CSUM_BLANK;
        /// The packet goes on in the next slot.
        const MORE_DATA = NETRXF_MORE_DATA;
        /// The next slot is a [`NetifExtraInfo`].
        const EXTRA_INFO = NETRXF_EXTRA_INFO;
        /// Segmentation of the older kind.
        const GSO_PREFIX = NETRXF_GSO_PREFIX;
    }
}
