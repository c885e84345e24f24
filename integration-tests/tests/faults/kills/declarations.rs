//! Who declares and deletes: what was answered is so in the next life.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::ensure;
use lapin::options::{
    BasicPublishOptions, ConfirmSelectOptions, ExchangeDeclareOptions, ExchangeDeleteOptions,
    QueueBindOptions, QueueDeclareOptions, QueueDeleteOptions,
};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Confirmation, Connection, ExchangeKind};
use tokio::time::sleep;

use super::life::{Life, Work};

/// What is known of one of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Known {
    There,
    Gone,
    /// It was asked for, or to be deleted, and nothing was answered.
    Asked,
}

/// An exchange with a queue and the binding between them, by its number: what is known of each.
type Trio = [Known; 3];

/// All of them, over all lives.
#[derive(Debug, Clone, Default)]
pub struct Declared(Arc<Mutex<BTreeMap<usize, Trio>>>);

const EXCHANGE: usize = 0;
const QUEUE: usize = 1;
const BINDING: usize = 2;

/// So many are there at once.
const KEPT: usize = 6;

/// So many are looked at over one connection.
const BETWEEN: usize = 100;

/// Of what is gone so many, about, are looked at in a life.
const SOME_GONE: usize = 100;

fn exchange(number: usize) -> String {
    format!("exchange-{number}")
}

fn queue(number: usize) -> String {
    format!("queue-{number}")
}

impl Declared {
    fn note(&self, number: usize, what: &[usize], known: Known) {
        let mut all = self.0.lock().expect("nobody has failed");
        let trio = all.entry(number).or_insert([Known::Gone; 3]);
        what.iter().for_each(|what| trio[*what] = known);
    }

    fn all(&self) -> Vec<(usize, Trio)> {
        let all = self.0.lock().expect("nobody has failed");
        all.iter().map(|(number, trio)| (*number, *trio)).collect()
    }

    /// What there is, or may be, and a part of what is gone: that grows with every life.
    fn to_be_checked(&self, life: &Life) -> Vec<(usize, Trio)> {
        let (gone, mut some): (Vec<_>, Vec<_>) =
            self.all().into_iter().partition(|(_, trio)| *trio == [Known::Gone; 3]);
        let every = (gone.len() / SOME_GONE).max(1);
        let from = life.below(every as u64) as usize;
        some.extend(gone.into_iter().skip(from).step_by(every));
        some
    }

    /// How many were ever declared.
    pub fn len(&self) -> usize {
        self.0.lock().expect("nobody has failed").len()
    }

    async fn declare(&self, channel: &Channel, number: usize) -> Work {
        let durable = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
        self.note(number, &[EXCHANGE], Known::Asked);
        let none = FieldTable::default;
        channel
            .exchange_declare(exchange(number).as_str().into(), ExchangeKind::Direct, durable, none())
            .await?;
        self.note(number, &[EXCHANGE], Known::There);
        let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
        self.note(number, &[QUEUE], Known::Asked);
        channel.queue_declare(queue(number).as_str().into(), durable, none()).await?;
        self.note(number, &[QUEUE], Known::There);
        self.note(number, &[BINDING], Known::Asked);
        let (queue, exchange, options) = (queue(number), exchange(number), QueueBindOptions::default());
        channel
            .queue_bind(queue.as_str().into(), exchange.as_str().into(), "key".into(), options, none())
            .await?;
        self.note(number, &[BINDING], Known::There);
        Ok(())
    }

    /// Takes away one of the three, the binding by its end.
    async fn delete(&self, channel: &Channel, number: usize, what: usize) -> Work {
        self.note(number, &[what, BINDING], Known::Asked);
        if what == EXCHANGE {
            let options = ExchangeDeleteOptions::default();
            channel.exchange_delete(exchange(number).as_str().into(), options).await?;
        } else {
            let options = QueueDeleteOptions::default();
            channel.queue_delete(queue(number).as_str().into(), options).await?;
        }
        self.note(number, &[what, BINDING], Known::Gone);
        Ok(())
    }

