//! What the codec's tests share: records encoded from their safe form, and how values are generated.
//!
//! Ids and slots are drawn so that valid and invalid ones are both common: a test compares with a model of the slots
//! and expects an error where the model says so.
#![allow(dead_code)]

use proptest::collection::vec;
use proptest::prelude::*;
use skytorch_wire::abi::*;
use skytorch_wire::codec::{Arg, Geometry, Method, Part, Record, Reply, Template, TemplateKind, item_bytes};

pub(crate) fn dtype() -> impl Strategy<Value = u8> {
    (0u8..=45).prop_filter("dtype travels", |&dtype| item_bytes(dtype).is_some())
}

pub(crate) fn geometry() -> impl Strategy<Value = Geometry> {
    let strides = prop_oneof![Just(None), vec(0i64..1000, 6).prop_map(Some)];
    (dtype(), 0u8..8, prop_oneof![Just(0), 0i64..100_000], vec(0i64..200, 0..6), strides).prop_map(
        |(dtype, flags, offset, sizes, strides)| {
            let contiguous = Geometry::contiguous(dtype, &sizes);
            let strides = strides.map_or(contiguous.strides, |strides| strides[..sizes.len()].to_vec());
            Geometry { dtype, flags, offset, sizes, strides }
        },
    )
}

pub(crate) fn output() -> impl Strategy<Value = Geometry> {
    let undefined = Geometry { dtype: SKY_DTYPE_UNDEFINED, ..Geometry::default() };
    prop_oneof![9 => geometry(), 1 => Just(undefined)]
}

pub(crate) fn double() -> impl Strategy<Value = f64> {
    prop_oneof![
        prop::num::f64::ANY,
        any::<f32>().prop_map(f64::from),
        Just(0.0),
        Just(-0.0),
        Just(1.0),
        any::<u64>().prop_map(f64::from_bits)
    ]
}

pub(crate) fn int() -> impl Strategy<Value = i64> {
    prop_oneof![-40i64..40, any::<i64>(), Just(i64::MIN), Just(i64::MAX)]
}

pub(crate) fn scalar(kind: u8) -> BoxedStrategy<SkyScalar> {
    let zero = SkyScalar { kind, ..SkyScalar::default() };
    match kind {
        SKY_SCALAR_INT => int().prop_map(move |integer| SkyScalar { integer, ..zero }).boxed(),
        SKY_SCALAR_FLOAT => double().prop_map(move |real| SkyScalar { real, ..zero }).boxed(),
        SKY_SCALAR_COMPLEX => {
            (double(), double()).prop_map(move |(real, imag)| SkyScalar { real, imag, ..zero }).boxed()
        }
        _ => (0i64..2).prop_map(move |integer| SkyScalar { integer, ..zero }).boxed(),
    }
}

pub(crate) fn any_scalar() -> impl Strategy<Value = SkyScalar> {
    (0u8..4).prop_flat_map(scalar)
}

/// Storages that a generated op template names.
pub(crate) const STORAGES: u32 = 3;

pub(crate) fn arg() -> impl Strategy<Value = Arg> {
    let leaf = prop_oneof![
        Just(Arg::None),
        (0..STORAGES, geometry()).prop_map(|(storage, geometry)| Arg::Tensor { storage, geometry }),
        (dtype(), any::<bool>()).prop_map(|(dtype, wrapped)| Arg::CpuScalar { dtype, wrapped }),
        int().prop_map(Arg::Int),
        any::<bool>().prop_map(Arg::Bool),
        double().prop_map(Arg::Double),
        Just(Arg::DoubleSlot),
        (0u8..4).prop_map(Arg::ScalarSlot),
        any_scalar().prop_map(Arg::Scalar),
        ".{0,20}".prop_map(Arg::String),
        vec(int(), 0..5).prop_map(Arg::IntList),
        vec(double(), 0..5).prop_map(Arg::DoubleList),
        vec(any::<bool>(), 0..5).prop_map(Arg::BoolList),
        dtype().prop_map(Arg::Dtype),
        (0u8..8).prop_map(Arg::Layout),
        (0u8..4).prop_map(Arg::MemoryFormat),
        any::<u8>().prop_map(Arg::Device),
        Just(Arg::Generator),
    ];
    leaf.prop_recursive(4, 12, 4, |inner| {
        (any::<bool>(), vec(inner, 0..4)).prop_map(|(optional, items)| Arg::List { optional, items })
    })
}

