//! A second domain, made by the first, that makes the hypercalls it is told to: what an unprivileged domain may do.
//!
//! It has eight frames: four page tables, code, a page that both see (requests, answers and arguments), and a stack. The
//! first domain fills them through foreign mappings and lets it run; then a request is words in the page that both see,
//! and the answer comes while the first domain yields.

use core::arch::global_asm;
use core::sync::atomic::{AtomicU64, Ordering};

use pv_abi::arch::{ArchDomainconfig, VGCF_IN_KERNEL, VGCF_ONLINE, VcpuGuestContext, xen_pfn_to_cr3};
use pv_abi::domctl::{
    Domctl, DomctlCreatedomain, DomctlGetdomaininfo, DomctlMaxMem, DomctlMaxVcpus, DomctlVcpucontext,
    XEN_DOMCTL_CREATEDOMAIN, XEN_DOMCTL_DESTROYDOMAIN, XEN_DOMCTL_GETDOMAININFO, XEN_DOMCTL_INTERFACE_VERSION,
    XEN_DOMCTL_MAX_MEM, XEN_DOMCTL_MAX_VCPUS, XEN_DOMCTL_SETVCPUCONTEXT, XEN_DOMCTL_UNPAUSEDOMAIN, XEN_DOMINF_SHUTDOWN,
};
use pv_abi::memory::{MemoryReservation, XENMEM_POPULATE_PHYSMAP};
use pv_abi::xen::{
    HYPERVISOR_DOMCTL, HYPERVISOR_MEMORY_OP, HYPERVISOR_MMUEXT_OP, HYPERVISOR_SCHED_OP,
    HYPERVISOR_UPDATE_VA_MAPPING_OTHERDOMAIN, MMUEXT_PIN_L4_TABLE, MmuextOp,
};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::memory::{A, D, P, Page, RW, US, VIRT_BASE};
use crate::{hypercall, operation, write_at};

global_asm!(
    ".section .text.child, \"ax\", @progbits",
    ".balign 64",
    "child_code:",
    "1: mov rax, [rbx]",
    "cmp rax, [rbx + 8]",
    "je 2f",
    "mov rax, [rbx + 16]",
    "mov rdi, [rbx + 24]",
    "mov rsi, [rbx + 32]",
    "mov rdx, [rbx + 40]",
    "mov r10, [rbx + 48]",
    "mov r8, [rbx + 56]",
    "cmp rax, -1",
    "jne 3f",
    "ud2",
    "3: syscall",
    "mov [rbx + 64], rax",
    "mov rax, [rbx]",
    "mov [rbx + 8], rax",
    "jmp 1b",
    "2: mov eax, 29",
    "xor edi, edi",
    "syscall",
    "jmp 1b",
    ".globl child_code_end",
    "child_code_end:",
    ".text",
);

unsafe extern "C" {
    static child_code: u8;
    static child_code_end: u8;
}

/// How many frames it has.
pub const FRAMES: usize = 8;
/// Page of its code.
pub const CODE: usize = 4;
/// Page that both see.
const BOTH: usize = 5;
/// Page of its stack.
pub const STACK: usize = 6;
/// A hypercall number that makes it raise #UD, which nobody handles.
pub const CRASH: u64 = u64::MAX;

static WINDOWS: [Page; FRAMES] = [const { Page::new() }; FRAMES];

/// A `domctl` on a domain; the payload goes in and out.
pub fn domctl<T: IntoBytes + FromBytes + Immutable>(command: u32, domain: u16, payload: &mut T) -> i64 {
    let mut frame =
        Domctl { cmd: command, interface_version: XEN_DOMCTL_INTERFACE_VERSION, domain, ..Default::default() };
    let len = size_of::<T>();
    frame.u[..len].copy_from_slice(payload.as_bytes());
    let result = hypercall(HYPERVISOR_DOMCTL, [&raw mut frame as u64, 0, 0, 0, 0]);
    if let Ok(answer) = T::read_from_bytes(&frame.u[..len]) {
        *payload = answer;
    }
    result
}

/// A `domctl` without arguments.
pub fn domctl_plain(command: u32, domain: u16) -> i64 {
    domctl(command, domain, &mut 0_u64)
}

/// What a PV domain of one vCPU is made of.
#[must_use]
pub fn usual() -> DomctlCreatedomain {
    DomctlCreatedomain {
        max_vcpus: 1,
        max_evtchn_port: 127,
        max_grant_frames: 4,
        max_maptrack_frames: 4,
        grant_opts: 1,
        arch: ArchDomainconfig::default(),
        ..Default::default()
    }
}

