//! stub
pub mod run;
