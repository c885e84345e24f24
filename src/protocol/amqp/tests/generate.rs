//! Encoded bytes of every kind, made without the codec's own encoders.

use proptest::{collection::vec, prelude::*};

use super::standard::{METHODS, Row};

/// A field value as a tree of raw bytes.
#[derive(Clone, Debug)]
enum Tree {
    Leaf(Vec<u8>),
    Table(Vec<(Vec<u8>, Tree)>),
    Array(Vec<Tree>),
}

fn long(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u32).to_be_bytes()[..], bytes].concat()
}

fn short(bytes: &[u8]) -> Vec<u8> {
    [&[bytes.len() as u8], bytes].concat()
}

impl Tree {
    fn encode(&self) -> Vec<u8> {
        match self {
            Self::Leaf(bytes) => bytes.clone(),
            Self::Table(entries) => [b"F".to_vec(), long(&encode_entries(entries))].concat(),
            Self::Array(values) => {
                [b"A".to_vec(), long(&values.iter().flat_map(Tree::encode).collect::<Vec<_>>())].concat()
            }
        }
    }
}

fn encode_entries(entries: &[(Vec<u8>, Tree)]) -> Vec<u8> {
    entries.iter().flat_map(|(name, tree)| [short(name), tree.encode()].concat()).collect()
}

fn fixed(kind: u8, len: usize) -> impl Strategy<Value = Tree> {
    vec(any::<u8>(), len).prop_map(move |bytes| Tree::Leaf([vec![kind], bytes].concat()))
}

fn tree() -> impl Strategy<Value = Tree> {
    let bytes = |kind: u8| {
        vec(any::<u8>(), 0..12).prop_map(move |bytes| Tree::Leaf([vec![kind], long(&bytes)].concat()))
    };
    let leaf = prop_oneof![
        any::<bool>().prop_map(|value| Tree::Leaf(vec![b't', u8::from(value)])),
        fixed(b'b', 1),
        fixed(b'B', 1),
        fixed(b's', 2),
        fixed(b'u', 2),
        fixed(b'I', 4),
        fixed(b'i', 4),
        fixed(b'l', 8),
        fixed(b'f', 4),
        fixed(b'd', 8),
        fixed(b'D', 5),
        fixed(b'T', 8),
        fixed(b'V', 0),
        bytes(b'S'),
        bytes(b'x'),
    ];
    leaf.prop_recursive(5, 24, 4, |inner| {
        prop_oneof![
            vec((vec(any::<u8>(), 0..8), inner.clone()), 0..4).prop_map(Tree::Table),
            vec(inner, 0..4).prop_map(Tree::Array),
        ]
    })
}

/// The encoded entries of a table.
pub(super) fn table() -> impl Strategy<Value = Vec<u8>> {
    let name =
        prop_oneof![8 => vec(any::<u8>(), 0..10), 1 => Just(b"CC".to_vec()), 1 => Just(vec![b'n'; 255])];
    vec((name, tree()), 0..5).prop_map(|entries| encode_entries(&entries))
}

/// A field of a method: whole octets, or a bit that shares one with its neighbours.
#[derive(Clone, Debug)]
enum Field {
    Octets(Vec<u8>),
    Bit(bool),
}

fn text() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        8 => vec(any::<char>(), 0..20).prop_map(|chars| chars.into_iter().collect::<String>().into_bytes()),
        1 => Just(vec![b'x'; 255]),
    ]
}

/// `name:type` of the standard's table; with `raw`, short strings are any bytes.
fn field(name_and_type: &str, reserved: bool, raw: bool) -> BoxedStrategy<Field> {
    let octets = |len: usize| vec(any::<u8>(), len).boxed();
    let kind = name_and_type.split_once(':').expect("name:type").1;
    let bytes = match (kind, reserved) {
        ("bit", true) => return Just(Field::Bit(false)).boxed(),
        ("bit", false) => return any::<bool>().prop_map(Field::Bit).boxed(),
        ("octet", _) => octets(1),
        ("short", false) => octets(2),
        ("long", _) => octets(4),
        ("longlong" | "timestamp", _) => octets(8),
        ("table", _) => table().prop_map(|entries| long(&entries)).boxed(),
        ("shortstr", false) if raw => vec(any::<u8>(), 0..40).prop_map(|bytes| short(&bytes)).boxed(),
        ("shortstr", false) => text().prop_map(|text| short(&text)).boxed(),
        ("longstr", false) => vec(any::<u8>(), 0..300).prop_map(|bytes| long(&bytes)).boxed(),
        ("short", true) => Just(vec![0; 2]).boxed(),
        ("shortstr", true) => Just(vec![0]).boxed(),
        ("longstr", true) => Just(vec![0; 4]).boxed(),
        other => panic!("the standard has no {other:?}"),
    };
    bytes.prop_map(Field::Octets).boxed()
}

