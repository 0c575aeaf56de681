//! The first step of the start: on the boot loader's mapping, make everything that the second step needs.
//!
//! The memory map, the modules and the firmware's tables are read, the hypervisor's own page tables are made and loaded,
//! and the boot CPU enters its block of stacks, where [`super::start`] goes on.

use alloc::vec::Vec;
use core::arch::global_asm;
use core::cell::UnsafeCell;
use core::fmt::Display;
use core::ops::Range;

use hv::control::options::Options;
use hv::frames::Frame;
use hv::hardware::MAX_CPUS;
use spin::Mutex;
use x86_64::PhysAddr;
use x86_64::registers::control::{Cr3, Cr3Flags};
use x86_64::structures::paging::PhysFrame;

use super::acpi::{self, Acpi};
use super::hardware::{CONSOLE, DeviceWindow};
use super::heap::ALLOCATOR;
use super::layout::{DEVICES, DIRECT_MAP, IMAGE_BASE, LARGE_PAGE, M2P, M2P_INVALID, PAGE};
use super::mapping::{Access, BootMemory, Tables};
use super::multiboot::{self, BootInformation, MemoryRange, long, word};
use super::{cpu, messages, panic, power, serial, smap, start, vectors};

global_asm!(include_str!("boot.s"));

/// Memory for what is made while booting; the rest of the heap follows when there are page tables.
const EARLY_HEAP: usize = 128 << 10;
/// The hypervisor's heap at first.
pub(crate) const HEAP: u64 = 8 << 20;
const BOOT_STACK: usize = 32 << 10;
/// Physical address of the image's first byte (link.ld).
const IMAGE_START: u64 = 0x20_0000;

struct EarlyHeap(UnsafeCell<[u8; EARLY_HEAP]>);
// SAFETY: only the allocator uses it, which has a lock.
unsafe impl Sync for EarlyHeap {}
static EARLY: EarlyHeap = EarlyHeap(UnsafeCell::new([0; EARLY_HEAP]));

#[repr(C, align(16))]
struct BootStack([u8; BOOT_STACK]);
#[unsafe(no_mangle)]
static mut BOOT_STACK_BYTES: BootStack = BootStack([0; BOOT_STACK]);
global_asm!(".global boot_stack_top", ".set boot_stack_top, BOOT_STACK_BYTES + {}", const BOOT_STACK);

/// What the first step hands to the second.
pub(crate) struct Prepared {
    pub(crate) options: Options,
    pub(crate) information: BootInformation,
    pub(crate) acpi: Acpi,
    /// RAM that nobody has taken.
    pub(crate) memory: BootMemory,
    /// One more than the highest frame of RAM.
    pub(crate) frame_count: u64,
    /// The root of the hypervisor's page tables.
    pub(crate) root: u64,
    /// The machine-to-physical table.
    pub(crate) m2p: Range<u64>,
    /// The frame table, zeroed.
    pub(crate) frame_table: u64,
    /// The heap to come.
    pub(crate) heap: u64,
    /// Where the devices are mapped.
    pub(crate) devices: Devices,
    /// The CPUs to start, as [`Acpi::processors`], the one that runs first, and where the entries of their windows are.
    pub(crate) cpus: Vec<([u8; 2], u64)>,
}

/// Where devices are mapped.
pub(crate) struct Devices {
    /// The local APIC's registers.
    pub(crate) local_apic: u64,
    /// Each I/O APIC's registers, and its first interrupt.
    pub(crate) io_apics: Vec<(u64, u32)>,
    /// Their physical pages.
    pub(crate) own_registers: Vec<u64>,
    /// A page for one device at a time.
    pub(crate) window: DeviceWindow,
}

pub(crate) static PREPARED: Mutex<Option<Prepared>> = Mutex::new(None);

/// Ends the start: says why in one line.
pub(crate) fn fail(why: impl Display) -> ! {
    CONSOLE.write(alloc::format!("(hv) error: {why}\n").as_bytes());
    CONSOLE.finish();
    power::give_up()
}

const FULL: &str = "too little memory below 4 GiB for the hypervisor's own tables: give the machine more";

fn enough<T>(value: Option<T>) -> T {
    value.unwrap_or_else(|| fail(FULL))
}

