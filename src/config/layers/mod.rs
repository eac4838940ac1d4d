//! Settings in layers, each value with its origin.
//!
//! In go the embedded defaults, a file, the environment (handed in, not read here) and flags;
//! each layer overrides the one before. Out comes [`Effective`]: one table, from which the
//! rooms' `Config` structs are read, and where each value came from. The defaults are the law:
//! a key exists if they name it, with the type they give it; an empty table there is open.
//!
//! A setting whose name ends in `_key`, `secret`, `password` or `token` is a *secret*: it may
//! also be given as a file (the same name with `_file` behind it) or as a systemd credential
//! named like its dotted key, is never shown, and is refused from a file open to everybody.
//!
//! Invariant: nothing is taken silently. Whatever is not understood is a complaint, all
//! complaints are told at once, and then there is no `Effective` at all.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::fmt;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::path::PathBuf;

use serde::de::DeserializeOwned;
use toml::Table;
use toml::Value;
use toml::de::DeTable;
use toml::de::DeValue;

use crate::support::secret::MASK;

/// What variables that are settings begin with.
pub const PREFIX: &str = "CLOAKROOM_";

/// Where systemd says it keeps the credentials of the unit.
const CREDENTIALS: &str = "CREDENTIALS_DIRECTORY";

/// A configuration or secret larger than this is a mistake.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// Where a value comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    Default,
    File {
        path: PathBuf,
        line: usize,
    },
    Environment(String),
    Flag(String),
    Credential(PathBuf),
    /// A secret read from a file that a `_file` setting names.
    SecretFile {
        path: PathBuf,
        named_by: Box<Origin>,
    },
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Default => f.write_str("default"),
            Origin::File { path, line } => write!(f, "file {}:{line}", path.display()),
            Origin::Environment(name) => write!(f, "environment {name}"),
            Origin::Flag(flag) => write!(f, "flag {flag}"),
            Origin::Credential(path) => write!(f, "credential {}", path.display()),
            Origin::SecretFile { path, named_by } => write!(f, "secret file {}, named by {named_by}", path.display()),
        }
    }
}

/// Everything that is wrong, in the order it was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Complaints(pub Vec<String>);

impl fmt::Display for Complaints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the configuration cannot be used:")?;
        self.0.iter().try_for_each(|complaint| write!(f, "\n  - {complaint}"))
    }
}

impl std::error::Error for Complaints {}

/// The settings in force.
#[derive(Clone, PartialEq)]
pub struct Effective {
    pub table: Table,
    /// By dotted key.
    pub origins: BTreeMap<String, Origin>,
}

impl Effective {
    /// Reads the settings into a struct. With `deny_unknown_fields` on it, a setting that the
    /// defaults name but no room knows is found here.
    pub fn into<T: DeserializeOwned>(self) -> Result<T, Vec<String>> {
        self.table.try_into().map_err(|error: toml::de::Error| {
            // The message ends with the key on a line of its own: "… \nin `storage.backend`".
            vec![error.to_string().trim().replace('\n', " ")]
        })
    }

    /// A line for each setting, `key = value  # origin`, with secrets masked.
    pub fn print(&self) -> String {
        let line = |(key, origin): (&String, &Origin)| {
            let value = at(&self.table, key).map(|value| masked(key, value).to_string()).unwrap_or_default();
            format!("{key} = {value}  # {origin}\n")
        };
        self.origins.iter().map(line).collect()
    }
}

impl fmt::Debug for Effective {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.print())
    }
}

/// Settings while layers are being laid over each other, lowest first.
pub struct Layers {
    /// Every setting there is, with its default.
    known: BTreeMap<String, Value>,
    sections: BTreeSet<String>,
    values: BTreeMap<String, (Value, Origin)>,
    /// Secrets that are to be read from a file, and who said so.
    secret_files: BTreeMap<String, (PathBuf, Origin)>,
    complaints: Vec<String>,
}

struct Entry {
    key: String,
    value: Value,
    origin: Origin,
}

impl Layers {
    /// Starts with the defaults.
    pub fn new(defaults: &str) -> Layers {
        let mut layers = Layers {
            known: BTreeMap::new(),
            sections: BTreeSet::new(),
            values: BTreeMap::new(),
            secret_files: BTreeMap::new(),
            complaints: Vec::new(),
        };
        match defaults.parse::<Table>() {
            Ok(table) => layers.learn("", &table),
            Err(error) => layers.complain(format!("the built-in defaults: {}", located(&error, defaults))),
        }
        let all = layers.known.iter().map(|(key, value)| Entry {
            key: key.clone(),
            value: value.clone(),
            origin: Origin::Default,
        });
        let all = all.collect();
        layers.lay(all);
        layers
    }

