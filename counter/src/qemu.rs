//! The plugin interface of QEMU's translator, as of its version 1 (QEMU 4.2 to 8.2).
//!
//! QEMU calls [`on_translation`] for each block that it translates; there each instruction gets an addition to a counter, and
//! each block a call of [`on_block`]. It runs one CPU, hence one thread.
#![expect(unsafe_code, reason = "QEMU calls and is called through C functions")]

use std::cell::UnsafeCell;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::fs::File;
use std::io::Write;
use std::ptr::null_mut;
use std::sync::OnceLock;

use crate::instruction::{Kind, Mark, is_call, is_locked};
use crate::ledger::{Block, Counters, Ledger};
use crate::place::{Image, Kernels, Place};

/// What QEMU checks before it loads a plugin.
#[unsafe(no_mangle)]
pub(crate) static qemu_plugin_version: c_int = 1;

const CALLBACK_NO_REGISTERS: c_int = 0;
const INLINE_ADD: c_int = 0;
const MEMORY_WRITE: c_int = 2;
const PAGE: usize = 4096;

type Translation = *mut c_void;
type Instruction = *mut c_void;
type OnExecution = extern "C" fn(u32, *mut c_void);
type OnMemory = extern "C" fn(u32, u32, u64, *mut c_void);

// SAFETY: declared as qemu-plugin.h has them.
unsafe extern "C" {
    fn qemu_plugin_register_vcpu_tb_trans_cb(id: u64, callback: extern "C" fn(u64, Translation));
    fn qemu_plugin_register_vcpu_tb_exec_cb(block: Translation, callback: OnExecution, flags: c_int, data: *mut c_void);
    fn qemu_plugin_register_vcpu_insn_exec_cb(
        insn: Instruction,
        callback: OnExecution,
        flags: c_int,
        data: *mut c_void,
    );
    fn qemu_plugin_register_vcpu_insn_exec_inline(
        insn: Instruction,
        operation: c_int,
        counter: *mut c_void,
        value: u64,
    );
    fn qemu_plugin_register_vcpu_mem_cb(
        insn: Instruction,
        callback: OnMemory,
        flags: c_int,
        direction: c_int,
        data: *mut c_void,
    );
    fn qemu_plugin_tb_n_insns(block: Translation) -> usize;
    fn qemu_plugin_tb_vaddr(block: Translation) -> u64;
    fn qemu_plugin_tb_get_insn(block: Translation, index: usize) -> Instruction;
    fn qemu_plugin_insn_data(insn: Instruction) -> *const u8;
    fn qemu_plugin_insn_size(insn: Instruction) -> usize;
    fn qemu_plugin_insn_haddr(insn: Instruction) -> *const u8;
}

/// All that the plugin knows.
struct Plugin {
    kernels: Kernels,
    /// Where the guest's kernel counts its hypercalls, and where its returns to user mode, which are one too.
    counts: Option<u64>,
    returns: Option<u64>,
    state: UnsafeCell<State>,
    counters: UnsafeCell<Counters>,
}

struct State {
    ledger: Ledger,
    output: File,
}

// SAFETY: the machine has one CPU, and QEMU calls from its thread alone.
unsafe impl Sync for Plugin {}
// SAFETY: as above.
unsafe impl Send for Plugin {}

static PLUGIN: OnceLock<Plugin> = OnceLock::new();

/// Hypercalls that the guest's kernel counts, by number.
const HYPERCALL_WORDS: u64 = 64;
/// The number of `HYPERVISOR_iret`.
const IRET: u64 = 23;

