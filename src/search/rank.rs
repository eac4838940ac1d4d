//! The best in front: how well a keyword fits an asset.
//!
//! The index's own ranking counts, for every word, in how many assets it stands, which among a
//! million takes longer than anybody waits, and says little about names of pictures. Here the
//! newest hits are looked at one by one: how many of the words are there, in the name rather
//! than in the rest, whole rather than begun, and among how many others. The order of equals is
//! newest first.

use crate::error::Result;
use crate::infra::db::Conn;
use crate::search::plan::Plan;
use crate::search::store;
use crate::search::words;

/// What a word in the name is worth, and one elsewhere.
const IN_NAME: f64 = 3.0;
const ELSEWHERE: f64 = 1.0;
/// What one that only begins so is worth of it.
const BEGUN: f64 = 0.6;
/// What each word counts for besides: having all of them is better than having one of them often.
const THERE: f64 = 4.0;

/// Puts the best of the first `most` hits in front; the others stay as they are.
pub fn best_first(c: &Conn, plan: &Plan, keys: &mut [i64], most: usize) -> Result<()> {
    if plan.keyword.is_empty() {
        return Ok(());
    }
    let (looked_at, _) = keys.split_at_mut(most.min(keys.len()));
    let mut scored = Vec::with_capacity(looked_at.len());
    for key in &*looked_at {
        let score = store::texts(c, *key)?.map_or(0.0, |(name, rest)| score(&plan.keyword, &name, &rest));
        scored.push((score, *key));
    }
    // Stable: equals stay newest first.
    scored.sort_by(|a, b| b.0.total_cmp(&a.0));
    for (place, (_, key)) in looked_at.iter_mut().zip(scored) {
        *place = key;
    }
    Ok(())
}

fn score(keyword: &[(String, bool)], name: &str, rest: &str) -> f64 {
    let texts = [(words::fold(name), IN_NAME), (words::fold(rest), ELSEWHERE)];
    keyword
        .iter()
        .map(|(word, is_prefix)| {
            let worth: f64 = texts
                .iter()
                .map(|(there, weight)| {
                    let hits: f64 = there
                        .iter()
                        .map(|w| match w {
                            w if w == word => 1.0,
                            w if *is_prefix && w.starts_with(word.as_str()) => BEGUN,
                            _ => 0.0,
                        })
                        .sum();
                    // Each further one counts for less, and so does one among many.
                    weight * hits / (hits + 0.5 + 0.05 * there.len() as f64)
                })
                .sum();
            if worth > 0.0 { THERE + worth } else { 0.0 }
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fits_better_comes_first() {
        let asked = [("sunset".to_owned(), false), ("bea".to_owned(), true)];
        let of = |name: &str, rest: &str| score(&asked, name, rest);
        let falling = [
            of("Sunset beach.jpg", "sunset"),
            of("Sunset beach.jpg", ""),
            of("sunset.jpg", "one day at the beach"),
            of("IMG_1.jpg", "sunset beach"),
            of("sunset.jpg", "sunset sunset sunset"),
            of("sunset.jpg", ""),
            of("IMG_1.jpg", "sunset"),
            of("IMG_1.jpg", "sunset among a great many other words that say nothing about it at all"),
            of("IMG_1.jpg", ""),
        ];
        assert!(falling.windows(2).all(|pair| pair[0] > pair[1]), "{falling:?}");
    }
}