/// Fields that 0-9-1 keeps in the bytes and gives no meaning.
pub(super) fn is_reserved(row: &Row, name: &str) -> bool {
    match name {
        "ticket" => row.2 != "access.request-ok",
        "capabilities" | "insist" | "known-hosts" | "out-of-band" | "channel-id" => true,
        "cluster-id" => row.2 == "basic.get-empty",
        _ => false,
    }
}

/// The payload of a method frame for one row of the standard's table.
pub(super) fn method_of(row: &'static Row) -> BoxedStrategy<Vec<u8>> {
    let fields = row.4.split_whitespace().map(|field_text| {
        let name = field_text.split_once(':').expect("name:type").0;
        let raw = row.3 && name != "reply-text";
        field(field_text, is_reserved(row, name), raw)
    });
    fields
        .collect::<Vec<_>>()
        .prop_map(|fields| {
            let mut payload = [row.0.to_be_bytes(), row.1.to_be_bytes()].concat();
            let mut bits = 0;
            for field in fields {
                match field {
                    Field::Octets(octets) => {
                        bits = 0;
                        payload.extend(octets);
                    }
                    Field::Bit(bit) => {
                        if bits == 0 {
                            payload.push(0);
                        }
                        *payload.last_mut().expect("just pushed") |= u8::from(bit) << bits;
                        bits += 1;
                    }
                }
            }
            payload
        })
        .boxed()
}

/// The payload of any method frame, with the standard's row of it.
pub(super) fn method() -> impl Strategy<Value = (&'static Row, Vec<u8>)> {
    (0..METHODS.len()).prop_flat_map(|at| (Just(&METHODS[at]), method_of(&METHODS[at])))
}

/// Encoded properties, with any set of them.
pub(super) fn properties() -> impl Strategy<Value = Vec<u8>> {
    let all: Vec<_> =
        super::standard::PROPERTIES.split_whitespace().map(|property| field(property, false, true)).collect();
    (any::<u16>(), all).prop_map(|(chosen, values)| {
        let mut flags = 0;
        let mut list = vec![];
        for (at, value) in values.into_iter().enumerate() {
            let flag = 0x8000 >> at;
            if let (true, Field::Octets(octets)) = (chosen & flag != 0, value) {
                flags |= flag;
                list.extend(octets);
            }
        }
        [flags.to_be_bytes().to_vec(), list].concat()
    })
}

/// A frame around a payload.
pub(super) fn frame(kind: u8, channel: u16, payload: &[u8]) -> Vec<u8> {
    [&[kind][..], &channel.to_be_bytes(), &(payload.len() as u32).to_be_bytes(), payload, &[0xCE]].concat()
}

/// A published message, its parts and the frames that carry them.
#[derive(Clone, Debug)]
pub(super) struct Message {
    pub(super) channel: u16,
    pub(super) method: Vec<u8>,
    pub(super) properties: Vec<u8>,
    pub(super) body: Vec<u8>,
    /// The longest body chunk.
    pub(super) cut: usize,
}

impl Message {
    pub(super) fn wire(&self) -> Vec<u8> {
        let size = (self.body.len() as u64).to_be_bytes();
        let header = [&[0, 60, 0, 0][..], &size, &self.properties].concat();
        let mut wire = frame(1, self.channel, &self.method);
        wire.extend(frame(2, self.channel, &header));
        for chunk in self.body.chunks(self.cut) {
            wire.extend(frame(3, self.channel, chunk));
        }
        wire
    }
}

/// Any published message.
pub(super) fn message() -> impl Strategy<Value = Message> {
    let publish = METHODS.iter().find(|row| row.2 == "basic.publish").expect("basic.publish is in the table");
    let cut = prop_oneof![Just(1000usize), 1usize..60];
    (1..=u16::MAX, method_of(publish), properties(), vec(any::<u8>(), 0..100), cut).prop_map(
        |(channel, method, properties, body, cut)| Message { channel, method, properties, body, cut },
    )
}

/// What a peer may send in a row: methods without content, messages, heartbeats.
pub(super) fn traffic() -> impl Strategy<Value = Vec<u8>> {
    let plain = (any::<u16>(), method())
        .prop_map(|(channel, (row, payload))| if row.3 { vec![] } else { frame(1, channel, &payload) });
    let part = prop_oneof![plain, message().prop_map(|message| message.wire()), Just(frame(8, 0, &[]))];
    vec(part, 0..5).prop_map(|parts| parts.concat())
}

/// Traffic with a few octets changed, dropped or doubled.
pub(super) fn mutated() -> impl Strategy<Value = Vec<u8>> {
    (traffic(), vec((any::<prop::sample::Index>(), any::<u8>(), 0..4u8), 0..6)).prop_map(
        |(mut bytes, changes)| {
            for (at, octet, change) in changes {
                if bytes.is_empty() {
                    break;
                }
                let at = at.index(bytes.len());
                match change {
                    0 => {
                        bytes.remove(at);
                    }
                    1 => bytes.insert(at, octet),
                    2 => bytes.truncate(at),
                    _ => bytes[at] = octet,
                }
            }
            bytes
        },
    )
}
