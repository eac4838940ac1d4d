//! The markers of a JPEG, as far as decoding needs them.
//!
//! In: the bytes of a file. Out: scan after scan, each with the tables in force where it
//! begins, and the frame they belong to.
//!
//! Invariant: a frame that is handed out is of a kind this decoder can decode; its sampling
//! factors are powers of two and light has the largest ones. Slices are borrowed, nothing is
//! allocated that the file could size.

/// What all scans share.
#[derive(Clone)]
pub struct Frame {
    pub width: u32,
    pub height: u32,
    pub progressive: bool,
    /// One (grey) or three (YCbCr).
    pub components: Vec<Component>,
    /// The largest sampling factors.
    pub across: u32,
    pub down: u32,
}

/// Light, or one of the two colours.
#[derive(Clone)]
pub struct Component {
    id: u8,
    /// Sampling factors: blocks in a unit of an interleaved scan.
    pub across: u32,
    pub down: u32,
    pub quantisation: usize,
    /// Blocks that hold something of the picture.
    pub blocks_across: usize,
    pub blocks_down: usize,
}

impl Frame {
    /// Units of an interleaved scan, along the sides.
    pub fn units(&self) -> (usize, usize) {
        (self.width.div_ceil(8 * self.across) as usize, self.height.div_ceil(8 * self.down) as usize)
    }
}

/// The counts of codes by length, followed by the symbols.
pub type Specification<'a> = &'a [u8];

/// A scan's header and the tables in force.
#[derive(Clone)]
pub struct Scan<'a> {
    pub parts: Vec<ScanPart>,
    /// The band of coefficients, in zig-zag order.
    pub from: u32,
    pub to: u32,
    /// Bits still missing before and after this scan, in a progressive file.
    pub high: u32,
    pub low: u32,
    pub restart_interval: usize,
    /// Where the coded data begins in the file.
    pub data: usize,
    pub dc: [Option<Specification<'a>>; 4],
    pub ac: [Option<Specification<'a>>; 4],
    pub quantisation: [Option<[u16; 64]>; 4],
}

/// A component's part in a scan.
#[derive(Clone, Copy)]
pub struct ScanPart {
    /// Index into the frame's components.
    pub component: usize,
    pub dc: usize,
    pub ac: usize,
}

/// Walks the markers.
pub struct Reader<'a> {
    source: &'a [u8],
    at: usize,
    frame: Option<Frame>,
    dc: [Option<Specification<'a>>; 4],
    ac: [Option<Specification<'a>>; 4],
    quantisation: [Option<[u16; 64]>; 4],
    restart_interval: usize,
    jfif: bool,
    adobe_transform: Option<u8>,
}

impl<'a> Reader<'a> {
    pub fn new(source: &'a [u8]) -> Self {
        Self {
            source,
            at: 0,
            frame: None,
            dc: [None; 4],
            ac: [None; 4],
            quantisation: [None; 4],
            restart_interval: 0,
            jfif: false,
            adobe_transform: None,
        }
    }

    pub fn source(&self) -> &'a [u8] {
        self.source
    }

    /// The frame, once a scan was found.
    pub fn frame(&self) -> Option<Frame> {
        self.frame.clone()
    }

    /// Goes on behind the coded data that begins here.
    pub fn skip_data(&mut self, data: usize) {
        let mut at = data;
        while let Some(rest) = self.source.get(at..) {
            at += clean_run(rest);
            match self.source.get(at + 1) {
                Some(0x00 | 0xD0..=0xD7) => at += 2,
                Some(0xFF) => at += 1,
                _ => break,
            }
        }
        self.at = at;
    }

    /// The next scan's header; `None` at the end of the image, or where something is foreign.
    pub fn next_scan(&mut self) -> Option<Scan<'a>> {
        if self.at == 0 {
            self.source.strip_prefix(&[0xFF, 0xD8])?;
            self.at = 2;
        }
        loop {
            let (marker, segment) = self.next_segment()?;
            match marker {
                0xC0..=0xC2 if self.frame.is_none() => {
                    self.frame = Some(frame(segment, marker == 0xC2)?);
                }
                0xC4 => self.huffman_tables(segment)?,
                0xDB => self.quantisation_tables(segment)?,
                0xDD => self.restart_interval = usize::from(u16::from_be_bytes(*segment.as_array()?)),
                0xDA => return self.scan(segment),
                0xE0 => self.jfif |= segment.len() >= 14 && segment.starts_with(b"JFIF\0"),
                0xEE if segment.len() >= 12 && segment.starts_with(b"Adobe") => {
                    self.adobe_transform = segment.get(11).copied();
                }
                0xE0..=0xEF | 0xFE => {}
                // Other frames, arithmetic coding, a later height, hierarchical files, the end.
                _ => return None,
            }
        }
    }

    fn next_segment(&mut self) -> Option<(u8, &'a [u8])> {
        let rest = self.source.get(self.at..)?;
        let fill = rest.iter().take_while(|&&byte| byte == 0xFF).count();
        let marker = *rest.get(fill).filter(|_| fill > 0)?;
        let after = rest.get(fill + 1..)?;
        let length = usize::from(u16::from_be_bytes(*after.first_chunk()?));
        let segment = after.get(2..length)?;
        self.at += fill + 1 + length;
        Some((marker, segment))
    }

    fn huffman_tables(&mut self, mut rest: &'a [u8]) -> Option<()> {
        while let Some((&which, after)) = rest.split_first() {
            let counts = after.get(..16)?;
            let len = 16 + counts.iter().map(|&count| usize::from(count)).sum::<usize>();
            let (table, after) = after.split_at_checked(len)?;
            let tables = if which >> 4 == 0 { &mut self.dc } else { &mut self.ac };
            *tables.get_mut(usize::from(which & 15)).filter(|_| which >> 4 < 2)? = Some(table);
            rest = after;
        }
        Some(())
    }

    fn quantisation_tables(&mut self, mut rest: &[u8]) -> Option<()> {
        while let Some((&which, after)) = rest.split_first() {
            let wide = which >> 4;
            let (values, after) = after.split_at_checked(if wide == 0 { 64 } else { 128 })?;
            let mut table = [0; 64];
            if wide == 0 {
                table.iter_mut().zip(values).for_each(|(entry, &value)| *entry = u16::from(value));
            } else {
                let values = values.as_chunks::<2>().0;
                table.iter_mut().zip(values).for_each(|(entry, value)| *entry = u16::from_be_bytes(*value));
            }
            *self.quantisation.get_mut(usize::from(which & 15)).filter(|_| wide < 2)? = Some(table);
            rest = after;
        }
        Some(())
    }

    fn scan(&self, segment: &[u8]) -> Option<Scan<'a>> {
        let frame = self.frame.as_ref()?;
        if !self.is_ycc(frame) {
            return None;
        }
        let (&count, rest) = segment.split_first()?;
        let (selectors, rest) = rest.split_at_checked(usize::from(count) * 2)?;
        let &[from, to, precision] = rest else { return None };
        let mut parts: Vec<ScanPart> = Vec::new();
        for &[id, tables] in selectors.as_chunks::<2>().0 {
            let component = frame.components.iter().position(|component| component.id == id)?;
            let (dc, ac) = (usize::from(tables >> 4), usize::from(tables & 15));
            // Components come in the frame's order, each once.
            if dc > 3 || ac > 3 || parts.last().is_some_and(|last| last.component >= component) {
                return None;
            }
            parts.push(ScanPart { component, dc, ac });
        }
        Some(Scan {
            parts: (!parts.is_empty()).then_some(parts)?,
            from: u32::from(from),
            to: u32::from(to),
            high: u32::from(precision >> 4),
            low: u32::from(precision & 15),
            restart_interval: self.restart_interval,
            data: self.at,
            dc: self.dc,
            ac: self.ac,
            quantisation: self.quantisation,
        })
    }

    /// libjpeg's rules for telling YCbCr from RGB.
    fn is_ycc(&self, frame: &Frame) -> bool {
        let is_rgb = frame.components.iter().map(|component| component.id).eq(*b"RGB");
        match (frame.components.len(), self.jfif, self.adobe_transform) {
            (1, ..) | (3, true, _) => true,
            (3, false, Some(transform)) => transform == 1,
            (3, false, None) => !is_rgb,
            _ => false,
        }
    }
}