impl Plugin {
    fn from_options(options: &[String]) -> Result<Self, String> {
        let mut kernels = Kernels::default();
        let mut output = None;
        for option in options {
            let (name, value) = option.split_once('=').ok_or_else(|| format!("{option}: NAME=VALUE is expected"))?;
            match name {
                "guest" => kernels.guest = Some(Image::read(value.as_ref())?),
                "service" => kernels.service = Some(Image::read(value.as_ref())?),
                "out" => output = Some(File::create(value).map_err(|error| format!("{value}: {error}"))?),
                _ => return Err(format!("{name}: there are guest, service and out")),
            }
        }
        let symbol = |name| kernels.guest.as_ref().and_then(|guest| guest.symbol(name));
        Ok(Self {
            counts: symbol("pv_hypercall_counts"),
            returns: symbol("pv_iret_count"),
            kernels,
            state: UnsafeCell::new(State { ledger: Ledger::new(), output: output.ok_or("out=FILE is missing")? }),
            counters: UnsafeCell::new(Counters::ZERO),
        })
    }

    #[expect(clippy::mut_from_ref, reason = "one thread, and no function here calls another that asks for it")]
    fn state(&self) -> &mut State {
        // SAFETY: one thread; each caller lets go of it before QEMU calls again.
        unsafe { &mut *self.state.get() }
    }

    fn counters(&self) -> &Counters {
        // SAFETY: translated code adds to them on this thread, and not before the caller returns to QEMU.
        unsafe { &*self.counters.get() }
    }
}

/// Where QEMU starts.
///
/// # Safety
/// QEMU calls it once, with the options as C strings.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn qemu_plugin_install(
    id: u64,
    _info: *const c_void,
    count: c_int,
    options: *const *const c_char,
) -> c_int {
    let option = |index: usize| {
        let place = options.wrapping_add(index);
        // SAFETY: QEMU gives `count` pointers.
        let text = unsafe { *place };
        // SAFETY: each points to a C string.
        unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
    };
    let options: Vec<String> = (0..usize::try_from(count).unwrap_or(0)).map(option).collect();
    let plugin = match Plugin::from_options(&options) {
        Ok(plugin) => plugin,
        Err(problem) => {
            eprintln!("counter: {problem}");
            return 1;
        }
    };
    if PLUGIN.set(plugin).is_err() {
        return 1;
    }
    // SAFETY: the function has the right type and lives for ever.
    unsafe { qemu_plugin_register_vcpu_tb_trans_cb(id, on_translation) };
    0
}

/// The bytes of an instruction.
fn bytes_of(insn: Instruction) -> Vec<u8> {
    // SAFETY: QEMU's instruction, during its translation.
    let len = unsafe { qemu_plugin_insn_size(insn) };
    // SAFETY: as above.
    let data = unsafe { qemu_plugin_insn_data(insn) };
    // SAFETY: QEMU keeps `len` bytes there.
    unsafe { std::slice::from_raw_parts(data, len) }.to_vec()
}

/// The page that an instruction lies in, as it is in the machine's memory.
fn page_of(insn: Instruction) -> Option<Vec<u8>> {
    // SAFETY: QEMU's instruction, during its translation.
    let address = unsafe { qemu_plugin_insn_haddr(insn) };
    if address.is_null() {
        return None;
    }
    let start = address.wrapping_sub(address.addr() % PAGE);
    // SAFETY: the machine's memory is mapped in whole pages, at addresses that are multiples of a page.
    Some(unsafe { std::slice::from_raw_parts(start, PAGE) }.to_vec())
}

/// QEMU translates a block.
extern "C" fn on_translation(_id: u64, translation: Translation) {
    let Some(plugin) = PLUGIN.get() else { return };
    // SAFETY: QEMU's block, during its translation.
    let count = unsafe { qemu_plugin_tb_n_insns(translation) };
    // SAFETY: as above; the index is below the count.
    let instructions: Vec<Instruction> =
        (0..count).map(|index| unsafe { qemu_plugin_tb_get_insn(translation, index) }).collect();
    let (Some(first), Some(last)) = (instructions.first(), instructions.last()) else { return };
    // SAFETY: QEMU's block, during its translation.
    let address = unsafe { qemu_plugin_tb_vaddr(translation) };
    let place = plugin.kernels.place(address, || page_of(*first));
    let block = Box::new(Block { place, address, calls: is_call(&bytes_of(*last)) });
    let data = Box::into_raw(block).cast();
    // SAFETY: the function has the right type; the block is never freed.
    unsafe { qemu_plugin_register_vcpu_tb_exec_cb(translation, on_block, CALLBACK_NO_REGISTERS, data) };
    for instruction in instructions {
        count_instruction(plugin, place, instruction);
    }
}

