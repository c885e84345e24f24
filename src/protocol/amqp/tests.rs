//! The codec as a whole: against the standard's table, against captures of other codecs' bytes, and against itself.

mod captures;
mod errors;
mod fields;
mod frames;
mod generate;
mod messages;
mod methods;
mod standard;

use super::Limits;

/// No bound worth a name.
const ROOMY: Limits = Limits { frame_max: 131_072, body_max: 1 << 20 };
