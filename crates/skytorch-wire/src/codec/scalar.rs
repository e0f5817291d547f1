//! Numbers that travel with an op instance: SkyScalar to and from bytes ("Scalars" in docs/wire.md).
//!
//! The first byte holds the form in its low three bits. Small integers and bools take that one byte, floats that are
//! exact as f32 take five. The subtle thing is exactness: a float is narrowed only if every bit comes back.

use super::varint::{self, Reader};
use crate::abi::{SKY_SCALAR_BOOL, SKY_SCALAR_COMPLEX, SKY_SCALAR_FLOAT, SKY_SCALAR_INT, SkyScalar};
use crate::error::{Result, WireError};

const FORM_BITS: u8 = 3;
const SMALL_INT: u8 = 0;
const INT: u8 = 1;
const FLOAT32: u8 = 2;
const FLOAT64: u8 = 3;
const COMPLEX: u8 = 4;
const BOOL: u8 = 5;

/// Appends a scalar whose kind is valid.
#[inline]
pub(super) fn put(out: &mut Vec<u8>, scalar: &SkyScalar) {
    match scalar.kind {
        SKY_SCALAR_INT => {
            let zigzag = varint::zigzag(scalar.integer);
            if zigzag < 1 << (8 - FORM_BITS) {
                out.push((zigzag as u8) << FORM_BITS | SMALL_INT);
            } else {
                out.push(INT);
                varint::put(out, zigzag);
            }
        }
        SKY_SCALAR_FLOAT => {
            let narrow = scalar.real as f32;
            if f64::from(narrow).to_bits() == scalar.real.to_bits() {
                let b = narrow.to_le_bytes();
                out.extend_from_slice(&[FLOAT32, b[0], b[1], b[2], b[3]]);
            } else {
                out.push(FLOAT64);
                out.extend_from_slice(&scalar.real.to_le_bytes());
            }
        }
        SKY_SCALAR_COMPLEX => {
            out.push(COMPLEX);
            out.extend_from_slice(&scalar.real.to_le_bytes());
            out.extend_from_slice(&scalar.imag.to_le_bytes());
        }
        _ => out.push(u8::from(scalar.integer != 0) << FORM_BITS | BOOL),
    }
}

/// Reads a scalar of any kind.
#[inline]
pub(super) fn get(reader: &mut Reader<'_>) -> Result<SkyScalar> {
    let head = reader.byte()?;
    let (form, rest) = (head & ((1 << FORM_BITS) - 1), head >> FORM_BITS);
    let zero = SkyScalar::default();
    match (form, rest) {
        (SMALL_INT, zigzag) => {
            Ok(SkyScalar { kind: SKY_SCALAR_INT, integer: varint::unzigzag(zigzag.into()), ..zero })
        }
        (INT, 0) => Ok(SkyScalar { kind: SKY_SCALAR_INT, integer: reader.signed()?, ..zero }),
        (FLOAT32, 0) => {
            let real = f32::from_le_bytes(reader.array()?).into();
            Ok(SkyScalar { kind: SKY_SCALAR_FLOAT, real, ..zero })
        }
        (FLOAT64, 0) => Ok(SkyScalar { kind: SKY_SCALAR_FLOAT, real: reader.f64()?, ..zero }),
        (COMPLEX, 0) => {
            let (real, imag) = (reader.f64()?, reader.f64()?);
            Ok(SkyScalar { kind: SKY_SCALAR_COMPLEX, real, imag, ..zero })
        }
        (BOOL, 0 | 1) => Ok(SkyScalar { kind: SKY_SCALAR_BOOL, integer: rest.into(), ..zero }),
        _ => Err(WireError::protocol(format!("scalar of unknown form {head:#04x}"))),
    }
}

/// Whether this is the number of a kind.
pub(super) fn is_kind(kind: u8) -> bool {
    kind <= SKY_SCALAR_BOOL
}

/// What a kind is called in messages.
pub(super) fn kind_name(kind: u8) -> &'static str {
    match kind {
        SKY_SCALAR_INT => "int",
        SKY_SCALAR_FLOAT => "float",
        SKY_SCALAR_COMPLEX => "complex",
        SKY_SCALAR_BOOL => "bool",
        _ => "unknown",
    }
}
