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
mod tests {
    use std::fs;

    use serde::Deserialize;
    use tempfile::TempDir;

    use super::*;
    use crate::support::secret::Secret;

    const DEFAULTS: &str = r#"
listen = "127.0.0.1:8080"
[storage]
backend = "fs"
secret_key = ""
regions = []
[limits]
connections = 1024
rate = 1.5
strict = true
ports = [80, 443]
[limits.login]
per_minute = 5
[metrics]
labels = {}
"#;

    const NO_VARIABLES: [(&str, &str); 0] = [];

    fn with_file(text: &str, mode: u32) -> (TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.toml");
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        (dir, path)
    }

    fn from_file(text: &str) -> Result<Effective, Complaints> {
        let (_dir, path) = with_file(text, 0o600);
        Layers::new(DEFAULTS).file(&path, true).finish()
    }

    fn from_env(variables: &[(&str, &str)]) -> Result<Effective, Complaints> {
        Layers::new(DEFAULTS).environment(variables.iter().copied(), &["CLOAKROOM_API_KEY"]).finish()
    }

    fn value(effective: &Effective, key: &str) -> Value {
        at(&effective.table, key).unwrap().clone()
    }

    #[test]
    fn each_layer_overrides_the_one_before() {
        let (_dir, path) =
            with_file("listen = 'file'\n[storage]\nbackend = 'file'\n\n[limits]\nconnections = 7\n", 0o600);
        let effective = Layers::new(DEFAULTS)
            .file(&path, true)
            .environment([("CLOAKROOM_LISTEN", "env"), ("CLOAKROOM_STORAGE__BACKEND", "s3"), ("PATH", "/bin")], &[])
            .flag("--listen", "listen", "flag")
            .finish()
            .unwrap();
        let origin = |key: &str| effective.origins[key].to_string();
        assert_eq!(value(&effective, "listen"), "flag".into());
        assert_eq!(origin("listen"), "flag --listen");
        assert_eq!(value(&effective, "storage.backend"), "s3".into());
        assert_eq!(origin("storage.backend"), "environment CLOAKROOM_STORAGE__BACKEND");
        assert_eq!(value(&effective, "limits.connections"), 7.into());
        assert_eq!(origin("limits.connections"), format!("file {}:6", path.display()));
        assert_eq!(value(&effective, "limits.login.per_minute"), 5.into());
        assert_eq!(origin("limits.login.per_minute"), "default");
    }

    #[test]
    fn the_defaults_alone_come_back_whole() {
        let effective = Layers::new(DEFAULTS).environment(NO_VARIABLES, &[]).finish().unwrap();
        assert_eq!(effective.table, DEFAULTS.parse::<Table>().unwrap());
    }

    #[test]
    fn an_absent_file_matters_only_when_it_was_named() {
        let nowhere = Path::new("/nonexistent/config.toml");
        assert!(Layers::new(DEFAULTS).file(nowhere, false).finish().is_ok());
        let Complaints(said) = Layers::new(DEFAULTS).file(nowhere, true).finish().unwrap_err();
        assert!(said[0].contains("/nonexistent/config.toml"), "{said:?}");
    }

    #[test]
    fn variables_are_typed_by_the_default() {
        let check = |name: &str, text: &str, key: &str, want: Value| {
            let effective = from_env(&[(name, text)]).unwrap_or_else(|e| panic!("{name}={text}: {e}"));
            assert_eq!(value(&effective, key), want, "{name}={text}");
        };
        check("CLOAKROOM_LIMITS__CONNECTIONS", "2_048", "limits.connections", 2048.into());
        check("CLOAKROOM_LIMITS__CONNECTIONS", " -1 ", "limits.connections", (-1).into());
        check("CLOAKROOM_LIMITS__RATE", "2", "limits.rate", 2.0.into());
        check("CLOAKROOM_LIMITS__STRICT", "No", "limits.strict", false.into());
        check("cloakroom_limits__strict", "1", "limits.strict", true.into());
        check("CLOAKROOM_LIMITS__LOGIN__PER_MINUTE", "9", "limits.login.per_minute", 9.into());
        check("CLOAKROOM_LIMITS__PORTS", "1, 2,3,", "limits.ports", vec![1, 2, 3].into());
        check("CLOAKROOM_LIMITS__PORTS", "[1, 2]", "limits.ports", vec![1, 2].into());
        check("CLOAKROOM_LIMITS__PORTS", "", "limits.ports", Vec::<i32>::new().into());
        check("CLOAKROOM_STORAGE__REGIONS", "eu,us", "storage.regions", vec!["eu", "us"].into());
        check("CLOAKROOM_STORAGE__BACKEND", " 17 ", "storage.backend", " 17 ".into());
        let labels = Value::Table("site = 'hall'".parse().unwrap());
        check("CLOAKROOM_METRICS__LABELS", "{ site = 'hall' }", "metrics.labels", labels);
    }

