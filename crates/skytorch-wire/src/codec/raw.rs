//! Unsafe code of the codec: the structs of the C ABI, which hold raw pointers, to and from the safe types.
//!
//! Nothing is decided here that bytes from the network could reach: what comes from C is the project's own C++, and
//! is still checked for structure, so that a mistake there is an error and not undefined behaviour.
#![allow(unsafe_code)]

use super::decode::Decoder;
use super::geometry::Geometry;
use super::parcel::Part;
use super::record::Record;
use super::reply::Reply;
use super::template::{Arg, Template, TemplateKind};
use crate::abi::*;
use crate::error::{Result, WireError};
use crate::limits;
use std::ptr;

// SAFETY: the raw pointers in a decoder lead into buffers that the same decoder owns, or into a message that the
// borrow returned by `decode` keeps alive. None is followed by the decoder itself, and moving it moves no buffer.
unsafe impl Send for Decoder {}

/// `n` values at `data`, which may be null if there are none.
///
/// # Safety
/// `data` points to `n` valid values, aligned, that live and do not change for `'a`.
pub unsafe fn slice<'a, T>(data: *const T, n: usize) -> &'a [T] {
    match n {
        0 => &[],
        // SAFETY: the caller's promise.
        _ => unsafe { std::slice::from_raw_parts(data, n) },
    }
}

/// Borrowed bytes as a slice.
///
/// # Safety
/// As [`slice`].
pub unsafe fn bytes<'a>(bytes: SkyBytes) -> &'a [u8] {
    // SAFETY: the caller's promise.
    unsafe { slice(bytes.data, bytes.size as usize) }
}

// --- From C -----------------------------------------------------------------------------------------------------

/// The template that C++ hands over, checked.
///
/// # Safety
/// `template` and everything that it points to is valid and does not change during the call.
pub unsafe fn template(template: *const SkyTemplate) -> Result<Template> {
    // SAFETY: the caller's promise.
    let raw = unsafe { &*template };
    let kind = match raw.kind {
        SKY_TEMPLATE_OP => TemplateKind::Op,
        SKY_TEMPLATE_READ => TemplateKind::Read,
        SKY_TEMPLATE_WRITE => TemplateKind::Write,
        other => return Err(WireError::argument(format!("template kind {other} means nothing"))),
    };
    at_most(raw.name.size, limits::NAME_BYTES, "bytes in an operator's name")?;
    at_most(raw.n_args.into(), limits::TEMPLATE_ARGS, "arguments in a template")?;
    at_most(raw.n_outputs.into(), limits::TEMPLATE_OUTPUTS, "outputs in a template")?;
    // SAFETY: the caller's promise; the counts are within limits.
    let (name, mut rest, outputs) = unsafe {
        (text(raw.name)?, slice(raw.args, raw.n_args as usize), slice(raw.outputs, raw.n_outputs as usize))
    };
    let mut args = Vec::with_capacity(rest.len());
    while !rest.is_empty() {
        // SAFETY: the caller's promise holds for every element.
        args.push(unsafe { arg(&mut rest, 0)? });
    }
    // SAFETY: as above.
    let outputs = outputs.iter().map(|g| unsafe { geometry(g) }).collect::<Result<_>>()?;
    let template =
        Template { kind, layout: raw.layout, device: raw.device, name, args, outputs, n_storages: raw.n_storages };
    let n_scalars = template.scalar_kinds().len();
    if n_scalars != raw.n_scalars as usize {
        let said = raw.n_scalars;
        return Err(WireError::argument(format!(
            "template {:?} says that it takes {said} scalars, its arguments say {n_scalars}",
            template.name
        )));
    }
    template.check()?;
    Ok(template)
}

