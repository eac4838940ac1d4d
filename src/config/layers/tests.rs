//! Which layer wins, where secrets come from, and what is said about a configuration that is wrong.

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
    let (_dir, path) = with_file("listen = 'file'\n[storage]\nbackend = 'file'\n\n[limits]\nconnections = 7\n", 0o600);
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
