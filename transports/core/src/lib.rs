//! stub

pub mod admission;
pub mod identity;