    /// Lays the TOML file at `path` on top; one that is not `required` may be absent.
    pub fn file(mut self, path: &Path, required: bool) -> Layers {
        let (text, mode) = match read(path) {
            Ok(read) => read,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && !required => return self,
            Err(error) => {
                self.complain(format!("file {}: {error}", path.display()));
                return self;
            }
        };
        let (spanned, table) = match (DeTable::parse(&text), text.parse::<Table>()) {
            (Ok(spanned), Ok(table)) => (spanned, table),
            (Err(error), _) | (_, Err(error)) => {
                self.complain(format!("file {}: {}", path.display(), located(&error, &text)));
                return self;
            }
        };
        let mut lines = BTreeMap::new();
        find_lines("", spanned.get_ref(), &text, &mut lines);
        let mut entries = Vec::new();
        self.read_table("", table, path, &lines, &mut entries);
        if is_public(mode) && entries.iter().any(|e| masked(&e.key, &e.value) != e.value) {
            let path = path.display();
            self.complain(format!(
                "file {path} holds a secret, but everybody may read it (mode {mode:04o}): chmod o-rwx {path}"
            ));
        }
        self.lay(entries);
        self
    }

    /// Lays the environment on top: first systemd's credentials, then the variables that begin
    /// with [`PREFIX`], save those in `not_settings`.
    pub fn environment<K, V>(mut self, variables: impl IntoIterator<Item = (K, V)>, not_settings: &[&str]) -> Layers
    where
        K: Into<std::ffi::OsString>,
        V: Into<std::ffi::OsString>,
    {
        let mut given = BTreeMap::new();
        for (name, value) in variables {
            let Ok(name) = name.into().into_string() else { continue };
            if name == CREDENTIALS {
                self.credentials(&PathBuf::from(value.into()));
            } else if let Some(setting) = setting_of(&name)
                && !not_settings.iter().any(|other| other.eq_ignore_ascii_case(&name))
                && let Some((other, _)) = given.insert(setting, (name.clone(), value.into()))
            {
                self.complain(format!("environment: {other} and {name} are the same setting"));
            }
        }
        let mut entries = Vec::new();
        for (setting, (name, value)) in given {
            let origin = Origin::Environment(name);
            let Some(key) = self.exists(&setting) else {
                let hint = self.nearest(&setting).map(|key| format!("; did you mean {PREFIX}{}?", variable_of(&key)));
                self.complain(format!("{origin} is not a setting{}", hint.unwrap_or_default()));
                continue;
            };
            let Ok(text) = value.into_string() else {
                self.complain(format!("{origin} is not valid UTF-8"));
                continue;
            };
            entries.extend(self.typed(key, &text, origin));
        }
        self.lay(entries);
        self
    }

    /// Lays the value of a command line flag on top.
    pub fn flag(mut self, flag: &str, key: &str, text: &str) -> Layers {
        let origin = Origin::Flag(flag.to_owned());
        match self.exists(key) {
            Some(key) => {
                let entry = self.typed(key, text, origin);
                self.lay(entry.into_iter().collect());
            }
            None => self.complain(format!("{origin} sets {key}, which is not a setting")),
        }
        self
    }

    /// Reads the secrets kept in files, and gives the result or everything that was wrong.
    pub fn finish(mut self) -> Result<Effective, Complaints> {
        for (key, (path, named_by)) in std::mem::take(&mut self.secret_files) {
            match read_secret(&path) {
                Ok(text) => {
                    let origin = Origin::SecretFile { path, named_by: Box::new(named_by) };
                    self.values.insert(key, (Value::String(text), origin));
                }
                Err(why) => self.complain(format!("{named_by}: {key}_file: {} {why}", path.display())),
            }
        }
        if !self.complaints.is_empty() {
            return Err(Complaints(self.complaints));
        }
        let mut effective = Effective { table: Table::new(), origins: BTreeMap::new() };
        for section in &self.sections {
            place(&mut effective.table, section, Value::Table(Table::new()));
        }
        for (key, (value, origin)) in self.values {
            place(&mut effective.table, &key, value);
            effective.origins.insert(key, origin);
        }
        Ok(effective)
    }

