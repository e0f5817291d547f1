//! Damage: what is done to golden bytes. It knows varints and the limits of the protocol, so that much of what comes
//! out is refused late or not at all.

use skytorch_wire::limits;

/// SplitMix64: small, and every seed is a good one.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64, number: u64) -> Random {
        let mut random = Random(seed ^ number.wrapping_mul(0xd134_2543_de82_ef95));
        random.next();
        random
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Below `n`, which is not 0.
    pub(crate) fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    pub(crate) fn of<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[self.below(all.len())]
    }
}

/// Numbers at which something changes.
const EDGES: [u64; 22] = [
    0,
    1,
    2,
    0x7f,
    0x80,
    0xff,
    limits::DIMS as u64,
    limits::NAME_BYTES as u64,
    limits::TEMPLATE_ARGS as u64,
    limits::LIST_ELEMENTS as u64,
    limits::SLOTS as u64,
    limits::INLINE_WRITE_BYTES,
    limits::RECORD_BYTES as u64,
    limits::MESSAGE_BYTES as u64,
    i32::MAX as u64,
    u32::MAX as u64,
    1 << 40,
    i64::MAX as u64 / 2,
    i64::MAX as u64,
    1 << 63,
    u64::MAX - 1,
    u64::MAX,
];

fn edge(random: &mut Random) -> u64 {
    let edge = *random.of(&EDGES);
    match random.below(4) {
        0 => edge.wrapping_add(1),
        1 => edge.wrapping_sub(1),
        2 => random.next() >> random.below(64),
        _ => edge,
    }
}

fn varint(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(10);
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

/// Bytes of one or several seeds, damaged in up to four places.
pub(crate) fn damaged(seeds: &[Vec<u8>], random: &mut Random) -> Vec<u8> {
    /// Longer ones only make it slow.
    const MOST_BYTES: usize = 16 << 10;
    if random.below(64) == 0 {
        return (0..random.below(200)).map(|_| random.next() as u8).collect();
    }
    let mut bytes = random.of(seeds).clone();
    while random.below(3) == 0 {
        bytes.extend_from_slice(random.of::<Vec<u8>>(seeds));
    }
    for _ in 0..random.below(5) {
        damage(&mut bytes, seeds, random);
    }
    bytes.truncate(MOST_BYTES);
    bytes
}

fn damage(bytes: &mut Vec<u8>, seeds: &[Vec<u8>], random: &mut Random) {
    let at = random.below(bytes.len() + 1);
    let until = (at + random.below(9)).min(bytes.len());
    match random.below(10) {
        0 if at < bytes.len() => bytes[at] ^= 1 << random.below(8),
        1 if at < bytes.len() => bytes[at] = edge(random) as u8,
        2 if at < bytes.len() => bytes[at] = bytes[at].wrapping_add(*random.of(&[1, 255])),
        3 => drop(bytes.drain(at..until)),
        4 => bytes.insert(at, random.next() as u8),
        5 => bytes.truncate(at),
        6 => {
            let again: Vec<u8> = bytes[at..until].to_vec();
            bytes.splice(at..at, again.repeat(1 + random.below(4)));
        }
        7 => {
            let other = random.of(seeds);
            let from = random.below(other.len() + 1);
            let to = (from + random.below(40)).min(other.len());
            bytes.splice(at..until, other[from..to].iter().copied());
        }
        8 => {
            // One whole varint for another: what follows keeps its place.
            let len = bytes[at..].iter().take_while(|byte| **byte >= 0x80).count() + 1;
            let end = (at + len).min(bytes.len());
            bytes.splice(at..end, varint(edge(random)));
        }
        _ => {
            let fixed = edge(random).to_le_bytes();
            let end = (at + *random.of(&[4, 8])).min(bytes.len());
            bytes[at..end].copy_from_slice(&fixed[..end - at]);
        }
    }
}
