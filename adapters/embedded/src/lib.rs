//! The in-process back end.