/// Bytes of physical memory as the boot loader's tables map it: the first 4 GiB one to one.
fn physical(address: u64, len: usize) -> &'static [u8] {
    let len = len.min(((1_u64 << 32).saturating_sub(address)) as usize);
    if address == 0 || len == 0 {
        return &[];
    }
    // SAFETY: mapped one to one; nobody writes there until the hypervisor has read what it wants.
    unsafe { core::slice::from_raw_parts(address as *const u8, len) }
}

#[unsafe(no_mangle)]
extern "C" fn boot_start(magic: u32, address: u32) -> ! {
    CONSOLE.start(serial::COM1, 115_200);
    let early = EARLY.0.get().cast();
    // SAFETY: nothing else uses the array.
    unsafe { ALLOCATOR.lock().claim(early, EARLY_HEAP) };
    messages::start();
    let Some(information) = multiboot::read(magic, address, &physical) else {
        fail("started by a loader that does not speak Multiboot: use GRUB's multiboot2 or QEMU's -kernel");
    };
    let options = options(&information.command_line);
    if information.modules.is_empty() {
        fail("no kernel for dom0: give one as first module (QEMU: -initrd \"KERNEL arguments,RAMDISK\")");
    }
    smap::prepare(options.smap);
    let acpi = acpi::read(information.acpi_root.as_deref(), &physical);
    power::prepare(&acpi);
    let prepared = prepare(options, information, acpi);
    let windows = prepared.cpus[0].1;
    let root = PhysFrame::containing_address(PhysAddr::new(prepared.root));
    PREPARED.lock().replace(prepared);
    // SAFETY: the tables map the image where it runs, with the stack in use, and all RAM.
    unsafe { Cr3::write(root, Cr3Flags::empty()) };
    vectors::prepare();
    // SAFETY: `prepare` made the block of CPU 0; this stack holds nothing that is needed.
    unsafe { cpu::enter_block(0, (DIRECT_MAP + windows) as *mut u64, start::on_own_stack) }
}

fn options(line: &str) -> Options {
    let options = Options::parse(line).unwrap_or_else(|bad| fail(bad));
    match options.com1.baud {
        _ if !options.console_on_serial => CONSOLE.stop(),
        Some(baud) => CONSOLE.start(serial::COM1, baud),
        None => {}
    }
    messages::follow(&options);
    panic::set_reboot(!options.no_reboot);
    options
}

/// Physical ranges of the image: its code, its constants, its data, and the whole file.
struct Image {
    code: Range<u64>,
    constants: Range<u64>,
    data: Range<u64>,
    file: Range<u64>,
}

fn image() -> Image {
    unsafe extern "C" {
        static image_text: u8;
        static image_rodata: u8;
        static image_data: u8;
        static image_end: u8;
    }
    let [code, constants, data, end] =
        [&raw const image_text, &raw const image_rodata, &raw const image_data, &raw const image_end]
            .map(|symbol| symbol as u64 - IMAGE_BASE);
    // The file ends with its section headers.
    let header = physical(IMAGE_START, 64);
    let (sections, count) = (long(header, 40), u64::from(word(header, 60) & 0xffff));
    let file = IMAGE_START..IMAGE_START + (sections + count * 64).max(end - IMAGE_START);
    Image { code: code..constants, constants: constants..data, data: data..end, file }
}

/// Makes the hypervisor's page tables and all that lives in them.
fn prepare(options: Options, information: BootInformation, acpi: Acpi) -> Prepared {
    let image = image();
    let mut taken: Vec<_> = information.modules.iter().map(|module| module.start..module.end).collect();
    taken.push(image.file.clone());
    let mut memory = BootMemory::new(&information.memory, &taken);
    let frame_count = ram(&information).map(|range| range.end() / PAGE).max().unwrap_or(0);
    panic::set_image(DIRECT_MAP + image.file.start, image.file.end - image.file.start);

    let m2p_bytes = (frame_count * 8).next_multiple_of(LARGE_PAGE);
    let m2p = take_filled(&mut memory, m2p_bytes, LARGE_PAGE, M2P_INVALID);
    let frame_table = take_filled(&mut memory, frame_count * size_of::<Frame>() as u64, PAGE, 0);
    let heap = enough(memory.take(HEAP, PAGE));

    let huge = core::arch::x86_64::__cpuid(0x8000_0001).edx & 1 << 26 != 0;
    let mut tables = enough(Tables::new(&mut memory, huge));
    let m2p = m2p..m2p + m2p_bytes;
    enough(tables.map(&mut memory, M2P, m2p.clone(), Access::GuestRead));
    enough(map_image(&mut tables, &mut memory, &image));
    for range in ram(&information) {
        enough(map_ram(&mut tables, &mut memory, range, &(image.code.start..image.constants.end)));
    }
    let processors = processors(&acpi, options.max_cpus);
    let cpus =
        (0..).zip(processors).map(|(id, apic)| (apic, enough(cpu::prepare(&mut tables, &mut memory, id)))).collect();
    let devices = enough(map_devices(&mut tables, &mut memory, &acpi));
    let root = tables.root();
    Prepared { options, information, acpi, memory, frame_count, root, m2p, frame_table, heap, devices, cpus }
}

