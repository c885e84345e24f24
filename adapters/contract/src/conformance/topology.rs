//! What AMQP clients declare.

use crate::conformance::letters::{Letter, Letters};
use crate::conformance::stage::{Peer, Stage, key, queue_spec};
use crate::receipt::Outcome;
use crate::refusal::{Refused, What};
use crate::settlement::Settlement;
use crate::source::{Settle, Source, Subscribe};
use crate::topology::{Binding, BindingEnd, ExchangeKind, ExchangeSpec, QueueSpec};
use crate::value::Value;

fn exchange(name: &str, kind: ExchangeKind) -> ExchangeSpec<'_> {
    ExchangeSpec {
        name,
        kind,
        passive: false,
        durable: true,
        auto_delete: false,
        internal: false,
        arguments: &[],
    }
}

/// Publishes a number to an exchange and tells which of the queues got it.
async fn reached(client: &mut Peer<'_>, exchange: &str, route: &str, queues: &[String]) -> Vec<usize> {
    let target = client.to_exchange(exchange, route);
    client.confirm(&Letters::confirmed(target, [1])).await;
    with_messages(client, queues).await
}

/// Which of the queues have exactly one message; they are emptied.
async fn with_messages(client: &mut Peer<'_>, queues: &[String]) -> Vec<usize> {
    let mut reached = Vec::new();
    for (place, queue) in queues.iter().enumerate() {
        let counts = client.declare_queue(&queue_spec(queue, &[])).await.expect("the queue is there");
        let purged = client.purge_queue(queue).await.expect("a queue is purged");
        assert_eq!(purged, counts.messages);
        match counts.messages {
            0 => {}
            1 => reached.push(place),
            more => panic!("queue {queue} got {more} copies"),
        }
    }
    reached
}

async fn queues(stage: &Stage<'_>, client: &mut Peer<'_>, count: usize) -> Vec<String> {
    let names: Vec<String> = (0..count).map(|number| stage.name(&format!("q{number}"))).collect();
    for name in &names {
        client.queue(name, &[]).await;
    }
    names
}

/// AMQP 0-9-1 §3.1.3.
pub async fn exchanges_route_as_their_kinds_say(stage: &Stage<'_>) {
    if !stage.can(|it| it.exchanges) {
        return;
    }
    let mut client = stage.client().await;
    let queues = queues(stage, &mut client, 3).await;
    let [direct, fanout, topic] = ["direct", "fanout", "topic"].map(|name| stage.name(name));
    for (name, kind) in
        [(&direct, ExchangeKind::Direct), (&fanout, ExchangeKind::Fanout), (&topic, ExchangeKind::Topic)]
    {
        client.declare_exchange(&exchange(name, kind)).await.expect("an exchange is declared");
    }
    for (source, queue, key) in [
        (&direct, 0, "a"),
        (&direct, 1, "b"),
        (&direct, 2, "a"),
        (&fanout, 0, "x"),
        (&fanout, 2, ""),
        (&topic, 0, "a.*.c"),
        (&topic, 1, "a.#"),
        (&topic, 2, "#.c"),
    ] {
        client.bind_queue(source, &queues[queue], key).await;
    }
    for (source, key, expected) in [
        (&direct, "a", &[0, 2][..]),
        (&direct, "b", &[1]),
        (&direct, "c", &[]),
        (&fanout, "whatever", &[0, 2]),
        (&topic, "a.b.c", &[0, 1, 2]),
        (&topic, "a", &[1]),
        (&topic, "c", &[2]),
        (&topic, "b.b", &[]),
    ] {
        assert_eq!(reached(&mut client, source, key, &queues).await, expected, "{source} {key}");
    }
    let binding = Binding { source: &direct, to: BindingEnd::Queue(&queues[2]), key: b"a", arguments: &[] };
    client.unbind(&binding).await.expect("a binding is undone");
    client.unbind(&binding).await.expect("one that is not there is no error");
    assert_eq!(reached(&mut client, &direct, "a", &queues).await, [0]);
    client.delete_exchange(&fanout, false).await.expect("an exchange is deleted");
    client.delete_exchange(&fanout, false).await.expect("one that is not there is no error");
    let target = client.to_exchange(&fanout, "");
    assert_eq!(client.expect_refusal(&Letters::confirmed(target, [1])).await.0, 404);
}

/// AMQP 0-9-1 §3.1.3.3: the topic exchange that is the address space, which every back end has.
pub async fn addresses_reach_queues_by_their_bindings(stage: &Stage<'_>) {
    let mut client = stage.client().await;
    let queues = queues(stage, &mut client, 3).await;
    let root = stage.name("r").replace('.', "-");
    for (queue, key) in [(0, "a.*.c"), (1, "a.#"), (2, "#.c")] {
        client.bind_queue("amq.topic", &queues[queue], &format!("{root}.{key}")).await;
    }
    for (topic, expected) in
        [("a/b/c", &[0, 1, 2][..]), ("a", &[1]), ("c", &[2]), ("a/b/b/c", &[1, 2]), ("b/b", &[])]
    {
        let target = client.to_topic(&format!("{root}/{topic}"));
        client.confirm(&Letters::confirmed(target, [1])).await;
        stage.settle_down().await;
        assert_eq!(with_messages(&mut client, &queues).await, expected, "{topic}");
    }
    let key = format!("{root}.a.#");
    let to = BindingEnd::Queue(&queues[1]);
    let binding = Binding { source: "amq.topic", to, key: key.as_bytes(), arguments: &[] };
    client.unbind(&binding).await.expect("a binding is undone");
    client.unbind(&binding).await.expect("one that is not there is no error");
    let target = client.to_topic(&format!("{root}/a/b/c"));
    client.confirm(&Letters::confirmed(target, [1])).await;
    stage.settle_down().await;
    assert_eq!(with_messages(&mut client, &queues).await, [0, 2]);
}

