//! Which declarations are agreed to, and when what was declared goes again.

use super::topology::{exchange, queues};
use crate::conformance::letters::Letters;
use crate::conformance::stage::{Stage, key, queue_spec};
use crate::receipt::Outcome;
use crate::refusal::{Refused, What};
use crate::settlement::Settlement;
use crate::source::{Settle, Source, Subscribe};
use crate::topology::{Binding, BindingEnd, ExchangeKind, ExchangeSpec, QueueSpec};
use crate::value::Value;

/// AMQP 0-9-1 §1.7.2.1 rule `equivalent`, in RabbitMQ's words.
pub async fn declarations_must_agree(stage: &Stage<'_>) {
    let mut client = stage.client().await;
    let (queue, name) = (stage.name("q"), stage.name("e"));
    let arguments = [("x-message-ttl", Value::I32(60_000))];
    client.queue(&queue, &arguments).await;
    client.queue(&queue, &[("x-message-ttl", Value::I64(60_000))]).await;
    for (spec, text) in [
        (
            QueueSpec { durable: false, ..queue_spec(&queue, &arguments) },
            "inequivalent arg 'durable' for queue 'Q': received 'false' but current is 'true'",
        ),
        (
            queue_spec(&queue, &[]),
            "inequivalent arg 'x-message-ttl' for queue 'Q': received none but current is the value '60000' of \
             type 'signedint'",
        ),
    ] {
        let refused = client.declare_queue(&spec).await.expect_err("the declarations differ");
        assert_eq!(refused.to_string(), text.replace('Q', &queue));
    }
    if !stage.can(|it| it.exchanges) {
        return;
    }
    client.declare_exchange(&exchange(&name, ExchangeKind::Direct)).await.expect("an exchange is declared");
    client
        .declare_exchange(&exchange(&name, ExchangeKind::Direct))
        .await
        .expect("the same again is no error");
    let refused = client.declare_exchange(&exchange(&name, ExchangeKind::Fanout)).await;
    let refused = refused.expect_err("the declarations differ").to_string();
    let text = "inequivalent arg 'type' for exchange 'E': received 'fanout' but current is 'direct'";
    assert_eq!(refused, text.replace('E', &name));
}

/// AMQP's 404.
pub async fn names_and_ends_must_exist(stage: &Stage<'_>) {
    let mut client = stage.client().await;
    let none = stage.name("none");
    let no = |what| Refused::NotFound { what, name: none.clone() };
    let passive = QueueSpec { passive: true, ..queue_spec(&none, &[]) };
    assert_eq!(client.declare_queue(&passive).await, Err(no(What::Queue)));
    let passive = ExchangeSpec { passive: true, ..exchange(&none, ExchangeKind::Direct) };
    assert_eq!(client.declare_exchange(&passive).await, Err(no(What::Exchange)));
    assert_eq!(client.purge_queue(&none).await, Err(no(What::Queue)));
    let to = BindingEnd::Queue(&none);
    let binding = Binding { source: "amq.topic", to, key: b"k", arguments: &[] };
    assert_eq!(client.bind(&binding).await, Err(no(What::Queue)));
    let queues = queues(stage, &mut client, 1).await;
    let binding = Binding { source: &none, to: BindingEnd::Queue(&queues[0]), ..binding };
    assert_eq!(client.bind(&binding).await, Err(no(What::Exchange)));
    let how = Subscribe::new(Settle::ByConsumer);
    let refused = client.subscribe(&Source::Queue(&none), key(1), &how, None).await;
    assert_eq!(refused, Err(no(What::Queue)));
}

/// AMQP 0-9-1 §3.1.3.1 and RabbitMQ's `amq.headers`.
pub async fn predeclared_exchanges_are_there_and_stay(stage: &Stage<'_>) {
    let mut client = stage.client().await;
    for (name, kind) in [
        ("amq.direct", ExchangeKind::Direct),
        ("amq.fanout", ExchangeKind::Fanout),
        ("amq.topic", ExchangeKind::Topic),
        ("amq.headers", ExchangeKind::Headers),
        ("amq.match", ExchangeKind::Headers),
    ] {
        if kind != ExchangeKind::Topic && !stage.can(|it| it.exchanges) {
            let refused = client.declare_exchange(&exchange(name, kind)).await;
            assert!(matches!(refused, Err(Refused::NotImplemented(_))), "{refused:?}");
            continue;
        }
        client.declare_exchange(&exchange(name, kind)).await.expect("it is there, and like this");
        let refused = client.delete_exchange(name, false).await;
        assert!(matches!(refused, Err(Refused::AccessRefused(_))), "{refused:?}");
    }
}

