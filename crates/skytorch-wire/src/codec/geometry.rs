//! Where a tensor lies in its storage, the table of dtypes, and both to and from bytes ("Geometry" in docs/wire.md).
//!
//! A geometry that got through here cannot overflow: the product of its sizes and the last byte it touches fit 63
//! bits. Whether that byte lies inside the storage is the executor's to check. Contiguous strides take no bytes.

use super::varint::{self, Reader};
use crate::abi::{
    SKY_DTYPE_UNDEFINED, SKY_GEOMETRY_CONJ, SKY_GEOMETRY_IN_LIST, SKY_GEOMETRY_NEG, SKY_SCALAR_BOOL,
    SKY_SCALAR_COMPLEX, SKY_SCALAR_FLOAT, SKY_SCALAR_INT,
};
use crate::error::{Code, Result, WireError};
use crate::limits;

const ABI_FLAGS: u8 = SKY_GEOMETRY_CONJ | SKY_GEOMETRY_NEG | SKY_GEOMETRY_IN_LIST;
/// Bit of the flags byte on the wire: the strides are those of a contiguous tensor and are left out.
const CONTIGUOUS: u8 = 8;
/// Bit of the flags byte on the wire: the offset is not 0 and follows.
const OFFSET: u8 = 16;

/// Where a tensor lies in its storage. `offset` and `strides` count elements.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Geometry {
    /// c10::ScalarType's number, or [`SKY_DTYPE_UNDEFINED`].
    pub dtype: u8,
    /// SKY_GEOMETRY_*.
    pub flags: u8,
    /// Of the first element.
    pub offset: i64,
    /// One for each dimension.
    pub sizes: Vec<i64>,
    /// One for each dimension.
    pub strides: Vec<i64>,
}

/// Bytes of one element of a dtype (c10::ScalarType's number); `None` for a dtype that does not travel (quantized
/// and bit-packed ones, and numbers that mean nothing).
pub fn item_bytes(dtype: u8) -> Option<u64> {
    Some(match dtype {
        // Byte, Char, Bool, the float8 kinds, UInt1-7, Int1-7, Float8_e8m0fnu, Float4_e2m1fn_x2
        0 | 1 | 11 | 23..=26 | 30..=45 => 1,
        // Short, Half, BFloat16, UInt16
        2 | 5 | 15 | 27 => 2,
        // Int, Float, ComplexHalf, UInt32
        3 | 6 | 8 | 28 => 4,
        // Long, Double, ComplexFloat, UInt64
        4 | 7 | 9 | 29 => 8,
        // ComplexDouble
        10 => 16,
        _ => return None,
    })
}

/// Kind of scalar (SKY_SCALAR_*) that a 0-dim tensor of this dtype travels as.
pub(super) fn scalar_kind(dtype: u8) -> u8 {
    match dtype {
        11 => SKY_SCALAR_BOOL,
        8..=10 => SKY_SCALAR_COMPLEX,
        5..=7 | 15 | 23..=26 | 44 | 45 => SKY_SCALAR_FLOAT,
        _ => SKY_SCALAR_INT,
    }
}

/// Refuses a dtype that does not travel.
pub(super) fn check_dtype(dtype: u8) -> Result<u64> {
    item_bytes(dtype).ok_or_else(|| {
        WireError::new(
            Code::NotSupported,
            format!("dtype number {dtype} does not travel: convert the tensor to another dtype first"),
        )
    })
}

impl Geometry {
    /// A contiguous tensor at the start of its storage.
    pub fn contiguous(dtype: u8, sizes: &[i64]) -> Geometry {
        let strides = contiguous_strides(sizes);
        Geometry { dtype, flags: 0, offset: 0, sizes: sizes.to_vec(), strides }
    }

    /// Number of elements. Only for a geometry that passed [`Geometry::check`].
    pub fn elements(&self) -> u64 {
        self.sizes.iter().map(|&size| size as u64).product()
    }

    /// Bytes of all elements. Only for a geometry that passed [`Geometry::check`].
    pub fn bytes(&self) -> u64 {
        self.elements() * item_bytes(self.dtype).unwrap_or(0)
    }

    /// Refuses what no tensor can be: too many dimensions, negative numbers, products that overflow.
    pub fn check(&self) -> Result<()> {
        if self.sizes.len() > limits::DIMS || self.strides.len() != self.sizes.len() {
            return Err(WireError::limit(format!(
                "tensor of {} sizes and {} strides: at most {} of both, and as many of each",
                self.sizes.len(),
                self.strides.len(),
                limits::DIMS
            )));
        }
        if self.flags & !ABI_FLAGS != 0 {
            return Err(WireError::protocol(format!("tensor flags {:#04x} mean nothing", self.flags)));
        }
        if self.dtype == SKY_DTYPE_UNDEFINED {
            return match self.sizes.is_empty() && self.offset == 0 {
                true => Ok(()),
                false => Err(WireError::protocol("undefined tensor has a shape")),
            };
        }
        let item = check_dtype(self.dtype)?;
        match self.last_byte(item) {
            Some(_) => Ok(()),
            None => Err(WireError::protocol(format!(
                "tensor of sizes {:?}, strides {:?}, offset {} has negative or overflowing extents",
                self.sizes, self.strides, self.offset
            ))),
        }
    }

