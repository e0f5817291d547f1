//! The op codec: records, templates and replies to and from bytes, as docs/wire.md specifies them.
//!
//! It does no I/O, keeps no time and starts no thread. An [`OpEncoder`] and a [`Decoder`] are the two ends of one
//! session's stream and hold the same state (template slots, newest storage id), which is never sent.

mod call;
mod decode;
mod encode;
pub mod frame;
mod geometry;
pub(crate) mod parcel;
pub mod raw;
mod record;
mod reply;
mod scalar;
mod slots;
mod template;
mod varint;

pub use call::Method;
pub use decode::{Batch, Decoder};
pub use encode::OpEncoder;
pub use geometry::{Geometry, item_bytes};
pub use parcel::Part;
pub use record::Record;
pub use reply::Reply;
pub use template::{Arg, Template, TemplateKind};