/// AMQP's 403.
pub async fn reserved_names_are_refused(stage: &Stage<'_>) {
    let mut client = stage.client().await;
    let name = format!("amq.{}", stage.name("mine"));
    let text =
        |what| Refused::AccessRefused(format!("{what} name '{name}' contains reserved prefix 'amq.*'"));
    assert_eq!(client.declare_queue(&queue_spec(&name, &[])).await, Err(text("queue")));
    let refused = client.declare_exchange(&exchange(&name, ExchangeKind::Direct)).await;
    assert_eq!(refused, Err(text("exchange")));
    let queues = queues(stage, &mut client, 1).await;
    let to = BindingEnd::Queue(&queues[0]);
    let refused = client.bind(&Binding { source: "", to, key: b"k", arguments: &[] }).await;
    let text = "operation not permitted on the default exchange";
    assert_eq!(refused, Err(Refused::AccessRefused(text.into())));
}

/// AMQP's 406.
pub async fn wrong_arguments_are_refused(stage: &Stage<'_>) {
    let mut client = stage.client().await;
    let name = stage.name("q");
    for (argument, value) in [
        ("x-max-priority", Value::I32(1000)),
        ("x-message-ttl", Value::I32(-1)),
        ("x-overflow", Value::Text("explode".into())),
        ("x-queue-type", Value::Text("none".into())),
    ] {
        let refused = client.declare_queue(&queue_spec(&name, &[(argument, value)])).await;
        let Err(Refused::Precondition(text)) = refused else { panic!("{argument}: {refused:?}") };
        assert!(
            text.starts_with(&format!("invalid arg '{argument}' for queue '{name}' in vhost '/': ")),
            "{text}"
        );
    }
}

/// AMQP 0-9-1 §1.7.2.1 `exclusive`.
pub async fn exclusive_queues_are_their_connections_own(stage: &Stage<'_>) {
    let name = stage.name("q");
    let spec = QueueSpec { exclusive: true, ..queue_spec(&name, &[]) };
    let (mut owner, mut other) = (stage.client().await, stage.client().await);
    owner.declare_queue(&spec).await.expect("a queue is declared");
    owner.declare_queue(&spec).await.expect("its owner may declare it again");
    let locked = Refused::Locked(name.clone());
    assert_eq!(other.declare_queue(&queue_spec(&name, &[])).await, Err(locked.clone()));
    assert_eq!(other.purge_queue(&name).await, Err(locked.clone()));
    assert_eq!(other.delete_queue(&name, false, false).await, Err(locked.clone()));
    let how = Subscribe::new(Settle::ByConsumer);
    assert_eq!(other.subscribe(&Source::Queue(&name), key(1), &how, None).await, Err(locked.clone()));
    let to = BindingEnd::Queue(&name);
    let binding = Binding { source: "amq.topic", to, key: b"k", arguments: &[] };
    assert_eq!(other.bind(&binding).await, Err(locked));
    let target = other.to_queue(&name);
    assert_eq!(other.confirm(&Letters::confirmed(target, [1])).await, [], "anybody may publish to it");
    drop(owner);
    stage.settle_down().await;
    assert_eq!(other.confirm(&Letters::confirmed(target, [1])).await, [(0, Outcome::Unroutable)]);
}

/// AMQP 0-9-1 `auto-delete`.
pub async fn auto_delete_things_go_with_their_last_user(stage: &Stage<'_>) {
    let (queue, name) = (stage.name("q"), stage.name("e"));
    let mut client = stage.client().await;
    let spec = QueueSpec { auto_delete: true, ..queue_spec(&queue, &[]) };
    client.declare_queue(&spec).await.expect("a queue is declared");
    let exchanges = stage.can(|it| it.exchanges);
    let target = if exchanges {
        let spec = ExchangeSpec { auto_delete: true, ..exchange(&name, ExchangeKind::Direct) };
        client.declare_exchange(&spec).await.expect("an exchange is declared");
        client.bind_queue(&name, &queue, "k").await;
        client.to_exchange(&name, "k")
    } else {
        client.to_queue(&queue)
    };
    client.confirm(&Letters::confirmed(target, [1])).await;
    client.consume(&queue, 1, 0).await;
    client.consume(&queue, 2, 0).await;
    client.expect_numbers([1]).await;
    client.unsubscribe(key(1)).await.expect("a consumer is cancelled");
    let counts = client.declare_queue(&QueueSpec { passive: true, ..queue_spec(&queue, &[]) }).await;
    assert_eq!(counts.expect("one consumer is left").consumers, 1);
    client.unsubscribe(key(2)).await.expect("a consumer is cancelled");
    stage.settle_down().await;
    let counts = client.declare_queue(&QueueSpec { passive: true, ..queue_spec(&queue, &[]) }).await;
    assert!(matches!(counts, Err(Refused::NotFound { .. })), "{counts:?}");
    if exchanges {
        let (code, _) = client.expect_refusal(&Letters::confirmed(target, [2])).await;
        assert_eq!(code, 404, "the exchange went with its last binding");
    }
    client.settle(1, 1, 1, Settlement::Accept);
}