    fn complain(&mut self, complaint: String) {
        self.complaints.push(complaint);
    }

    fn learn(&mut self, prefix: &str, defaults: &Table) {
        for (name, value) in defaults {
            let key = dotted(prefix, name);
            match value {
                Value::Table(table) if !table.is_empty() => {
                    self.learn(&key, table);
                    self.sections.insert(key);
                }
                leaf => {
                    self.known.insert(key, leaf.clone());
                }
            }
        }
    }

    /// The key as the defaults spell it, if it is one.
    fn exists(&self, key: &str) -> Option<String> {
        let wanted = key.to_ascii_lowercase();
        let known = self.known.keys().find(|k| k.to_ascii_lowercase() == wanted);
        known.cloned().or_else(|| self.secret_of(&wanted).map(|secret| format!("{secret}_file")))
    }

    /// The secret that a `_file` setting stands for.
    fn secret_of(&self, key: &str) -> Option<String> {
        let secret = key.strip_suffix("_file")?;
        (is_secret(secret) && matches!(self.known.get(secret), Some(Value::String(_)))).then(|| secret.to_owned())
    }

    fn read_table(
        &mut self,
        prefix: &str,
        table: Table,
        path: &Path,
        lines: &BTreeMap<String, usize>,
        entries: &mut Vec<Entry>,
    ) {
        for (name, value) in table {
            let key = dotted(prefix, &name);
            let origin = Origin::File { path: path.to_owned(), line: lines.get(&key).copied().unwrap_or(1) };
            if self.known.contains_key(&key) || self.secret_of(&key).is_some() {
                entries.push(Entry { key, value, origin });
            } else if self.sections.contains(&key) {
                match value {
                    Value::Table(table) => self.read_table(&key, table, path, lines, entries),
                    _ => self.complain(format!("{origin}: {key} is a section, not a setting")),
                }
            } else {
                let (what, near) = match value {
                    Value::Table(_) => ("section", self.nearest_section(&key)),
                    _ => ("setting", self.nearest(&key)),
                };
                let hint = near.map(|near| format!("; did you mean {near}?")).unwrap_or_default();
                self.complain(format!("{origin}: there is no {what} {key}{hint}"));
            }
        }
    }

    fn credentials(&mut self, directory: &Path) {
        let secrets: Vec<_> =
            self.known.iter().filter(|(key, v)| is_secret(key) && v.is_str()).map(|(key, _)| key.clone()).collect();
        let mut entries = Vec::new();
        for key in secrets {
            let path = directory.join(&key);
            match read_secret(&path) {
                Ok(text) => entries.push(Entry { key, value: Value::String(text), origin: Origin::Credential(path) }),
                Err(Unreadable::Absent) => {}
                Err(why) => self.complain(format!("credential {} {why}", path.display())),
            }
        }
        self.lay(entries);
    }

    /// Reads a text as what the setting's default is.
    fn typed(&mut self, key: String, text: &str, origin: Origin) -> Option<Entry> {
        let read = match self.known.get(&key) {
            Some(default) => from_text(default, text),
            None => Ok(Value::String(text.to_owned())),
        };
        match read {
            Ok(value) => Some(Entry { key, value, origin }),
            Err(wanted) => {
                let shown = if is_secret(&key) { MASK } else { text };
                self.complain(format!("{origin}: {key} must be {wanted}, not `{shown}`"));
                None
            }
        }
    }

    /// One layer: its values replace those below. A blank secret replaces no `_file` beside or
    /// below it: that is how the shipped configuration file writes what is not given.
    fn lay(&mut self, entries: Vec<Entry>) {
        let is_blank = |value: &Value| value.as_str() == Some("");
        let by_value: BTreeSet<_> = entries.iter().filter(|e| !is_blank(&e.value)).map(|e| e.key.clone()).collect();
        for Entry { key, value, origin } in entries {
            if let Some(secret) = self.secret_of(&key) {
                match value {
                    Value::String(path) if path.is_empty() => {
                        self.secret_files.remove(&secret);
                    }
                    Value::String(_) if by_value.contains(&secret) => {
                        self.complain(format!("{origin}: give either {secret} or {key}, not both"));
                    }
                    Value::String(path) => {
                        self.secret_files.insert(secret, (PathBuf::from(path), origin));
                    }
                    other => self.complain(format!("{origin}: {key} must be a text, not {}", type_of(&other))),
                }
                continue;
            }
            let Some(default) = self.known.get(&key) else { continue };
            match fitted(default, value) {
                Ok(value) => {
                    if by_value.contains(&key) {
                        self.secret_files.remove(&key);
                    }
                    self.values.insert(key, (value, origin));
                }
                Err(complaint) => self.complain(format!("{origin}: {key} {complaint}")),
            }
        }
    }

