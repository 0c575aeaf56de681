//! What the hypervisor says of itself, its console, the assists, and several hypercalls in one.
#![no_std]
#![no_main]

use guest_tests::errno::{E2BIG, EFAULT, EINVAL, ENODATA, ENOSYS};
use guest_tests::{HYPERVISOR_ADDRESS, about, differs, expect, guest_test, hypercall};
use pv_abi::features::XENFEAT_DOM0;
use pv_abi::version::{
    CompileInfo, FeatureInfo, PlatformParameters, XENVER_BUILD_ID, XENVER_CAPABILITIES, XENVER_CHANGESET,
    XENVER_COMMANDLINE, XENVER_COMPILE_INFO, XENVER_EXTRAVERSION, XENVER_GET_FEATURES, XENVER_GUEST_HANDLE,
    XENVER_PAGESIZE, XENVER_PLATFORM_PARAMETERS, XENVER_VERSION,
};
use pv_abi::xen::{
    CONSOLEIO_READ, CONSOLEIO_WRITE, HYPERVISOR_CONSOLE_IO, HYPERVISOR_FPU_TASKSWITCH, HYPERVISOR_MULTICALL,
    HYPERVISOR_VM_ASSIST, HYPERVISOR_XEN_VERSION, MulticallEntry, VMASST_CMD_DISABLE, VMASST_CMD_ENABLE,
    VMASST_TYPE_4GB_SEGMENTS, VMASST_TYPE_4GB_SEGMENTS_NOTIFY, VMASST_TYPE_ARCHITECTURAL_IOPL, VMASST_TYPE_M2P_STRICT,
    VMASST_TYPE_PAE_EXTENDED_CR3, VMASST_TYPE_RUNSTATE_UPDATE_FLAG, VMASST_TYPE_WRITABLE_PAGETABLES,
};

guest_test!(version);

fn version() {
    versions();
    console();
    assists();
    multicalls();
}

fn ask(command: u32, argument: u64) -> i64 {
    hypercall(HYPERVISOR_XEN_VERSION, [u64::from(command), argument, 0, 0, 0])
}

fn ask_for<T>(command: u32, into: &mut T) -> i64 {
    ask(command, core::ptr::from_mut(into) as u64)
}

fn begins_with(text: &[u8], start: &[u8]) -> bool {
    text.starts_with(start)
}

