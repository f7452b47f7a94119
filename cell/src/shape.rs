//! The arithmetic of the canonical layouts: which child holds what, and how long the shortest form is.

/// Two's complement big-endian bytes without redundant sign bytes; zero is no byte at all.
pub(super) fn minimal(bytes: &[u8]) -> &[u8] {
    let mut rest = bytes;
    while let [first, tail @ ..] = rest {
        let redundant = match tail.first() {
            None => *first == 0,
            Some(next) => *first == if next & 0x80 == 0 { 0x00 } else { 0xff },
        };
        if !redundant {
            break;
        }
        rest = tail;
    }
    rest
}

/// Is it the shortest form?
pub(super) fn is_minimal(bytes: &[u8]) -> bool {
    minimal(bytes).len() == bytes.len()
}

/// A vector's cell holds items itself when its count is up to 16 or no multiple of 16.
pub(super) const fn is_vector_leaf(count: u64) -> bool {
    count <= 16 || !count.is_multiple_of(16)
}

/// How many items a leaf holds itself: the whole of up to 16, else what exceeds a multiple of 16.
pub(super) const fn tail_len(count: u64) -> usize {
    if count <= 16 { count as usize } else { (count % 16) as usize }
}

/// Elements per child of a vector tree: the largest power of 16 below `count`, 16 at least.
pub(super) const fn vector_child(count: u64) -> u64 {
    let mut size = 16u64;
    // 16^15 = 2^60 is the last power within 63 bits
    while size < 1 << 60 && size * 16 < count {
        size *= 16;
    }
    size
}

/// Bytes per child of a blob tree: the smallest 4096 * 16^k of which 16 hold `len`.
pub(super) const fn blob_child(len: u64) -> u64 {
    let mut size = 4096u64;
    while size < 1 << 60 && size * 16 < len {
        size *= 16;
    }
    size
}

/// Number of children when each but the last holds `child`.
pub(super) const fn child_count(count: u64, child: u64) -> usize {
    count.div_ceil(child) as usize
}

/// What child `i` of `children` holds: `child`, or the rest if it's the last.
pub(super) const fn child_len(count: u64, child: u64, i: usize) -> u64 {
    let before = child.saturating_mul(i as u64);
    let rest = count.saturating_sub(before);
    if rest < child { rest } else { child }
}

/// The digits whose bits are set, in order.
pub(super) fn digits(mask: u16) -> impl Iterator<Item = u8> {
    (0u8..16).filter(move |d| mask >> d & 1 == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_at_their_limits() {
        assert_eq!(vector_child(32), 16);
        assert_eq!(vector_child(256), 16);
        assert_eq!(vector_child(272), 256);
        assert_eq!(vector_child(4096), 256);
        assert_eq!(vector_child(4112), 4096);
        assert_eq!(vector_child(u64::MAX >> 1), 1 << 60);
        assert_eq!(child_count(u64::MAX >> 1, 1 << 60), 8);
        assert_eq!(blob_child(4097), 4096);
        assert_eq!(blob_child(65536), 4096);
        assert_eq!(blob_child(65537), 65536);
        assert_eq!(child_count(u64::MAX >> 1, blob_child(u64::MAX >> 1)), 8);
        assert_eq!((child_len(40, 16, 0), child_len(40, 16, 2), child_len(40, 16, 3)), (16, 8, 0));
    }

    #[test]
    fn minimal_integers() {
        assert_eq!(minimal(&[0, 0]), &[] as &[u8]);
        assert_eq!(minimal(&[0, 0x80]), &[0, 0x80]);
        assert_eq!(minimal(&[0, 0x7f]), &[0x7f]);
        assert_eq!(minimal(&[0xff, 0xff]), &[0xff]);
        assert_eq!(minimal(&[0xff, 0x7f]), &[0xff, 0x7f]);
    }
}
