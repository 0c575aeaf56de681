//! A machine whose memory is ordinary memory, for host tests.