fn frame(segment: &[u8], progressive: bool) -> Option<Frame> {
    let &[precision, h1, h0, w1, w0, count, ref specifications @ ..] = segment else { return None };
    let height = u32::from(u16::from_be_bytes([h1, h0]));
    let width = u32::from(u16::from_be_bytes([w1, w0]));
    let (specifications, excess) = specifications.as_chunks::<3>();
    if precision != 8 || width == 0 || height == 0 || !excess.is_empty() {
        return None;
    }
    if specifications.len() != usize::from(count) || !matches!(count, 1 | 3) {
        return None;
    }
    let largest = |shift: u8| specifications.iter().map(|s| u32::from(s[1] >> shift & 15)).max().unwrap_or(0);
    let (across, down) = (largest(4), largest(0));
    let mut components: Vec<Component> = Vec::new();
    for &[id, sampling, quantisation] in specifications {
        let (h, v) = (u32::from(sampling >> 4), u32::from(sampling & 15));
        let is_light = components.is_empty();
        let fits = matches!(h, 1 | 2 | 4) && matches!(v, 1 | 2 | 4);
        let like_its_twin = components.get(1).is_none_or(|twin| (twin.across, twin.down) == (h, v));
        if !fits || (is_light && (h, v) != (across, down)) || !like_its_twin || quantisation > 3 {
            return None;
        }
        if components.iter().any(|other| other.id == id) {
            return None;
        }
        components.push(Component {
            id,
            across: h,
            down: v,
            quantisation: usize::from(quantisation),
            blocks_across: (width * h).div_ceil(8 * across) as usize,
            blocks_down: (height * v).div_ceil(8 * down) as usize,
        });
    }
    // A scan of all components may hold at most ten blocks in a unit.
    let blocks: u32 = components.iter().map(|component| component.across * component.down).sum();
    (components.len() == 1 || blocks <= 10).then_some(Frame { width, height, progressive, components, across, down })
}

/// How many bytes come before the first 0xFF.
fn clean_run(bytes: &[u8]) -> usize {
    let (blocks, rest) = bytes.as_chunks::<32>();
    let clean = blocks.iter().take_while(|block| !has_ff(block)).count();
    let rest = blocks.get(clean).map_or(rest, |block| block.as_slice());
    clean * 32 + rest.iter().position(|&byte| byte == 0xFF).unwrap_or(rest.len())
}

/// In a form that compiles to vector comparisons.
#[inline]
pub fn has_ff(block: &[u8; 32]) -> bool {
    block.iter().fold(0_u8, |found, &byte| found | if byte == 0xFF { 0xFF } else { 0 }) != 0
}