/// The processors to start: this one, then the others that the firmware lists.
fn processors(acpi: &Acpi, max: u32) -> Vec<[u8; 2]> {
    let apic = (core::arch::x86_64::__cpuid(1).ebx >> 24) as u8;
    let (own, others): (Vec<_>, Vec<_>) = acpi.processors.iter().partition(|ids| ids[0] == apic);
    core::iter::once(own.first().copied().unwrap_or([apic, 0])).chain(others).take(MAX_CPUS.min(max as usize)).collect()
}

fn ram(information: &BootInformation) -> impl Iterator<Item = &MemoryRange> {
    information.memory.iter().filter(|range| range.kind == MemoryRange::RAM)
}

/// Takes whole pages and fills them with a word.
fn take_filled(memory: &mut BootMemory, bytes: u64, align: u64, value: u64) -> u64 {
    let bytes = bytes.next_multiple_of(PAGE);
    let start = enough(memory.take(bytes, align));
    // SAFETY: the range was just taken and is mapped one to one.
    unsafe {
        core::arch::asm!("rep stosq", inout("rcx") bytes / 8 => _, inout("rdi") start => _, in("rax") value,
            options(nostack, preserves_flags));
    }
    start
}

fn map_image(tables: &mut Tables, memory: &mut BootMemory, image: &Image) -> Option<()> {
    let parts = [(&image.code, Access::Execute), (&image.constants, Access::Read), (&image.data, Access::Write)];
    parts.into_iter().try_for_each(|(part, access)| tables.map(memory, IMAGE_BASE + part.start, part.clone(), access))
}

/// Maps a range of RAM for writing, but what of it is `constant`.
fn map_ram(tables: &mut Tables, memory: &mut BootMemory, range: &MemoryRange, constant: &Range<u64>) -> Option<()> {
    let (start, end) = (range.start.next_multiple_of(PAGE), range.end() / PAGE * PAGE);
    let (from, to) = (constant.start.clamp(start, end.max(start)), constant.end.clamp(start, end.max(start)));
    for (part, access) in [(start..from, Access::Write), (from..to, Access::Read), (to..end, Access::Write)] {
        tables.map(memory, DIRECT_MAP + part.start, part, access)?;
    }
    Some(())
}

fn map_devices(tables: &mut Tables, memory: &mut BootMemory, acpi: &Acpi) -> Option<Devices> {
    const LOCAL_APIC: u64 = 0xfee0_0000;
    const IO_APIC: acpi::IoApicEntry = acpi::IoApicEntry { address: 0xfec0_0000, first_gsi: 0 };
    let chips = if acpi.io_apics.is_empty() { &[IO_APIC][..] } else { &acpi.io_apics[..] };
    let registers =
        core::iter::once(acpi.local_apic.unwrap_or(LOCAL_APIC)).chain(chips.iter().map(|chip| chip.address));
    let mut mapped = Vec::new();
    let mut own_registers = Vec::new();
    for (index, address) in registers.enumerate() {
        let (place, page) = (DEVICES + index as u64 * PAGE, address & !(PAGE - 1));
        tables.map(memory, place, page..page + PAGE, Access::Device)?;
        mapped.push(place + (address & (PAGE - 1)));
        own_registers.push(page);
    }
    let address = DEVICES + LARGE_PAGE;
    let entry = DIRECT_MAP + tables.table_of(memory, address)? + (address >> 12 & 511) * 8;
    let io_apics = mapped[1..].iter().zip(chips).map(|(&place, chip)| (place, chip.first_gsi)).collect();
    Some(Devices { local_apic: mapped[0], io_apics, own_registers, window: DeviceWindow { address, entry } })
}
