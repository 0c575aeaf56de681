//! The hypercall page: a page of the kernel that the hypervisor fills with one stub of 32 bytes for each hypercall.
//!
//! A kernel that names such a page (ELF note `HYPERCALL_PAGE`, or a write to [`HYPERCALL_MSR`]) calls hypercall `n` at
//! `page + 32 * n`, with the arguments in rdi, rsi, rdx, r10 and r8 and the result in rax. The stub for a PV guest is
//!
//! ```text
//! push rcx; push r11; mov eax, n; syscall; pop r11; pop rcx; ret      any number but iret's
//! push rcx; push r11; push rax; mov eax, 23; syscall                  iret, which does not return
//! ```
//!
//! The rest of each stub, and of the page, is `int3`. New kernels execute `syscall` themselves, as
//! the module `hypercall` does.

use crate::xen::HYPERVISOR_IRET;

/// Bytes from one stub to the next.
pub const ENTRY_SIZE: usize = 32;

/// Number of stubs in a page.
pub const ENTRIES: usize = crate::PAGE_SIZE / ENTRY_SIZE;

/// The model-specific register that fills a page: its value is the frame's address with the page's index (0) in the low
/// bits. CPUID leaf 0x40000002 tells its number.
pub const HYPERCALL_MSR: u32 = 0x4000_0000;

/// What fills the gaps.
const INT3: u8 = 0xcc;

/// The stub of hypercall `number` for a PV guest.
///
/// ```
/// use pv_abi::hypercall_page;
/// let stub = hypercall_page::entry(17);
/// assert_eq!(stub[..14], [0x51, 0x41, 0x53, 0xb8, 17, 0, 0, 0, 0x0f, 0x05, 0x41, 0x5b, 0x59, 0xc3]);
/// ```
pub const fn entry(number: u32) -> [u8; ENTRY_SIZE] {
    let [n0, n1, n2, n3] = number.to_le_bytes();
    let mut stub = [INT3; ENTRY_SIZE];
    let code: &[u8] = if number as u64 == HYPERVISOR_IRET {
        &[0x51, 0x41, 0x53, 0x50, 0xb8, n0, n1, n2, n3, 0x0f, 0x05]
    } else {
        &[0x51, 0x41, 0x53, 0xb8, n0, n1, n2, n3, 0x0f, 0x05, 0x41, 0x5b, 0x59, 0xc3]
    };
    let mut at = 0;
    while at < code.len() {
        stub[at] = code[at];
        at += 1;
    }
    stub
}

/// The stub of hypercall `number` for a guest with hardware assistance: `mov eax, number`, the CPU's instruction that calls
/// the hypervisor (`vmmcall` is `0f 01 d9`, `vmcall` is `0f 01 c1`), `ret`. There is no `iret` for such a guest.
pub const fn entry_by(call: [u8; 3], number: u32) -> [u8; ENTRY_SIZE] {
    let [n0, n1, n2, n3] = number.to_le_bytes();
    let mut stub = [INT3; ENTRY_SIZE];
    let code = if number as u64 == HYPERVISOR_IRET {
        [0x0f, 0x0b, INT3, INT3, INT3, INT3, INT3, INT3, INT3]
    } else {
        [0xb8, n0, n1, n2, n3, call[0], call[1], call[2], 0xc3]
    };
    let mut at = 0;
    while at < code.len() {
        stub[at] = code[at];
        at += 1;
    }
    stub
}

/// Fills a page with the stubs for a guest with hardware assistance.
pub fn fill_by(page: &mut [u8; crate::PAGE_SIZE], call: [u8; 3]) {
    for (number, stub) in (0u32..).zip(page.as_chunks_mut::<ENTRY_SIZE>().0) {
        *stub = entry_by(call, number);
    }
}

/// Fills a page with the stubs for a PV guest.
pub fn fill(page: &mut [u8; crate::PAGE_SIZE]) {
    for (number, stub) in (0u32..).zip(page.as_chunks_mut::<ENTRY_SIZE>().0) {
        *stub = entry(number);
    }
}
