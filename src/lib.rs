//! stub
pub mod cad015;
pub mod cell;
pub mod peer;
