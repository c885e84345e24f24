//! Connecting once.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{Probe, ProbeError, product};
use crate::coordinator::dial;
use crate::options::{AmqpOptions, Node};

/// What brokers list the connection under.
const NAME: &str = "linkspan check";

/// How often a node that hangs up without a word is asked again.
const AGAIN: usize = 3;

/// Connects to the first node that lets it, and leaves again.
///
/// # Errors
/// When none does: what is wrong with each.
pub async fn probe(options: &AmqpOptions) -> Result<Probe, ProbeError> {
    let mut wrong = Vec::new();
    for place in 0..options.nodes.len() {
        let mut dialed = dial(options, place, NAME).await;
        for _ in 0..AGAIN {
            if !matches!(&dialed, Err(why) if why.is_vague) {
                break;
            }
            dialed = dial(options, place, NAME).await;
        }
        match dialed {
            Ok((node, connection)) => {
                let product = if options.tls.is_some() { None } else { greeting(&node, options).await };
                let text = lapin::types::ShortString::try_new("OK").unwrap_or_default();
                if timeout(options.connect_timeout, connection.close(200, text)).await.is_err() {
                    tracing::debug!("the broker did not agree to the end of a connection in time");
                }
                return Ok(Probe { node: node.to_string(), product });
            }
            Err(why) => wrong.push(why.text),
        }
    }
    Err(ProbeError(wrong))
}

/// What the broker says to anybody who greets it.
async fn greeting(node: &Node, options: &AmqpOptions) -> Option<String> {
    let asked = async {
        let mut stream = TcpStream::connect((node.host.as_str(), node.port)).await.ok()?;
        stream.write_all(b"AMQP\0\0\x09\x01").await.ok()?;
        let mut head = [0; 7];
        stream.read_exact(&mut head).await.ok()?;
        let [1, 0, 0, len @ ..] = head else { return None };
        let mut payload = vec![0; usize::try_from(u32::from_be_bytes(len)).ok()?.min(65_536)];
        stream.read_exact(&mut payload).await.ok()?;
        product(&payload)
    };
    timeout(options.connect_timeout, asked).await.ok()?
}
