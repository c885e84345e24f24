//! A large body in the log: written and read in parts, and shared by all who have it.

use std::any::Any;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll};

use async_trait::async_trait;
use bytes::Bytes;
use linkspan_contract::{Body, BodyWriter, Refused, StoredPayload};
use linkspan_queues::log::Commit;

use crate::archive::{Archive, NotTaken};
use crate::coordinator;
use crate::parts::Share;

/// Bytes of a part.
const PART: usize = 256 << 10;

/// The same where there is no room for more in memory.
const SMALL: usize = 16 << 10;

/// A complete body. As long as it is here, it is held in the log.
pub(crate) struct LogBody {
    archive: Arc<Archive>,
    number: u64,
    len: u64,
}

impl LogBody {
    /// One that a message in the log has, which is not let go meanwhile; none when it is not there, or is damaged.
    pub(crate) fn hold(archive: &Arc<Archive>, (number, len): (u64, u64)) -> Option<Self> {
        let is_there = !archive.is_lost(number) && archive.hold_body(number);
        is_there.then(|| Self { archive: Arc::clone(archive), number, len })
    }

    /// The number and length of a body, when it lies in this log.
    pub(crate) fn place(body: &Body, archive: &Archive) -> Option<(u64, u64)> {
        let Body::Stored(stored) = body else { return None };
        let stored = (&**stored as &dyn Any).downcast_ref::<Self>()?;
        std::ptr::eq(&*stored.archive, archive).then_some((stored.number, stored.len))
    }
}

impl Drop for LogBody {
    fn drop(&mut self) {
        self.archive.release_body(self.number);
    }
}

#[async_trait]
impl StoredPayload for LogBody {
    fn len(&self) -> u64 {
        self.len
    }

    fn is_lost(&self) -> bool {
        self.archive.is_lost(self.number)
    }

    async fn read(&self, offset: u64, max: usize) -> io::Result<Bytes> {
        let Self { archive, number, len } = self;
        if offset >= *len {
            return Ok(Bytes::new());
        }
        let mut part = match archive.parts.find(*number, offset) {
            Some(part) => part,
            None => {
                let mut part = self.read_part(offset).await?;
                match archive.parts.share(part.len()) {
                    Some(share) => archive.parts.put((*number, offset), part, share),
                    None => {
                        part.truncate(max.min(SMALL));
                        Bytes::copy_from_slice(&part)
                    }
                }
            }
        };
        part.truncate(max);
        Ok(part)
    }
}

impl LogBody {
    async fn read_part(&self, offset: u64) -> io::Result<Vec<u8>> {
        let read = coordinator::read_body(Arc::clone(&self.archive), self.number, offset).await;
        let part = read.and_then(|part| {
            // It is held, and so all of it should be there.
            if part.is_empty() { Err(io::ErrorKind::InvalidData.into()) } else { Ok(part) }
        });
        if part.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::InvalidData) {
            self.archive.lose_body(self.number);
        }
        part
    }
}

/// Puts a body into the log, part by part.
pub(crate) struct LogWriter {
    /// What was written; none when that was handed over.
    body: Option<LogBody>,
    /// What is to have been written in the end.
    size: Option<u64>,
    /// What comes behind the last part.
    rest: Vec<u8>,
    /// Room for a whole part.
    share: Option<Share>,
}

impl fmt::Debug for LogWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogWriter").field("size", &self.size).finish_non_exhaustive()
    }
}

impl LogWriter {
    pub(crate) fn new(archive: &Arc<Archive>, size: Option<u64>) -> Self {
        let body = LogBody { number: archive.body(), archive: Arc::clone(archive), len: 0 };
        Self { body: Some(body), size, rest: Vec::new(), share: None }
    }

    /// Puts in a body that is in memory.
    ///
    /// # Errors
    /// When the log takes nothing now.
    pub(crate) fn put(archive: &Arc<Archive>, bytes: &[u8]) -> Result<Body, NotTaken> {
        let mut writer = Self::new(archive, Some(bytes.len() as u64));
        bytes.chunks(PART).try_for_each(|part| writer.part(part))?;
        let body = writer.body.take().ok_or(NotTaken)?;
        Ok(Body::Stored(Arc::new(body)))
    }

    fn part(&mut self, part: &[u8]) -> Result<(), NotTaken> {
        let Some(body) = &mut self.body else { return Err(NotTaken) };
        let mut commit = Commit::new();
        // Shorter than what a record may have.
        let _ = commit.chunk(body.number, body.len, part);
        body.archive.write(&mut commit)?;
        body.len = body.len.saturating_add(part.len() as u64);
        Ok(())
    }

    fn write_rest(&mut self) -> Result<(), Refused> {
        if self.rest.is_empty() {
            return Ok(());
        }
        let rest = std::mem::take(&mut self.rest);
        let written = self.part(&rest);
        // Who waits for the client holds no room.
        self.share = None;
        written.map_err(|NotTaken| self.unwritable())
    }

    /// How long the part may get that comes next.
    fn most(&mut self) -> usize {
        if self.rest.is_empty()
            && let Some(body) = &self.body
        {
            self.share = body.archive.parts.share(PART);
        }
        if self.share.is_some() { PART } else { SMALL }
    }

    fn unwritable(&self) -> Refused {
        Refused::Full(self.body.as_ref().map_or_else(String::new, |body| body.archive.why()))
    }

    fn written(&self) -> u64 {
        self.body.as_ref().map_or(0, |body| body.len).saturating_add(self.rest.len() as u64)
    }
}

impl BodyWriter for LogWriter {
    fn write(&mut self, mut chunk: &[u8]) -> Result<(), Refused> {
        if let Some(size) = self.size.filter(|size| self.written().saturating_add(chunk.len() as u64) > *size)
        {
            let text = format!("the body is longer than the {size} bytes that it announced");
            return Err(Refused::Precondition(text));
        }
        while !chunk.is_empty() {
            let most = self.most();
            let room = most.saturating_sub(self.rest.len());
            let (now, later) = chunk.split_at(room.min(chunk.len()));
            self.rest.reserve_exact(room);
            self.rest.extend_from_slice(now);
            chunk = later;
            if self.rest.len() >= most {
                self.write_rest()?;
            }
        }
        Ok(())
    }

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match &self.body {
            Some(body) if body.archive.is_congested() => body.archive.poll(cx),
            _ => Poll::Ready(()),
        }
    }

    fn poll_finish(&mut self, _cx: &mut Context<'_>) -> Poll<Result<Arc<dyn StoredPayload>, Refused>> {
        let (got, size) = (self.written(), self.size);
        if let Some(size) = size.filter(|size| got != *size) {
            let text = format!("the body ended after {got} of {size} bytes");
            return Poll::Ready(Err(Refused::Precondition(text)));
        }
        let written = self.write_rest();
        Poll::Ready(written.and_then(|()| match self.body.take() {
            Some(body) => Ok(Arc::new(body) as Arc<dyn StoredPayload>),
            None => Err(Refused::Precondition("the body is finished already".into())),
        }))
    }
}