/// Takes one argument, with its elements if it is a list, off the front of a flat list.
///
/// # Safety
/// As [`template`].
unsafe fn arg(rest: &mut &[SkyArg], depth: usize) -> Result<Arg> {
    let Some((raw, after)) = rest.split_first() else {
        return Err(WireError::argument("list in a template has fewer elements than it says"));
    };
    *rest = after;
    // SAFETY of the blocks below: the caller's promise; counts are compared with limits first.
    Ok(match raw.kind {
        SKY_ARG_NONE => Arg::None,
        SKY_ARG_TENSOR => Arg::Tensor {
            storage: u32::try_from(raw.integer).map_err(|_| WireError::argument("storage index does not fit"))?,
            // SAFETY: see above.
            geometry: unsafe { geometry(&raw.geometry)? },
        },
        SKY_ARG_CPU_SCALAR => Arg::CpuScalar { dtype: byte(raw)?, wrapped: raw.flag != 0 },
        SKY_ARG_INT => Arg::Int(raw.integer),
        SKY_ARG_BOOL => Arg::Bool(raw.integer != 0),
        SKY_ARG_DOUBLE => Arg::Double(raw.real),
        SKY_ARG_DOUBLE_SLOT => Arg::DoubleSlot,
        SKY_ARG_SCALAR_SLOT => Arg::ScalarSlot(byte(raw)?),
        SKY_ARG_SCALAR => Arg::Scalar(scalar(raw)),
        SKY_ARG_STRING => {
            at_most(raw.bytes.size, limits::STRING_BYTES, "bytes in a string")?;
            // SAFETY: see above.
            Arg::String(unsafe { text(raw.bytes)? })
        }
        SKY_ARG_INT_LIST => {
            // SAFETY: see above.
            let list = unsafe { elements::<8>(raw)? };
            Arg::IntList(list.iter().map(|b| i64::from_le_bytes(*b)).collect())
        }
        SKY_ARG_DOUBLE_LIST => {
            // SAFETY: see above.
            let list = unsafe { elements::<8>(raw)? };
            Arg::DoubleList(list.iter().map(|b| f64::from_le_bytes(*b)).collect())
        }
        SKY_ARG_BOOL_LIST => {
            // SAFETY: see above.
            let list = unsafe { elements::<1>(raw)? };
            Arg::BoolList(list.iter().map(|&[b]| b != 0).collect())
        }
        SKY_ARG_DTYPE => Arg::Dtype(byte(raw)?),
        SKY_ARG_LAYOUT => Arg::Layout(byte(raw)?),
        SKY_ARG_MEMORY_FORMAT => Arg::MemoryFormat(byte(raw)?),
        SKY_ARG_DEVICE => Arg::Device(byte(raw)?),
        SKY_ARG_GENERATOR => Arg::Generator,
        SKY_ARG_LIST => {
            at_most(depth as u64 + 1, limits::LIST_NESTING, "lists inside each other")?;
            let n = raw.count as usize;
            at_most(n as u64, rest.len(), "elements of a list among the arguments that are left")?;
            // SAFETY: see above.
            let items = (0..n).map(|_| unsafe { arg(rest, depth + 1) }).collect::<Result<_>>()?;
            Arg::List { optional: raw.flag != 0, items }
        }
        other => return Err(WireError::argument(format!("argument kind {other} means nothing"))),
    })
}

fn at_most(n: u64, limit: usize, what: &'static str) -> Result<()> {
    match n <= limit as u64 {
        true => Ok(()),
        false => Err(WireError::limit(format!("{n} {what}: the limit is {limit}"))),
    }
}

/// `integer` of an argument whose value is a byte.
fn byte(raw: &SkyArg) -> Result<u8> {
    u8::try_from(raw.integer)
        .map_err(|_| WireError::argument(format!("value {} of argument kind {} is no byte", raw.integer, raw.kind)))
}

fn scalar(raw: &SkyArg) -> SkyScalar {
    let (kind, zero) = (raw.flag, SkyScalar::default());
    match kind {
        SKY_SCALAR_FLOAT => SkyScalar { kind, real: raw.real, ..zero },
        SKY_SCALAR_COMPLEX => SkyScalar { kind, real: raw.real, imag: raw.imag, ..zero },
        SKY_SCALAR_BOOL => SkyScalar { kind, integer: (raw.integer != 0).into(), ..zero },
        _ => SkyScalar { kind, integer: raw.integer, ..zero },
    }
}

/// # Safety
/// As [`slice`].
unsafe fn text(raw: SkyBytes) -> Result<String> {
    // SAFETY: the caller's promise.
    let bytes = unsafe { bytes(raw) };
    match std::str::from_utf8(bytes) {
        Ok(text) => Ok(text.to_owned()),
        Err(_) => Err(WireError::argument("string in a template is not UTF-8")),
    }
}

/// The elements of a list argument, each of `N` bytes; not necessarily aligned.
///
/// # Safety
/// As [`slice`].
unsafe fn elements<'a, const N: usize>(raw: &SkyArg) -> Result<&'a [[u8; N]]> {
    at_most(raw.count.into(), limits::LIST_ELEMENTS, "elements in a list")?;
    if raw.bytes.size != u64::from(raw.count) * N as u64 {
        let (count, size) = (raw.count, raw.bytes.size);
        return Err(WireError::argument(format!("list of {count} elements of {N} bytes has {size} bytes")));
    }
    // SAFETY: the caller's promise; an array of bytes has no alignment.
    Ok(unsafe { slice(raw.bytes.data.cast::<[u8; N]>(), raw.count as usize) })
}