    #[test]
    fn variables_that_do_not_fit_are_complaints() {
        for (name, text, wanted) in [
            ("CLOAKROOM_LIMITS__CONNECTIONS", "many", "a whole number, not `many`"),
            ("CLOAKROOM_LIMITS__CONNECTIONS", "1.5", "a whole number"),
            ("CLOAKROOM_LIMITS__RATE", "NaN", "a number"),
            ("CLOAKROOM_LIMITS__STRICT", "maybe", "true or false"),
            ("CLOAKROOM_LIMITS__PORTS", "80,http", "a list"),
            ("CLOAKROOM_LIMITS__PORTS", "['80']", "has an element that must be a whole number, not a text"),
            ("CLOAKROOM_LIMITS__PORTS", "[1]\nx = 2", "a list"),
            ("CLOAKROOM_METRICS__LABELS", "hall", "a table"),
        ] {
            let error = from_env(&[(name, text)]).unwrap_err().to_string();
            assert!(error.contains(wanted), "{name}={text}: {error}");
        }
    }

    #[test]
    fn unknown_variables_name_the_nearest_key() {
        for (name, said) in [
            ("CLOAKROOM_STORAGE_BACKEND", "did you mean CLOAKROOM_STORAGE__BACKEND?"),
            ("CLOAKROOM_STORAGE__BACKNED", "did you mean CLOAKROOM_STORAGE__BACKEND?"),
            ("CLOAKROOM_BACKEND", "did you mean CLOAKROOM_STORAGE__BACKEND?"),
            ("CLOAKROOM_XYZZYPLUGHXYZZY", "CLOAKROOM_XYZZYPLUGHXYZZY is not a setting"),
        ] {
            let error = from_env(&[(name, "x")]).unwrap_err().to_string();
            assert!(error.contains(said), "{error}");
        }
        assert!(from_env(&[("CLOAKROOM_API_KEY", "x"), ("CLOAKROOMY", "x"), ("CLOAKROOM", "x")]).is_ok());
        assert!(from_env(&[("CLOAKROOM_LISTEN", "a"), ("Cloakroom_Listen", "b")]).is_err());
    }

    #[test]
    fn all_complaints_are_told_at_once() {
        let (_dir, path) = with_file(
            "lisen = 'x'\n[storage]\nbackend = 3\nregion = 'eu'\n[limts]\na = 1\nb = 2\n[limits]\nrate = 2\nlogin = 4\nports = ['x']\n",
            0o600,
        );
        let Complaints(said) = Layers::new(DEFAULTS)
            .file(&path, true)
            .environment([("CLOAKROOM_NOPE", "1"), ("CLOAKROOM_LIMITS__RATE", "fast")], &[])
            .flag("--listen", "listne", "x")
            .finish()
            .unwrap_err();
        let all = said.join("\n");
        for wanted in [
            ":1: there is no setting lisen; did you mean listen?",
            ":3: storage.backend must be a text, not a whole number",
            ":4: there is no setting storage.region; did you mean storage.regions?",
            ":5: there is no section limts; did you mean limits?",
            ":10: limits.login is a section, not a setting",
            ":11: limits.ports has an element that must be a whole number, not a text",
            "environment CLOAKROOM_NOPE is not a setting",
            "environment CLOAKROOM_LIMITS__RATE: limits.rate must be a number, not `fast`",
            "flag --listen sets listne, which is not a setting",
        ] {
            assert!(all.contains(wanted), "missing {wanted:?} in:\n{all}");
        }
        assert_eq!(said.len(), 9, "{all}");
    }

    #[test]
    fn a_broken_file_is_located_but_not_quoted() {
        let error = from_file("[storage]\nsecret_key = \"hunter2\n").unwrap_err().to_string();
        assert!(error.contains("line 2") && !error.contains("hunter2"), "{error}");
    }

    #[test]
    fn open_tables_and_lists_of_tables_are_taken_as_they_are() {
        let effective = from_file("[metrics.labels]\nhall = 'A'\n[[storage.regions]]\npassword = 'hunter2'\n").unwrap();
        assert_eq!(value(&effective, "metrics.labels.hall"), "A".into());
        let shown = effective.print();
        assert!(shown.contains("metrics.labels = { hall = \"A\" }  # file"), "{shown}");
        assert!(!shown.contains("hunter2") && shown.contains(MASK), "{shown}");
    }

    #[test]
    fn secrets_are_masked_wherever_they_come_from() {
        let effective = from_env(&[("CLOAKROOM_STORAGE__SECRET_KEY", "hunter2")]).unwrap();
        let shown = format!("{}{effective:?}", effective.print());
        assert!(!shown.contains("hunter2"), "{shown}");
        let line = "storage.secret_key = \"********\"  # environment CLOAKROOM_STORAGE__SECRET_KEY\n";
        assert!(shown.contains(line), "{shown}");
        let blank = from_env(&[]).unwrap().print();
        assert!(blank.contains("storage.secret_key = \"\"  # default\n"), "{blank}");
        assert!(blank.contains("limits.ports = [80, 443]  # default\n"), "{blank}");
    }