/// Makes a domain with this number: 0, or its errno.
pub fn create(number: u16, config: &mut DomctlCreatedomain) -> i64 {
    domctl(XEN_DOMCTL_CREATEDOMAIN, number, config)
}

/// What is known of a domain.
#[must_use]
pub fn info(number: u16) -> (i64, DomctlGetdomaininfo) {
    let mut info = DomctlGetdomaininfo::default();
    (domctl(XEN_DOMCTL_GETDOMAININFO, number, &mut info), info)
}

/// A domain that does what it is told.
#[derive(Clone, Copy, Debug)]
pub struct Child {
    /// Its number.
    pub number: u16,
    /// Its frames.
    pub frames: [u64; FRAMES],
}

impl Child {
    /// Makes and fills one, paused; nothing, where the hypervisor refuses any of it.
    #[must_use]
    pub fn new(number: u16) -> Option<Self> {
        Self::made_as(number, usual())
    }

    /// The same, of what `config` says.
    #[must_use]
    pub fn made_as(number: u16, config: DomctlCreatedomain) -> Option<Self> {
        Self::without_context(number, config).filter(|child| child.set_context(&child.context()) == 0)
    }

    /// The same, but its vCPU has no context.
    #[must_use]
    pub fn without_context(number: u16, mut config: DomctlCreatedomain) -> Option<Self> {
        let made = create(number, &mut config);
        let sized = domctl(XEN_DOMCTL_MAX_MEM, number, &mut DomctlMaxMem { max_memkb: 256 });
        let vcpus = domctl(XEN_DOMCTL_MAX_VCPUS, number, &mut DomctlMaxVcpus { max: config.max_vcpus });
        let mut frames: [u64; FRAMES] = core::array::from_fn(|n| n as u64);
        let mut asked = MemoryReservation {
            extent_start: frames.as_mut_ptr() as u64,
            nr_extents: FRAMES as u64,
            domid: number,
            ..Default::default()
        };
        let given = operation(HYPERVISOR_MEMORY_OP, XENMEM_POPULATE_PHYSMAP, &mut asked);
        let child = Self { number, frames };
        let done = (made, sized, vcpus, given) == (0, 0, 0, FRAMES as i64) && child.fill();
        done.then_some(child)
    }

    fn fill(&self) -> bool {
        let mapped = (0..FRAMES).all(|n| self.map_at(WINDOWS[n].va(), self.frames[n]) == 0);
        if !mapped {
            return false;
        }
        let table = P | RW | US | A | D;
        let put = |page: usize, index: usize, entry: u64| {
            let _ = write_at(WINDOWS[page].va() + index as u64 * 8, entry);
        };
        put(0, 511, self.frames[1] << 12 | table);
        put(1, 510, self.frames[2] << 12 | table);
        put(2, 0, self.frames[3] << 12 | table);
        for n in 0..FRAMES {
            let writable = if n >= BOTH { RW } else { 0 };
            put(3, n, self.frames[n] << 12 | P | US | A | writable | writable << 5);
        }
        let (from, to) = (&raw const child_code as u64, &raw const child_code_end as u64);
        for offset in (0..to - from).step_by(8) {
            let _ = write_at(WINDOWS[CODE].va() + offset, crate::read_at(from + offset).unwrap_or(0));
        }
        // The tables are no longer writable anywhere, so that they can become tables.
        let released = (0..4).all(|n| crate::update_va_mapping(WINDOWS[n].va(), 0, 2) == 0);
        let pin = MmuextOp { cmd: MMUEXT_PIN_L4_TABLE, arg1: self.frames[0], ..Default::default() };
        let pinned = hypercall(HYPERVISOR_MMUEXT_OP, [&raw const pin as u64, 1, 0, self.number.into(), 0]);
        released && pinned == 0
    }

    /// Its vCPU's first context, which another may be made from.
    #[must_use]
    pub fn context(&self) -> VcpuGuestContext {
        let mut context = VcpuGuestContext {
            flags: VGCF_IN_KERNEL | VGCF_ONLINE,
            kernel_ss: 0xe02b,
            kernel_sp: self.page(STACK + 1),
            ..Default::default()
        };
        context.user_regs.rip = self.page(CODE);
        context.user_regs.rsp = context.kernel_sp;
        context.user_regs.rbx = self.page(BOTH);
        (context.user_regs.cs, context.user_regs.ss) = (0xe033, 0xe02b);
        context.user_regs.rflags = 0x200;
        context.ctrlreg[3] = xen_pfn_to_cr3(self.frames[0]);
        context
    }