    /// Looks at everything, tells what is not as it was answered, and notes what is there of the rest.
    pub async fn check(&self, life: &Life) -> Work {
        let mut connection = None;
        for (at, (number, mut trio)) in self.to_be_checked(life).into_iter().enumerate() {
            // A client that has used up its channel numbers would begin with them anew.
            let connection = match &mut connection {
                Some(connection) if at % BETWEEN != 0 => &*connection,
                stale => &*stale.insert(life.connect().await?.0),
            };
            let found = [
                has_exchange(connection, number).await?,
                has_queue(connection, number).await?,
                routes(connection, number).await?,
            ];
            for (what, (name, found)) in ["exchange", "queue", "binding"].into_iter().zip(found).enumerate() {
                let found = if found { Known::There } else { Known::Gone };
                if trio[what] != Known::Asked && trio[what] != found {
                    let known = trio[what];
                    life.notes()
                        .wrong(format!("{name} {number} was {known:?} by its answer and is {found:?}"));
                }
                trio[what] = found;
                self.note(number, &[what], found);
            }
        }
        Ok(())
    }

    /// Declares and deletes until the connection ends.
    pub async fn change(self, life: Life) -> Work {
        let (_connection, channel) = life.connect().await?;
        for number in self.len().. {
            self.declare(&channel, number).await?;
            let there: Vec<_> =
                self.all().into_iter().filter(|(_, trio)| trio[QUEUE] == Known::There).collect();
            if there.len() > KEPT {
                let (number, _) = there[usize::try_from(life.below(there.len() as u64))?];
                self.delete(&channel, number, QUEUE).await?;
                if life.below(2) == 0 {
                    self.delete(&channel, number, EXCHANGE).await?;
                }
            }
            let left: Vec<_> = self.all().into_iter().filter(|(_, trio)| is_left(trio)).collect();
            if left.len() > KEPT {
                let (number, _) = left[usize::try_from(life.below(left.len() as u64))?];
                self.delete(&channel, number, EXCHANGE).await?;
            }
            sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }
}

/// Whether it is an exchange without its queue.
fn is_left(trio: &Trio) -> bool {
    trio[EXCHANGE] == Known::There && trio[QUEUE] == Known::Gone
}

/// A channel closes when something is not there (404).
fn is_there<T>(answer: Result<T, lapin::Error>) -> anyhow::Result<bool> {
    match answer {
        Ok(_) => Ok(true),
        Err(error) => {
            let (code, text) = linkspan_integration_tests::amqp::refusal(&error);
            ensure!(code == 404, "{code} {text}");
            Ok(false)
        }
    }
}

async fn has_exchange(connection: &Connection, number: usize) -> anyhow::Result<bool> {
    let channel = connection.create_channel().await?;
    let passive = ExchangeDeclareOptions { passive: true, ..ExchangeDeclareOptions::default() };
    let name = exchange(number);
    let none = FieldTable::default();
    is_there(channel.exchange_declare(name.as_str().into(), ExchangeKind::Direct, passive, none).await)
}

async fn has_queue(connection: &Connection, number: usize) -> anyhow::Result<bool> {
    let channel = connection.create_channel().await?;
    let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
    is_there(channel.queue_declare(queue(number).as_str().into(), passive, FieldTable::default()).await)
}

/// True when a message goes the whole way.
async fn routes(connection: &Connection, number: usize) -> anyhow::Result<bool> {
    if !has_exchange(connection, number).await? {
        return Ok(false);
    }
    let channel = connection.create_channel().await?;
    channel.confirm_select(ConfirmSelectOptions::default()).await?;
    let mandatory = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
    let name = exchange(number);
    let publish =
        channel.basic_publish(name.as_str().into(), "key".into(), mandatory, b"", BasicProperties::default());
    Ok(matches!(publish.await?.await?, Confirmation::Ack(None)))
}
