//! Priority queue: competing consumers, who are given the more urgent messages first. Support tickets come in all day; the
//! plant that stands still is worked before the question about an invoice, although that one came earlier, and among equals
//! the first to come is the first to be worked.
//!
//! A message has one of 2 to 255 levels. Its publisher says which, by the priority of AMQP; where it says nothing, the
//! route reads the level from a property or from the address, or has one for all. In strict order the lower levels wait as
//! long as higher ones have anything, which may be for ever; in weighted order level *n* has a share of *n* + 1, so that
//! none starves.
//!
//! What is in a consumer's hands is not overtaken any more: therefore a consumer has few messages in hand.