    fn nearest(&self, key: &str) -> Option<String> {
        nearest(key, self.known.keys())
    }

    fn nearest_section(&self, key: &str) -> Option<String> {
        nearest(key, &self.sections)
    }
}

/// Whether a setting of this name is never shown.
fn is_secret(key: &str) -> bool {
    ["_key", "secret", "password", "token"].iter().any(|end| key.ends_with(end))
}

/// The value with everything secret in it, at any depth, behind the mask. Blanks are shown:
/// that nothing was given is worth knowing.
fn masked(key: &str, value: &Value) -> Value {
    match value {
        Value::String(text) if is_secret(key) && !text.is_empty() => Value::String(MASK.to_owned()),
        Value::Array(values) => Value::Array(values.iter().map(|v| masked(key, v)).collect()),
        Value::Table(table) => Value::Table(table.iter().map(|(k, v)| (k.clone(), masked(k, v))).collect()),
        other => other.clone(),
    }
}

/// `CLOAKROOM_STORAGE__BACKEND` → `storage.backend`.
fn setting_of(variable: &str) -> Option<String> {
    let (prefix, setting) = variable.split_at_checked(PREFIX.len())?;
    prefix.eq_ignore_ascii_case(PREFIX).then(|| setting.to_ascii_lowercase().replace("__", "."))
}

fn variable_of(key: &str) -> String {
    key.to_ascii_uppercase().replace('.', "__")
}

/// Reads a value written outside TOML, typed like the default. `Err` says what is wanted.
fn from_text(default: &Value, text: &str) -> Result<Value, &'static str> {
    let wanted = type_of(default);
    let bare = text.trim();
    let number = || bare.replace('_', "");
    match default {
        Value::String(_) => Ok(Value::String(text.to_owned())),
        Value::Boolean(_) => match bare.to_ascii_lowercase().as_str() {
            "true" | "yes" | "on" | "1" => Ok(Value::Boolean(true)),
            "false" | "no" | "off" | "0" => Ok(Value::Boolean(false)),
            _ => Err(wanted),
        },
        Value::Integer(_) => number().parse().map(Value::Integer).map_err(|_| wanted),
        Value::Float(_) => match number().parse() {
            Ok(float) if f64::is_finite(float) => Ok(Value::Float(float)),
            _ => Err(wanted),
        },
        Value::Array(like) if !bare.starts_with('[') => {
            let texts = bare.split(',').map(str::trim).filter(|text| !text.is_empty());
            let like = like.first().cloned().unwrap_or(Value::String(String::new()));
            texts.map(|text| from_text(&like, text)).collect::<Result<_, _>>().map(Value::Array).map_err(|_| wanted)
        }
        Value::Array(_) | Value::Table(_) | Value::Datetime(_) => bare.parse().map_err(|_| wanted),
    }
}

/// The value if it is of the default's type. `Err` completes a sentence that begins with the key.
fn fitted(default: &Value, value: Value) -> Result<Value, String> {
    match (default, value) {
        (Value::Float(_), Value::Integer(whole)) => Ok(Value::Float(whole as f64)),
        (Value::Array(like), Value::Array(values)) => match like.first() {
            Some(like) => {
                let inner = |value| fitted(like, value).map_err(|why| format!("has an element that {why}"));
                values.into_iter().map(inner).collect::<Result<_, _>>().map(Value::Array)
            }
            None => Ok(Value::Array(values)),
        },
        (default, value) if default.same_type(&value) => Ok(value),
        (default, value) => Err(format!("must be {}, not {}", type_of(default), type_of(&value))),
    }
}

fn type_of(value: &Value) -> &'static str {
    match value {
        Value::String(_) => "a text",
        Value::Integer(_) => "a whole number",
        Value::Float(_) => "a number",
        Value::Boolean(_) => "true or false",
        Value::Datetime(_) => "a date",
        Value::Array(_) => "a list",
        Value::Table(_) => "a table",
    }
}

