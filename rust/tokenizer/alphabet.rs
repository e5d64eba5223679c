//! The byte-level alphabet of GPT-2: every byte as one printable character.

/// Whether a byte stands for itself: printable Latin-1.
const fn is_printable(byte: u8) -> bool {
    matches!(byte, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF)
}

/// Characters of the bytes; the others, in order, are U+0100 and up.
const CHARS: [char; 256] = {
    let mut chars = ['\0'; 256];
    let mut next = 0x100;
    let mut i = 0;
    while i < 256 {
        let byte = i as u8;
        chars[i] = if is_printable(byte) {
            byte as char
        } else {
            next += 1;
            match char::from_u32(next - 1) {
                Some(c) => c,
                None => '\0',
            }
        };
        i += 1;
    }
    chars
};

/// Bytes of the characters below U+0144; `None` for a character outside the alphabet.
const BYTES: [Option<u8>; 0x144] = {
    let mut bytes = [None; 0x144];
    let mut i = 0;
    while i < 256 {
        bytes[CHARS[i] as usize] = Some(i as u8);
        i += 1;
    }
    bytes
};

/// Character that stands for a byte.
pub(super) fn char_of(byte: u8) -> char {
    CHARS[usize::from(byte)]
}

/// Byte that a character stands for.
pub(super) fn byte_of(c: char) -> Option<u8> {
    BYTES.get(c as usize).copied().flatten()
}

/// Appends the bytes that a byte-level token stands for; false, with nothing appended, if a character is not in the
/// alphabet.
pub(super) fn decode(token: &str, out: &mut Vec<u8>) -> bool {
    let start = out.len();
    for c in token.chars() {
        let Some(byte) = byte_of(c) else {
            out.truncate(start);
            return false;
        };
        out.push(byte);
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_alphabet_is_a_bijection() {
        for byte in 0..=u8::MAX {
            assert_eq!(byte_of(char_of(byte)), Some(byte));
        }
        assert_eq!((char_of(b' '), char_of(b'\n'), char_of(0xAD)), ('Ġ', 'Ċ', 'Ń'));
        assert_eq!(byte_of('｜'), None);
    }
}
