//! The part of a URL behind its question mark.

use axum::extract::rejection::QueryRejection;
use axum::extract::{self, FromRequestParts};
use axum::http::request::Parts;
use serde::de::DeserializeOwned;

use super::translate::Problem;

/// What a request asks for there; what cannot be read is told as all other problems are.
pub(super) struct Query<T>(pub T);

impl<S, T> FromRequestParts<S> for Query<T>
where
    S: Send + Sync,
    T: DeserializeOwned,
{
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let read: Result<extract::Query<T>, QueryRejection> =
            extract::Query::from_request_parts(parts, state).await;
        let extract::Query(asked) = read.map_err(|why| {
            let text = why.body_text();
            // What reads it begins by saying that it could not.
            let text = text.split_once("query string: ").map_or(text.as_str(), |(_, text)| text);
            Problem::bad(format!("what stands behind the '?': {text}"))
        })?;
        Ok(Self(asked))
    }
}