/// AMQP 0-9-1 `if-unused`, `if-empty`.
pub async fn deletion_can_be_made_to_depend_on_use(stage: &Stage<'_>) {
    let (queue, name) = (stage.name("q"), stage.name("e"));
    let mut client = stage.client().await;
    client.queue(&queue, &[]).await;
    let exchanges = stage.can(|it| it.exchanges);
    if exchanges {
        client
            .declare_exchange(&exchange(&name, ExchangeKind::Direct))
            .await
            .expect("an exchange is declared");
        client.bind_queue(&name, &queue, "k").await;
        let used = Refused::InUse { what: What::Exchange, name: name.clone() };
        assert_eq!(client.delete_exchange(&name, true).await, Err(used));
    }
    let target = client.to_queue(&queue);
    client.confirm(&Letters::confirmed(target, [1])).await;
    assert_eq!(client.delete_queue(&queue, false, true).await, Err(Refused::NotEmpty(queue.clone())));
    client.consume(&queue, 1, 0).await;
    let given = client.expect_numbers([1]).await;
    let used = Refused::InUse { what: What::Queue, name: queue.clone() };
    assert_eq!(client.delete_queue(&queue, true, false).await, Err(used));
    client.unsubscribe(key(1)).await.expect("a consumer is cancelled");
    client.accept(&given[0]);
    assert_eq!(client.delete_queue(&queue, true, true).await, Ok(0));
    assert_eq!(
        client.delete_exchange(&name, true).await,
        Ok(()),
        "it is not there, or its binding went with the queue"
    );
}

/// Whoever is about to delete a queue wants to know; a back end that cannot know says so, and is not asked.
pub async fn what_is_unsettled_is_counted_and_keeps_an_empty_queue(stage: &Stage<'_>) {
    let queue = stage.name("q");
    let mut client = stage.client().await;
    client.queue(&queue, &[]).await;
    let target = client.to_queue(&queue);
    client.confirm(&Letters::confirmed(target, 0..3)).await;
    client.consume(&queue, 1, 2).await;
    let given = client.expect_numbers(0..2).await;
    let passive = QueueSpec { passive: true, ..queue_spec(&queue, &[]) };
    let counts = client.declare_queue(&passive).await.expect("the queue is there");
    let Some(unsettled) = counts.unsettled else { return };
    assert_eq!((counts.messages, unsettled), (1, 2));
    client.purge_queue(&queue).await.expect("what is ready goes");
    let full = Err(Refused::NotEmpty(queue.clone()));
    assert_eq!(client.delete_queue(&queue, false, true).await, full, "two are unsettled");
    client.accept(&given[0]);
    client.settle(1, given[1].tag, 1, Settlement::Release { delay: 60_000 });
    let counts = client.declare_queue(&passive).await.expect("the queue is there");
    assert_eq!((counts.messages, counts.unsettled), (0, Some(1)), "one waits for its delay to end");
    assert_eq!(client.delete_queue(&queue, false, true).await, full);
    client.delete_queue(&queue, false, false).await.expect("it goes all the same");
}

/// AMQP 0-9-1 §1.7.2.1: the server names it.
pub async fn a_nameless_queue_gets_a_name(stage: &Stage<'_>) {
    let mut client = stage.client().await;
    let spec = QueueSpec { exclusive: true, ..queue_spec("", &[]) };
    let one = client.declare_queue(&spec).await.expect("a queue is declared").name;
    let two = client.declare_queue(&spec).await.expect("a queue is declared").name;
    // Names that are the broker's own cannot be declared again after a loss.
    let prefix = if stage.is_remote() { "linkspan.gen-" } else { "amq.gen-" };
    assert!(one.starts_with(prefix) && two.starts_with(prefix) && one != two, "{one} {two}");
    let target = client.to_queue(&one);
    client.confirm(&Letters::confirmed(target, [1])).await;
    client.consume(&one, 1, 0).await;
    client.expect_numbers([1]).await;
}

/// RabbitMQ's `x-expires`.
pub async fn an_unused_queue_expires(stage: &Stage<'_>) {
    let queue = stage.name("q");
    let mut client = stage.client().await;
    client.queue(&queue, &[("x-expires", Value::I32(1000))]).await;
    client.consume(&queue, 1, 0).await;
    stage.pass(1500).await;
    let passive = QueueSpec { passive: true, ..queue_spec(&queue, &[]) };
    assert!(client.declare_queue(&passive).await.is_ok(), "it has a consumer");
    client.unsubscribe(key(1)).await.expect("a consumer is cancelled");
    stage.pass(1500).await;
    assert!(client.declare_queue(&passive).await.is_err(), "nobody used it for a second");
}
