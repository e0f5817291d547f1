//! Answers of QUERY and CALL to and from bytes ("Replies" in docs/wire.md). The bytes are the data of REPLY frames.
//!
//! The answer of a READ is not one of these: it is the tensor's bytes and nothing else.

use super::geometry::{self, Geometry};
use super::scalar;
use super::varint::{self, Reader};
use crate::abi::SkyScalar;
use crate::error::{Result, WireError};
use crate::limits;

/// The answer of a QUERY or a CALL.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reply {
    /// Of every flattened output of a QUERY.
    pub geometries: Vec<Geometry>,
    /// Other returned values in order.
    pub values: Vec<SkyScalar>,
    /// Bytes that a method answers with.
    pub bytes: Vec<u8>,
}

impl Reply {
    /// To bytes.
    pub fn encode(&self) -> Result<Vec<u8>> {
        let (n, limit) = (self.geometries.len().max(self.values.len()), limits::TEMPLATE_OUTPUTS);
        if n > limit {
            return Err(WireError::limit(format!("reply with {n} outputs or values: the limit is {limit}")));
        }
        let mut out = Vec::with_capacity(16 + self.bytes.len());
        varint::put(&mut out, self.geometries.len() as u64);
        for geometry in &self.geometries {
            geometry.check()?;
            geometry::put(&mut out, geometry);
        }
        varint::put(&mut out, self.values.len() as u64);
        for value in &self.values {
            if !scalar::is_kind(value.kind) {
                return Err(WireError::argument(format!("scalar kind {} means nothing", value.kind)));
            }
            scalar::put(&mut out, value);
        }
        varint::put(&mut out, self.bytes.len() as u64);
        out.extend_from_slice(&self.bytes);
        match out.len() <= limits::REPLY_BODY_BYTES {
            true => Ok(out),
            false => {
                let (n, limit) = (out.len(), limits::REPLY_BODY_BYTES);
                Err(WireError::limit(format!("reply of {n} bytes: the limit is {limit}")))
            }
        }
    }

    /// From bytes, which must hold nothing else.
    pub fn decode(body: &[u8]) -> Result<Reply> {
        if body.len() > limits::REPLY_BODY_BYTES {
            let (n, limit) = (body.len(), limits::REPLY_BODY_BYTES);
            return Err(WireError::limit(format!("reply of {n} bytes: the limit is {limit}")));
        }
        let mut reader = Reader::new(body);
        let n = reader.count(limits::TEMPLATE_OUTPUTS, geometry::MIN_BYTES, "outputs in a reply")?;
        let geometries = (0..n).map(|_| geometry::get(&mut reader)).collect::<Result<_>>()?;
        let n = reader.count(limits::TEMPLATE_OUTPUTS, 1, "values in a reply")?;
        let values = (0..n).map(|_| scalar::get(&mut reader)).collect::<Result<_>>()?;
        let n = reader.count(limits::REPLY_BODY_BYTES, 1, "bytes in a reply")?;
        let bytes = reader.bytes(n)?.to_vec();
        reader.end()?;
        Ok(Reply { geometries, values, bytes })
    }
}