/// The key most like `wanted`, unless none is much like it. The right name in the wrong
/// section counts as near.
fn nearest<'a>(wanted: &str, keys: impl IntoIterator<Item = &'a String>) -> Option<String> {
    let plain = |key: &str| key.to_ascii_lowercase().replace("__", "_").replace(['.', '-'], "_");
    let last = |key: &str| key.rsplit('.').next().map(plain).unwrap_or_default();
    let distance = |key: &str| {
        let whole = strsim::damerau_levenshtein(&plain(wanted), &plain(key));
        whole.min(strsim::damerau_levenshtein(&last(wanted), &last(key)) + 2)
    };
    let (distance, key) = keys.into_iter().map(|key| (distance(key), key)).min()?;
    (distance <= (wanted.len() / 2).max(2)).then(|| key.clone())
}

fn dotted(prefix: &str, name: &str) -> String {
    if prefix.is_empty() { name.to_owned() } else { format!("{prefix}.{name}") }
}

fn at<'t>(table: &'t Table, key: &str) -> Option<&'t Value> {
    match key.split_once('.') {
        None => table.get(key),
        Some((section, rest)) => at(table.get(section)?.as_table()?, rest),
    }
}

/// Puts a value at its dotted key; a section that is there already stays.
fn place(table: &mut Table, key: &str, value: Value) {
    match key.split_once('.') {
        None => {
            if !(value.is_table() && table.contains_key(key)) {
                table.insert(key.to_owned(), value);
            }
        }
        Some((section, rest)) => {
            let inner = table.entry(section).or_insert_with(|| Value::Table(Table::new()));
            if let Value::Table(inner) = inner {
                place(inner, rest, value);
            }
        }
    }
}

fn find_lines(prefix: &str, table: &DeTable<'_>, text: &str, lines: &mut BTreeMap<String, usize>) {
    for (name, value) in table {
        let key = dotted(prefix, name.get_ref());
        if let DeValue::Table(inner) = value.get_ref() {
            find_lines(&key, inner, text, lines);
        }
        lines.insert(key, line_at(text, name.span().start));
    }
}

fn line_at(text: &str, offset: usize) -> usize {
    text.bytes().take(offset).filter(|&byte| byte == b'\n').count() + 1
}

/// What is wrong and where, without quoting the line: it may hold a secret.
fn located(error: &toml::de::Error, text: &str) -> String {
    let line = error.span().map_or(1, |span| line_at(text, span.start));
    format!("line {line}: {}", error.message())
}

fn is_public(mode: u32) -> bool {
    mode & 0o007 != 0
}

/// The text of a file and its permission bits.
fn read(path: &Path) -> std::io::Result<(String, u32)> {
    let file = File::open(path)?;
    let about = file.metadata()?;
    if !about.is_file() {
        return Err(std::io::Error::other("not a regular file"));
    }
    if about.len() > MAX_FILE_BYTES {
        return Err(std::io::Error::other("larger than 1 MiB"));
    }
    let mut text = String::new();
    file.take(MAX_FILE_BYTES).read_to_string(&mut text)?;
    Ok((text, about.permissions().mode() & 0o7777))
}

/// Why a file gives no secret; completes a sentence that begins with its path.
enum Unreadable {
    Absent,
    Public(u32),
    Empty,
    Failed(std::io::Error),
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unreadable::Absent => f.write_str("does not exist"),
            Unreadable::Public(mode) => write!(f, "may be read by everybody (mode {mode:04o}): chmod o-rwx it"),
            Unreadable::Empty => f.write_str("is empty"),
            Unreadable::Failed(error) => write!(f, "cannot be read: {error}"),
        }
    }
}

/// The first thing an editor does is to end the last line; that is no part of a secret.
fn read_secret(path: &Path) -> Result<String, Unreadable> {
    match read(path) {
        Ok((_, mode)) if is_public(mode) => Err(Unreadable::Public(mode)),
        Ok((text, _)) => match text.trim_end_matches(['\r', '\n']) {
            "" => Err(Unreadable::Empty),
            secret => Ok(secret.to_owned()),
        },
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Err(Unreadable::Absent),
        Err(error) => Err(Unreadable::Failed(error)),
    }
}

#[cfg(test)]
mod tests;
