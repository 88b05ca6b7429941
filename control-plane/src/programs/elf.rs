//! What machine a program is for, by the head of its file (ELF, System V ABI, chapter 4).

/// Of a file, as much as is looked at.
pub(super) const HEAD_BYTES: usize = 20;
/// `EI_CLASS`: 64 bits.
const CLASS_64: u8 = 2;
/// `EI_DATA`: the least byte first.
const LITTLE_ENDIAN: u8 = 1;
/// `e_type` of programs: with fixed addresses, and without.
const EXECUTABLES: [u16; 2] = [2, 3];
/// `e_machine`, and what Rust and uname(1) call it.
const MACHINES: [(u16, &str); 3] = [(62, "x86_64"), (183, "aarch64"), (243, "riscv64")];

/// Why a file is no program for a machine we know.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ElfError {
    #[error("it is no ELF file")]
    Magic,
    #[error("it is no 64-bit, little-endian program")]
    Kind,
    #[error("it is for a machine that proxies are not built for ({0})")]
    Machine(u16),
}

/// The architecture of a program, from the first [`HEAD_BYTES`] of its file.
pub(super) fn architecture(head: &[u8]) -> Result<&'static str, ElfError> {
    let Some(rest) = head.strip_prefix(b"\x7fELF").filter(|_| head.len() >= HEAD_BYTES) else {
        return Err(ElfError::Magic);
    };
    let half = |at: usize| u16::from_le_bytes([head[at], head[at + 1]]);
    if rest[..2] != [CLASS_64, LITTLE_ENDIAN] || !EXECUTABLES.contains(&half(16)) {
        return Err(ElfError::Kind);
    }
    let machine = half(18);
    MACHINES.iter().find(|(number, _)| *number == machine).map(|(_, name)| *name).ok_or(ElfError::Machine(machine))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// The head of a program for a machine.
    pub(in crate::programs) fn header(machine: u16) -> Vec<u8> {
        let mut head = b"\x7fELF\x02\x01\x01".to_vec();
        head.resize(16, 0);
        head.extend([3, 0]);
        head.extend(machine.to_le_bytes());
        head
    }

    #[test]
    fn the_machine_is_told_of_programs_alone() {
        assert_eq!(architecture(&header(62)), Ok("x86_64"));
        assert_eq!(architecture(&header(183)), Ok("aarch64"));
        assert_eq!(architecture(&header(40)), Err(ElfError::Machine(40)));
        assert_eq!(architecture(&header(62)[..19]), Err(ElfError::Magic));
        assert_eq!(architecture(b""), Err(ElfError::Magic));
        for (at, value) in [(4, 1), (5, 2), (16, 1)] {
            let mut head = header(62);
            head[at] = value;
            assert_eq!(architecture(&head), Err(ElfError::Kind), "{at}");
        }
    }

    #[test]
    fn our_own_program_is_for_this_machine() {
        let own = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        assert_eq!(architecture(&own[..HEAD_BYTES]), Ok(std::env::consts::ARCH));
    }
}
