//! Whose code a page holds.
//!
//! By its address a page of code is the hypervisor's, a kernel's or a user program's (Xen `public/arch-x86/xen-x86_64.h`
//! names the hypervisor's range). Which kernel's, its content says: two kernels may be linked to the same address, and
//! only one of their files has what is in the page.

use std::path::Path;

use elf::ElfBytes;
use elf::abi::{PF_X, PT_LOAD};
use elf::endian::AnyEndian;

/// Whose code it is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Place {
    /// The guest's user programs.
    User,
    /// The guest's kernel.
    Kernel,
    /// The kernel that serves the guest's devices.
    Service,
    /// The hypervisor.
    Hypervisor,
    /// Anything else: firmware, for example.
    Other,
}

impl Place {
    /// All of them, in the order of their numbers.
    pub(crate) const ALL: [(Self, &'static str); 5] = [
        (Self::User, "user"),
        (Self::Kernel, "kernel"),
        (Self::Service, "service"),
        (Self::Hypervisor, "hypervisor"),
        (Self::Other, "other"),
    ];
}

/// L4 slots 256 to 271 are the hypervisor's.
const HYPERVISOR: std::ops::Range<u64> = 0xffff_8000_0000_0000..0xffff_8800_0000_0000;
/// User programs lie in the lower half, the kernel's image in the upper.
const UPPER_HALF: u64 = 0xffff_8800_0000_0000;
const PAGE: u64 = 4096;

/// The code of a kernel's file.
pub(crate) struct Image {
    segments: Vec<(u64, Vec<u8>)>,
    symbols: Vec<(String, u64)>,
}

impl Image {
    /// Reads a kernel's ELF file.
    ///
    /// # Errors
    /// A line that says what is wrong with it.
    pub(crate) fn read(path: &Path) -> Result<Self, String> {
        let bytes = std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
        Self::parse(&bytes).map_err(|error| format!("{}: {error}", path.display()))
    }

    fn parse(bytes: &[u8]) -> Result<Self, elf::ParseError> {
        let file = ElfBytes::<AnyEndian>::minimal_parse(bytes)?;
        let mut segments = Vec::new();
        for header in file.segments().into_iter().flatten() {
            if header.p_type == PT_LOAD && header.p_flags & PF_X != 0 {
                segments.push((header.p_vaddr, file.segment_data(&header)?.to_vec()));
            }
        }
        let mut symbols = Vec::new();
        if let Some((table, names)) = file.symbol_table()? {
            for symbol in table.iter() {
                symbols.push((names.get(symbol.st_name as usize)?.to_owned(), symbol.st_value));
            }
        }
        Ok(Self { segments, symbols })
    }

    /// The address of a symbol.
    pub(crate) fn symbol(&self, name: &str) -> Option<u64> {
        self.symbols.iter().find(|(known, _)| known == name).map(|(_, address)| *address)
    }

    /// Whether the page at `address` has what the file has there.
    fn holds(&self, address: u64, page: &[u8]) -> bool {
        self.segments.iter().any(|(start, bytes)| {
            let end = start + bytes.len() as u64;
            let (from, to) = (address.max(*start), (address + PAGE).min(end));
            from < to
                && page[(from - address) as usize..(to - address) as usize]
                    == bytes[(from - start) as usize..(to - start) as usize]
        })
    }
}

/// The kernels of a machine.
#[derive(Default)]
pub(crate) struct Kernels {
    /// The guest's.
    pub(crate) guest: Option<Image>,
    /// The service domain's.
    pub(crate) service: Option<Image>,
}

/// The page of the guest's kernel into which the hypervisor writes its stubs: it is not as in the file.
const STUBS: &str = "pvh_stubs";

impl Kernels {
    fn is_stub(&self, address: u64) -> bool {
        let stubs = self.guest.as_ref().and_then(|guest| guest.symbol(STUBS));
        stubs.is_some_and(|stubs| address & !(PAGE - 1) == stubs)
    }

    /// Whose code lies at `address`; `page` is the content of its page.
    pub(crate) fn place(&self, address: u64, page: impl FnOnce() -> Option<Vec<u8>>) -> Place {
        if HYPERVISOR.contains(&address) {
            return Place::Hypervisor;
        }
        if address < UPPER_HALF {
            return Place::User;
        }
        let Some(page) = page() else { return Place::Other };
        let holds =
            |image: &Option<Image>| image.as_ref().is_some_and(|image| image.holds(address & !(PAGE - 1), &page));
        if holds(&self.guest) {
            Place::Kernel
        } else if holds(&self.service) {
            Place::Service
        } else if self.is_stub(address) {
            Place::Kernel
        } else {
            Place::Other
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(byte: u8) -> Image {
        Image { segments: vec![(0xffff_ffff_8010_0000, vec![byte; 6000])], symbols: vec![("counts".to_owned(), 7)] }
    }

    fn kernels() -> Kernels {
        Kernels { guest: Some(image(1)), service: Some(image(2)) }
    }

    #[test]
    fn two_kernels_at_one_address_are_told_apart_by_content() {
        let place = |byte| kernels().place(0xffff_ffff_8010_0123, || Some(vec![byte; 4096]));
        assert_eq!((place(1), place(2), place(3)), (Place::Kernel, Place::Service, Place::Other));
    }

    #[test]
    fn what_follows_a_kernel_in_its_last_page_is_not_looked_at() {
        let mut page = vec![1; 4096];
        page[2000..].fill(9);
        assert_eq!(kernels().place(0xffff_ffff_8010_1000, || Some(page)), Place::Kernel);
    }

    #[test]
    fn the_page_of_the_hypervisors_stubs_is_the_kernels() {
        let stubs = 0xffff_ffff_8012_0000;
        let symbols = vec![(STUBS.to_owned(), stubs)];
        let guest = Some(Image { symbols, ..image(1) });
        let kernels = Kernels { guest, service: Some(image(2)) };
        let place = |address| kernels.place(address, || Some(vec![7; 4096]));
        assert_eq!((place(stubs + 96), place(stubs + PAGE)), (Place::Kernel, Place::Other));
    }

    #[test]
    fn the_hypervisor_and_programs_are_told_by_address() {
        assert_eq!(kernels().place(0xffff_82d0_4020_0000, || None), Place::Hypervisor);
        assert_eq!(kernels().place(0x40_0000, || None), Place::User);
        assert_eq!(kernels().place(0xffff_ffff_8010_0000, || None), Place::Other);
    }

    #[test]
    fn symbols_are_found_by_name() {
        assert_eq!((image(1).symbol("counts"), image(1).symbol("other")), (Some(7), None));
    }
}
