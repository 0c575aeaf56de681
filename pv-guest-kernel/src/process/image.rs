//! From an ELF file to an address space. Nothing is copied: each segment is a region that its bytes fill when touched.

use elf::ElfBytes;
use elf::abi::{EM_X86_64, ET_EXEC, PF_W, PF_X, PT_LOAD};
use elf::endian::LittleEndian;
use elf::segment::ProgramHeader;

use super::{STACK_TOP, programs, stack_region};
use crate::mm::PAGE_SIZE;
use crate::mm::mmu::KernelMmu;
use crate::mm::space::{AddressSpace, Backing, Fault, Mmu, Region};
use crate::platform::{self, TrapFrame};

/// Arguments are copied to the top of the stack; more than this is refused.
const ARGUMENT_BYTES: usize = 1024;

/// Why a program does not start.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LoadError {
    /// This kernel carries no such program.
    NotFound,
    /// It is not a static x86-64 ELF file.
    NotExecutable,
    /// Its segments overlap or lie where a process has nothing.
    BadLayout(Fault),
    /// The arguments are too long.
    TooManyArguments,
}

impl From<Fault> for LoadError {
    fn from(fault: Fault) -> Self {
        Self::BadLayout(fault)
    }
}

impl core::fmt::Display for LoadError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::NotFound => f.write_str("no such program"),
            Self::NotExecutable => f.write_str("not a static x86-64 ELF file"),
            Self::BadLayout(fault) => write!(f, "its segments cannot be mapped: {fault:?}"),
            Self::TooManyArguments => f.write_str("too many arguments"),
        }
    }
}

/// A program ready to run.
pub(super) struct Loaded {
    pub(super) space: AddressSpace<KernelMmu>,
    pub(super) heap: usize,
    pub(super) frame: TrapFrame,
}

/// Loads a program that this kernel carries.
pub(super) fn load(program: &str, arguments: &str) -> Result<Loaded, LoadError> {
    let file = programs::find(program).ok_or(LoadError::NotFound)?;
    let mut space = AddressSpace::new(KernelMmu)?;
    let (entry, end) = map_segments(&mut space, file)?;
    let heap = end + PAGE_SIZE;
    let heap_region = Region { end: heap + PAGE_SIZE, writable: true, executable: false, backing: Backing::Zeros };
    space.map(heap, heap_region)?;
    let (stack, stack_region) = stack_region();
    space.map(stack, stack_region)?;
    if arguments.len() > ARGUMENT_BYTES {
        return Err(LoadError::TooManyArguments);
    }
    let text = (STACK_TOP - arguments.len()) & !15;
    space.write(text, arguments.as_bytes())?;
    // A function finds its return address at 8 below a multiple of 16.
    let mut frame = platform::current().user_frame(entry, text - 8);
    frame.rdi = text as u64;
    frame.rsi = arguments.len() as u64;
    Ok(Loaded { space, heap, frame })
}

/// Maps the segments; returns the entry and the end of the last one.
fn map_segments<M: Mmu>(space: &mut AddressSpace<M>, file: &'static [u8]) -> Result<(usize, usize), LoadError> {
    let parsed = ElfBytes::<LittleEndian>::minimal_parse(file);
    let elf = parsed.map_err(|_| LoadError::NotExecutable)?;
    if elf.ehdr.e_type != ET_EXEC || elf.ehdr.e_machine != EM_X86_64 {
        return Err(LoadError::NotExecutable);
    }
    let mut end = 0;
    for header in elf.segments().ok_or(LoadError::NotExecutable)? {
        if header.p_type == PT_LOAD && header.p_memsz > 0 {
            end = end.max(map_segment(space, &header, file)?);
        }
    }
    Ok((elf.ehdr.e_entry as usize, end))
}

/// Maps one segment; returns its end, page-aligned.
fn map_segment<M: Mmu>(
    space: &mut AddressSpace<M>,
    header: &ProgramHeader,
    file: &'static [u8],
) -> Result<usize, LoadError> {
    let first = header.p_offset as usize;
    let bytes = first
        .checked_add(header.p_filesz as usize)
        .and_then(|end| file.get(first..end))
        .ok_or(LoadError::NotExecutable)?;
    let vaddr = header.p_vaddr as usize;
    let start = vaddr & !(PAGE_SIZE - 1);
    let end = vaddr.checked_add(header.p_memsz as usize).ok_or(LoadError::NotExecutable)?.next_multiple_of(PAGE_SIZE);
    let region = Region {
        end,
        writable: header.p_flags & PF_W != 0,
        executable: header.p_flags & PF_X != 0,
        backing: Backing::Image { bytes, offset: vaddr - start },
    };
    space.map(start, region)?;
    Ok(end)
}
