//! Buffers of the worker thread, not of the connection: an idle connection holds none.

use std::cell::RefCell;

/// Buffers larger than this are not kept.
pub const KEPT: usize = 256 * 1024;

/// Buffers kept by each thread.
const POOLED: usize = 32;

/// Size of the buffer that a thread reads into.
pub const READ: usize = 128 * 1024;

thread_local! {
    static POOL: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
    static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// An empty buffer, with room where one was given back before.
pub fn take() -> Vec<u8> {
    POOL.with(|pool| pool.borrow_mut().pop()).unwrap_or_default()
}

/// Keeps a buffer for the next who needs one on this thread.
pub fn give_back(mut buffer: Vec<u8>) {
    if buffer.capacity() == 0 || buffer.capacity() > KEPT {
        return;
    }
    buffer.clear();
    POOL.with(|pool| {
        let mut pool = pool.borrow_mut();
        if pool.len() < POOLED {
            pool.push(buffer);
        }
    });
}

/// Lends this thread's read buffer, [`READ`] bytes. What is read has to be dealt with before `with` returns. A nested
/// call gets a buffer of its own.
pub fn with_scratch<R>(with: impl FnOnce(&mut [u8]) -> R) -> R {
    let mut buffer = SCRATCH.with(|scratch| {
        scratch.try_borrow_mut().map(|mut buffer| std::mem::take(&mut *buffer)).unwrap_or_default()
    });
    buffer.resize(READ, 0);
    let result = with(&mut buffer);
    SCRATCH.with(|scratch| {
        if let Ok(mut kept) = scratch.try_borrow_mut() {
            *kept = buffer;
        }
    });
    result
}
