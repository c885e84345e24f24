//! The register as one vhost sees it.

use std::hash::BuildHasher;
use std::sync::Arc;

use foldhash::fast::RandomState;
use linkspan_contract::Refused;
use tokio::runtime::Handle;
use tokio::sync::{Mutex, OwnedMutexGuard, oneshot};

use crate::register::{Gone, Register, RegisterError, Row};

/// How many declarations of different names may be under way in a vhost; two names may have to wait for each other.
const TURNS: usize = 256;

/// What a vhost needs to have its declarations kept.
#[derive(Debug)]
pub(crate) struct Records {
    register: Arc<Register>,
    vhost: Arc<str>,
    turns: Box<[Arc<Mutex<()>>]>,
    hasher: RandomState,
}

/// Held by whoever declares a name, from before it looks whether that is there until everybody sees it.
pub(crate) type Turn = OwnedMutexGuard<()>;

/// What comes of something that was to be kept.
pub(crate) struct Keeping<T>(oneshot::Receiver<Result<T, RegisterError>>);

impl Records {
    pub(crate) fn new(register: Arc<Register>, vhost: Arc<str>) -> Self {
        let turns = (0..TURNS).map(|_| Arc::default()).collect();
        Self { register, vhost, turns, hasher: RandomState::default() }
    }

    /// Waits until nobody else declares this name.
    pub(crate) async fn turn(&self, name: &str) -> Option<Turn> {
        let place = usize::try_from(self.hasher.hash_one(name)).unwrap_or_default() % self.turns.len().max(1);
        match self.turns.get(place) {
            Some(turn) => Some(Arc::clone(turn).lock_owned().await),
            None => None,
        }
    }

    /// A number for a queue.
    pub(crate) fn number(&self) -> u64 {
        self.register.number()
    }

    /// Has something kept, and does `then` once it is, whether or not anybody waits still: what is kept is seen.
    pub(crate) fn put<T: Send + 'static>(
        &self,
        row: Row,
        then: impl FnOnce() -> T + Send + 'static,
    ) -> Keeping<T> {
        let (tell, told) = oneshot::channel();
        let runtime = Handle::try_current().ok();
        let answer = move |durable: Result<(), RegisterError>| {
            let _inside = runtime.as_ref().map(Handle::enter);
            // Who asked may have gone.
            drop(tell.send(durable.map(|()| then())));
        };
        self.register.put(&self.vhost, row, Box::new(answer));
        Keeping(told)
    }

    /// Has kept no more what is gone.
    pub(crate) fn forget(&self, gone: Vec<Gone>) {
        self.register.forget(&self.vhost, gone);
    }

    /// Waits until what is gone is so for good.
    pub(crate) async fn settled(&self) -> Result<(), Refused> {
        self.register.settled().await.map_err(RegisterError::refused)
    }
}

impl<T> Keeping<T> {
    /// Waits for it.
    pub(crate) async fn kept(self) -> Result<T, Refused> {
        let kept = self.0.await.map_err(|_| RegisterError::Closed).flatten();
        kept.map_err(RegisterError::refused)
    }
}
