//! The rules of the house, as tests. Reads the sources as text.
//!
//! In: every file under `src/`. Out: the lines that break a rule, each with the rule in words.
//! Tests inside the sources are not looked at, nor comments, except where a rule says so.
//! A rule is a few lines here; what it cannot see, a reader has to.

#![expect(clippy::unwrap_used, reason = "the steps that the tests share fail by panicking, too")]

use std::fs;
use std::path::Path;
use std::path::PathBuf;

/// From the ground up. A room may use rooms of lower floors, and of its own floor those in an
/// earlier group; rooms in one group are strangers.
const FLOORS: &[&[&[&str]]] = &[
    &[&["error"], &["support"]],
    &[
        &["infra/db", "infra/storage", "infra/workers", "media/imaging", "media/video", "media/vision"],
        &["infra/jobs", "media"],
    ],
    &[&["accounts", "assets", "films", "stills"], &["homes", "journal", "schemas", "settings"]],
    &[
        &["collections", "delivery", "processing", "search"],
        &["custody"],
        &["ingest", "wire"],
        &["news"],
        &["webhooks"],
    ],
    &[
        &["interfaces/http"],
        &["interfaces/filespin", "interfaces/invitation", "interfaces/manual"],
        &["interfaces/tus"],
        &["interfaces/router"],
    ],
    &[&["config"], &["app"], &["cli"]],
];

/// Files without a room: crate roots, and lists of modules.
const ROOFS: &[&str] = &["lib", "main", "bin", "infra", "interfaces"];

#[test]
fn imports_point_down_or_left() {
    let bad = offences(|file, line, bad| {
        let here = &*file.room;
        if ROOFS.contains(&here) {
            return;
        }
        let rank_here = rank(here).unwrap_or_else(|| panic!("`{here}` stands on no floor: add it to FLOORS"));
        if line.contains("use crate::{") {
            bad("one path per `use`".to_owned());
        }
        for (at, _) in line.match_indices("crate::") {
            let word = |part: &str| part.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap().to_owned();
            let named: Vec<String> = line[at + 7..].split("::").map(word).collect();
            let there = room(&named.iter().map(String::as_str).collect::<Vec<_>>());
            if there != here && rank(&there).is_some_and(|rank| rank >= rank_here) {
                bad(format!("`{here}` may not use `{there}`"));
            }
        }
    });
    assert!(bad.is_empty(), "imports must point down, or left:\n{}", bad.join("\n"));
}

#[test]
fn every_room_is_there() {
    let rooms: Vec<String> = sources().into_iter().map(|file| file.room).collect();
    for known in FLOORS.concat().concat() {
        assert!(rooms.iter().any(|room| room == known), "FLOORS names `{known}`, which is not there");
    }
}

#[test]
fn every_file_has_a_header() {
    let has_one = |text: &str| text.starts_with("//!") || text.starts_with("#![doc");
    let bare: Vec<_> = sources().into_iter().filter(|f| !has_one(&f.text)).map(|f| f.path).collect();
    assert!(bare.is_empty(), "say what these are: {bare:#?}");
}

#[test]
fn words_stay_where_they_belong() {
    /// Words, who may say them (beginnings or ends of paths), and why.
    const RULES: &[(&[&str], &[&str], &str)] = &[
        (
            &["SELECT ", "INSERT INTO", "INSERT OR", "UPDATE ", "DELETE FROM", "CREATE TABLE"],
            &["store.rs", "infra/db/", "infra/jobs/"],
            "SQL belongs in a room's store.rs",
        ),
        (&["actix"], &["interfaces/", "app.rs"], "HTTP ends at the interfaces"),
        // `config` lists the section of every room, and the interfaces have one, too.
        (&["interfaces::"], &["interfaces/", "app.rs", "cli.rs", "config/mod.rs"], "nobody knows who calls"),
        (&["crate::config"], &["config/", "app.rs", "cli.rs"], "a room is given its own section"),
        (&["env::var", "env::set_var", "env::remove_var"], &["config/"], "only `config` reads the environment"),
        (&["/home/", "/Users/", "/work/", "/workspace"], &[], "the product knows no particular machine"),
    ];
    let bad = offences(|file, line, bad| {
        for (words, homes, why) in RULES {
            let at_home = homes.iter().any(|home| file.path.starts_with(home) || file.name().ends_with(home));
            if let Some(word) = words.iter().find(|word| line.contains(**word)).filter(|_| !at_home) {
                bad(format!("`{}`: {why}", word.trim()));
            }
        }
    });
    assert!(bad.is_empty(), "words out of their place:\n{}", bad.join("\n"));
}

/// One source file.
struct Source {
    /// Below `src/`.
    path: PathBuf,
    /// `infra/db/tx.rs` → `infra/db`, `app.rs` → `app`.
    room: String,
    text: String,
}

impl Source {
    fn name(&self) -> &str {
        self.path.to_str().unwrap()
    }
}

fn rank(room: &str) -> Option<usize> {
    FLOORS.concat().iter().position(|group| group.contains(&room))
}

/// The room of a path or of an import. In a house of several rooms, what is in none of them
/// belongs to the house.
fn room(parts: &[&str]) -> String {
    let stem = |part: &str| part.trim_end_matches(".rs").to_owned();
    match parts {
        [house @ ("infra" | "media" | "interfaces"), inner, ..] => {
            let inside = format!("{house}/{}", stem(inner));
            let is_file = stem(inner) != *inner && *inner != "mod.rs";
            if is_file || rank(&inside).is_some() { inside } else { (*house).to_owned() }
        }
        [only, ..] => stem(only),
        [] => String::new(),
    }
}

/// Shows every line of code to a rule and gathers what it objects to.
fn offences(rule: impl Fn(&Source, &str, &mut dyn FnMut(String))) -> Vec<String> {
    let mut bad = Vec::new();
    for file in sources().iter().filter(|file| !file.path.ends_with("tests.rs")) {
        let code = file.text.split("\n#[cfg(test)]\nmod tests {").next().unwrap_or_default();
        for (n, line) in code.lines().enumerate().filter(|(_, line)| !line.trim_start().starts_with("//")) {
            rule(file, line, &mut |what| bad.push(format!("{}:{}: {what}", file.path.display(), n + 1)));
        }
    }
    bad
}

fn sources() -> Vec<Source> {
    fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    walk(&src, &mut files);
    files.sort();
    let read = |file: PathBuf| {
        let path = file.strip_prefix(&src).unwrap().to_owned();
        let room = room(&path.iter().map(|part| part.to_str().unwrap()).collect::<Vec<_>>());
        Source { path, room, text: fs::read_to_string(&file).unwrap() }
    };
    files.into_iter().map(read).collect()
}
