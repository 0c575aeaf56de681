//! What a guest with hardware assistance finds of ACPI: its virtual CPUs and, where it has a PC's devices, their places.
//!
//! One row of tables: RSDP, XSDT, FADT, FACS, DSDT (empty, or [`pc`]'s), MADT with a local APIC for each virtual CPU. The
//! addresses and numbers are those of Xen's own toolstack, so that kernels that run there run here.
//!
//! Source: ACPI 5.0 §5.2; Xen `tools/libacpi` for what such guests are given.

mod aml;
mod pc;

use alloc::vec::Vec;

/// Where the local APICs are.
const LOCAL_APICS: u32 = 0xfee0_0000;
/// Bytes of the header that most tables begin with.
const HEADER_BYTES: usize = 36;
const RSDP_BYTES: usize = 36;
const FADT_BYTES: usize = 268;
const FACS_BYTES: usize = 64;
const OEM: &[u8; 6] = b"Xen\0\0\0";
const OEM_TABLE: &[u8; 8] = b"HVM\0\0\0\0\0";

/// Where the tables of one guest are, and what they hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tables {
    /// Physical address of the first byte, which is the RSDP's.
    pub start: u64,
    /// All of them.
    pub bytes: Vec<u8>,
}

impl Tables {
    /// The tables for a guest with these virtual CPUs and nothing else, to lie at `start`.
    pub fn new(start: u64, vcpus: u32) -> Self {
        Self::of(start, &[], madt(vcpus), fadt)
    }

    /// The tables for a guest with these virtual CPUs and the devices of a PC.
    pub fn of_pc(start: u64, vcpus: u32) -> Self {
        Self::of(start, &pc::devices(), pc::interrupts(madt(vcpus)), |facs, dsdt| pc::fixed(fadt(facs, dsdt)))
    }

    fn of(start: u64, devices: &[u8], madt: Vec<u8>, fadt: impl FnOnce(u64, u64) -> Vec<u8>) -> Self {
        let mut row = Row { start, bytes: alloc::vec![0; RSDP_BYTES.next_multiple_of(ALIGN)] };
        let facs = row.add(facs());
        let dsdt = row.add(table(b"DSDT", 2, devices));
        let fadt = row.add(sealed(fadt(facs, dsdt)));
        let madt = row.add(sealed(madt));
        let pointers: Vec<u8> = [fadt, madt].iter().flat_map(|at| at.to_le_bytes()).collect();
        let xsdt = row.add(table(b"XSDT", 1, &pointers));
        row.bytes[..RSDP_BYTES].copy_from_slice(&rsdp(xsdt));
        Self { start, bytes: row.bytes }
    }
}

const ALIGN: usize = 64;

struct Row {
    start: u64,
    bytes: Vec<u8>,
}

impl Row {
    /// Puts a table behind the others; its address.
    fn add(&mut self, table: Vec<u8>) -> u64 {
        self.bytes.resize(self.bytes.len().next_multiple_of(ALIGN), 0);
        let at = self.start + self.bytes.len() as u64;
        self.bytes.extend(table);
        at
    }
}

/// The byte that makes the sum of all of them zero.
fn checksum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte)).wrapping_neg()
}

fn table(signature: &[u8; 4], revision: u8, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(HEADER_BYTES + body.len());
    out.extend(signature);
    out.extend([0; 4]);
    out.extend([revision, 0]);
    out.extend(OEM);
    out.extend(OEM_TABLE);
    out.extend(0_u32.to_le_bytes());
    out.extend(b"INTL");
    out.extend(0_u32.to_le_bytes());
    out.extend(body);
    sealed(out)
}

/// A table with its length and checksum.
fn sealed(mut table: Vec<u8>) -> Vec<u8> {
    let bytes = table.len() as u32;
    table[4..8].copy_from_slice(&bytes.to_le_bytes());
    table[9] = 0;
    table[9] = checksum(&table);
    table
}

fn rsdp(xsdt: u64) -> [u8; RSDP_BYTES] {
    let mut out = [0; RSDP_BYTES];
    out[..8].copy_from_slice(b"RSD PTR ");
    out[9..15].copy_from_slice(OEM);
    out[15] = 2;
    out[20..24].copy_from_slice(&(RSDP_BYTES as u32).to_le_bytes());
    out[24..32].copy_from_slice(&xsdt.to_le_bytes());
    out[8] = checksum(&out[..20]);
    out[32] = checksum(&out);
    out
}

fn facs() -> Vec<u8> {
    let mut out = alloc::vec![0; FACS_BYTES];
    out[..4].copy_from_slice(b"FACS");
    out[4..8].copy_from_slice(&(FACS_BYTES as u32).to_le_bytes());
    out[32] = 1;
    out
}

