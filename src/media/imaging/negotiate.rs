//! Which format a picture goes out in.
//!
//! In: the `Accept` header, what the source is, and what the URL asked for. Out: one format.
//!
//! Invariant: a format chosen for its name in `Accept` was named there with a weight above
//! zero. Wildcards never earn AVIF or WebP: a client that says `*/*` may be a script
//! that has never heard of them.
//!
//! Preference between the named formats is the server's (AVIF before WebP), as the
//! published behaviour of on-demand images has it; relative weights are not compared. What
//! moves prefers WebP, in which it keeps moving.

use super::format::OutputFormat;
use super::format::SourceFormat;

/// Chooses the output format; an asked one always wins.
pub fn choose(
    accept: Option<&str>,
    source: SourceFormat,
    has_alpha: bool,
    animated: bool,
    asked: Option<OutputFormat>,
) -> OutputFormat {
    if let Some(asked) = asked {
        return asked;
    }
    let accept = accept.unwrap_or("");
    if animated && names(accept, "image/webp") {
        return OutputFormat::Webp;
    }
    if names(accept, "image/avif") {
        return OutputFormat::Avif;
    }
    if names(accept, "image/webp") {
        return OutputFormat::Webp;
    }
    if source == SourceFormat::Png || has_alpha { OutputFormat::Png } else { OutputFormat::Jpeg }
}

/// Whether `Accept` names this media type outright, with a weight above zero (RFC 9110 §12.5.1).
fn names(accept: &str, mime: &str) -> bool {
    accept.split(',').any(|range| {
        let mut parts = range.split(';').map(str::trim);
        parts.next().is_some_and(|name| name.eq_ignore_ascii_case(mime))
            && !parts.any(|parameter| {
                let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
                name.trim().eq_ignore_ascii_case("q") && value.trim().parse::<f32>().is_ok_and(|q| q <= 0.0)
            })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table() {
        use OutputFormat::*;
        let jpeg = SourceFormat::Jpeg;
        let png = SourceFormat::Png;
        let chrome = "image/avif,image/webp,image/apng,image/svg+xml,image/*,*/*;q=0.8";
        let cases = [
            (Some(chrome), jpeg, false, None, Avif),
            (Some("image/webp,*/*"), jpeg, false, None, Webp),
            (Some("image/webp;q=0.9, image/avif;q=0.1"), jpeg, false, None, Avif),
            (Some("image/avif;q=0, image/webp"), jpeg, false, None, Webp),
            (Some("image/avif; Q=0.000 , image/webp ;q=0"), png, false, None, Png),
            (Some("IMAGE/AVIF"), png, true, None, Avif),
            (Some("*/*"), jpeg, false, None, Jpeg),
            (Some("image/*"), png, false, None, Png),
            (Some("image/*"), SourceFormat::Webp, true, None, Png),
            (Some("image/*"), SourceFormat::Webp, false, None, Jpeg),
            (Some("image/avifx"), jpeg, false, None, Jpeg),
            (None, jpeg, false, None, Jpeg),
            (None, png, false, None, Png),
            (Some(chrome), jpeg, false, Some(Png), Png),
            (Some("text/html;q=;;,"), SourceFormat::Gif, false, None, Jpeg),
        ];
        for (accept, source, alpha, asked, expected) in cases {
            assert_eq!(choose(accept, source, alpha, false, asked), expected, "{accept:?} {source:?}");
        }
        let moving = |accept, asked| choose(Some(accept), SourceFormat::Gif, false, true, asked);
        assert_eq!(moving(chrome, None), Webp);
        assert_eq!(moving("image/avif", None), Avif);
        assert_eq!(moving("image/webp;q=0,image/avif", None), Avif);
        assert_eq!(moving("*/*", None), Jpeg);
        assert_eq!(moving(chrome, Some(Avif)), Avif);
    }
}
