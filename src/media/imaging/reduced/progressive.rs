//! Progressive files: the scans that matter, and of those the coefficients that are kept.
//!
//! In: a frame and its first scan. Out: filled planes. First the headers of all scans are read
//! and it is worked out, from the last to the first, which ones the kept coefficients depend
//! on; the data of the others is not looked at. At an eighth only averages are decoded.
//!
//! A scan that refines coefficients holds a bit for each that is not zero yet, kept or not, and
//! tells by nothing but the count. So where such a scan follows, a bitmap per block remembers
//! which coefficients are not zero, at 8 bytes instead of 128.
//!
//! Invariant: every coefficient kept has been received to its last bit, by scans in an order
//! that makes sense.
#![expect(clippy::indexing_slicing, reason = "stores are sized for whole rows of units, and positions are at most 63")]

use super::Stop;
use super::bits::Bits;
use super::bits::Bytes;
use super::bits::Stream;
use super::copy_strip;
use super::header::Component;
use super::header::Frame;
use super::header::Reader;
use super::header::Scan;
use super::huffman::END;
use super::huffman::Values;
use super::transform::Factors;
use super::transform::Kept;
use super::transform::transform;
use crate::media::imaging::Limits;
use crate::media::imaging::planes::Plane;

/// Each scan costs a pass over the picture, even if it holds next to nothing.
const MAX_SCANS: usize = 100;
const LOG: u32 = 11;

/// Decodes all scans that are needed, then transforms.
pub fn decode<'a, const N: usize>(
    frame: &Frame,
    first: Scan<'a>,
    reader: &mut Reader<'a>,
    limits: &Limits,
    planes: &mut [Plane],
    go_on: &dyn Fn() -> Result<(), Stop>,
) -> Result<(), Stop> {
    let scans = all_scans(first, reader).ok_or(Stop::Left)?;
    let uses = uses_of(frame, &scans, Kept::<N>::MASK).ok_or(Stop::Left)?;
    let (units_across, units_down) = frame.units();
    let mut stores = Vec::new();
    for (index, component) in frame.components.iter().enumerate() {
        let (across, down) = (component.across as usize, component.down as usize);
        let stride = units_across * across;
        let blocks = stride * units_down * down;
        let remembers =
            scans.iter().zip(&uses).any(|(scan, usage)| usage.remembers && scan.parts[0].component == index);
        let bytes = blocks * (if remembers { 8 } else { 0 } + N * N * 2);
        if bytes as u64 > limits.max_decoded_bytes {
            return Err(Stop::Left);
        }
        let history = vec![0; if remembers { blocks } else { 0 }];
        stores.push(Store { stride, across, down, coefficients: vec![0; blocks * N * N], history });
    }
    for (scan, &usage) in scans.iter().zip(&uses) {
        if !usage.needed {
            continue;
        }
        let source = reader.source();
        if scan.from == 0 {
            decode_averages::<N>(frame, scan, source, &mut stores, go_on)?;
        } else {
            let component = &frame.components[scan.parts[0].component];
            let store = &mut stores[scan.parts[0].component];
            decode_band::<N>(component, scan, usage, source, store, go_on)?;
        }
    }
    for (index, (plane, store)) in planes.iter_mut().zip(&stores).enumerate() {
        let latched = scans.iter().find(|scan| scan.parts.iter().any(|part| part.component == index));
        let table = latched.and_then(|scan| scan.quantisation[frame.components[index].quantisation].as_ref());
        let factors = Factors::new::<N>(table.ok_or(Stop::Left)?);
        let stride = store.stride * N;
        let mut strip = vec![0; stride * N];
        for (row, blocks) in store.coefficients.chunks_exact(stride * N).enumerate() {
            go_on()?;
            for (at, coefficients) in blocks.chunks_exact(N * N).enumerate() {
                let mut block = [0; 32];
                block[..N * N].copy_from_slice(coefficients);
                transform::<N>(&block, &factors, &mut strip[at * N..], stride);
            }
            copy_strip(&strip, stride, row * N, plane);
        }
    }
    Ok(())
}

