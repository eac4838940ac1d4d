//! The documents beside the code: links lead somewhere, and what they name is there.
//!
//! In: README.md, `docs/` and the READMEs of the folders, as text. Out: the lines that are not true.
//! Tables that can be compared with a list in the code are compared beside that list: errors,
//! parameters of images, processing keys, settings.

#![expect(clippy::unwrap_used, reason = "the steps that the tests share fail by panicking, too")]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::path::PathBuf;

#[test]
fn links_lead_somewhere() {
    let mut bad = Vec::new();
    for file in documents() {
        let text = fs::read_to_string(&file).unwrap();
        for link in links(&text).filter(|link| !link.contains("://")) {
            let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = if path.is_empty() { file.clone() } else { file.parent().unwrap().join(path) };
            let found = match fs::read_to_string(&target) {
                Ok(text) => anchor.is_empty() || anchors(&text).contains(anchor),
                Err(_) => target.is_dir() && anchor.is_empty(),
            };
            if !found {
                bad.push(format!("{}: {link}", file.display()));
            }
        }
    }
    assert!(bad.is_empty(), "links that lead nowhere:\n{}", bad.join("\n"));
}

#[test]
fn the_map_names_files_that_are_there() {
    let src = root().join("src");
    let map = fs::read_to_string(src.join("README.md")).unwrap();
    let named =
        code(&map).filter(|word| word.contains('/') && Path::new(word).extension().is_some_and(|end| end == "rs"));
    let gone: Vec<_> = named.filter(|path| !src.join(path).exists() && !root().join(path).exists()).collect();
    assert!(gone.is_empty(), "src/README.md names files that are not there: {gone:#?}");
}

#[test]
fn the_format_on_disk_has_a_line_for_each_place() {
    let format = fs::read_to_string(root().join("assets-store/README.md")).unwrap();
    let stated: BTreeSet<&str> = format.lines().filter_map(|line| line.split_whitespace().next()).collect();
    let places = fs::read_to_string(root().join("src/assets/place.rs")).unwrap();
    let block = places.split("```").nth(1).unwrap();
    for line in block.lines().filter(|line| line.contains('{')) {
        let path = line.trim_start_matches("//!").split_whitespace().next().unwrap();
        // The header says `{sent}` where the document says what it is made of.
        let path = path.split("{sent}").next().unwrap();
        assert!(stated.iter().any(|one| one.starts_with(path)), "assets-store/README.md lacks {path}");
    }
}

#[test]
fn metrics_that_are_named_exist() {
    let health = fs::read_to_string(root().join("src/interfaces/http/health.rs")).unwrap();
    let observe = fs::read_to_string(root().join("src/interfaces/http/observe.rs")).unwrap();
    let manual = fs::read_to_string(root().join("docs/operating.md")).unwrap();
    let mut names = 0;
    for at in manual.split("cloakroom_").skip(1) {
        let name: String = at.chars().take_while(|c| c.is_ascii_lowercase() || *c == '_').collect();
        let name = name.trim_end_matches("_total");
        let known = [&health, &observe].iter().any(|source| source.contains(&format!("\"{name}\"")));
        assert!(known, "docs/operating.md names cloakroom_{name}, which is not there");
        names += 1;
    }
    assert!(names > 5, "the alarms are gone");
}

/// README.md, `docs/*.md` and the READMEs of the folders.
fn documents() -> Vec<PathBuf> {
    let mut found = vec![root().join("README.md")];
    let docs = fs::read_dir(root().join("docs")).unwrap().map(|entry| entry.unwrap().path());
    found.extend(docs.filter(|path| path.extension().is_some_and(|extension| extension == "md")));
    for folder in ["assets-store", "benches", "packaging", "src"] {
        found.push(root().join(folder).join("README.md"));
    }
    let tests = fs::read_dir(root().join("tests")).unwrap().map(|entry| entry.unwrap().path().join("README.md"));
    found.extend(tests.filter(|path| path.exists()));
    found
}

/// What stands in `](…)`, outside code.
fn links(text: &str) -> impl Iterator<Item = &str> {
    text.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(link, _)| link)
}

/// What stands between single backticks.
fn code(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter(|line| !line.starts_with("```")).flat_map(|line| line.split('`').skip(1).step_by(2))
}

/// The anchors of a document's headings, as they are made on the web.
fn anchors(text: &str) -> BTreeSet<String> {
    let heading = |line: &str| line.trim_start_matches('#').trim().to_lowercase();
    let headings = text.lines().filter(|line| line.starts_with('#')).map(heading);
    headings
        .map(|heading| {
            let kept = heading.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
            kept.map(|c| if c == ' ' { '-' } else { c }).collect()
        })
        .collect()
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
