//! Mistakes on purpose: what the `crash` command and tests use to see a fault reported.
#![expect(unsafe_code, reason = "the accesses are wrong by design")]

/// Reads address 0. The kernel panics.
pub fn touch_null() -> i32 {
    // SAFETY: not sound and not meant to be: nothing is mapped there, so the read faults and the kernel ends.
    unsafe { core::ptr::without_provenance::<i32>(8).read_volatile() }
}

/// Writes to the kernel's own text. The kernel panics.
pub fn write_text() -> i32 {
    let text = touch_null as *const () as *mut u8;
    // SAFETY: not sound and not meant to be: text is read-only, so the write faults and the kernel ends.
    unsafe { text.write_volatile(0) };
    0
}
