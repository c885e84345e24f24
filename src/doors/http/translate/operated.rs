//! What an operator asked of a queue that cannot be done, in HTTP's words.

use axum::http::StatusCode;

use super::Problem;
use crate::hub::QueueError;

impl From<QueueError> for Problem {
    fn from(error: QueueError) -> Self {
        let text = error.to_string();
        match error {
            QueueError::NotFound { .. } => Self::new(StatusCode::NOT_FOUND, "no such queue", text),
            QueueError::NotOfARoute { .. } => Self::new(StatusCode::CONFLICT, "not a route's queue", text),
            QueueError::NoDeadLetters { .. } => Self::new(StatusCode::CONFLICT, "no dead letters", text),
            QueueError::NoSuchLetter { .. } => Self::new(StatusCode::NOT_FOUND, "no such dead letter", text),
            QueueError::Backend(error) => error.into(),
            QueueError::Refused(refused) => refused.into(),
            QueueError::Stopped(_) | QueueError::Lost(_) => {
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", text)
            }
        }
    }
}
