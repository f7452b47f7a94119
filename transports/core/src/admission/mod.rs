//! Who becomes a peer: the hello.

pub mod hello;

pub use hello::{Agreed, Terms};
