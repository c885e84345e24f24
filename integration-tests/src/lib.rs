//! The test harness as a library.

pub mod clients;
