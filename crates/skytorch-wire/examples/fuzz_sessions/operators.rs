//! Operators as the server's torch knows them, with arguments that fit the schema and values that nobody would pass.

use std::path::Path;

use skytorch_wire::abi::{SKY_SCALAR_BOOL, SKY_SCALAR_FLOAT, SKY_SCALAR_INT, SkyScalar};
use skytorch_wire::codec::{Arg, Geometry, Template, item_bytes};

use crate::mutate::Random;

/// One line of the list: `aten::add.Tensor|Tensor,Tensor,Scalar|1`.
pub(crate) struct Operator {
    name: String,
    args: Vec<String>,
    /// Tensors that it returns, if their number is fixed.
    pub(crate) returns: u32,
}

pub(crate) fn read(path: &Path) -> Vec<Operator> {
    let text = std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let parse = |line: &str| {
        let mut parts = line.split('|');
        Some(Operator {
            name: parts.next()?.to_owned(),
            args: parts.next()?.split(',').filter(|arg| !arg.is_empty()).map(str::to_owned).collect(),
            returns: parts.next()?.parse().ok()?,
        })
    };
    text.lines().map(|line| parse(line).unwrap_or_else(|| panic!("{line:?} is no operator"))).collect()
}

const DTYPES: [u8; 12] = [0, 1, 2, 3, 4, 5, 6, 6, 7, 9, 11, 15];
const INTS: [i64; 14] = [0, 0, 1, 1, 2, 3, 4, 7, -1, -2, -5, 255, i64::MAX, i64::MIN];
const FLOATS: [f64; 8] = [0.0, 1.0, -1.0, 0.5, 1e-5, 1e30, f64::INFINITY, f64::NAN];
const TEXTS: [&str; 10] = ["mean", "sum", "none", "linear", "constant", "reflect", "floor", "trunc", "", "\u{0}"];

/// A geometry; `room` bytes are in its storage, which it respects most of the time.
pub(crate) fn geometry(random: &mut Random, room: u64) -> Geometry {
    let dtype = *random.of(&DTYPES);
    let elements = (room.min(1 << 40) / item_bytes(dtype).unwrap_or(1)) as i64;
    let shapes: [&[i64]; 7] = [&[], &[4], &[2, 2], &[1, 4], &[2, 1, 2], &[0], &[1, 2, 2, 1]];
    let mut geometry = Geometry::contiguous(dtype, random.of::<&[i64]>(&shapes));
    match random.below(12) {
        // Outside its storage.
        0 => geometry.offset = *random.of(&[elements, elements + 1, i64::MAX / 32, 1 << 40]),
        1 => geometry = Geometry::contiguous(dtype, &[elements + 1]),
        2 => geometry = Geometry::contiguous(dtype, &[1 << 20, 1 << 20]),
        // Elements on top of each other. Not so many that they take minutes.
        3 => geometry.strides.fill(0),
        4 => geometry = Geometry { sizes: vec![3, 3], strides: vec![1, 1], ..geometry },
        5 => geometry = Geometry { sizes: vec![1 << 12], strides: vec![0], ..geometry },
        // Bits that belong to other dtypes.
        6 => geometry.flags = random.below(8) as u8,
        7 => geometry.strides.reverse(),
        _ => {}
    }
    geometry
}

/// A template of the operator; the bytes of the storages that its tensors name are in `rooms`.
pub(crate) fn template(random: &mut Random, operator: &Operator, rooms: &[u64]) -> Template {
    let mut args: Vec<Arg> = operator.args.iter().map(|kind| argument(random, kind, rooms)).collect();
    // Most operators look at nothing else until their tensors fit each other.
    if random.below(2) == 0 {
        let like = args.iter().find_map(|arg| match arg {
            Arg::Tensor { geometry, .. } => Some(geometry.clone()),
            _ => None,
        });
        like.into_iter().for_each(|like| args.iter_mut().for_each(|arg| resemble(random, arg, &like)));
    }
    match random.below(20) {
        // A schema that is none.
        0 => drop(args.pop()),
        1 => args.push(any(random, rooms)),
        2 if !args.is_empty() => {
            let at = random.below(args.len());
            args[at] = any(random, rooms);
        }
        _ => {}
    }
    Template { name: operator.name.clone(), args, n_storages: rooms.len() as u32, ..Template::default() }
}

/// Most of its tensors become `like`.
fn resemble(random: &mut Random, arg: &mut Arg, like: &Geometry) {
    match arg {
        Arg::Tensor { geometry, .. } if random.below(4) != 0 => geometry.clone_from(like),
        Arg::List { items, .. } => items.iter_mut().for_each(|item| resemble(random, item, like)),
        _ => {}
    }
}

fn tensor(random: &mut Random, rooms: &[u64]) -> Arg {
    if random.below(32) == 0 {
        return Arg::None;
    }
    let storage = random.below(rooms.len());
    Arg::Tensor { storage: storage as u32, geometry: geometry(random, rooms[storage]) }
}

fn argument(random: &mut Random, kind: &str, rooms: &[u64]) -> Arg {
    if let Some(inner) = kind.strip_suffix('?') {
        return if random.below(2) == 0 { Arg::None } else { argument(random, inner, rooms) };
    }
    if let Some(inner) = kind.strip_suffix("[]") {
        let n = random.below(4);
        return match inner {
            "int" | "SymInt" => Arg::IntList((0..n).map(|_| *random.of(&INTS)).collect()),
            "float" => Arg::DoubleList((0..n).map(|_| *random.of(&FLOATS)).collect()),
            "bool" => Arg::BoolList((0..n).map(|_| random.below(2) == 0).collect()),
            _ => Arg::List {
                optional: inner.ends_with('?'),
                items: (0..n).map(|_| argument(random, inner, rooms)).collect(),
            },
        };
    }
    match kind {
        "Tensor" => tensor(random, rooms),
        "int" | "SymInt" => Arg::Int(*random.of(&INTS)),
        "float" => Arg::Double(*random.of(&FLOATS)),
        "bool" => Arg::Bool(random.below(2) == 0),
        "str" => Arg::String((*random.of(&TEXTS)).to_owned()),
        "ScalarType" => Arg::Dtype(*random.of(&DTYPES)),
        "Scalar" => Arg::Scalar(scalar(random)),
        "Layout" => Arg::Layout(random.below(8) as u8),
        "MemoryFormat" => Arg::MemoryFormat(random.below(4) as u8),
        "Device" => Arg::Device(random.below(2) as u8),
        "Generator" => Arg::None,
        _ => any(random, rooms),
    }
}

pub(crate) fn scalar(random: &mut Random) -> SkyScalar {
    let zero = SkyScalar::default();
    match random.below(3) {
        0 => SkyScalar { kind: SKY_SCALAR_INT, integer: *random.of(&INTS), ..zero },
        1 => SkyScalar { kind: SKY_SCALAR_FLOAT, real: *random.of(&FLOATS), ..zero },
        _ => SkyScalar { kind: SKY_SCALAR_BOOL, integer: 1, ..zero },
    }
}

fn any(random: &mut Random, rooms: &[u64]) -> Arg {
    let kinds =
        ["Tensor", "int", "float", "bool", "str", "ScalarType", "Scalar", "Tensor[]", "int[]", "Layout", "Device"];
    let kind = *random.of(&kinds);
    argument(random, kind, rooms)
}
