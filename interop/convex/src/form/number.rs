//! Decimal digits and two's complement bytes, of up to 4,096 bytes. Quadratic in them, and they're bounded.

use bytes::Bytes;
use peerlane_cell::{BigInteger, Cell};

/// The most digits that 4,096 bytes of two's complement can need: log10(2^32767) is 9,863.8.
const MAX_DIGITS: usize = 9_864;
const CHUNK: u64 = 1_000_000_000;

/// The integer cell of decimal digits; `None` when there's none, or one isn't a digit, or they don't fit into 4,096 bytes.
pub(super) fn read(text: &str) -> Option<Cell> {
    if let Ok(small) = text.parse::<i64>()
        && !text.starts_with('+')
    {
        return Some(Cell::Integer(small));
    }
    let (negative, digits) = text.strip_prefix('-').map_or((false, text), |digits| (true, digits));
    let digits = digits.trim_start_matches('0').as_bytes();
    if digits.is_empty() || digits.len() > MAX_DIGITS || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    // Little-endian limbs of 32 bits.
    let mut limbs: Vec<u32> = Vec::new();
    for digit in digits {
        let mut carry = u64::from(digit - b'0');
        for limb in &mut limbs {
            carry += u64::from(*limb) * 10;
            *limb = carry as u32;
            carry >>= 32;
        }
        if carry > 0 {
            limbs.push(carry as u32);
        }
    }
    let mut bytes: Vec<u8> = limbs.iter().flat_map(|limb| limb.to_le_bytes()).collect();
    // Room for the sign.
    bytes.push(0);
    if negative {
        negate(&mut bytes);
    }
    bytes.reverse();
    let sign = if negative { 0xff } else { 0 };
    let redundant = |pair: &[u8]| pair[0] == sign && (pair[1] & 0x80 != 0) == negative;
    let skip = bytes.windows(2).take_while(|pair| redundant(pair)).count();
    BigInteger::new(Bytes::from(bytes).slice(skip..)).map(Cell::BigInteger)
}

/// Decimal digits.
pub(super) fn print(integer: &BigInteger) -> String {
    let negative = integer.as_bytes().first().is_some_and(|first| first & 0x80 != 0);
    let mut bytes: Vec<u8> = integer.as_bytes().iter().rev().copied().collect();
    if negative {
        negate(&mut bytes);
    }
    let mut chunks = Vec::new();
    // The magnitude of the least number needs the bit that was its sign; as unsigned bytes it's right.
    let mut limbs: Vec<u32> = bytes.chunks(4).map(|part| part.iter().rev().fold(0, |limb, byte| limb << 8 | u32::from(*byte))).collect();
    while !limbs.is_empty() {
        let mut rest = 0u64;
        for limb in limbs.iter_mut().rev() {
            let value = rest << 32 | u64::from(*limb);
            *limb = (value / CHUNK) as u32;
            rest = value % CHUNK;
        }
        chunks.push(rest);
        while limbs.last() == Some(&0) {
            limbs.pop();
        }
    }
    let mut text = String::from(if negative { "-" } else { "" });
    for (i, chunk) in chunks.iter().rev().enumerate() {
        text.push_str(&if i == 0 { chunk.to_string() } else { format!("{chunk:09}") });
    }
    text
}

/// Little-endian two's complement.
fn negate(bytes: &mut [u8]) {
    let mut carry = true;
    for byte in bytes {
        let (sum, over) = (!*byte).overflowing_add(u8::from(carry));
        *byte = sum;
        carry = over;
    }
}