    /// Gives its vCPU a context.
    pub fn set_context(&self, context: &VcpuGuestContext) -> i64 {
        let ctxt = core::ptr::from_ref(context) as u64;
        let mut request = DomctlVcpucontext { vcpu: 0, ctxt, ..Default::default() };
        domctl(XEN_DOMCTL_SETVCPUCONTEXT, self.number, &mut request)
    }

    /// The address at which it sees one of its pages.
    #[must_use]
    pub const fn page(&self, page: usize) -> u64 {
        VIRT_BASE + page as u64 * 4096
    }

    /// How it shut down, if it did: `SHUTDOWN_*`.
    #[must_use]
    pub fn end(&self) -> Option<u32> {
        let flags = info(self.number).1.flags;
        (flags & XEN_DOMINF_SHUTDOWN != 0).then_some(flags >> 16 & 0xff)
    }

    /// Maps a frame of its, or one that the hypervisor keeps for it, at a page of this domain.
    pub fn map_at(&self, va: u64, frame: u64) -> i64 {
        let entry = frame << 12 | P | RW | A | D;
        hypercall(HYPERVISOR_UPDATE_VA_MAPPING_OTHERDOMAIN, [va, entry, 2, self.number.into(), 0])
    }

    /// Lets it run.
    pub fn start(&self) -> i64 {
        domctl_plain(XEN_DOMCTL_UNPAUSEDOMAIN, self.number)
    }

    /// The page that both see, as this domain sees it.
    #[must_use]
    pub fn shared(&self) -> u64 {
        WINDOWS[BOTH].va()
    }

    /// An address for arguments, as the child sees it; 3,072 bytes.
    #[must_use]
    pub fn argument(&self) -> u64 {
        self.page(BOTH) + 1024
    }

    /// The same place, as this domain sees it.
    #[must_use]
    pub fn argument_here(&self) -> u64 {
        self.shared() + 1024
    }

    /// Writes an argument for the child.
    pub fn put<T: IntoBytes + Immutable>(&self, value: &T) {
        for (n, byte) in value.as_bytes().iter().enumerate() {
            let place = (self.argument_here() + n as u64) as *mut u8;
            // SAFETY: The page is mapped here and holds 3,072 bytes from there on.
            unsafe { place.write_volatile(*byte) };
        }
    }

    fn word(&self, index: u64) -> &'static AtomicU64 {
        let place = (self.shared() + index * 8) as *mut u64;
        // SAFETY: The page is mapped here for good, and the child's accesses to its words are whole.
        unsafe { AtomicU64::from_ptr(place) }
    }

    /// Has it make a hypercall; nothing where it does not answer.
    #[must_use]
    pub fn call(&self, number: u64, arguments: [u64; 5]) -> Option<i64> {
        self.word(2).store(number, Ordering::SeqCst);
        for (n, argument) in (3..).zip(arguments) {
            self.word(n).store(argument, Ordering::SeqCst);
        }
        let wanted = self.word(0).fetch_add(1, Ordering::SeqCst) + 1;
        for _ in 0..100_000 {
            hypercall(HYPERVISOR_SCHED_OP, [0; 5]);
            if self.word(1).load(Ordering::SeqCst) == wanted {
                return Some(self.word(8).load(Ordering::SeqCst).cast_signed());
            }
            if self.end().is_some() {
                return None;
            }
        }
        None
    }

    /// Has it make a hypercall of a command and an argument structure.
    pub fn ask<T: IntoBytes + Immutable>(&self, number: u64, command: u32, argument: &T) -> Option<i64> {
        self.put(argument);
        self.call(number, [command.into(), self.argument(), 0, 0, 0])
    }

    /// Unmaps one of its pages here.
    pub fn unmap(&self, page: usize) {
        crate::update_va_mapping(WINDOWS[page].va(), 0, 2);
    }

    /// Destroys it: what is mapped here is unmapped first.
    pub fn destroy(&self) -> i64 {
        (0..FRAMES).for_each(|page| self.unmap(page));
        domctl_plain(XEN_DOMCTL_DESTROYDOMAIN, self.number)
    }
}