/// The fixed description table: power-management registers that nothing is behind, no keyboard, display or clock.
fn fadt(facs: u64, dsdt: u64) -> Vec<u8> {
    const EVENTS: u16 = 0xb000;
    const CONTROL: u16 = 0xb004;
    const GENERAL_EVENTS: u16 = 0xafe0;
    let mut body = alloc::vec![0; FADT_BYTES - HEADER_BYTES];
    let mut put = |at: usize, bytes: &[u8]| body[at - HEADER_BYTES..][..bytes.len()].copy_from_slice(bytes);
    put(36, &(facs as u32).to_le_bytes());
    put(40, &(dsdt as u32).to_le_bytes());
    // The interrupt of the system controller.
    put(46, &9_u16.to_le_bytes());
    put(56, &u32::from(EVENTS).to_le_bytes());
    put(64, &u32::from(CONTROL).to_le_bytes());
    put(80, &u32::from(GENERAL_EVENTS).to_le_bytes());
    // Bytes of the three.
    put(88, &[4, 2]);
    put(92, &[4]);
    // C2 and C3 take longer than anybody waits: there are none.
    put(96, &0xfff_u16.to_le_bytes());
    put(98, &0xfff_u16.to_le_bytes());
    // No display, no CMOS clock.
    put(109, &(1_u16 << 2 | 1 << 5).to_le_bytes());
    // WBINVD works, C1 works, buttons are no fixed hardware, nor is the clock's wake-up.
    put(112, &(1_u32 | 1 << 2 | 1 << 4 | 1 << 5 | 1 << 6).to_le_bytes());
    put(140, &dsdt.to_le_bytes());
    for (at, bits, port) in [(148, 32, EVENTS), (172, 16, CONTROL), (220, 32, GENERAL_EVENTS)] {
        // A register in I/O space: space, width, offset, access size, address.
        put(at, &[1, bits, 0, 0]);
        put(at + 4, &u64::from(port).to_le_bytes());
    }
    table(b"FACP", 5, &body)
}

/// The interrupt controllers: local APICs alone, whose identifiers are twice the number of the virtual CPU.
fn madt(vcpus: u32) -> Vec<u8> {
    let mut body = Vec::new();
    body.extend(LOCAL_APICS.to_le_bytes());
    body.extend(0_u32.to_le_bytes());
    for vcpu in 0..vcpus as u8 {
        // Type, bytes, processor, local APIC, flags: enabled.
        body.extend([0, 8, vcpu, vcpu * 2, 1, 0, 0, 0]);
    }
    table(b"APIC", 2, &body)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn u32_at(bytes: &[u8], at: usize) -> usize {
        u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four")) as usize
    }

    fn u64_at(bytes: &[u8], at: usize) -> u64 {
        u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight"))
    }

    #[test]
    fn every_table_is_found_from_the_root_and_sums_to_zero() {
        let tables = Tables::new(0xfc00_8000, 3);
        let at = |address: u64| &tables.bytes[(address - tables.start) as usize..];
        let sum = |bytes: &[u8]| bytes.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
        let root = at(tables.start);
        assert_eq!((&root[..8], sum(&root[..20]), sum(&root[..36])), (&b"RSD PTR "[..], 0, 0));
        let check = |address: u64, signature: &[u8; 4]| {
            let table = at(address);
            let length = u32_at(table, 4);
            assert_eq!((&table[..4], sum(&table[..length])), (&signature[..], 0));
            table[..length].to_vec()
        };
        let list = check(u64_at(root, 24), b"XSDT");
        let fixed = check(u64_at(&list, 36), b"FACP");
        check(u64_at(&fixed, 140), b"DSDT");
        assert_eq!(&at(u32_at(&fixed, 36) as u64)[..4], b"FACS");
        assert_eq!(fixed.len(), FADT_BYTES);
        let apics = check(u64_at(&list, 44), b"APIC");
        assert_eq!(apics.len(), 44 + 3 * 8);
        assert_eq!(&apics[52..58], &[0, 8, 1, 2, 1, 0]);
    }

    #[test]
    fn a_pcs_tables_name_its_controllers_and_devices() {
        let tables = Tables::of_pc(0xfc00_8000, 2);
        let at = |signature: &[u8; 4]| {
            let start = tables.bytes.windows(4).position(|four| four == signature).expect("the table is there");
            let length = u32_at(&tables.bytes, start + 4);
            let table = &tables.bytes[start..start + length];
            assert_eq!(table.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte)), 0, "its checksum");
            table
        };
        let fixed = at(b"FACP");
        assert_eq!((u32_at(fixed, 76), fixed[91], u64_at(fixed, 212)), (0xb008, 4, 0xb008));
        assert_eq!((u32_at(fixed, 80), fixed[92], u64_at(fixed, 224)), (0, 0, 0));
        let apics = at(b"APIC");
        assert_eq!((apics.len(), apics[40], &apics[60..62]), (44 + 2 * 8 + 12 + 2 * 10, 1, &[1, 12][..]));
        let devices = at(b"DSDT");
        // The card's first pin: the 28th input, and by its link line 11.
        for route in
            [b"\x12\x0b\x04\x0c\xff\xff\x03\x00\x00\x00\x0a\x1c", b"\x12\x0b\x04\x0c\xff\xff\x03\x00\x00\x00\x0a\x0b"]
        {
            assert!(devices.windows(route.len()).any(|part| part == route));
        }
    }
}