fn versions() {
    about("XENVER_version");
    expect("the version is 4.17", ask(XENVER_VERSION, 0), 0x0004_0011);
    expect("its argument does not matter", ask(XENVER_VERSION, HYPERVISOR_ADDRESS), 0x0004_0011);
    about("XENVER_extraversion");
    let mut text = [0xff_u8; 1024];
    expect("the rest of the version is a text", ask_for(XENVER_EXTRAVERSION, &mut text), 0);
    expect("of 16 bytes with its end", (text[15], text[16]), (0, 0xff));
    expect("it begins with a dot", text[0], b'.');
    expect("where it cannot be written is EFAULT", ask(XENVER_EXTRAVERSION, HYPERVISOR_ADDRESS), EFAULT);
    about("XENVER_compile_info");
    let mut info = CompileInfo::default();
    expect("who compiled it is told", ask_for(XENVER_COMPILE_INFO, &mut info), 0);
    expect("with what, too", info.compiler[0] != 0, true);
    about("XENVER_capabilities");
    text.fill(0xff);
    expect("the kinds of guests are told", ask_for(XENVER_CAPABILITIES, &mut text), 0);
    expect("a PV guest is the first", begins_with(&text, b"xen-3.0-x86_64 "), true);
    expect("the field is filled to its end", text[1023], 0);
    about("XENVER_changeset");
    text.fill(0xff);
    expect("the source's revision is told", ask_for(XENVER_CHANGESET, &mut text), 0);
    expect("in 64 bytes", (text[63], text[64]), (0, 0xff));
    about("XENVER_platform_parameters");
    let mut parameters = PlatformParameters::default();
    expect("the address map is told", ask_for(XENVER_PLATFORM_PARAMETERS, &mut parameters), 0);
    expect("the hypervisor begins at slot 256", parameters.virt_start, 0xffff_8000_0000_0000);
    about("XENVER_get_features");
    let mut features = FeatureInfo::default();
    expect("the features are told", ask_for(XENVER_GET_FEATURES, &mut features), 0);
    expect("the first domain is told that it is", features.submap >> XENFEAT_DOM0 & 1, 1);
    expect("they are those of a PV guest", features.submap & !(1 << XENFEAT_DOM0), 0x2_20f0);
    let mut features = FeatureInfo { submap_idx: 1, ..Default::default() };
    expect("there is one word of them", ask_for(XENVER_GET_FEATURES, &mut features), EINVAL);
    about("XENVER_pagesize");
    expect("a page has 4096 bytes", ask(XENVER_PAGESIZE, 0), 4096);
    expect("that takes no argument", ask(XENVER_PAGESIZE, 1), EINVAL);
    about("XENVER_guest_handle");
    let mut handle = [0xff_u8; 16];
    expect("the domain's handle is told", ask_for(XENVER_GUEST_HANDLE, &mut handle), 0);
    expect("the first domain has none", handle, [0; 16]);
    about("XENVER_commandline");
    text.fill(0xff);
    expect("the first domain may read the command line", ask_for(XENVER_COMMANDLINE, &mut text), 0);
    expect("without the image's name", begins_with(&text, b"console=com1 "), true);
    about("XENVER_build_id");
    let length = ask(XENVER_BUILD_ID, 0);
    expect("a build id has 20 bytes, or there is none", length == 20 || length == ENODATA, true);
    about("xen_version");
    expect("an unknown question is ENOSYS", ask(11, 0), ENOSYS);
}

fn console() {
    let io = |command: u32, count: u64, buffer: u64| {
        hypercall(HYPERVISOR_CONSOLE_IO, [u64::from(command), count, buffer, 0, 0])
    };
    about("CONSOLEIO_write");
    let text = b"some text\n";
    expect("the first domain writes", io(CONSOLEIO_WRITE, text.len() as u64, text.as_ptr() as u64), 0);
    expect("nothing is written from anywhere", io(CONSOLEIO_WRITE, 0, HYPERVISOR_ADDRESS), 0);
    expect("the hypervisor's memory is EFAULT to write from", io(CONSOLEIO_WRITE, 8, HYPERVISOR_ADDRESS), EFAULT);
    about("CONSOLEIO_read");
    let mut typed = [0_u8; 8];
    expect("2 GiB are too much", io(CONSOLEIO_READ, 1 << 31, typed.as_mut_ptr() as u64), E2BIG);
    expect("nothing was typed", io(CONSOLEIO_READ, 8, typed.as_mut_ptr() as u64), 0);
    about("console_io");
    expect("an unknown operation of the console is ENOSYS", io(2, 0, 0), ENOSYS);
}

fn assists() {
    let assist =
        |command: u32, kind: u32| hypercall(HYPERVISOR_VM_ASSIST, [u64::from(command), u64::from(kind), 0, 0, 0]);
    for (name, kind) in [
        ("VMASST_TYPE_4gb_segments", VMASST_TYPE_4GB_SEGMENTS),
        ("VMASST_TYPE_4gb_segments_notify", VMASST_TYPE_4GB_SEGMENTS_NOTIFY),
        ("VMASST_TYPE_writable_pagetables", VMASST_TYPE_WRITABLE_PAGETABLES),
        ("VMASST_TYPE_pae_extended_cr3", VMASST_TYPE_PAE_EXTENDED_CR3),
        ("VMASST_TYPE_architectural_iopl", VMASST_TYPE_ARCHITECTURAL_IOPL),
        ("VMASST_TYPE_runstate_update_flag", VMASST_TYPE_RUNSTATE_UPDATE_FLAG),
    ] {
        about(name);
        expect("the assist is enabled", assist(VMASST_CMD_ENABLE, kind), 0);
        expect("the assist is disabled", assist(VMASST_CMD_DISABLE, kind), 0);
    }
    about("VMASST_TYPE_m2p_strict");
    differs("the strict table of frames is enabled", assist(VMASST_CMD_ENABLE, VMASST_TYPE_M2P_STRICT), EINVAL, 0);
    about("vm_assist");
    expect("assist 6 is EINVAL", assist(VMASST_CMD_ENABLE, 6), EINVAL);
    expect("assist 63 is EINVAL", assist(VMASST_CMD_ENABLE, 63), EINVAL);
    expect("assist 64 is EINVAL", assist(VMASST_CMD_ENABLE, 64), EINVAL);
    expect("assist 2^32-1 is EINVAL", assist(VMASST_CMD_ENABLE, u32::MAX), EINVAL);
    expect("an unknown command is ENOSYS", assist(2, VMASST_TYPE_WRITABLE_PAGETABLES), ENOSYS);
}

