//! How much of the store one unprivileged domain may use.
//!
//! Each figure bounds memory or work that a guest can cause. Source of the defaults: Xen's C xenstored.

/// Limits that hold for every domain but dom0.
#[derive(Clone, Copy, Debug)]
pub struct Quota {
    /// Nodes a domain may own.
    pub nodes: usize,
    /// Watches a domain may have registered.
    pub watches: usize,
    /// Transactions a domain may have open.
    pub transactions: usize,
    /// Nodes one transaction may touch.
    pub transaction_nodes: usize,
    /// Bytes of one node: value and names of children.
    pub node_bytes: usize,
    /// Entries in one node's permissions.
    pub permissions: usize,
    /// Bytes of watch events and replies that may wait for a domain that does not read them.
    pub waiting_bytes: usize,
}

impl Default for Quota {
    fn default() -> Self {
        Self {
            nodes: 1000,
            watches: 128,
            transactions: 10,
            transaction_nodes: 256,
            node_bytes: 2048,
            permissions: 5,
            waiting_bytes: 64 * 1024,
        }
    }
}
