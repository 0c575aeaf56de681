//! Machine frames: owner, reference and type counts; the allocator.

/// What each machine frame is.
#[derive(Debug, Default)]
pub struct FrameTable;

/// Free frames.
#[derive(Debug, Default)]
pub struct Allocator;

/// Frames a domain owns and may own.
#[derive(Debug, Default)]
pub struct DomainMemory;
