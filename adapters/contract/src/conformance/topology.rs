//! Where exchanges and bindings that clients declared lead a message.

use crate::conformance::letters::{Letter, Letters};
use crate::conformance::stage::{Peer, Stage, queue_spec};
use crate::receipt::Outcome;
use crate::refusal::{Refused, What};
use crate::topology::{Binding, BindingEnd, ExchangeKind, ExchangeSpec};
use crate::value::Value;

pub(super) fn exchange(name: &str, kind: ExchangeKind) -> ExchangeSpec<'_> {
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

pub(super) async fn queues(stage: &Stage<'_>, client: &mut Peer<'_>, count: usize) -> Vec<String> {
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
