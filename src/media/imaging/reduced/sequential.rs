//! Baseline and extended sequential files: blocks are decoded once, in order, straight into
//! samples.
//!
//! In: a frame and its first scan. Out: filled planes. A strip of samples as high as a row of
//! units is filled at a time and then copied to the plane, without what hangs over.
//!
//! Invariant: every component came in exactly one scan and all of its data was sound.
#![expect(clippy::indexing_slicing, reason = "strips are sized for whole rows of units")]

use super::Stop;
use super::bits::Stream;
use super::copy_strip;
use super::header::Frame;
use super::header::Reader;
use super::header::Scan;
use super::huffman::END;
use super::huffman::Skips;
use super::huffman::Values;
use super::transform::Block;
use super::transform::Factors;
use super::transform::Kept;
use super::transform::transform;
use crate::media::imaging::planes::Plane;

/// Decodes scans until every component came.
pub fn decode<'a, const N: usize>(
    frame: &Frame,
    first: Scan<'a>,
    reader: &mut Reader<'a>,
    planes: &mut [Plane],
    go_on: &dyn Fn() -> Result<(), Stop>,
) -> Result<(), Stop> {
    let mut missing: Vec<usize> = (0..frame.components.len()).collect();
    let mut scan = first;
    loop {
        if (scan.from, scan.to, scan.high, scan.low) != (0, 63, 0, 0) {
            return Err(Stop::Left);
        }
        for part in &scan.parts {
            let at = missing.iter().position(|&component| component == part.component).ok_or(Stop::Left)?;
            missing.swap_remove(at);
        }
        let unread = decode_scan::<N>(frame, &scan, reader.source(), planes, go_on)?;
        if missing.is_empty() {
            return Ok(());
        }
        reader.skip_data(unread);
        scan = reader.next_scan().ok_or(Stop::Left)?;
    }
}

/// Entries for differences: few values are so large that their code and they do not fit.
const DC_LOG: u32 = 10;
const AC_LOG: u32 = 11;

struct AcTable {
    values: Values<AC_LOG>,
    skips: Skips,
}

/// A component while its scan is decoded.
struct Lane {
    component: usize,
    dc: usize,
    ac: usize,
    factors: Factors,
    prediction: i32,
    /// Blocks of it in a unit.
    across: usize,
    down: usize,
    strip: Vec<u8>,
    stride: usize,
}

fn decode_scan<const N: usize>(
    frame: &Frame,
    scan: &Scan<'_>,
    source: &[u8],
    planes: &mut [Plane],
    go_on: &dyn Fn() -> Result<(), Stop>,
) -> Result<usize, Stop> {
    // A component alone has units of one block, and none beyond the picture.
    let alone = match *scan.parts.as_slice() {
        [only] => frame.components.get(only.component),
        _ => None,
    };
    let (units_across, units_down) = alone.map_or(frame.units(), |one| (one.blocks_across, one.blocks_down));
    let mut lanes = Vec::new();
    let mut dc: [Option<Values<DC_LOG>>; 4] = [const { None }; 4];
    let mut ac: [Option<AcTable>; 4] = [const { None }; 4];
    for part in &scan.parts {
        let component = &frame.components[part.component];
        let (across, down) = match alone {
            Some(_) => (1, 1),
            None => (component.across as usize, component.down as usize),
        };
        let quantisation = scan.quantisation[component.quantisation].as_ref().ok_or(Stop::Left)?;
        let stride = units_across * across * N;
        lanes.push(Lane {
            component: part.component,
            dc: part.dc,
            ac: part.ac,
            factors: Factors::new::<N>(quantisation),
            prediction: 0,
            across,
            down,
            strip: vec![0; stride * down * N],
            stride,
        });
        if dc[part.dc].is_none() {
            dc[part.dc] = Some(scan.dc[part.dc].and_then(Values::dc).ok_or(Stop::Left)?);
        }
        if ac[part.ac].is_none() {
            let tables = scan.ac[part.ac].and_then(|from| Some((Values::ac(from)?, Skips::new(from)?)));
            let (values, skips) = tables.ok_or(Stop::Left)?;
            ac[part.ac] = Some(AcTable { values, skips });
        }
    }

    let mut stream = Stream::new(source, scan.data, scan.restart_interval);
    for row in 0..units_down {
        go_on()?;
        for unit in 0..units_across {
            if stream.begin_unit().ok_or(Stop::Left)? {
                for lane in &mut lanes {
                    lane.prediction = 0;
                }
            }
            for lane in &mut lanes {
                let (Some(dc), Some(ac)) = (&dc[lane.dc], &ac[lane.ac]) else { return Err(Stop::Left) };
                decode_unit::<N>(lane, unit, dc, ac, &mut stream).ok_or(Stop::Left)?;
            }
        }
        for lane in &lanes {
            copy_strip(&lane.strip, lane.stride, row * lane.down * N, &mut planes[lane.component]);
        }
    }
    stream.finish().ok_or(Stop::Left)
}

/// Decodes a component's blocks of one unit.
#[inline]
fn decode_unit<const N: usize>(
    lane: &mut Lane,
    unit: usize,
    dc: &Values<DC_LOG>,
    ac: &AcTable,
    stream: &mut Stream<'_>,
) -> Option<()> {
    for y in 0..lane.down {
        for x in 0..lane.across {
            let block = decode_block::<N>(dc, ac, &mut lane.prediction, stream)?;
            let out = &mut lane.strip[y * N * lane.stride + (unit * lane.across + x) * N..];
            transform::<N>(&block, &lane.factors, out, lane.stride);
        }
    }
    Some(())
}

#[inline]
fn decode_block<const N: usize>(
    dc: &Values<DC_LOG>,
    ac: &AcTable,
    prediction: &mut i32,
    stream: &mut Stream<'_>,
) -> Option<Block> {
    let mut block = [0; 32];
    let mut bits = stream.bits;
    let bytes = stream.bytes();
    bits.refill(bytes);
    let difference = dc.next(&mut bits, bytes)?.value;
    *prediction = prediction.wrapping_add(difference);
    block[0] = *prediction as i16;
    // The next coefficient.
    let mut position = 1;
    if N > 1 {
        'kept: loop {
            bits.refill(bytes);
            // As many as one refill is sure to serve; a long one refills by itself.
            for _ in 0..56 / AC_LOG {
                let step = ac.values.next(&mut bits, bytes)?;
                position += step.advance;
                block[Kept::<N>::place(position - 1)] = step.value as i16;
                if position > Kept::<N>::LAST {
                    break 'kept;
                }
            }
        }
    }
    // The ends of several blocks have no place here.
    if position >= END && block[Kept::<N>::place(END)] != 0 {
        return None;
    }
    let mut rest = bits;
    if position < 64 {
        ac.skips.skip_block(&mut rest, bytes, &ac.values, position)?;
    }
    stream.bits = rest;
    Some(block)
}