/// Headers exchanges look at each message.
pub async fn headers_decide_message_by_message(stage: &Stage<'_>) {
    if !stage.can(|it| it.exchanges) {
        return;
    }
    let mut client = stage.client().await;
    let queues = queues(stage, &mut client, 2).await;
    let name = stage.name("headers");
    client.declare_exchange(&exchange(&name, ExchangeKind::Headers)).await.expect("an exchange is declared");
    for (queue, arguments) in [
        (0, vec![("x-match", Value::Text("all".into())), ("a", Value::I32(1)), ("b", Value::I32(2))]),
        (1, vec![("x-match", Value::Text("any".into())), ("a", Value::I32(1)), ("c", Value::Void)]),
    ] {
        let to = BindingEnd::Queue(&queues[queue]);
        let binding = Binding { source: &name, to, key: b"", arguments: &arguments };
        client.bind(&binding).await.expect("a queue is bound");
    }
    let target = client.to_exchange(&name, "");
    let plain = |number| Letter::numbered(target, number).confirmed();
    let letters: Letters = [
        plain(0).header("a", Value::I32(1)).header("b", Value::I64(2)),
        plain(1),
        plain(2).header("c", Value::Text("there".into())),
    ]
    .into_iter()
    .collect();
    assert_eq!(client.confirm(&letters).await, [(1, Outcome::Unroutable)]);
    for (number, queue, expected) in [(1, 0, &[0][..]), (2, 1, &[0, 2])] {
        client.consume(&queues[queue], number, 0).await;
        client.expect_numbers(expected.iter().copied()).await;
    }
}

/// RabbitMQ's exchange-to-exchange bindings and `alternate-exchange`.
pub async fn exchanges_lead_to_exchanges_and_to_alternates(stage: &Stage<'_>) {
    if !stage.can(|it| it.exchanges) {
        return;
    }
    let mut client = stage.client().await;
    let queues = queues(stage, &mut client, 2).await;
    let [first, second, rest] = ["first", "second", "rest"].map(|name| stage.name(name));
    client.declare_exchange(&exchange(&rest, ExchangeKind::Fanout)).await.expect("an exchange is declared");
    let alternate = [("alternate-exchange", Value::Text(rest.clone().into()))];
    let spec = ExchangeSpec { arguments: &alternate, ..exchange(&first, ExchangeKind::Topic) };
    client.declare_exchange(&spec).await.expect("an exchange is declared");
    let inside = ExchangeSpec { internal: true, ..exchange(&second, ExchangeKind::Direct) };
    client.declare_exchange(&inside).await.expect("an exchange is declared");
    for (source, to, key) in
        [(&first, BindingEnd::Exchange(&second), "a.*"), (&second, BindingEnd::Exchange(&first), "a.b")]
    {
        let binding = Binding { source, to, key: key.as_bytes(), arguments: &[] };
        client.bind(&binding).await.expect("an exchange is bound, in a circle, too");
    }
    client.bind_queue(&second, &queues[0], "a.b").await;
    client.bind_queue(&rest, &queues[1], "").await;
    assert_eq!(reached(&mut client, &first, "a.b", &queues).await, [0]);
    assert_eq!(reached(&mut client, &first, "nowhere", &queues).await, [1], "the alternate takes the rest");
    let target = client.to_exchange(&second, "a.b");
    let (code, text) = client.expect_refusal(&Letters::confirmed(target, [1])).await;
    assert!(
        code == 403 && text.contains("internal"),
        "an internal exchange takes nothing from clients: {code} {text}"
    );
}

/// However many bindings match.
pub async fn a_queue_gets_a_message_once(stage: &Stage<'_>) {
    let mut client = stage.client().await;
    let queues = queues(stage, &mut client, 1).await;
    let root = stage.name("r").replace('.', "-");
    for pattern in ["#", "*", "b", "b"] {
        client.bind_queue("amq.topic", &queues[0], &format!("{root}.{pattern}")).await;
    }
    let target = client.to_topic(&format!("{root}/b"));
    client.confirm(&Letters::confirmed(target, [1])).await;
    stage.settle_down().await;
    assert_eq!(with_messages(&mut client, &queues).await, [0]);
}

/// AMQP 0-9-1 §1.8.3.3: a missing exchange is an error of the channel.
pub async fn a_missing_exchange_ends_the_batch(stage: &Stage<'_>) {
    let mut client = stage.client().await;
    let queues = queues(stage, &mut client, 1).await;
    let missing = stage.name("none");
    let (good, bad) = (client.to_queue(&queues[0]), client.to_exchange(&missing, "k"));
    let letters: Letters = [good, good, bad, good]
        .iter()
        .zip(0..)
        .map(|(to, it)| Letter::numbered(*to, it).confirmed())
        .collect();
    if stage.is_remote() {
        let (code, text) = client.expect_refusal(&letters).await;
        assert!(code == 404 && text.contains(&format!("no exchange '{missing}'")), "{code} {text}");
        stage.settle_down().await;
    } else {
        let published = client.publish(&letters);
        assert_eq!((published.taken, published.wanting), (2, 2));
        let expected = Refused::NotFound { what: What::Exchange, name: missing };
        assert_eq!(published.exceptions.last(), Some(&(2, Outcome::Refused(expected))));
    }
    let counts = client.declare_queue(&queue_spec(&queues[0], &[])).await.expect("the queue is there");
    assert_eq!(counts.messages, 2);
}

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
