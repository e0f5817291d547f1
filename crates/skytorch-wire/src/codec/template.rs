//! Templates: what an op instance leaves out because it was said once ("Templates" in docs/wire.md). Safe, owned, and
//! to and from bytes.
//!
//! A template that passed [`Template::check`] is structurally sound: counts, nesting, kinds, dtypes and geometries
//! are. Whether the operator exists and fits its arguments is the executor's to check. The arguments are a tree here
//! and a flat preorder list in the C ABI and on the wire.

use super::geometry::{self, Geometry, check_dtype};
use super::scalar;
use super::varint::{self, Reader};
use crate::abi::*;
use crate::error::{Result, WireError};
use crate::limits;

/// What a template is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum TemplateKind {
    /// An operator.
    #[default]
    Op = SKY_TEMPLATE_OP,
    /// Reading one tensor.
    Read = SKY_TEMPLATE_READ,
    /// Writing one tensor.
    Write = SKY_TEMPLATE_WRITE,
}

/// Everything about an op instance but its storages and scalars.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Template {
    /// What it is for.
    pub kind: TemplateKind,
    /// SKY_LAYOUT_* of a READ or WRITE; 0 for an op.
    pub layout: u8,
    /// The server's device on which it runs.
    pub device: u8,
    /// "aten::add.Tensor"; empty for READ and WRITE.
    pub name: String,
    /// In the order of the schema.
    pub args: Vec<Arg>,
    /// Fresh outputs.
    pub outputs: Vec<Geometry>,
    /// Distinct input storages of an instance.
    pub n_storages: u32,
}

/// One argument; see SKY_ARG_* for what each kind means.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub enum Arg {
    None,
    Tensor { storage: u32, geometry: Geometry },
    CpuScalar { dtype: u8, wrapped: bool },
    Int(i64),
    Bool(bool),
    Double(f64),
    DoubleSlot,
    ScalarSlot(u8),
    Scalar(SkyScalar),
    String(String),
    IntList(Vec<i64>),
    DoubleList(Vec<f64>),
    BoolList(Vec<bool>),
    Dtype(u8),
    Layout(u8),
    MemoryFormat(u8),
    Device(u8),
    Generator,
    List { optional: bool, items: Vec<Arg> },
}

/// c10::Layout's numbers are below this.
const LAYOUTS: u8 = 8;
/// c10::MemoryFormat's numbers are below this.
const MEMORY_FORMATS: u8 = 4;

impl Template {
    /// A template that reads or writes one tensor.
    pub fn transfer(kind: TemplateKind, layout: u8, device: u8, geometry: Geometry) -> Template {
        let args = vec![Arg::Tensor { storage: 0, geometry }];
        Template { kind, layout, device, args, n_storages: 1, ..Template::default() }
    }

    /// Kinds (SKY_SCALAR_*) of the scalars that an instance carries, in order.
    pub fn scalar_kinds(&self) -> Box<[u8]> {
        let mut kinds = Vec::new();
        visit(&self.args, &mut |arg| match arg {
            Arg::CpuScalar { dtype, .. } => kinds.push(geometry::scalar_kind(*dtype)),
            Arg::DoubleSlot => kinds.push(SKY_SCALAR_FLOAT),
            Arg::ScalarSlot(kind) => kinds.push(*kind),
            Arg::Generator => kinds.push(SKY_SCALAR_INT),
            _ => {}
        });
        kinds.into()
    }

    /// Number of arguments, elements of lists included.
    pub fn flat_args(&self) -> usize {
        let mut n = 0;
        visit(&self.args, &mut |_| n += 1);
        n
    }

    /// Bytes that a READ or WRITE moves; 0 for an op.
    pub fn transfer_bytes(&self) -> u64 {
        match (self.kind, self.args.first()) {
            (TemplateKind::Read | TemplateKind::Write, Some(Arg::Tensor { geometry, .. })) => geometry.bytes(),
            _ => 0,
        }
    }

