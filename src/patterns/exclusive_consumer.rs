//! Exclusive consumer: many publish, one alone consumes, and so every message is worked in the order in which it came, by
//! somebody who may keep in mind what came before. An auction has one bookkeeper: bids reach it one after the other, and it
//! knows the highest so far; a second bookkeeper would take a part of the bids and both would be wrong.
//!
//! While there is a holder, others are refused, or stand by: when the holder goes or falls silent, one of those who stand by
//! takes over, the one of the highest consumer priority, among equals the one that came first. Each holder is given a
//! *fence*, a number that only grows. Whoever thinks that it is still the holder, because it slept or its network did, has an
//! older one: what it settles is not counted, and what it writes elsewhere can be told from what its successor writes.
