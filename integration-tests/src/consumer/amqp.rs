//! Consuming by AMQP.

use std::net::SocketAddr;

use futures_lite::StreamExt;
use lapin::Connection;
use lapin::message::Delivery;
use lapin::options::{BasicConsumeOptions, BasicQosOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::received::{Hand, Received};
use super::{Asking, PREFETCH, Refusal, Taking};
use crate::amqp::refusal;
use crate::publisher::connect_amqp;

pub(super) async fn consume(
    at: SocketAddr,
    taking: Taking<'_>,
    asking: Asking,
    sender: mpsc::Sender<Received>,
) -> Result<(JoinHandle<()>, Connection), Refusal> {
    let connection = connect_amqp(at).await;
    let channel = connection.create_channel().await.expect("a channel");
    let queue = match taking {
        Taking::Work { queue, .. } | Taking::Queue(queue) => {
            let in_hand = asking.in_hand.unwrap_or(PREFETCH);
            channel.basic_qos(in_hand, BasicQosOptions::default()).await.expect("a prefetch");
            queue.to_owned()
        }
        Taking::Watch(filter) => {
            let options = QueueDeclareOptions { exclusive: true, ..QueueDeclareOptions::default() };
            let queue =
                channel.queue_declare("".into(), options, FieldTable::default()).await.expect("a queue");
            let name = queue.name().as_str().to_owned();
            let key = filter.replace('/', ".").replace('+', "*");
            let bind = channel.queue_bind(
                name.as_str().into(),
                "amq.topic".into(),
                key.as_str().into(),
                QueueBindOptions::default(),
                FieldTable::default(),
            );
            bind.await.expect("a binding");
            name
        }
    };
    let consume = channel.basic_consume(
        queue.as_str().into(),
        "".into(),
        BasicConsumeOptions::default(),
        FieldTable::default(),
    );
    let mut consumer = consume.await.map_err(|error| {
        let (code, text) = refusal(&error);
        Refusal { code, text }
    })?;
    let driver = tokio::spawn(async move {
        let _open = channel;
        while let Some(Ok(delivery)) = consumer.next().await {
            let (payload, properties) = (delivery.data.clone(), properties(&delivery));
            let received = Received { payload, properties, hand: Hand::Amqp(Box::new(delivery)) };
            if sender.try_send(received).is_err() {
                return;
            }
        }
    });
    Ok((driver, connection))
}

fn properties(delivery: &Delivery) -> Vec<(String, String)> {
    let headers = delivery.properties.headers().iter().flat_map(|headers| headers.inner().iter());
    headers.map(|(name, value)| (name.as_str().to_owned(), text(value))).collect()
}

fn text(value: &AMQPValue) -> String {
    match value {
        AMQPValue::LongString(text) => String::from_utf8_lossy(text.as_bytes()).into_owned(),
        AMQPValue::LongLongInt(number) => number.to_string(),
        AMQPValue::LongInt(number) => number.to_string(),
        AMQPValue::LongUInt(number) => number.to_string(),
        other => format!("{other:?}"),
    }
}