/// # Safety
/// `sizes` and `strides` point to `ndim` values each.
unsafe fn geometry(raw: &SkyGeometry) -> Result<Geometry> {
    let n = usize::from(raw.ndim);
    at_most(n as u64, limits::DIMS, "dimensions")?;
    // SAFETY: the caller's promise.
    let (sizes, strides) = unsafe { (slice(raw.sizes, n), slice(raw.strides, n)) };
    Ok(Geometry {
        dtype: raw.dtype,
        flags: raw.flags,
        offset: raw.offset,
        sizes: sizes.to_vec(),
        strides: strides.to_vec(),
    })
}

/// The reply that C++ hands over. Checked when it is encoded.
///
/// # Safety
/// `reply` and everything that it points to is valid and does not change during the call.
pub unsafe fn reply(reply: *const SkyReply) -> Result<Reply> {
    // SAFETY: the caller's promise.
    let raw = unsafe { &*reply };
    at_most(raw.n_geometries.into(), limits::TEMPLATE_OUTPUTS, "outputs in a reply")?;
    at_most(raw.n_values.into(), limits::TEMPLATE_OUTPUTS, "values in a reply")?;
    at_most(raw.bytes.size, limits::REPLY_BODY_BYTES, "bytes in a reply")?;
    // SAFETY: the caller's promise; the counts are within limits.
    let (geometries, values, bytes) = unsafe {
        (slice(raw.geometries, raw.n_geometries as usize), slice(raw.values, raw.n_values as usize), bytes(raw.bytes))
    };
    Ok(Reply {
        // SAFETY: the caller's promise.
        geometries: geometries.iter().map(|g| unsafe { geometry(g) }).collect::<Result<_>>()?,
        values: values.to_vec(),
        bytes: bytes.to_vec(),
    })
}

// --- To C -------------------------------------------------------------------------------------------------------

fn raw_geometry(geometry: &Geometry) -> SkyGeometry {
    SkyGeometry {
        dtype: geometry.dtype,
        ndim: geometry.sizes.len() as u8,
        flags: geometry.flags,
        offset: geometry.offset,
        sizes: geometry.sizes.as_ptr(),
        strides: geometry.strides.as_ptr(),
    }
}

fn raw_bytes<T>(values: &[T]) -> SkyBytes {
    SkyBytes { data: values.as_ptr().cast(), size: size_of_val(values) as u64 }
}

const NO_GEOMETRY: SkyGeometry =
    SkyGeometry { dtype: 0, ndim: 0, flags: 0, offset: 0, sizes: ptr::null(), strides: ptr::null() };
const NO_ARG: SkyArg = SkyArg {
    kind: SKY_ARG_NONE,
    flag: 0,
    count: 0,
    integer: 0,
    real: 0.0,
    imag: 0.0,
    bytes: SkyBytes { data: ptr::null(), size: 0 },
    geometry: NO_GEOMETRY,
};

/// A template with the struct that C++ sees. The struct comes first, so that a pointer to one is a pointer to both;
/// its pointers lead into buffers on the heap, which stay where they are when this value moves.
#[repr(C)]
pub(super) struct RawTemplate {
    sky: SkyTemplate,
    args: Vec<SkyArg>,
    outputs: Vec<SkyGeometry>,
    owned: Template,
}

impl RawTemplate {
    pub(super) fn new(owned: Template) -> RawTemplate {
        let mut args = Vec::with_capacity(owned.flat_args());
        owned.args.iter().for_each(|arg| flatten(&mut args, arg));
        let outputs: Vec<_> = owned.outputs.iter().map(raw_geometry).collect();
        let sky = SkyTemplate {
            kind: owned.kind as u8,
            layout: owned.layout,
            device: owned.device,
            name: raw_bytes(owned.name.as_bytes()),
            args: args.as_ptr(),
            n_args: args.len() as u32,
            outputs: outputs.as_ptr(),
            n_outputs: outputs.len() as u32,
            n_storages: owned.n_storages,
            n_scalars: owned.scalar_kinds().len() as u32,
        };
        RawTemplate { sky, args, outputs, owned }
    }
}