    /// Refuses what docs/wire.md does not allow.
    pub fn check(&self) -> Result<()> {
        if self.name.len() > limits::NAME_BYTES {
            let (n, limit) = (self.name.len(), limits::NAME_BYTES);
            return Err(WireError::limit(format!("operator name of {n} bytes: the limit is {limit}")));
        }
        let flat = self.flat_args();
        if flat > limits::TEMPLATE_ARGS || self.outputs.len() > limits::TEMPLATE_OUTPUTS {
            return Err(WireError::limit(format!(
                "template {:?} has {flat} arguments and {} outputs: the limits are {} and {}",
                self.name,
                self.outputs.len(),
                limits::TEMPLATE_ARGS,
                limits::TEMPLATE_OUTPUTS
            )));
        }
        if self.n_storages as usize > limits::TEMPLATE_ARGS {
            return Err(WireError::limit(format!(
                "template {:?} names {} storages: the limit is {}",
                self.name,
                self.n_storages,
                limits::TEMPLATE_ARGS
            )));
        }
        match self.kind {
            TemplateKind::Op => self.check_op(),
            TemplateKind::Read | TemplateKind::Write => self.check_transfer(),
        }
    }

    fn check_op(&self) -> Result<()> {
        if self.name.is_empty() {
            return Err(WireError::protocol("op template has no operator name"));
        }
        if self.layout != 0 {
            return Err(WireError::protocol(format!("op template {:?} has a transfer layout", self.name)));
        }
        for arg in &self.args {
            arg.check(self.n_storages, 0)?;
        }
        self.outputs.iter().try_for_each(Geometry::check)
    }

    fn check_transfer(&self) -> Result<()> {
        let sound = self.name.is_empty() && self.outputs.is_empty() && self.n_storages == 1;
        match self.args.as_slice() {
            [Arg::Tensor { storage: 0, geometry }] if sound && geometry.dtype != SKY_DTYPE_UNDEFINED => {
                if self.layout > SKY_LAYOUT_MEMORY {
                    return Err(WireError::protocol(format!("transfer layout {} means nothing", self.layout)));
                }
                geometry.check()
            }
            _ => Err(WireError::protocol("read or write template is not exactly one tensor")),
        }
    }
}

fn visit<'a>(args: &'a [Arg], f: &mut impl FnMut(&'a Arg)) {
    for arg in args {
        f(arg);
        if let Arg::List { items, .. } = arg {
            visit(items, f);
        }
    }
}

impl Arg {
    /// SKY_ARG_* of this argument.
    pub fn kind(&self) -> u8 {
        match self {
            Arg::None => SKY_ARG_NONE,
            Arg::Tensor { .. } => SKY_ARG_TENSOR,
            Arg::CpuScalar { .. } => SKY_ARG_CPU_SCALAR,
            Arg::Int(_) => SKY_ARG_INT,
            Arg::Bool(_) => SKY_ARG_BOOL,
            Arg::Double(_) => SKY_ARG_DOUBLE,
            Arg::DoubleSlot => SKY_ARG_DOUBLE_SLOT,
            Arg::ScalarSlot(_) => SKY_ARG_SCALAR_SLOT,
            Arg::Scalar(_) => SKY_ARG_SCALAR,
            Arg::String(_) => SKY_ARG_STRING,
            Arg::IntList(_) => SKY_ARG_INT_LIST,
            Arg::DoubleList(_) => SKY_ARG_DOUBLE_LIST,
            Arg::BoolList(_) => SKY_ARG_BOOL_LIST,
            Arg::Dtype(_) => SKY_ARG_DTYPE,
            Arg::Layout(_) => SKY_ARG_LAYOUT,
            Arg::MemoryFormat(_) => SKY_ARG_MEMORY_FORMAT,
            Arg::Device(_) => SKY_ARG_DEVICE,
            Arg::Generator => SKY_ARG_GENERATOR,
            Arg::List { .. } => SKY_ARG_LIST,
        }
    }

