use super::*;

fn decode(bytes: &[u8]) -> Instruction {
    let found = Instruction::decode(bytes).expect("a known instruction");
    assert_eq!(usize::from(found.length), bytes.len());
    found
}

fn memory(found: &Instruction) -> Memory {
    match found.modrm.expect("ModRM").operand {
        Operand::Memory(memory) => memory,
        Operand::Register(number) => panic!("register {number}"),
    }
}

#[test]
fn mov_to_memory_with_displacement() {
    // mov %rsi,0x10(%rdi)
    let found = decode(&[0x48, 0x89, 0x77, 0x10]);
    assert_eq!((found.opcode, found.operand_bytes()), (0x89, 8));
    assert_eq!(found.modrm.unwrap().register, 6);
    let operand = memory(&found);
    let registers = Registers { rdi: 0x1000, ..Registers::default() };
    assert_eq!(found.effective_address(&operand, &registers), 0x1010);
}

#[test]
fn sib_with_extended_registers() {
    // xchg %rax,-8(%r12,%r13,8)
    let found = decode(&[0x4b, 0x87, 0x44, 0xec, 0xf8]);
    let registers = Registers { r12: 0x2000, r13: 3, ..Registers::default() };
    assert_eq!(found.effective_address(&memory(&found), &registers), 0x2000 + 24 - 8);
}

#[test]
fn relative_to_the_next_instruction() {
    // lock andb $0xfd,0x100(%rip)
    let found = decode(&[0xf0, 0x80, 0x25, 0x00, 0x01, 0x00, 0x00, 0xfd]);
    assert!(found.prefixes.lock);
    assert_eq!(found.immediate, -3);
    let registers = Registers { rip: 0x5000, ..Registers::default() };
    assert_eq!(found.effective_address(&memory(&found), &registers), 0x5000 + 8 + 0x100);
}

#[test]
fn segment_and_two_byte_opcode() {
    // lock cmpxchg %rcx,%gs:(%rdx)
    let found = decode(&[0x65, 0xf0, 0x48, 0x0f, 0xb1, 0x0a]);
    assert_eq!((found.map, found.opcode), (Map::Secondary, 0xb1));
    assert_eq!(found.segment(&memory(&found)), Segment::Gs);
}

#[test]
fn immediates_have_the_operands_size() {
    assert_eq!(decode(&[0x66, 0xc7, 0x00, 0x34, 0x12]).immediate, 0x1234);
    assert_eq!(decode(&[0x48, 0xc7, 0x00, 0xff, 0xff, 0xff, 0xff]).immediate, -1);
    assert_eq!(decode(&[0xf6, 0x00, 0x01]).immediate, 1);
    assert_eq!(decode(&[0xf6, 0x10]).immediate, 0);
}

#[test]
fn a_cut_off_instruction_is_none() {
    let whole = [0xf0, 0x48, 0x0f, 0xba, 0xac, 0x24, 0, 1, 0, 0, 5];
    assert!(Instruction::decode(&whole).is_some());
    for cut in 0..whole.len() {
        assert_eq!(Instruction::decode(&whole[..cut]), None);
    }
}

#[test]
fn more_than_fifteen_bytes_are_none() {
    let mut bytes = [0x66; 17];
    bytes[15] = 0x89;
    assert_eq!(Instruction::decode(&bytes), None);
}

#[test]
fn rex_counts_only_before_the_opcode() {
    let found = decode(&[0x48, 0x66, 0x89, 0x07]);
    assert_eq!(found.operand_bytes(), 2);
}

#[test]
fn registers_are_written_in_part() {
    let mut registers = Registers { rax: 0x1122_3344_5566_7788, rbx: u64::MAX, ..Registers::default() };
    set_register(&mut registers, 4, 1, false, 0xab);
    assert_eq!(registers.rax, 0x1122_3344_5566_ab88);
    set_register(&mut registers, 0, 2, false, 0xffff_0001);
    assert_eq!(registers.rax, 0x1122_3344_5566_0001);
    set_register(&mut registers, 3, 4, false, 5);
    assert_eq!(registers.rbx, 5);
    assert_eq!(read_register(&registers, 4, 1, false), 0);
    assert_eq!(read_register(&registers, 0, 1, true), 1);
}

proptest::proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..20)) {
        if let Some(found) = Instruction::decode(&bytes) {
            proptest::prop_assert!(usize::from(found.length) <= bytes.len().min(LONGEST));
        }
    }
}