fn flatten(out: &mut Vec<SkyArg>, arg: &Arg) {
    let empty = SkyArg { kind: arg.kind(), ..NO_ARG };
    out.push(match arg {
        Arg::None | Arg::DoubleSlot | Arg::Generator => empty,
        Arg::Tensor { storage, geometry } => {
            SkyArg { integer: (*storage).into(), geometry: raw_geometry(geometry), ..empty }
        }
        Arg::CpuScalar { dtype, wrapped } => SkyArg { integer: (*dtype).into(), flag: (*wrapped).into(), ..empty },
        Arg::Int(value) => SkyArg { integer: *value, ..empty },
        Arg::Bool(value) => SkyArg { integer: (*value).into(), ..empty },
        Arg::Double(value) => SkyArg { real: *value, ..empty },
        Arg::ScalarSlot(byte)
        | Arg::Dtype(byte)
        | Arg::Layout(byte)
        | Arg::MemoryFormat(byte)
        | Arg::Device(byte) => SkyArg { integer: (*byte).into(), ..empty },
        Arg::Scalar(v) => SkyArg { flag: v.kind, integer: v.integer, real: v.real, imag: v.imag, ..empty },
        Arg::String(text) => SkyArg { bytes: raw_bytes(text.as_bytes()), ..empty },
        Arg::IntList(list) => SkyArg { count: list.len() as u32, bytes: raw_bytes(list), ..empty },
        Arg::DoubleList(list) => SkyArg { count: list.len() as u32, bytes: raw_bytes(list), ..empty },
        Arg::BoolList(list) => SkyArg { count: list.len() as u32, bytes: raw_bytes(list), ..empty },
        Arg::List { optional, items } => SkyArg { count: items.len() as u32, flag: (*optional).into(), ..empty },
    });
    if let Arg::List { items, .. } = arg {
        items.iter().for_each(|item| flatten(out, item));
    }
}

/// A reply with the struct that C++ sees, which comes first.
#[repr(C)]
struct RawReply {
    sky: SkyReply,
    geometries: Vec<SkyGeometry>,
    owned: Reply,
}

/// Hands a reply to C++, which gives it back to [`reply_free`].
pub fn reply_into_raw(owned: Reply) -> *mut SkyReply {
    let geometries: Vec<_> = owned.geometries.iter().map(raw_geometry).collect();
    let sky = SkyReply {
        geometries: geometries.as_ptr(),
        n_geometries: geometries.len() as u32,
        values: owned.values.as_ptr(),
        n_values: owned.values.len() as u32,
        bytes: raw_bytes(&owned.bytes),
    };
    Box::into_raw(Box::new(RawReply { sky, geometries, owned })).cast()
}

/// Takes a reply back from C++.
///
/// # Safety
/// `reply` is null or came from [`reply_into_raw`] and was not given back before.
pub unsafe fn reply_free(reply: *mut SkyReply) {
    if !reply.is_null() {
        // SAFETY: the caller's promise; the pointer is that of the whole `RawReply`, whose first field it names.
        drop(unsafe { Box::from_raw(reply.cast::<RawReply>()) });
    }
}

/// A decoded record as a safe, owned value. Only for records inside a [`super::Batch`], which keeps what they point
/// to alive.
pub(super) fn record(raw: &SkyRecord) -> Record {
    // SAFETY: `decode` made these pointers and counts together, from buffers that the batch borrows.
    let (storages, scalars, args, payload) = unsafe {
        (
            slice(raw.storages, raw.n_storages as usize),
            slice(raw.scalars, raw.n_scalars as usize),
            slice(raw.args, raw.n_args as usize),
            bytes(raw.payload),
        )
    };
    let (slot, request, n_bytes) = (raw.slot, raw.request, raw.n_bytes);
    let (storages, scalars, payload) = (storages.to_vec(), scalars.to_vec(), payload.to_vec());
    let storage = storages.first().copied().unwrap_or(0);
    match raw.kind {
        SKY_RECORD_DEFINE => {
            // SAFETY: a DEFINE points to the first field of a `RawTemplate` in the decoder's arena.
            let template = unsafe { &(*raw.template_def.cast::<RawTemplate>()).owned };
            Record::Define { slot, template: template.clone() }
        }
        SKY_RECORD_OP => Record::Op { slot, storages, scalars },
        SKY_RECORD_QUERY => Record::Query { slot, storages, n_outputs: raw.n_outputs, scalars, request },
        SKY_RECORD_FREE => Record::Free { storages },
        SKY_RECORD_ALLOC => Record::Alloc { storage, n_bytes, device: raw.device },
        SKY_RECORD_RESIZE => Record::Resize { storage, n_bytes },
        SKY_RECORD_WRITE => Record::Write { slot, storage, payload },
        SKY_RECORD_WRITE_LANE => Record::WriteLane { parts: parts(raw), transfer: raw.transfer, n_bytes },
        SKY_RECORD_READ => Record::Read { slot, storage, request },
        SKY_RECORD_CALL => Record::Call { method: raw.method, args: args.to_vec(), payload, request },
        SKY_RECORD_SEND => Record::Send { parts: parts(raw), payload, n_bytes },
        other => unreachable!("decode makes no record of kind {other}"),
    }
}

fn parts(raw: &SkyRecord) -> Vec<Part> {
    let n = raw.n_storages as usize;
    // SAFETY: as in `record`; a record with slots has as many of them as storages.
    let (slots, storages) = unsafe { (slice(raw.slots, n), slice(raw.storages, n)) };
    slots.iter().zip(storages).map(|(&slot, &storage)| Part { slot, storage }).collect()
}