pub(crate) fn template() -> impl Strategy<Value = Template> {
    let op = ("[a-z]{1,8}::[a-z_.]{1,20}", vec(arg(), 0..6), vec(output(), 0..4), any::<u8>()).prop_map(
        |(name, args, outputs, device)| Template {
            device,
            name,
            args,
            outputs,
            n_storages: STORAGES,
            ..Template::default()
        },
    );
    let kind = prop_oneof![Just(TemplateKind::Read), Just(TemplateKind::Write)];
    let transfer = (kind, 0u8..2, any::<u8>(), geometry())
        .prop_map(|(kind, layout, device, geometry)| Template::transfer(kind, layout, device, geometry));
    prop_oneof![3 => op, 1 => transfer]
}

/// Ids near the newest ones, far below them, and anywhere.
pub(crate) fn id() -> impl Strategy<Value = u64> {
    prop_oneof![8 => 1u64..40, 2 => 1u64..1_000_000, 1 => 1u64..=u64::MAX]
}

/// Slots of the generated sessions: few, so that they are often replaced.
pub(crate) const SLOTS: u32 = 5;

/// What a record is made of before it is known what its slot holds.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    Define(u32, Template),
    /// Slot, ids of inputs, ids of outputs (`None`: those after the newest), scalars of every kind, query for so many.
    Op(u32, Vec<u64>, Option<Vec<u64>>, [Vec<SkyScalar>; 4], Option<(u32, u64)>),
    Free(Vec<u64>),
    Alloc(u64, u64, u32),
    Resize(u64, u64),
    Write(u32, u64),
    WriteLane(Vec<(u32, u64)>, u64),
    Read(u32, u64, u64),
    Call(usize, Vec<i64>, Vec<u8>, u64),
    Send(Vec<(u32, u64)>, Vec<u8>),
    /// Start a new message.
    Cut,
}

pub(crate) fn step() -> impl Strategy<Value = Step> {
    let slot = || 0..SLOTS + 1;
    let parts = || prop_oneof![2 => vec((slot(), id()), 1), 1 => vec((slot(), id()), 0..4)];
    let request = || prop_oneof![1u64..1000, 1..=u64::MAX];
    let scalars = || {
        let of = |kind| vec(scalar(kind), 4);
        (of(0), of(1), of(2), of(3)).prop_map(|(a, b, c, d)| [a, b, c, d])
    };
    let outputs = prop_oneof![3 => Just(None), 1 => vec(id(), 4).prop_map(Some)];
    prop_oneof![
        4 => (slot(), template()).prop_map(|(slot, template)| Step::Define(slot, template)),
        8 => (slot(), vec(id(), 3), outputs, scalars(), prop::option::weighted(0.2, (0u32..4, request())))
            .prop_map(|(slot, inputs, outputs, scalars, query)| Step::Op(slot, inputs, outputs, scalars, query)),
        2 => vec(id(), 1..5).prop_map(Step::Free),
        2 => id().prop_map(|id| Step::Free(vec![id])),
        1 => (id(), 0..=i64::MAX as u64, any::<u32>()).prop_map(|(id, n, device)| Step::Alloc(id, n, device)),
        1 => (id(), 0..=i64::MAX as u64).prop_map(|(id, n)| Step::Resize(id, n)),
        1 => (slot(), id()).prop_map(|(slot, id)| Step::Write(slot, id)),
        1 => (parts(), any::<u64>()).prop_map(|(parts, transfer)| Step::WriteLane(parts, transfer)),
        1 => (slot(), id(), request()).prop_map(|(slot, id, request)| Step::Read(slot, id, request)),
        1 => (0..Method::ALL.len(), vec(int(), 3), vec(any::<u8>(), 0..40), request())
            .prop_map(|(method, args, payload, request)| Step::Call(method, args, payload, request)),
        1 => (parts(), vec(any::<u8>(), 0..40)).prop_map(|(parts, payload)| Step::Send(parts, payload)),
        1 => Just(Step::Cut),
    ]
}

/// What a slot holds and which id is the newest, as the test knows it.
#[derive(Default)]
pub(crate) struct Model {
    slots: [Option<Template>; SLOTS as usize],
    newest: u64,
}

impl Model {
    fn template(&self, slot: u32) -> Option<&Template> {
        self.slots.get(slot as usize)?.as_ref()
    }

    fn transfer(&self, slot: u32, kind: TemplateKind) -> Option<u64> {
        self.template(slot).filter(|t| t.kind == kind).map(Template::transfer_bytes)
    }