    fn check(&self, n_storages: u32, depth: usize) -> Result<()> {
        match self {
            Arg::Tensor { storage, geometry } => {
                if *storage >= n_storages {
                    return Err(WireError::protocol(format!("tensor names storage {storage} of {n_storages}")));
                }
                if geometry.dtype == SKY_DTYPE_UNDEFINED {
                    return Err(WireError::protocol("an input tensor is undefined"));
                }
                geometry.check()
            }
            Arg::CpuScalar { dtype, .. } | Arg::Dtype(dtype) => check_dtype(*dtype).map(|_| ()),
            Arg::ScalarSlot(kind) | Arg::Scalar(SkyScalar { kind, .. }) if !scalar::is_kind(*kind) => {
                Err(WireError::protocol(format!("scalar kind {kind} means nothing")))
            }
            Arg::Layout(layout) if *layout >= LAYOUTS => {
                Err(WireError::protocol(format!("layout {layout} means nothing")))
            }
            Arg::MemoryFormat(format) if *format >= MEMORY_FORMATS => {
                Err(WireError::protocol(format!("memory format {format} means nothing")))
            }
            Arg::String(text) => at_most(text.len(), limits::STRING_BYTES, "bytes in a string"),
            Arg::IntList(list) => at_most(list.len(), limits::LIST_ELEMENTS, "elements in a list of ints"),
            Arg::DoubleList(list) => at_most(list.len(), limits::LIST_ELEMENTS, "elements in a list of doubles"),
            Arg::BoolList(list) => at_most(list.len(), limits::LIST_ELEMENTS, "elements in a list of bools"),
            Arg::List { items, .. } => {
                at_most(depth + 1, limits::LIST_NESTING, "lists inside each other")?;
                items.iter().try_for_each(|item| item.check(n_storages, depth + 1))
            }
            _ => Ok(()),
        }
    }
}

fn at_most(n: usize, limit: usize, what: &'static str) -> Result<()> {
    match n <= limit {
        true => Ok(()),
        false => Err(WireError::limit(format!("{n} {what}: the limit is {limit}"))),
    }
}

// --- Bytes ------------------------------------------------------------------------------------------------------

/// Appends a template that passed [`Template::check`].
pub(super) fn put(out: &mut Vec<u8>, template: &Template) {
    out.extend_from_slice(&[template.kind as u8, template.layout, template.device]);
    put_bytes(out, template.name.as_bytes());
    varint::put(out, template.n_storages.into());
    varint::put(out, template.args.len() as u64);
    template.args.iter().for_each(|arg| put_arg(out, arg));
    varint::put(out, template.outputs.len() as u64);
    template.outputs.iter().for_each(|output| geometry::put(out, output));
}