/// What is kept of a component.
struct Store {
    /// Blocks in a row.
    stride: usize,
    /// Blocks in a unit of an interleaved scan.
    across: usize,
    down: usize,
    /// `N * N` for each block.
    coefficients: Vec<i16>,
    /// For each block a bit for each coefficient that is not zero; empty where not needed.
    history: Vec<u64>,
}

/// What a scan is good for.
#[derive(Clone, Copy, Default)]
struct Usage {
    needed: bool,
    /// A later scan must know which coefficients of this one are not zero.
    remembers: bool,
}

fn all_scans<'a>(first: Scan<'a>, reader: &mut Reader<'a>) -> Option<Vec<Scan<'a>>> {
    let mut scans = vec![first];
    while let Some(last) = scans.last() {
        reader.skip_data(last.data);
        match reader.next_scan() {
            Some(_) if scans.len() == MAX_SCANS => return None,
            Some(scan) => scans.push(scan),
            None => break,
        }
    }
    Some(scans)
}

fn band(from: u32, to: u32) -> u64 {
    (u64::MAX >> (63 - to)) & (u64::MAX << from)
}

/// What each scan is good for; `None` if the coefficients of the mask do not become complete,
/// or by an order of scans that makes no sense.
fn uses_of(frame: &Frame, scans: &[Scan<'_>], mask: u64) -> Option<Vec<Usage>> {
    // How many bits of each coefficient are still missing.
    let mut missing = vec![[None; 64]; frame.components.len()];
    for scan in scans {
        let is_band = scan.from >= 1 && scan.from <= scan.to && scan.to <= 63 && scan.parts.len() == 1;
        let refines = scan.high > 0;
        if !(is_band || (scan.from, scan.to) == (0, 0)) || scan.low > 13 || (refines && scan.high != scan.low + 1) {
            return None;
        }
        for part in &scan.parts {
            for missing in &mut missing[part.component][scan.from as usize..=scan.to as usize] {
                if *missing != refines.then_some(scan.high) {
                    return None;
                }
                *missing = Some(scan.low);
            }
        }
    }
    let is_complete = |missing: &[Option<u32>; 64]| (0..64).all(|at| mask >> at & 1 == 0 || missing[at] == Some(0));
    if !missing.iter().all(is_complete) {
        return None;
    }
    let mut uses = vec![Usage::default(); scans.len()];
    // For each component, the coefficients of which later scans must know whether they are zero.
    let mut asked = vec![0; frame.components.len()];
    for (scan, usage) in scans.iter().zip(&mut uses).rev() {
        let asked = &mut asked[scan.parts[0].component];
        let band = band(scan.from, scan.to);
        usage.remembers = scan.from > 0 && *asked & band != 0;
        usage.needed = usage.remembers || mask & band != 0;
        if usage.needed && scan.from > 0 {
            *asked = if scan.high > 0 { *asked | band } else { *asked & !band };
        }
    }
    Some(uses)
}

fn decode_averages<const N: usize>(
    frame: &Frame,
    scan: &Scan<'_>,
    source: &[u8],
    stores: &mut [Store],
    go_on: &dyn Fn() -> Result<(), Stop>,
) -> Result<(), Stop> {
    let alone = match *scan.parts.as_slice() {
        [only] => frame.components.get(only.component),
        _ => None,
    };
    let (units_across, units_down) = alone.map_or(frame.units(), |one| (one.blocks_across, one.blocks_down));
    let refines = scan.high > 0;
    let mut tables = Vec::new();
    for part in &scan.parts {
        let table = if refines { None } else { Some(scan.dc[part.dc].and_then(Values::<LOG>::dc).ok_or(Stop::Left)?) };
        tables.push((part.component, table));
    }
    let mut predictions = [0_i32; 4];
    let mut stream = Stream::new(source, scan.data, scan.restart_interval);
    for row in 0..units_down {
        go_on()?;
        for unit in 0..units_across {
            if stream.begin_unit().ok_or(Stop::Left)? {
                predictions = [0; 4];
            }
            for (component, table) in &tables {
                let store = &mut stores[*component];
                let (across, down) = if alone.is_some() { (1, 1) } else { (store.across, store.down) };
                for y in 0..down {
                    for x in 0..across {
                        let at = ((row * down + y) * store.stride + unit * across + x) * N * N;
                        let mut bits = stream.bits;
                        bits.refill(stream.bytes());
                        if let Some(table) = table {
                            let difference = table.next(&mut bits, stream.bytes()).ok_or(Stop::Left)?.value;
                            let prediction = &mut predictions[*component];
                            *prediction = prediction.wrapping_add(difference);
                            store.coefficients[at] = (*prediction << scan.low) as i16;
                        } else {
                            store.coefficients[at] |= (bits.take(1) << scan.low) as i16;
                        }
                        stream.bits = bits;
                    }
                }
            }
        }
    }
    stream.finish().map(drop).ok_or(Stop::Left)
}

fn decode_band<const N: usize>(
    component: &Component,
    scan: &Scan<'_>,
    usage: Usage,
    source: &[u8],
    store: &mut Store,
    go_on: &dyn Fn() -> Result<(), Stop>,
) -> Result<(), Stop> {
    let values = scan.ac[scan.parts[0].ac].and_then(Values::ac).ok_or(Stop::Left)?;
    let band = Band { values, from: scan.from, to: scan.to, low: scan.low };
    let mut stream = Stream::new(source, scan.data, scan.restart_interval);
    // How many blocks are known to hold nothing new.
    let mut ends = 0;
    for row in 0..component.blocks_down {
        go_on()?;
        for column in 0..component.blocks_across {
            if stream.begin_unit().ok_or(Stop::Left)? {
                ends = 0;
            }
            let at = row * store.stride + column;
            let coefficients = &mut store.coefficients[at * N * N..(at + 1) * N * N];
            if scan.high > 0 {
                let history = &mut store.history[at];
                band.refine_block::<N>(&mut stream, &mut ends, coefficients, history).ok_or(Stop::Left)?;
            } else if ends > 0 {
                ends -= 1;
            } else {
                let found = band.decode_block::<N>(&mut stream, &mut ends, coefficients).ok_or(Stop::Left)?;
                if usage.remembers {
                    store.history[at] |= found;
                }
            }
        }
    }
    stream.finish().map(drop).ok_or(Stop::Left)
}

/// A scan's band of coefficients and its table.
struct Band {
    values: Values<LOG>,
    from: u32,
    to: u32,
    low: u32,
}

impl Band {
    /// The first scan of these coefficients: returns which ones are not zero.
    #[inline]
    fn decode_block<const N: usize>(
        &self,
        stream: &mut Stream<'_>,
        ends: &mut u32,
        coefficients: &mut [i16],
    ) -> Option<u64> {
        let mut bits = stream.bits;
        let bytes = stream.bytes();
        let mut found = 0;
        let mut position = self.from;
        'block: while position <= self.to {
            bits.refill(bytes);
            for _ in 0..56 / LOG {
                let step = self.values.next(&mut bits, bytes)?;
                position += step.advance;
                if position > self.to {
                    if step.advance >= END {
                        *ends = step.value as u32;
                    } else if position > self.to + 1 {
                        return None;
                    } else {
                        found |= put::<N>(coefficients, position - 1, step.value << self.low);
                    }
                    break 'block;
                }
                found |= put::<N>(coefficients, position - 1, step.value << self.low);
            }
        }
        stream.bits = bits;
        Some(found)
    }

    /// A later scan: one more bit of the coefficients that are not zero, and some new ones.
    #[inline]
    fn refine_block<const N: usize>(
        &self,
        stream: &mut Stream<'_>,
        ends: &mut u32,
        coefficients: &mut [i16],
        remembered: &mut u64,
    ) -> Option<()> {
        let mut bits = stream.bits;
        let bytes = stream.bytes();
        let mut history = *remembered;
        let mut position = self.from;
        if *ends == 0 {
            while position <= self.to {
                bits.refill(bytes);
                let step = self.values.next(&mut bits, bytes)?;
                if step.advance >= END {
                    *ends = step.value as u32 + 1;
                    break;
                }
                if step.value.abs() > 1 {
                    return None;
                }
                // The run counts coefficients that are zero so far; the last one becomes new.
                let run = step.advance - 1;
                let place = position + nth_set_bit(!history >> position, run);
                if place > self.to {
                    return None;
                }
                let count = place - position - run;
                correct::<N>(&mut bits, bytes, coefficients, history & band(position, place), count, self.low);
                history |= put::<N>(coefficients, place, step.value << self.low);
                position = place + 1;
            }
        }
        if *ends > 0 {
            *ends -= 1;
            if position <= self.to {
                let old = history & band(position, self.to);
                bits.refill(bytes);
                correct::<N>(&mut bits, bytes, coefficients, old, old.count_ones(), self.low);
            }
        }
        *remembered = history;
        stream.bits = bits;
        Some(())
    }
}

