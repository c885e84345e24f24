//! Publish-subscribe: a message is news. The publisher does not know who listens; each subscriber gets a copy of its
//! own, and who was not listening when it was published has missed it. A thermometer publishes its reading; the
//! dashboard, the alarm and the archive each get it, and none takes it from another. Only here are messages retained:
//! the last one of an address is given to who subscribes later.

use super::Taking;

/// Whoever subscribes gets copies: nothing competes.
pub const fn subscription() -> Option<Taking> {
    None
}