/// Reads a template and checks it.
pub(super) fn get(reader: &mut Reader<'_>) -> Result<Template> {
    let [kind, layout, device] = reader.array()?;
    let kind = match kind {
        SKY_TEMPLATE_OP => TemplateKind::Op,
        SKY_TEMPLATE_READ => TemplateKind::Read,
        SKY_TEMPLATE_WRITE => TemplateKind::Write,
        other => return Err(WireError::protocol(format!("template kind {other} means nothing"))),
    };
    let name = reader.str(limits::NAME_BYTES, "bytes in an operator's name")?.to_owned();
    let n_storages = reader.u32()?;
    // Counted across lists, so that nesting cannot multiply the limit.
    let mut budget = limits::TEMPLATE_ARGS;
    let args = get_args(reader, &mut budget, 0)?;
    let n = reader.count(limits::TEMPLATE_OUTPUTS, geometry::MIN_BYTES, "outputs")?;
    let outputs = (0..n).map(|_| geometry::get(reader)).collect::<Result<Vec<_>>>()?;
    let template = Template { kind, layout, device, name, args, outputs, n_storages };
    template.check()?;
    Ok(template)
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    varint::put(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn put_arg(out: &mut Vec<u8>, arg: &Arg) {
    out.push(arg.kind());
    match arg {
        Arg::None | Arg::DoubleSlot | Arg::Generator => {}
        Arg::Tensor { storage, geometry } => {
            varint::put(out, (*storage).into());
            geometry::put(out, geometry);
        }
        Arg::CpuScalar { dtype, wrapped } => out.extend_from_slice(&[*dtype, (*wrapped).into()]),
        Arg::Int(value) => varint::put_signed(out, *value),
        Arg::Bool(value) => out.push((*value).into()),
        Arg::Double(value) => out.extend_from_slice(&value.to_le_bytes()),
        Arg::ScalarSlot(byte)
        | Arg::Dtype(byte)
        | Arg::Layout(byte)
        | Arg::MemoryFormat(byte)
        | Arg::Device(byte) => out.push(*byte),
        Arg::Scalar(value) => scalar::put(out, value),
        Arg::String(text) => put_bytes(out, text.as_bytes()),
        Arg::IntList(list) => {
            varint::put(out, list.len() as u64);
            list.iter().for_each(|&value| varint::put_signed(out, value));
        }
        Arg::DoubleList(list) => {
            varint::put(out, list.len() as u64);
            list.iter().for_each(|value| out.extend_from_slice(&value.to_le_bytes()));
        }
        Arg::BoolList(list) => {
            varint::put(out, list.len() as u64);
            out.extend(list.iter().map(|&value| u8::from(value)));
        }
        Arg::List { optional, items } => {
            out.push((*optional).into());
            varint::put(out, items.len() as u64);
            items.iter().for_each(|item| put_arg(out, item));
        }
    }
}

fn get_args(reader: &mut Reader<'_>, budget: &mut usize, depth: usize) -> Result<Vec<Arg>> {
    let n = reader.count(*budget, 1, "arguments left to a template")?;
    *budget -= n;
    (0..n).map(|_| get_arg(reader, budget, depth)).collect()
}

fn get_arg(reader: &mut Reader<'_>, budget: &mut usize, depth: usize) -> Result<Arg> {
    Ok(match reader.byte()? {
        SKY_ARG_NONE => Arg::None,
        SKY_ARG_TENSOR => Arg::Tensor { storage: reader.u32()?, geometry: geometry::get(reader)? },
        SKY_ARG_CPU_SCALAR => Arg::CpuScalar { dtype: reader.byte()?, wrapped: reader.bool()? },
        SKY_ARG_INT => Arg::Int(reader.signed()?),
        SKY_ARG_BOOL => Arg::Bool(reader.bool()?),
        SKY_ARG_DOUBLE => Arg::Double(reader.f64()?),
        SKY_ARG_DOUBLE_SLOT => Arg::DoubleSlot,
        SKY_ARG_SCALAR_SLOT => Arg::ScalarSlot(reader.byte()?),
        SKY_ARG_SCALAR => Arg::Scalar(scalar::get(reader)?),
        SKY_ARG_STRING => Arg::String(reader.str(limits::STRING_BYTES, "bytes in a string")?.to_owned()),
        SKY_ARG_INT_LIST => {
            let n = reader.count(limits::LIST_ELEMENTS, 1, "elements in a list of ints")?;
            Arg::IntList((0..n).map(|_| reader.signed()).collect::<Result<_>>()?)
        }
        SKY_ARG_DOUBLE_LIST => {
            let n = reader.count(limits::LIST_ELEMENTS, 8, "elements in a list of doubles")?;
            Arg::DoubleList((0..n).map(|_| reader.f64()).collect::<Result<_>>()?)
        }
        SKY_ARG_BOOL_LIST => {
            let n = reader.count(limits::LIST_ELEMENTS, 1, "elements in a list of bools")?;
            Arg::BoolList((0..n).map(|_| reader.bool()).collect::<Result<_>>()?)
        }
        SKY_ARG_DTYPE => Arg::Dtype(reader.byte()?),
        SKY_ARG_LAYOUT => Arg::Layout(reader.byte()?),
        SKY_ARG_MEMORY_FORMAT => Arg::MemoryFormat(reader.byte()?),
        SKY_ARG_DEVICE => Arg::Device(reader.byte()?),
        SKY_ARG_GENERATOR => Arg::Generator,
        SKY_ARG_LIST => {
            // Before the elements are read: recursion is bounded by this.
            at_most(depth + 1, limits::LIST_NESTING, "lists inside each other")?;
            Arg::List { optional: reader.bool()?, items: get_args(reader, budget, depth + 1)? }
        }
        other => return Err(WireError::protocol(format!("argument kind {other} means nothing"))),
    })
}
