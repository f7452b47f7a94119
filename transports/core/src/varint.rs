//! Variable-length integers of QUIC (RFC 9000, section 16): 1, 2, 4 or 8 bytes, up to 2^62 - 1.
//!
//! Shortest form is written; any form is read, as the RFC permits.

use bytes::{Buf, BufMut};

/// The largest value.
pub const MAX: u64 = (1 << 62) - 1;
/// The longest encoding in bytes.
pub const MAX_LEN: usize = 8;

/// Appends `value`, cut to [`MAX`].
pub fn put(out: &mut impl BufMut, value: u64) {
    match value {
        0..=0x3f => out.put_u8(value as u8),
        0x40..=0x3fff => out.put_u16(0x4000 | value as u16),
        0x4000..=0x3fff_ffff => out.put_u32(0x8000_0000 | value as u32),
        _ => out.put_u64(0xc000_0000_0000_0000 | value.min(MAX)),
    }
}

/// Length of the encoding of `value` in bytes.
pub const fn len(value: u64) -> usize {
    match value {
        0..=0x3f => 1,
        0x40..=0x3fff => 2,
        0x4000..=0x3fff_ffff => 4,
        _ => 8,
    }
}

/// Length of an encoding by its first byte.
pub const fn len_of_first(first: u8) -> usize {
    1 << (first >> 6)
}

/// Takes a value off the front; `None` (and nothing taken) if it isn't there whole.
pub fn get(input: &mut impl Buf) -> Option<u64> {
    let first = *input.chunk().first()?;
    let len = len_of_first(first);
    if input.remaining() < len {
        return None;
    }
    Some(match len {
        1 => u64::from(input.get_u8()),
        2 => u64::from(input.get_u16() & 0x3fff),
        4 => u64::from(input.get_u32() & 0x3fff_ffff),
        _ => input.get_u64() & MAX,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    /// RFC 9000, appendix A.1.
    #[test]
    fn the_rfcs_examples() {
        for (bytes, value) in [
            (&[0xc2, 0x19, 0x7c, 0x5e, 0xff, 0x14, 0xe8, 0x8c][..], 151_288_809_941_952_652),
            (&[0x9d, 0x7f, 0x3e, 0x7d], 494_878_333),
            (&[0x7b, 0xbd], 15_293),
            (&[0x25], 37),
            (&[0x40, 0x25], 37),
        ] {
            assert_eq!(get(&mut &*bytes), Some(value));
        }
    }

    proptest! {
        #[test]
        fn round_trip(value in 0..=MAX, cut in 0usize..8) {
            let mut out = Vec::new();
            put(&mut out, value);
            prop_assert_eq!(out.len(), len(value));
            prop_assert_eq!(get(&mut &out[..]), Some(value));
            prop_assert_eq!(get(&mut &out[..cut.min(out.len() - 1)]), None);
        }
    }
}
