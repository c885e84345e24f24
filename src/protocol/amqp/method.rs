//! Methods (standard §2.2.4): the enum over all classes, and the table that each class is written as.

use std::fmt;

use super::{
    Error, access::Access, basic::Basic, channel::Channel, confirm::Confirm, connection::Connection,
    exchange::Exchange, frame, queue::Queue, tx::Tx,
};

/// Class and method numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct MethodId {
    /// The class, 60 for `basic`.
    pub class: u16,
    /// The method in its class, 40 for `publish`.
    pub method: u16,
}

impl MethodId {
    #[inline]
    pub(super) fn to_be_bytes(self) -> [u8; 4] {
        let [c0, c1] = self.class.to_be_bytes();
        let [m0, m1] = self.method.to_be_bytes();
        [c0, c1, m0, m1]
    }
}

impl fmt::Display for MethodId {
    /// `basic.publish`; the numbers if there is no such method.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match name(*self) {
            Some(name) => f.write_str(name),
            None => write!(f, "{}.{}", self.class, self.method),
        }
    }
}

/// Declares a class as the standard's table does: number, name, and per method its number, name and fields in order.
///
/// `_ type` is a reserved field, written empty and ignored when read. `[a, b]` are successive bits, which share an
/// octet. `with content` says that a content header and a body follow.
macro_rules! methods {
    (
        $(#[$class_doc:meta])*
        class $class:literal $class_name:literal $Class:ident $(<$lt:lifetime>)?;
        $(
            $(#[$doc:meta])*
            $id:literal $name:literal $Type:ident $(<$tlt:lifetime>)? $(with $content:ident)? {
                $(
                    $(_ $reserved:ident)?
                    $([ $($(#[$bit_doc:meta])* $bit:ident),+ ])?
                    $($(#[$field_doc:meta])* $field:ident : $ty:ty)?
                ;)*
            }
        )+
    ) => {
        $(
            $(#[$doc])*
            #[derive(Clone, Copy, Debug, PartialEq, Eq)]
            pub struct $Type $(<$tlt>)? {
                $(
                    $($(
                        #[doc = concat!("Bit `", stringify!($bit), "`.")]
                        #[doc = ""]
                        $(#[$bit_doc])*
                        pub $bit: bool,
                    )+)?
                    $(
                        #[doc = concat!("Field `", stringify!($field), "`.")]
                        #[doc = ""]
                        $(#[$field_doc])*
                        pub $field: $ty,
                    )?
                )*
            }

            impl $(<$tlt>)? $Type $(<$tlt>)? {
                /// Its class and method numbers.
                pub const ID: $crate::protocol::amqp::MethodId =
                    $crate::protocol::amqp::MethodId { class: $class, method: $id };

                /// Appends it as a method frame on `channel`.
                pub fn encode(&self, channel: u16, out: &mut Vec<u8>) {
                    $crate::protocol::amqp::frame::encode_method(channel, Self::ID, out, |_out| {
                        $(
                            $($crate::protocol::amqp::field::Field::write(
                                <$reserved as $crate::protocol::amqp::field::Field>::RESERVED,
                                _out,
                            );)?
                            $(
                                let mut bits = $crate::protocol::amqp::field::Bits::default();
                                $(bits.push(self.$bit);)+
                                bits.write(_out);
                            )?
                            $($crate::protocol::amqp::field::Field::write(self.$field, _out);)?
                        )*
                    });
                }
            }

            impl<'a> $crate::protocol::amqp::method::Arguments<'a> for $Type $(<$tlt>)? {
                #[inline]
                fn read(
                    _reader: &mut $crate::protocol::amqp::reader::Reader<'a>,
                ) -> Result<Self, $crate::protocol::amqp::Malformed> {
                    $(
                        $(<$reserved as $crate::protocol::amqp::field::Field>::read(_reader)?;)?
                        $(
                            let mut bits = $crate::protocol::amqp::field::Bits::read(_reader)?;
                            $(let $bit = bits.next();)+
                        )?
                        $(let $field = $crate::protocol::amqp::field::Field::read(_reader)?;)?
                    )*
                    Ok(Self { $($($($bit,)+)? $($field,)?)* })
                }
            }
        )+

        $(#[$class_doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $Class $(<$lt>)? {
            $($(#[$doc])* $Type($Type $(<$tlt>)?),)+
        }

        impl $(<$lt>)? $Class $(<$lt>)? {
            /// Its class and method numbers.
            pub fn id(&self) -> $crate::protocol::amqp::MethodId {
                match self {
                    $(Self::$Type(_) => $Type::ID,)+
                }
            }

            /// Appends it as a method frame on `channel`.
            pub fn encode(&self, channel: u16, out: &mut Vec<u8>) {
                match self {
                    $(Self::$Type(method) => method.encode(channel, out),)+
                }
            }

            /// Whether a content header and a body follow it.
            pub fn has_content(&self) -> bool {
                match self {
                    $(Self::$Type(_) => $crate::protocol::amqp::method::methods!(@content $($content)?),)+
                }
            }

            /// The standard's name of a method of this class.
            pub(super) fn name(method: u16) -> Option<&'static str> {
                match method {
                    $($id => Some(concat!($class_name, ".", $name)),)+
                    _ => None,
                }
            }
        }

        impl<'a> $crate::protocol::amqp::method::Class<'a> for $Class $(<$lt>)? {
            #[inline]
            fn read(
                method: u16,
                reader: &mut $crate::protocol::amqp::reader::Reader<'a>,
            ) -> Option<Result<Self, $crate::protocol::amqp::Malformed>> {
                match method {
                    $($id => Some($crate::protocol::amqp::method::Arguments::read(reader).map(Self::$Type)),)+
                    _ => None,
                }
            }
        }

        $(
            impl<'a> From<$Type $(<$tlt>)?> for $crate::protocol::amqp::Method<'a> {
                fn from(method: $Type $(<$tlt>)?) -> Self {
                    Self::$Class($Class::$Type(method))
                }
            }
        )+
    };
    (@content content) => { true };
    (@content) => { false };
}
pub(super) use methods;

/// The fields of one method.
pub(super) trait Arguments<'a>: Sized {
    fn read(reader: &mut super::reader::Reader<'a>) -> Result<Self, super::Malformed>;
}

/// The methods of one class.
pub(super) trait Class<'a>: Sized {
    /// `None` when the class has no such method.
    fn read(method: u16, reader: &mut super::reader::Reader<'a>) -> Option<Result<Self, super::Malformed>>;
}

macro_rules! classes {
    ($($id:literal $Class:ident $(<$lt:lifetime>)?)+) => {
        /// Any method, borrowing its strings and tables from the bytes that it was decoded from.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Method<'a> {
            $(
                #[doc = concat!("A method of class ", stringify!($id), ".")]
                $Class($Class $(<$lt>)?),
            )+
        }

        impl<'a> Method<'a> {
            /// Decodes the payload of a method frame.
            pub fn decode(payload: &'a [u8]) -> Result<Self, Error> {
                let (id, mut reader) = frame::split_method(payload).ok_or(Error::UnknownFrame { kind: 1 })?;
                let arguments = reader.rest();
                let read = match id.class {
                    $($id => Class::read(id.method, &mut reader).map(|read| read.map(Self::$Class)),)+
                    _ => None,
                };
                let Some(read) = read else { return Err(Error::UnknownMethod { method: id }) };
                let finished = read.and_then(|method| reader.finish().map(|()| method));
                finished.map_err(|why| Error::arguments(id, why, arguments))
            }

            /// Its class and method numbers.
            pub fn id(&self) -> MethodId {
                match self {
                    $(Self::$Class(method) => method.id(),)+
                }
            }

            /// Appends it as a method frame on `channel`.
            pub fn encode(&self, channel: u16, out: &mut Vec<u8>) {
                match self {
                    $(Self::$Class(method) => method.encode(channel, out),)+
                }
            }

            /// Whether a content header and a body follow it.
            pub fn has_content(&self) -> bool {
                match self {
                    $(Self::$Class(method) => method.has_content(),)+
                }
            }
        }

        fn name(id: MethodId) -> Option<&'static str> {
            match id.class {
                $($id => $Class::name(id.method),)+
                _ => None,
            }
        }
    };
}

classes! {
    10 Connection<'a>
    20 Channel<'a>
    30 Access<'a>
    40 Exchange<'a>
    50 Queue<'a>
    60 Basic<'a>
    85 Confirm
    90 Tx
}