fn count_instruction(plugin: &'static Plugin, place: Place, instruction: Instruction) {
    let counters = plugin.counters.get();
    // SAFETY: a field of the counters, which live for ever.
    let whole = unsafe { &raw mut (*counters).instructions[place as usize] };
    add_one(instruction, whole);
    let bytes = bytes_of(instruction);
    if let Some(kind) = Kind::of(&bytes) {
        // SAFETY: as above.
        add_one(instruction, unsafe { &raw mut (*counters).kinds[place as usize][kind as usize] });
    }
    if place == Place::Kernel && is_locked(&bytes) {
        // SAFETY: the function has the right type; it wants no data.
        unsafe {
            qemu_plugin_register_vcpu_mem_cb(instruction, on_write, CALLBACK_NO_REGISTERS, MEMORY_WRITE, null_mut());
        }
    }
    if matches!(place, Place::User | Place::Kernel)
        && let Some(kind) = Kind::of(&bytes)
        && kind.may_stop_a_guest()
    {
        let data = Box::into_raw(Box::new(kind)).cast();
        // SAFETY: the function has the right type; the kind is never freed.
        unsafe { qemu_plugin_register_vcpu_insn_exec_cb(instruction, on_possible_stop, CALLBACK_NO_REGISTERS, data) };
    }
    if let Some(mark) = Mark::of(&bytes) {
        let data = Box::into_raw(Box::new(mark)).cast();
        // SAFETY: the function has the right type; the mark is never freed.
        unsafe { qemu_plugin_register_vcpu_insn_exec_cb(instruction, on_mark, CALLBACK_NO_REGISTERS, data) };
    }
}

fn add_one(instruction: Instruction, counter: *mut u64) {
    // SAFETY: the counter lives for ever, and only this thread adds to it.
    unsafe { qemu_plugin_register_vcpu_insn_exec_inline(instruction, INLINE_ADD, counter.cast(), 1) };
}

extern "C" fn on_block(_cpu: u32, data: *mut c_void) {
    let Some(plugin) = PLUGIN.get() else { return };
    // SAFETY: `on_translation` gave the block, which is never freed.
    let block = unsafe { &*data.cast::<Block>() };
    plugin.state().ledger.on_block(block, plugin.counters());
}

extern "C" fn on_write(_cpu: u32, _info: u32, address: u64, _data: *mut c_void) {
    let Some(plugin) = PLUGIN.get() else { return };
    let number = match (plugin.counts, plugin.returns) {
        (Some(counts), _) if (counts..counts + HYPERCALL_WORDS * 8).contains(&address) => (address - counts) / 8,
        (_, Some(returns)) if returns == address => IRET,
        _ => return,
    };
    plugin.state().ledger.on_hypercall_counted(number);
}

extern "C" fn on_possible_stop(_cpu: u32, data: *mut c_void) {
    let Some(plugin) = PLUGIN.get() else { return };
    // SAFETY: `count_instruction` gave the kind, which is never freed.
    let kind = unsafe { *data.cast::<Kind>() };
    plugin.state().ledger.on_possible_stop(kind, plugin.counters());
}

extern "C" fn on_mark(_cpu: u32, data: *mut c_void) {
    let Some(plugin) = PLUGIN.get() else { return };
    // SAFETY: `count_instruction` gave the mark, which is never freed.
    let mark = unsafe { *data.cast::<Mark>() };
    let state = plugin.state();
    if let Some(record) = state.ledger.on_mark(mark, plugin.counters())
        && let Ok(line) = serde_json::to_string(&record)
    {
        // A record that cannot be written is missing, and the reader says so.
        let _ = writeln!(state.output, "{line}");
    }
}