fn call(op: u64, first: u64) -> MulticallEntry {
    MulticallEntry { op, args: [first, 0, 0, 0, 0, 0], ..Default::default() }
}

fn multi(entries: &mut [MulticallEntry], count: u64) -> i64 {
    hypercall(HYPERVISOR_MULTICALL, [entries.as_mut_ptr() as u64, count, 0, 0, 0])
}

fn multicalls() {
    about("multicall");
    let null = call(HYPERVISOR_XEN_VERSION, 0);
    let mut none: [MulticallEntry; 0] = [];
    expect("no calls are no error", multi(&mut none, 0), 0);
    expect("no calls are read from nowhere", hypercall(HYPERVISOR_MULTICALL, [HYPERVISOR_ADDRESS, 0, 0, 0, 0]), EFAULT);
    let mut entries = [null, call(HYPERVISOR_XEN_VERSION, 99), call(63, 0), call(HYPERVISOR_FPU_TASKSWITCH, 0), null];
    expect("several calls are done", multi(&mut entries, 5), 0);
    let results = entries.each_ref().map(|entry| entry.result.cast_signed());
    expect(
        "each has its result, and one that fails does not stop the rest",
        results,
        [0x0004_0011, ENOSYS, ENOSYS, 0, 0x0004_0011],
    );
    let mut inner = [null];
    let mut entries = [MulticallEntry {
        op: HYPERVISOR_MULTICALL,
        args: [inner.as_mut_ptr() as u64, 1, 0, 0, 0, 0],
        ..Default::default()
    }];
    expect("a call of several in one of several is done", multi(&mut entries, 1), 0);
    expect("its entry is EINVAL", (entries[0].result.cast_signed(), inner[0].result), (EINVAL, 0));
    let mut entries = [null; 64];
    expect("64 calls are done", multi(&mut entries, 64), 0);
    expect("to the last", entries[63].result, 0x0004_0011);
    let huge = hypercall(HYPERVISOR_MULTICALL, [entries.as_mut_ptr() as u64, 1 << 32 | 1, 0, 0, 0]);
    expect("the upper half of the count does not matter", huge, 0);
    expect("an array that ends at a hole fails there", multi_at_the_end(), (EFAULT, 0x0004_0011));
}

/// Two entries of which the second lies beyond the address space of the guest kernel.
fn multi_at_the_end() -> (i64, u64) {
    use guest_tests::{Page, update_va_mapping, write_at};
    static PAGES: [Page; 2] = [const { Page::new() }; 2];
    let end = PAGES[1].va();
    update_va_mapping(end, 0, 2);
    let first = end - size_of::<MulticallEntry>() as u64;
    for (offset, value) in [(0, HYPERVISOR_XEN_VERSION), (16, 0), (24, 0)] {
        let _ = write_at(first + offset, value);
    }
    let result = hypercall(HYPERVISOR_MULTICALL, [first, 2, 0, 0, 0]);
    (result, guest_tests::read_at(first + 8).unwrap_or(0))
}
