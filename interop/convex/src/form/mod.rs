//! Convex forms as text, both ways: `(transfer #12 1000)`, `{:a [1 2.5 0xcafe]}`.
//!
//! No crate reads this dialect well, so here is a reader of what people write into queries and transactions, and a printer of
//! all that cells can be.
//!
//! Provided: nil, booleans, integers of any size, doubles (`##NaN`, `##Inf`, `##-Inf` too), characters, strings, blobs, symbols, keywords,
//! addresses, lists, vectors, maps, sets, quoting (`'x`, `` `x ``, `~x`, `~@x`), `@name`, `#12/name`, `#%name`, `^meta form`, `#_` and `;`
//! comments, `#[hex]` for a cell's encoding.
//! Not provided: tagged forms (`#tag form`).

mod number;
mod print;
mod read;

pub use print::{DEFAULT_PRINT, print};
pub use read::{FormError, read, read_all};

#[cfg(test)]
mod tests;
