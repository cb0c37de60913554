//! Makes programs that say what they are and run nothing.

/// The smallest program there is: a header, one segment, `exit(0)` never reached. `machine` is as ELF numbers them: 62 is
/// amd64, 183 arm64.
pub fn program(machine: u16, interpreter: Option<&str>) -> Vec<u8> {
    let segment = if interpreter.is_some() { 3_u32 } else { 1 };
    let content = interpreter.map_or_else(|| vec![0x90; 16], |path| format!("{path}\0").into_bytes());
    let mut elf = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    elf.extend([2_u16, machine].iter().flat_map(|word| word.to_le_bytes()));
    elf.extend(1_u32.to_le_bytes());
    elf.extend([0x40_0078_u64, 64, 0].iter().flat_map(|word| word.to_le_bytes()));
    elf.extend(0_u32.to_le_bytes());
    elf.extend([64_u16, 56, 1, 64, 0, 0].iter().flat_map(|word| word.to_le_bytes()));
    elf.extend([segment, 5].iter().flat_map(|word| word.to_le_bytes()));
    let size = content.len() as u64;
    elf.extend([120, 0x40_0078, 0x40_0078, size, size, 1].iter().flat_map(|word: &u64| word.to_le_bytes()));
    elf.extend(content);
    elf
}
