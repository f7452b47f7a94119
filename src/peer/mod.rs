//! The reference peer: a lattice of per-account signed logs, kept in an embedded store.