    #[test]
    fn a_secret_may_come_from_a_file() {
        let (_dir, path) = with_file("hunter2\n", 0o400);
        let path = path.to_str().unwrap();
        let effective = from_env(&[("CLOAKROOM_STORAGE__SECRET_KEY_FILE", path)]).unwrap();
        assert_eq!(value(&effective, "storage.secret_key"), "hunter2".into());
        assert!(at(&effective.table, "storage.secret_key_file").is_none());
        let origin = effective.origins["storage.secret_key"].to_string();
        assert_eq!(origin, format!("secret file {path}, named by environment CLOAKROOM_STORAGE__SECRET_KEY_FILE"));

        let toml = format!("[storage]\nsecret_key = ''\nsecret_key_file = '{path}'\n");
        assert_eq!(value(&from_file(&toml).unwrap(), "storage.secret_key"), "hunter2".into());
    }

    #[test]
    fn the_higher_of_value_and_file_wins_and_both_at_once_are_refused() {
        let (_dir, secret) = with_file("from file", 0o600);
        let (_dir2, config) = with_file(&format!("[storage]\nsecret_key_file = '{}'\n", secret.display()), 0o600);
        let above =
            Layers::new(DEFAULTS).file(&config, true).environment([("CLOAKROOM_STORAGE__SECRET_KEY", "by value")], &[]);
        assert_eq!(value(&above.finish().unwrap(), "storage.secret_key"), "by value".into());
        let both = format!("[storage]\nsecret_key = 'v'\nsecret_key_file = '{}'\n", secret.display());
        let error = from_file(&both).unwrap_err().to_string();
        assert!(error.contains("give either storage.secret_key or storage.secret_key_file"), "{error}");
    }

    #[test]
    fn bearers_of_secrets_that_everybody_can_read_are_refused() {
        let (_dir, secret) = with_file("hunter2", 0o644);
        let from = |path: &Path| from_env(&[("CLOAKROOM_STORAGE__SECRET_KEY_FILE", path.to_str().unwrap())]);
        let error = from(&secret).unwrap_err().to_string();
        assert!(error.contains("may be read by everybody (mode 0644)") && !error.contains("hunter2"), "{error}");
        assert!(from(Path::new("/nonexistent")).unwrap_err().to_string().contains("does not exist"));
        assert!(from(Path::new("/")).unwrap_err().to_string().contains("not a regular file"));
        let (_dir, empty) = with_file("\n", 0o600);
        assert!(from(&empty).unwrap_err().to_string().contains("is empty"));

        let (_dir, config) = with_file("[storage]\nsecret_key = 'hunter2'\n", 0o644);
        let error = Layers::new(DEFAULTS).file(&config, true).finish().unwrap_err().to_string();
        assert!(error.contains("holds a secret, but everybody may read it (mode 0644)"), "{error}");
        let (_dir, config) = with_file("[storage]\nsecret_key = ''\nbackend = 's3'\n", 0o644);
        assert!(Layers::new(DEFAULTS).file(&config, true).finish().is_ok());
    }

    #[test]
    fn systemd_credentials_stand_between_file_and_environment() {
        let credentials = tempfile::tempdir().unwrap();
        let path = credentials.path().join("storage.secret_key");
        fs::write(&path, "from systemd\n").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o440)).unwrap();
        let (_dir, config) = with_file("[storage]\nsecret_key = 'from file'\n", 0o600);
        let directory = ("CREDENTIALS_DIRECTORY", credentials.path().to_str().unwrap());
        let with = |variables: &[(&str, &str)]| {
            let layers = Layers::new(DEFAULTS).file(&config, true).environment(variables.iter().copied(), &[]);
            value(&layers.finish().unwrap(), "storage.secret_key")
        };
        assert_eq!(with(&[directory]), "from systemd".into());
        assert_eq!(with(&[("CLOAKROOM_STORAGE__SECRET_KEY", "from env"), directory]), "from env".into());
        assert_eq!(with(&[]), "from file".into());
    }

    #[test]
    fn rooms_read_their_sections() {
        #[derive(Debug, Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Storage {
            backend: Backend,
            secret_key: Secret,
            regions: Vec<String>,
        }
        #[derive(Debug, Deserialize, PartialEq)]
        #[serde(rename_all = "lowercase")]
        enum Backend {
            Fs,
            S3,
        }
        #[derive(Debug, Deserialize)]
        struct Config {
            storage: Storage,
        }
        let variables = [("CLOAKROOM_STORAGE__BACKEND", "s3"), ("CLOAKROOM_STORAGE__SECRET_KEY", "hunter2")];
        let config: Config = from_env(&variables).unwrap().into().unwrap();
        assert_eq!(config.storage.backend, Backend::S3);
        assert_eq!(config.storage.secret_key.expose(), "hunter2");
        assert!(config.storage.regions.is_empty() && !format!("{config:?}").contains("hunter2"));

        let odd = from_env(&[("CLOAKROOM_STORAGE__BACKEND", "tape")]).unwrap().into::<Config>().unwrap_err();
        assert!(odd[0].contains("tape") && odd[0].contains("backend"), "{odd:?}");
    }
}