/// Where in the word the set bit is that has `n` (0 to 15) set bits below it; 64 or more if
/// there is none.
#[inline]
fn nth_set_bit(word: u64, n: u32) -> u32 {
    let (mut word, mut n, mut base) = (word, n, 0);
    while base < 64 {
        let byte = &SET_BITS[(word & 0xFF) as usize];
        // The entry behind the places is their number.
        let count = u32::from(byte[8]);
        if n < count {
            return base + u32::from(byte[n as usize & 7]);
        }
        n -= count;
        word >>= 8;
        base += 8;
    }
    base
}

/// For each byte the places of its set bits, and at last how many there are.
static SET_BITS: [[u8; 9]; 256] = {
    let mut table = [[0; 9]; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut place = 0;
        while place < 8 {
            if byte >> place & 1 == 1 {
                let count = table[byte][8];
                table[byte][count as usize] = place;
                table[byte][8] = count + 1;
            }
            place += 1;
        }
        byte += 1;
    }
    table
};

/// Stores a value if its coefficient is kept, and returns its bit of the bitmap.
#[inline]
fn put<const N: usize>(coefficients: &mut [i16], position: u32, value: i32) -> u64 {
    if Kept::<N>::MASK >> position & 1 == 1 {
        coefficients[Kept::<N>::place(position)] = value as i16;
    }
    u64::from(value != 0) << position
}

/// Takes a bit for each of these coefficients, `count` in all; where it is set, moves the value
/// away from zero. There must be 45 bits.
#[inline]
fn correct<const N: usize>(bits: &mut Bits, bytes: &Bytes, coefficients: &mut [i16], old: u64, count: u32, low: u32) {
    let mut others = count;
    let mut kept = old & (u64::MAX >> (63 - Kept::<N>::LAST));
    while kept != 0 {
        let position = kept.trailing_zeros();
        kept &= kept - 1;
        others -= 1;
        let more = (bits.take(1) << low) as i16;
        if Kept::<N>::MASK >> position & 1 == 1 {
            let value = &mut coefficients[Kept::<N>::place(position)];
            let sign = *value >> 15;
            *value = value.wrapping_add((more ^ sign) - sign);
        }
    }
    if others > 20 {
        bits.refill(bytes);
        if others > 32 {
            bits.drop(32);
            bits.refill(bytes);
            others -= 32;
        }
    }
    bits.drop(others);
}
