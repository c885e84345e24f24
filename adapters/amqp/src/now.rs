//! Futures that are not waited for.

use std::pin::pin;
use std::task::{Context, Poll, Waker};

/// Lets a request be handed over and does not wait until it is written: what becomes of it the channel tells.
pub(crate) fn poke<T>(request: impl Future<Output = T>) {
    let _ = at_once(request);
}

/// The result of a future that is ready at once.
pub(crate) fn at_once<F: Future>(future: F) -> Option<F::Output> {
    match pin!(tokio::task::unconstrained(future)).as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => Some(output),
        Poll::Pending => None,
    }
}
