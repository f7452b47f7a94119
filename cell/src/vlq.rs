//! VLQ counts: base-128 groups, most significant first, high bit = more follow (CAD003 "VLQ Counts").
//!
//! Not LEB128, which puts the least significant group first. Limited to 63 bits, as CAD003 limits it.

use bytes::BufMut;

/// The most bytes that a count takes: nine groups of 7 bits are 63 bits.
pub const MAX_LEN: usize = 9;

/// The largest count, 2^63 - 1.
pub const MAX: u64 = (1 << 63) - 1;

/// Why bytes are no VLQ count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum VlqError {
    /// The input ended within the count.
    #[error("the input ends within a VLQ count")]
    Truncated,
    /// A leading zero group: not the shortest form.
    #[error("a VLQ count is not in its shortest form")]
    NotShortest,
    /// More than 63 bits.
    #[error("a VLQ count exceeds 63 bits")]
    TooLong,
}

/// How many bytes `value` takes.
#[must_use]
pub const fn len(value: u64) -> usize {
    let bits = 64 - value.leading_zeros() as usize;
    if bits == 0 { 1 } else { bits.div_ceil(7) }
}

/// Appends the shortest form of `value`. A value above [`MAX`] is written in ten bytes, which no reader accepts.
pub fn write(value: u64, out: &mut impl BufMut) {
    for group in (0..len(value)).rev() {
        let more = if group == 0 { 0 } else { 0x80 };
        out.put_u8((value >> (7 * group)) as u8 & 0x7f | more);
    }
}

/// Reads a count from the front of `input`: the count and how many bytes it took.
///
/// # Errors
/// [`VlqError`] when the bytes end early, aren't the shortest form, or exceed 63 bits.
pub fn read(input: &[u8]) -> Result<(u64, usize), VlqError> {
    let mut value = 0u64;
    for (i, &byte) in input.iter().enumerate() {
        if i == 0 && byte == 0x80 {
            return Err(VlqError::NotShortest);
        }
        if i == MAX_LEN {
            return Err(VlqError::TooLong);
        }
        value = value << 7 | u64::from(byte & 0x7f);
        if byte & 0x80 == 0 {
            return Ok((value, i + 1));
        }
    }
    Err(if input.len() >= MAX_LEN { VlqError::TooLong } else { VlqError::Truncated })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn known_counts() {
        // facts of the reference implementation's own tests
        for (value, bytes) in [
            (0u64, &[0x00u8][..]),
            (1, &[0x01]),
            (63, &[0x3f]),
            (64, &[0x40]),
            (127, &[0x7f]),
            (128, &[0x81, 0x00]),
            (16383, &[0xff, 0x7f]),
            (16384, &[0x81, 0x80, 0x00]),
            (2_097_151, &[0xff, 0xff, 0x7f]),
            (2_097_152, &[0x81, 0x80, 0x80, 0x00]),
            (50_000_000, &[0x97, 0xeb, 0xe1, 0x00]),
            (1 << 30, &[0x84, 0x80, 0x80, 0x80, 0x00]),
            (MAX, &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f]),
        ] {
            let mut out = Vec::new();
            write(value, &mut out);
            assert_eq!(out, bytes, "{value}");
            assert_eq!(len(value), bytes.len(), "{value}");
            assert_eq!(read(bytes), Ok((value, bytes.len())));
            assert_eq!(read(&bytes[..bytes.len() - 1]), Err(VlqError::Truncated));
        }
    }

    #[test]
    fn refused() {
        assert_eq!(read(&[]), Err(VlqError::Truncated));
        assert_eq!(read(&[0x80, 0x01]), Err(VlqError::NotShortest));
        assert_eq!(read(&[0x80]), Err(VlqError::NotShortest));
        assert_eq!(read(&[0xff; 20]), Err(VlqError::TooLong));
        assert_eq!(read(&[0x81, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x00]), Err(VlqError::TooLong));
    }
}