    /// End of the last element in bytes; `None` if that, or the number of elements, is negative or does not fit.
    fn last_byte(&self, item: u64) -> Option<i64> {
        let item = i64::try_from(item).ok()?;
        let (mut elements, mut last, mut empty) = (1i64, self.offset, false);
        for (&size, &stride) in self.sizes.iter().zip(&self.strides) {
            if size < 0 || stride < 0 {
                return None;
            }
            // A size of 0 must not hide the overflow of its neighbours.
            elements = elements.checked_mul(size.max(1))?;
            empty |= size == 0;
            last = last.checked_add((size.max(1) - 1).checked_mul(stride)?)?;
        }
        elements.checked_mul(item)?;
        let end = if empty { self.offset } else { last.checked_add(1)? };
        if self.offset < 0 { None } else { end.checked_mul(item) }
    }
}

/// torch's strides of a contiguous tensor: a size of 0 counts as 1.
fn contiguous_strides(sizes: &[i64]) -> Vec<i64> {
    let mut strides = vec![0; sizes.len()];
    let mut stride = 1i64;
    for (slot, &size) in strides.iter_mut().zip(sizes).rev() {
        *slot = stride;
        stride = stride.wrapping_mul(size.max(1));
    }
    strides
}

/// Whether `strides` is [`contiguous_strides`], without making them.
fn is_contiguous(sizes: &[i64], strides: &[i64]) -> bool {
    let mut expected = 1i64;
    for (&size, &stride) in sizes.iter().zip(strides).rev() {
        if stride != expected {
            return false;
        }
        expected = expected.wrapping_mul(size.max(1));
    }
    true
}

/// Appends a geometry that passed [`Geometry::check`].
pub(super) fn put(out: &mut Vec<u8>, geometry: &Geometry) {
    let contiguous = is_contiguous(&geometry.sizes, &geometry.strides);
    let mut flags = geometry.flags;
    flags |= if contiguous { CONTIGUOUS } else { 0 };
    flags |= if geometry.offset != 0 { OFFSET } else { 0 };
    out.extend_from_slice(&[geometry.dtype, flags, geometry.sizes.len() as u8]);
    for &size in &geometry.sizes {
        varint::put(out, size as u64);
    }
    if !contiguous {
        for &stride in &geometry.strides {
            varint::put(out, stride as u64);
        }
    }
    if geometry.offset != 0 {
        varint::put(out, geometry.offset as u64);
    }
}

/// Fewest bytes that a geometry takes.
pub(super) const MIN_BYTES: usize = 3;

/// Reads a geometry and checks it.
pub(super) fn get(reader: &mut Reader<'_>) -> Result<Geometry> {
    let [dtype, flags, ndim] = reader.array()?;
    if flags & !(ABI_FLAGS | CONTIGUOUS | OFFSET) != 0 {
        return Err(WireError::protocol(format!("tensor flags {flags:#04x} mean nothing")));
    }
    let ndim = usize::from(ndim);
    if ndim > limits::DIMS {
        return Err(WireError::limit(format!("tensor of {ndim} dimensions: the limit is {}", limits::DIMS)));
    }
    let sizes = (0..ndim).map(|_| reader.size()).collect::<Result<Vec<_>>>()?;
    let strides = match flags & CONTIGUOUS != 0 {
        true => contiguous_strides(&sizes),
        false => (0..ndim).map(|_| reader.size()).collect::<Result<Vec<_>>>()?,
    };
    let offset = if flags & OFFSET != 0 { reader.size()? } else { 0 };
    let geometry = Geometry { dtype, flags: flags & ABI_FLAGS, offset, sizes, strides };
    geometry.check()?;
    Ok(geometry)
}

#[cfg(test)]
mod tests {
    use super::super::scalar;
    use super::*;

    #[test]
    fn extents() {
        let geometry = |sizes: &[i64], strides: &[i64], offset| Geometry {
            dtype: 6,
            flags: 0,
            offset,
            sizes: sizes.to_vec(),
            strides: strides.to_vec(),
        };
        assert!(geometry(&[2, 3], &[3, 1], 5).check().is_ok());
        assert!(geometry(&[1 << 40], &[0], 0).check().is_ok(), "an expanded tensor is large and lies nowhere");
        assert!(geometry(&[0, 1 << 62], &[1, 1], 0).check().is_err(), "overflow beside a size of 0");
        assert!(geometry(&[-1], &[1], 0).check().is_err());
        assert!(geometry(&[2], &[-1], 4).check().is_err());
        assert!(geometry(&[2], &[1], -1).check().is_err());
        assert!(geometry(&[1 << 31, 1 << 31], &[1 << 31, 1], 0).check().is_err(), "2^62 floats are 2^64 bytes");
        assert!(geometry(&[2], &[i64::MAX], 1).check().is_err());
        assert!(geometry(&[], &[], 0).check().is_ok());
        assert!(geometry(&[2], &[], 0).check().is_err());
        assert_eq!(Geometry::contiguous(6, &[2, 0, 3]).strides, [3, 3, 1]);
    }

    #[test]
    fn every_dtype_has_a_scalar_kind() {
        for dtype in (0..=u8::MAX).filter(|&d| item_bytes(d).is_some()) {
            assert!(scalar::is_kind(scalar_kind(dtype)));
        }
    }
}
