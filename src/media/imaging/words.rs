//! The texts people write into pictures: IPTC and XMP.
//!
//! In: the payload of a Photoshop segment, or an XMP packet. Out: pairs of ExifTool's name and
//! text.
//!
//! Invariant: linear in the input, no entity is expanded but the five of XML, no reference is
//! followed.
//!
//! XMP is searched as text, not parsed: of a graph language only a handful of plain properties
//! are wanted, and a scan has no bombs in it. IPTC is the record format of IIM version 4.

/// Datasets of the IIM application record that are passed on.
const IPTC: &[(u8, &str)] = &[
    (5, "Title"),
    (25, "Keywords"),
    (80, "Creator"),
    (105, "Headline"),
    (110, "Credit"),
    (116, "Copyright"),
    (120, "Caption"),
    (90, "City"),
    (101, "Country"),
];

/// XMP properties that are passed on.
const XMP: &[(&str, &str)] = &[
    ("dc:title", "Title"),
    ("dc:description", "Caption"),
    ("dc:subject", "Keywords"),
    ("dc:creator", "Creator"),
    ("dc:rights", "Copyright"),
    ("photoshop:Headline", "Headline"),
    ("photoshop:Credit", "Credit"),
    ("photoshop:City", "City"),
    ("photoshop:Country", "Country"),
    ("xmp:Rating", "Rating"),
    ("xmp:CreatorTool", "CreatorTool"),
];

const MOST_ITEMS: usize = 100;

/// Reads the IPTC records of a Photoshop segment.
pub fn iptc(photoshop: &[u8]) -> Vec<(&'static str, String)> {
    let mut found = Vec::new();
    let mut rest = photoshop;
    while let Some(after) = rest.strip_prefix(b"8BIM".as_slice()) {
        let Some((id, after)) = after.split_first_chunk::<2>() else { break };
        // The resource's name: a length and that many bytes, padded to an even total.
        let name = after.first().map_or(0, |&n| (usize::from(n) + 2) & !1);
        let Some((size, after)) = after.get(name..).and_then(|b| b.split_first_chunk::<4>()) else { break };
        let size = u32::from_be_bytes(*size) as usize;
        let Some(data) = after.get(..size) else { break };
        if *id == [0x04, 0x04] {
            read_records(data, &mut found);
        }
        rest = after.get(size + size % 2..).unwrap_or_default();
    }
    join(found)
}

/// Reads the plain properties of an XMP packet.
pub fn xmp(packet: &[u8]) -> Vec<(&'static str, String)> {
    let packet = String::from_utf8_lossy(packet);
    let mut found = Vec::new();
    for (property, name) in XMP {
        if let Some(body) = element(&packet, property) {
            let items: Vec<&str> = items(body).take(MOST_ITEMS).collect();
            if items.is_empty() && !body.contains('<') {
                found.push((*name, unescape(body)));
            }
            // Of a title in many languages the first is the default one.
            let most = if matches!(*name, "Keywords" | "Creator") { MOST_ITEMS } else { 1 };
            found.extend(items.into_iter().take(most).map(|item| (*name, unescape(item))));
        } else if let Some(value) = attribute(&packet, property) {
            found.push((*name, unescape(value)));
        }
    }
    join(found)
}