    /// The tensors of a transfer and its bytes, if they can be in one.
    fn parts(&self, parts: &[(u32, u64)], kind: TemplateKind) -> (Vec<Part>, Option<u64>) {
        let bytes: Option<Vec<u64>> = parts.iter().map(|&(slot, _)| self.transfer(slot, kind)).collect();
        let total = bytes.and_then(|bytes| match &bytes[..] {
            [] => None,
            [one] => Some(*one),
            all => {
                let sum = all.iter().try_fold(0u64, |sum, n| sum.checked_add(*n))?;
                (sum <= skytorch_wire::limits::PARCEL_BYTES).then_some(sum + all.len() as u64)
            }
        });
        (parts.iter().map(|&(slot, storage)| Part::new(slot, storage)).collect(), total)
    }

    /// The record that a step stands for, and whether it is a valid one.
    pub(crate) fn record(&mut self, step: &Step) -> Option<(Record, bool)> {
        let (record, valid) = match step.clone() {
            Step::Cut => return None,
            Step::Define(slot, template) => (Record::Define { slot, template }, slot < SLOTS),
            Step::Op(slot, inputs, outputs, scalars, query) => {
                let template = self.template(slot).filter(|t| t.kind == TemplateKind::Op);
                let valid = template.is_some();
                let kinds = template.map(|t| t.scalar_kinds()).unwrap_or_default();
                let scalars = kinds.iter().enumerate().map(|(i, &kind)| scalars[usize::from(kind)][i % 4]).collect();
                let n_outputs = query.map_or(template.map_or(0, |t| t.outputs.len() as u32), |(n, _)| n);
                let fresh = |i: u32| outputs.as_ref().map_or(self.newest + 1 + u64::from(i), |ids| ids[i as usize]);
                let mut storages = inputs;
                let wraps = outputs.is_none() && self.newest > u64::MAX - 10;
                if wraps {
                    return None;
                }
                storages.extend((0..n_outputs).map(fresh));
                let record = match query {
                    Some((_, request)) => Record::Query { slot, storages, n_outputs, scalars, request },
                    None => Record::Op { slot, storages, scalars },
                };
                (record, valid)
            }
            Step::Free(storages) => (Record::Free { storages }, true),
            Step::Alloc(storage, n_bytes, device) => (Record::Alloc { storage, n_bytes, device }, true),
            Step::Resize(storage, n_bytes) => (Record::Resize { storage, n_bytes }, true),
            Step::Write(slot, storage) => {
                let n = self.transfer(slot, TemplateKind::Write);
                let valid = n.is_some_and(|n| n <= skytorch_wire::limits::INLINE_WRITE_BYTES);
                let payload = (0..n.unwrap_or(0).min(1 << 20)).map(|i| i as u8).collect();
                (Record::Write { slot, storage, payload }, valid)
            }
            Step::WriteLane(parts, transfer) => {
                let (parts, n) = self.parts(&parts, TemplateKind::Write);
                (Record::WriteLane { parts, transfer, n_bytes: n.unwrap_or(0) }, n.is_some())
            }
            Step::Read(slot, storage, request) => {
                (Record::Read { slot, storage, request }, self.transfer(slot, TemplateKind::Read).is_some())
            }
            Step::Call(i, args, payload, request) => {
                let method = Method::ALL[i];
                let args = (0..method.n_args).map(|i| args[i]).collect();
                let payload = if method.payload { payload } else { Vec::new() };
                let request = if method.answers { request } else { 0 };
                (Record::Call { method: method.number, args, payload, request }, true)
            }
            Step::Send(parts, payload) => {
                let (parts, n) = self.parts(&parts, TemplateKind::Read);
                (Record::Send { parts, payload, n_bytes: n.unwrap_or(0) }, n.is_some())
            }
        };
        if valid {
            self.apply(&record);
        }
        Some((record, valid))
    }

    fn apply(&mut self, record: &Record) {
        let fresh: &[u64] = match record {
            Record::Define { slot, template } => {
                self.slots[*slot as usize] = Some(template.clone());
                &[]
            }
            Record::Op { storages, .. } | Record::Query { storages, .. } => &storages[STORAGES as usize..],
            Record::Alloc { storage, .. } => std::slice::from_ref(storage),
            _ => &[],
        };
        self.newest = fresh.iter().copied().fold(self.newest, u64::max);
    }
}

pub(crate) fn reply() -> impl Strategy<Value = Reply> {
    (vec(output(), 0..5), vec(any_scalar(), 0..5), vec(any::<u8>(), 0..50))
        .prop_map(|(geometries, values, bytes)| Reply { geometries, values, bytes })
}
