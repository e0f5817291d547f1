//! What both ends of a stream remember of each template: the arities that an instance does not repeat.
//!
//! It is not the template cache: that is the client's C++ and the executor's. The subtle thing is that both ends
//! must forget and replace at the same record, so only a DEFINE changes this table.

use super::scalar;
use super::template::{Template, TemplateKind};
use crate::abi::SkyScalar;
use crate::error::{Result, WireError};

/// The arities of one template.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) kind: TemplateKind,
    pub(super) n_inputs: u32,
    pub(super) n_outputs: u32,
    /// Of a READ or WRITE.
    pub(super) bytes: u64,
    /// SKY_SCALAR_* of each scalar.
    pub(super) scalars: Box<[u8]>,
}

impl Slot {
    /// Refuses scalars that are not what the template says.
    #[inline(always)]
    pub(super) fn check_scalars(&self, slot: u32, scalars: &[SkyScalar]) -> Result<()> {
        match scalars.len() == self.scalars.len()
            && scalars.iter().zip(&self.scalars).all(|(s, &kind)| s.kind == kind)
        {
            true => Ok(()),
            false => Err(self.wrong_scalars(slot, scalars)),
        }
    }

    #[cold]
    fn wrong_scalars(&self, slot: u32, scalars: &[SkyScalar]) -> WireError {
        let names = |kinds: &mut dyn Iterator<Item = u8>| kinds.map(scalar::kind_name).collect::<Vec<_>>().join(", ");
        WireError::protocol(format!(
            "op of slot {slot} takes the scalars ({}), it has ({})",
            names(&mut self.scalars.iter().copied()),
            names(&mut scalars.iter().map(|s| s.kind))
        ))
    }
}

/// The table of one stream.
#[derive(Debug)]
pub(super) struct Slots {
    table: Vec<Option<Slot>>,
    limit: u32,
}

impl Slots {
    pub(super) fn new(limit: u32) -> Slots {
        Slots { table: Vec::new(), limit }
    }

    /// Refuses a slot that this session does not have.
    pub(super) fn check_number(&self, slot: u32) -> Result<()> {
        match slot < self.limit {
            true => Ok(()),
            false => Err(WireError::limit(format!("template slot {slot}: this session has {}", self.limit))),
        }
    }

    /// Puts a checked template into a checked slot.
    pub(super) fn define(&mut self, slot: u32, template: &Template) {
        let at = slot as usize;
        if at >= self.table.len() {
            self.table.resize_with(at + 1, || None);
        }
        self.table[at] = Some(Slot {
            kind: template.kind,
            n_inputs: template.n_storages,
            n_outputs: template.outputs.len() as u32,
            bytes: template.transfer_bytes(),
            scalars: template.scalar_kinds(),
        });
    }

    /// The template of a slot, which must be of this kind.
    #[inline(always)]
    pub(super) fn get(&self, slot: u32, kind: TemplateKind) -> Result<&Slot> {
        match self.table.get(slot as usize) {
            Some(Some(found)) if found.kind == kind => Ok(found),
            _ => Err(self.missing(slot, kind)),
        }
    }

    #[cold]
    fn missing(&self, slot: u32, kind: TemplateKind) -> WireError {
        match self.table.get(slot as usize) {
            Some(Some(found)) => {
                WireError::protocol(format!("slot {slot} holds a {:?} template where {kind:?} belongs", found.kind))
            }
            _ => WireError::protocol(format!("slot {slot} holds no template: define it first")),
        }
    }
}
