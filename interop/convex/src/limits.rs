//! The bounds of the wire: each with its unit and where it comes from.

/// The largest frame body in bytes by default: Convex's own limit since 0.8.0 (CAD015: "a hard maximum of 50,000,000").
///
/// A body is read as it comes, so a peer that only claims this size costs nothing. One that sends it costs about twice as much
/// until its message is dropped: the bytes, and an entry of 64 bytes for each branch cell of 141 bytes or more.
pub const MAX_FRAME: usize = 50_000_000;

/// The largest frame body of 0.7.15 in bytes (0.7.12 to 0.7.15).
pub const MAX_FRAME_LEGACY: usize = 20_000_000;

/// The most hashes in a DATA_REQUEST, and the most cells in a DATA message (CAD015).
pub const MAX_HASHES: usize = 254;

/// The deepest nesting of forms that is read or printed. It bounds the stack; a program in text nests some dozens deep.
pub const MAX_NESTING: usize = 128;

/// The longest text that is read as a form, in bytes.
pub const MAX_TEXT: usize = 1 << 20;
