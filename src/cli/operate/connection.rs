//! One question to a server, and its answer.

use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::http::header::{AUTHORIZATION, CONTENT_LENGTH, HOST};
use axum::http::{StatusCode, request};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::OperateError;
use super::request::{Base, Request};

/// How long the machine may take to be reached.
const REACH: Duration = Duration::from_secs(5);

/// Bytes of the largest answer.
const LARGEST: usize = 256 << 20;

/// Asks as somebody with a password, or as nobody.
///
/// # Errors
/// When there is no server, it is none of ours, or it says no.
pub(super) async fn ask(
    base: &Base,
    request: &Request,
    login: Option<(&str, &str)>,
) -> Result<Value, OperateError> {
    let unreachable = |why: String| OperateError::Unreachable { url: base.to_string(), why };
    let strange = |why: String| OperateError::Strange { url: base.to_string(), why };
    let stream = match timeout(REACH, TcpStream::connect((base.host.as_str(), base.port))).await {
        Ok(stream) => stream.map_err(|error| unreachable(error.to_string()))?,
        Err(_) => return Err(unreachable(format!("no answer within {} s", REACH.as_secs()))),
    };
    let handshake = http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(|error| strange(error.to_string()))?;
    let driver = tokio::spawn(connection);
    let mut asked = request::Builder::new()
        .method(request.method.clone())
        .uri(format!("{}{}", base.prefix, request.path))
        .header(HOST, base.authority.as_str())
        .header(CONTENT_LENGTH, 0);
    if let Some((user, password)) = login {
        asked =
            asked.header(AUTHORIZATION, format!("Basic {}", STANDARD.encode(format!("{user}:{password}"))));
    }
    let asked = asked.body(Body::empty()).map_err(|error| strange(error.to_string()))?;
    let answer = sender.send_request(asked).await.map_err(|error| strange(error.to_string()))?;
    let status = answer.status();
    let body = to_bytes(Body::new(answer.into_body()), LARGEST).await;
    driver.abort();
    let body = body.map_err(|error| strange(error.to_string()))?;
    let said: Value = serde_json::from_slice(&body).map_err(|_| strange(format!("it says {status}")))?;
    read(status, said, login.is_some())
        .map_err(|why| why.unwrap_or_else(|| strange(format!("it says {status}"))))
}

/// What an answer means; no error of its own when it is none of Linkspan's.
fn read(status: StatusCode, said: Value, named: bool) -> Result<Value, Option<OperateError>> {
    if status.is_success() {
        return Ok(said);
    }
    let Some(detail) = said.get("detail").and_then(Value::as_str) else { return Err(None) };
    let detail = detail.to_owned();
    Err(Some(if status == StatusCode::UNAUTHORIZED {
        OperateError::Denied { detail, named }
    } else {
        OperateError::Refused { detail }
    }))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_problem_is_told_in_the_servers_words_with_what_to_do() {
        let problem = |detail: &str| json!({ "detail": detail });
        let said = |status, named| read(status, problem("no such"), named).unwrap_err().unwrap();
        let refused = said(StatusCode::NOT_FOUND, false);
        assert_eq!((refused.to_string().as_str(), refused.exit_code()), ("no such", 1));
        assert!(said(StatusCode::UNAUTHORIZED, false).to_string().contains("give --user NAME"));
        assert!(said(StatusCode::UNAUTHORIZED, true).to_string().contains("check --user"));
        assert!(read(StatusCode::BAD_GATEWAY, json!({}), false).unwrap_err().is_none());
    }
}