fn read_records(mut records: &[u8], found: &mut Vec<(&'static str, String)>) {
    const UTF8: &[u8] = b"\x1b%G";
    let mut is_utf8 = false;
    while let &[0x1C, record, dataset, high, low, ref after @ ..] = records {
        let length = usize::from(u16::from_be_bytes([high, low]));
        // A set top bit announces a longer length field, which no text needs.
        let Some(data) = after.get(..length).filter(|_| high < 0x80) else { return };
        if (record, dataset) == (1, 90) {
            is_utf8 = data == UTF8;
        }
        if let Some((_, name)) = IPTC.iter().find(|(number, _)| record == 2 && *number == dataset)
            && found.len() < MOST_ITEMS
        {
            let text = match std::str::from_utf8(data) {
                Ok(text) => text.to_owned(),
                Err(_) if is_utf8 => String::from_utf8_lossy(data).into_owned(),
                Err(_) => data.iter().map(|&b| char::from(b)).collect(),
            };
            found.push((*name, text));
        }
        records = after.get(length..).unwrap_or_default();
    }
}

/// Texts of the same name become one, in the order they came.
fn join(found: Vec<(&'static str, String)>) -> Vec<(&'static str, String)> {
    let mut joined: Vec<(&'static str, String)> = Vec::new();
    for (name, text) in found {
        match joined.iter_mut().find(|(known, _)| *known == name) {
            Some((_, all)) => {
                all.push_str(", ");
                all.push_str(&text);
            }
            None => joined.push((name, text)),
        }
    }
    joined
}

/// What stands between an element's tags.
fn element<'a>(packet: &'a str, name: &str) -> Option<&'a str> {
    let (_, after) = packet.split_once(&format!("<{name}"))?;
    let (tag, body) = after.split_once('>')?;
    if tag.ends_with('/') || !(tag.is_empty() || tag.starts_with(char::is_whitespace)) {
        return None;
    }
    body.split_once(&format!("</{name}>")).map(|(body, _)| body)
}

fn attribute<'a>(packet: &'a str, name: &str) -> Option<&'a str> {
    let (_, after) = packet.split_once(&format!(" {name}="))?;
    let quote = after.chars().next().filter(|c| matches!(c, '"' | '\''))?;
    after.get(1..)?.split_once(quote).map(|(value, _)| value)
}

fn items(body: &str) -> impl Iterator<Item = &str> {
    body.split("<rdf:li").skip(1).filter_map(|item| {
        let (_, text) = item.split_once('>')?;
        text.split_once("</rdf:li>").map(|(text, _)| text)
    })
}

fn unescape(text: &str) -> String {
    // The ampersand comes last, or `&amp;lt;` would be read twice.
    [("&lt;", "<"), ("&gt;", ">"), ("&quot;", "\""), ("&apos;", "'"), ("&amp;", "&")]
        .into_iter()
        .fold(text.trim().to_owned(), |text, (from, to)| text.replace(from, to))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn xmp_as_lightroom_writes_it() {
        let packet = r#"<x:xmpmeta><rdf:Description rdf:about="" xmp:Rating="4" photoshop:City='K&#xF6;ln &amp; more'>
            <dc:title><rdf:Alt><rdf:li xml:lang="x-default">A &lt;b&gt; title</rdf:li><rdf:li xml:lang="de">Titel</rdf:li></rdf:Alt></dc:title>
            <dc:subject><rdf:Bag><rdf:li>stage</rdf:li><rdf:li>light</rdf:li></rdf:Bag></dc:subject>
            <photoshop:Headline>News</photoshop:Headline></rdf:Description></x:xmpmeta>"#;
        let found = xmp(packet.as_bytes());
        let get = |name: &str| found.iter().find(|(n, _)| *n == name).map(|(_, t)| t.as_str());
        assert_eq!(get("Title"), Some("A <b> title"));
        assert_eq!(get("Keywords"), Some("stage, light"));
        assert_eq!(get("Rating"), Some("4"));
        assert_eq!(get("Headline"), Some("News"));
        assert_eq!(get("Caption"), None);
        for cut in 0..packet.len() {
            xmp(&packet.as_bytes()[..cut]);
        }
    }

    #[test]
    fn iptc_records() {
        let mut records = Vec::new();
        for (dataset, text) in [(5, "Title"), (25, "one"), (25, "two"), (120, "Grüße")] {
            records.extend([0x1C, 2, dataset, 0, text.len() as u8]);
            records.extend(text.as_bytes());
        }
        let mut block = b"8BIM\x03\xed\0\0\0\0\0\x02abJUNK".to_vec();
        block.truncate(14);
        block.extend(b"8BIM\x04\x04\0\0");
        block.extend((records.len() as u32).to_be_bytes());
        block.extend(&records);
        let found = iptc(&block);
        assert_eq!(
            found,
            [("Title", "Title".to_owned()), ("Keywords", "one, two".to_owned()), ("Caption", "Grüße".to_owned())]
        );
        for cut in 0..block.len() {
            iptc(&block[..cut]);
        }
    }
}
