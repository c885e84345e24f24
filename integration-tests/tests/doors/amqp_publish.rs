//! AMQP: publishing, confirmed, returned, in transactions.

use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Confirmation};
use linkspan_integration_tests::amqp::{Amqp, refusal, text};
use linkspan_integration_tests::{Server, soon};

#[tokio::test]
async fn a_mandatory_message_that_reaches_no_queue_comes_back_before_its_confirm() {
    let server = Server::start("").await;
    let amqp = Amqp::confirming(server.amqp()).await;
    let mandatory = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
    let properties = BasicProperties::default().with_message_id("m-1".into());
    let channel = &amqp.channel;
    let publish = channel.basic_publish("amq.direct".into(), "nobody".into(), mandatory, b"1", properties);
    let confirm = soon("a confirm", publish.await.unwrap()).await.unwrap();
    let Confirmation::Ack(Some(returned)) = confirm else { panic!("{confirm:?}") };
    assert_eq!((returned.reply_code, returned.reply_text.as_str()), (312, "NO_ROUTE"));
    assert_eq!((returned.exchange.as_str(), returned.routing_key.as_str()), ("amq.direct", "nobody"));
    assert_eq!(text(&returned.data), "1");
    assert_eq!(returned.properties.message_id().as_ref().map(|id| id.as_str()), Some("m-1"));

    assert!(matches!(amqp.publish("amq.direct", "nobody", "2").await, Confirmation::Ack(None)));
}

#[tokio::test]
async fn a_message_to_an_unknown_exchange_closes_the_channel() {
    let server = Server::start("").await;
    let amqp = Amqp::confirming(server.amqp()).await;
    let options = BasicPublishOptions::default();
    let channel = &amqp.channel;
    let publish = channel.basic_publish("never".into(), "".into(), options, b"1", BasicProperties::default());
    let error = soon("a refusal", publish.await.unwrap()).await.unwrap_err();
    let text = "NOT_FOUND - no exchange 'never' in vhost '/'";
    assert_eq!(refusal(&error), (404, text.to_owned()));
}

#[tokio::test]
async fn every_property_of_a_message_arrives() {
    let server = Server::start("").await;
    let amqp = Amqp::confirming(server.amqp()).await;
    amqp.queue("all").await;
    let mut headers = FieldTable::default();
    let mut inner = FieldTable::default();
    inner.insert("deep".into(), AMQPValue::Boolean(true));
    headers.insert("count".into(), AMQPValue::LongInt(-3));
    headers.insert("table".into(), AMQPValue::FieldTable(inner));
    headers.insert("none".into(), AMQPValue::Void);
    let sent = BasicProperties::default()
        .with_content_type("text/plain".into())
        .with_content_encoding("gzip".into())
        .with_headers(headers)
        .with_delivery_mode(2)
        .with_priority(7)
        .with_correlation_id("c".into())
        .with_reply_to("answers".into())
        .with_expiration("60000".into())
        .with_message_id("m".into())
        .with_timestamp(1_700_000_000)
        .with_type("order".into())
        .with_user_id("guest".into())
        .with_app_id("shop".into());
    amqp.publish_as("", "all", "1", sent.clone()).await;
    let got = amqp.channel.basic_get("all".into(), Default::default()).await.unwrap().unwrap();
    assert_eq!(got.delivery.properties, sent);
    assert!(!got.redelivered);
}

#[tokio::test]
async fn a_body_of_many_frames_arrives_whole() {
    let server = Server::start("").await;
    let amqp = Amqp::confirming(server.amqp()).await;
    amqp.queue("large").await;
    for size in [0, 1, 131_064, 131_065, 1_000_000] {
        let payload: String = "0123456789".chars().cycle().take(size).collect();
        amqp.publish("", "large", &payload).await;
        assert!(amqp.get("large").await.as_ref() == Some(&payload), "{size} bytes");
    }
}

#[tokio::test]
async fn a_transaction_takes_effect_at_its_commit_and_a_rollback_forgets() {
    let server = Server::start("").await;
    let (amqp, other) = (Amqp::connect(server.amqp()).await, Amqp::connect(server.amqp()).await);
    amqp.queue("jobs").await;
    amqp.channel.tx_select().await.unwrap();
    amqp.publish("", "jobs", "1").await;
    assert_eq!(other.counts("jobs").await.0, 0, "not yet");
    amqp.channel.tx_commit().await.unwrap();
    assert_eq!(other.counts("jobs").await.0, 1);

    amqp.publish("", "jobs", "2").await;
    let taken = amqp.channel.basic_get("jobs".into(), Default::default()).await.unwrap().unwrap();
    taken.delivery.acker.ack(Default::default()).await.unwrap();
    amqp.channel.tx_rollback().await.unwrap();
    amqp.channel.tx_commit().await.unwrap();
    assert_eq!(other.counts("jobs").await.0, 0, "2 was never published, and 1 is unacknowledged again");
    amqp.connection.close(200, "".into()).await.unwrap();
    assert_eq!(other.drain("jobs").await, ["1"], "its acknowledgement was rolled back");
}

#[tokio::test]
async fn transactions_and_confirms_exclude_each_other() {
    let server = Server::start("").await;
    let mut amqp = Amqp::confirming(server.amqp()).await;
    let error = amqp.channel.tx_select().await.unwrap_err();
    let text = "PRECONDITION_FAILED - cannot switch from confirm to tx mode";
    assert_eq!(refusal(&error), (406, text.to_owned()));
    amqp.reopen().await;
    let error = amqp.channel.tx_commit().await.unwrap_err();
    assert_eq!(refusal(&error), (406, "PRECONDITION_FAILED - channel is not transactional".to_owned()));
    amqp.reopen().await;
    amqp.channel.tx_select().await.unwrap();
    let error = amqp.channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap_err();
    let text = "PRECONDITION_FAILED - cannot switch from tx to confirm mode";
    assert_eq!(refusal(&error), (406, text.to_owned()));
}

#[tokio::test]
async fn a_message_that_has_expired_is_not_delivered() {
    let server = Server::start("").await;
    let amqp = Amqp::confirming(server.amqp()).await;
    amqp.queue("perishable").await;
    amqp.publish_as("", "perishable", "0", BasicProperties::default().with_expiration("0".into())).await;
    amqp.publish_as("", "perishable", "1", BasicProperties::default().with_expiration("600000".into())).await;
    assert_eq!(amqp.drain("perishable").await, ["1"]);
}
