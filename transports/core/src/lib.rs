//! stub
pub mod class;
pub mod limits;
