//! The command line: serve · check · user · key · storage · doctor.
//!
//! Exit codes: 0 done, 1 failed, 75 another server holds the data directory, 78 the
//! configuration or the database cannot be used (sysexits.h).

#![expect(clippy::print_stdout, reason = "this room speaks to the terminal")]

use std::io::IsTerminal;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use clap::Subcommand;
use rustix::fs::Mode;
use tracing_subscriber::EnvFilter;

use crate::accounts::Accounts;
use crate::accounts::Introduced;
use crate::accounts::NewKey;
use crate::accounts::Role;
use crate::accounts::Scope;
use crate::accounts::Scopes;
use crate::accounts::model::Change;
use crate::accounts::model::CredentialKind;
use crate::app;
use crate::app::App;
use crate::config;
use crate::config::Config;
use crate::config::Flags;
use crate::error::Code;
use crate::error::Error;
use crate::error::Result;
use crate::films;
use crate::homes::Plan;
use crate::homes::Tally;
use crate::infra::db::Db;
use crate::infra::workers;
use crate::infra::workers::Workers;
use crate::interfaces::http::tls;
use crate::support::clock::Clock;
use crate::support::cpu::Cpu;
use crate::support::id;

const EXIT_LOCKED: u8 = 75;
const EXIT_CONFIG: u8 = 78;
/// A line, a router or a bucket's server that is begun anew takes less.
const MIGRATION_PATIENCE: Duration = Duration::from_mins(10);

#[derive(Parser)]
#[command(version, about, max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
    /// A configuration file instead of /etc/cloakroom/config.toml
    #[arg(long, global = true)]
    config: Option<String>,
    /// Address to listen on: ADDR:PORT, http://ADDR:PORT or https://ADDR:PORT; may be repeated
    #[arg(long, global = true)]
    listen: Vec<String>,
    /// The folder that holds everything
    #[arg(long, global = true)]
    data_dir: Option<String>,
    /// What is logged: error, warn, info, debug, trace, or filters
    #[arg(long, global = true)]
    log: Option<String>,
}

#[derive(Subcommand)]
enum Command {
    /// Runs the box
    Serve,
    /// Validates the configuration and shows each setting with its origin
    Check,
    /// People: list, add, enable, disable, set a password or a role, log out, end a second factor
    #[command(subcommand)]
    User(UserCommand),
    /// API keys, upload keys and tokens: show, list, rotate, give a token, revoke
    #[command(subcommand)]
    Key(KeyCommand),
    /// Where originals are: status, and moving them between this disk and buckets
    #[command(subcommand)]
    Storage(StorageCommand),
    /// Looks at everything a healthy box needs and says what is missing
    Doctor,
}

#[derive(Subcommand)]
enum UserCommand {
    List,
    /// Makes a user and prints the password and the keys, once
    Add {
        email: String,
        /// admin, manager, creator or user
        #[arg(long, default_value = "creator")]
        role: String,
        /// Made up when absent
        #[arg(long)]
        password: Option<String>,
    },
    Password {
        email: String,
        /// Made up when absent
        #[arg(long)]
        password: Option<String>,
    },
    Enable {
        email: String,
    },
    Disable {
        email: String,
    },
    /// Gives another role
    Role {
        email: String,
        /// admin, manager, creator or user
        role: String,
    },
    /// Ends every token of a user
    Logout {
        email: String,
    },
    /// Ends a second factor whose device and recovery codes are lost
    DisableSecondFactor {
        email: String,
    },
}

#[derive(Subcommand)]
enum KeyCommand {
    Show {
        email: String,
    },
    /// Gives a new API key; the old one works for a while longer
    Rotate {
        email: String,
        /// For how many hours
        #[arg(long, default_value_t = 24)]
        grace_hours: u64,
    },
    /// Gives a new upload key; the old one works for a while longer
    RotateUpload {
        email: String,
        /// For how many hours
        #[arg(long, default_value_t = 24)]
        grace_hours: u64,
    },
    /// Gives a token for Prepr's API and prints it, once
    Token {
        email: String,
        /// What it is for
        #[arg(long)]
        name: String,
        /// assets, assets_publish, assets_delete, collections, collections_publish, collections_delete
        #[arg(long, value_delimiter = ',', required = true)]
        scopes: Vec<String>,
    },
    /// Every key that is good now, with the number that `revoke` takes
    List {
        email: String,
    },
    /// Ends a key now
    Revoke {
        email: String,
        id: i64,
    },
}

#[derive(Subcommand)]
enum StorageCommand {
    /// What lies where, what waits, and whether buckets answer
    Status,
    /// Moves all originals; may run beside the server. Killed or failed, it goes on when it is run again
    Migrate {
        /// fs, the name of a bucket, or s3 or r2: the first bucket of that kind
        #[arg(long)]
        to: String,
        /// What is moved stays where it was, too
        #[arg(long)]
        keep_source: bool,
        /// At most so many MiB a second
        #[arg(long, default_value_t = 0)]
        rate: u64,
    },
}

/// Parses, runs, and turns the outcome into an exit code.
pub fn run() -> ExitCode {
    let arguments = Arguments::parse();
    let flags =
        Flags { config: arguments.config, listen: arguments.listen, data_dir: arguments.data_dir, log: arguments.log };
    let (config, effective) = match config::read(&flags) {
        Ok(read) => read,
        Err(error) => return failed(&error, EXIT_CONFIG),
    };
    if let Command::Check = arguments.command {
        print!("{}", effective.print());
        return ExitCode::SUCCESS;
    }
    if let Err(error) = log_to_stderr(&config) {
        return failed(&error, EXIT_CONFIG);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().max_blocking_threads(128).build();
    let outcome = match runtime {
        Ok(runtime) => runtime.block_on(async {
            match arguments.command {
                Command::Serve => Box::pin(serve(config)).await,
                Command::Check => Ok(()),
                Command::User(command) => user(&config, command).await,
                Command::Key(command) => key(&config, command).await,
                Command::Storage(command) => Box::pin(storage(&config, command)).await,
                Command::Doctor => doctor(&config).await,
            }
        }),
        Err(e) => Err(e.into()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.code == Code::Busy => failed(&error, EXIT_LOCKED),
        Err(error) if error.code == Code::InvalidRequest => failed(&error, EXIT_CONFIG),
        Err(error) => failed(&error, 1),
    }
}

fn failed(error: &Error, code: u8) -> ExitCode {
    let _ = writeln!(std::io::stderr(), "cloakroom: {}", error.detail);
    if let Some(source) = &error.source {
        let _ = writeln!(std::io::stderr(), "  because: {source}");
    }
    ExitCode::from(code)
}

fn log_to_stderr(config: &Config) -> Result<()> {
    let filter = EnvFilter::try_new(&config.log)
        .map_err(|e| Code::InvalidRequest.because(format!("log: `{}` is not understood: {e}", config.log)))?;
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    match config.log_format.as_str() {
        "json" => log.json().init(),
        "text" => log.with_target(false).init(),
        other => return Err(Code::InvalidRequest.because(format!("log_format: `{other}` is not text or json"))),
    }
    Ok(())
}

async fn serve(config: Config) -> Result<()> {
    let data_dir = PathBuf::from(&config.data_dir);
    // What lies in the data directory is for this account alone.
    rustix::process::umask(Mode::RWXG | Mode::RWXO);
    let clock = Clock::system();
    let app = App::open(config, clock).await?;
    let introduced = app.introduce(config::first_administrator()).await?;
    let bound = app.start().await?;
    for address in &bound.addresses {
        println!("listening on {address}");
    }
    if let Some(introduced) = introduced {
        welcome(&introduced, bound.addresses.first().map_or("", |a| a));
    }
    if bound.own.is_some() {
        println!("the box signs its own certificates; devices can trust {}", tls::root_path(&data_dir).display());
    }
    let _ = std::io::stdout().flush();
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);

    let handle = bound.server.handle();
    let server = tokio::spawn(bound.server);
    let renewals = bound.own;
    let mut beat = tokio::time::interval(Duration::from_secs(10));
    let mut daily = tokio::time::interval(Duration::from_hours(24));
    let signal = stop_signal();
    tokio::pin!(signal);
    loop {
        tokio::select! {
            () = &mut signal => break,
            _ = beat.tick() => if app.is_well().await {
                // Told only when a write commits, so that a stuck box is restarted.
                let _ = sd_notify::notify(&[sd_notify::NotifyState::Watchdog]);
            },
            _ = daily.tick() => {
                if let Some((certificates, source)) = &renewals
                    && let Err(error) = certificates.refresh(source)
                {
                    tracing::error!(%error, "the box's own certificate could not be renewed");
                }
                let looking = app.look_after();
                tokio::spawn(async move {
                    // Busy: it was stopped meanwhile.
                    if let Err(error) = looking.await
                        && error.code != Code::Busy
                    {
                        tracing::error!(%error, "the daily look after the database failed");
                    }
                });
            },
        }
    }
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
    tracing::info!("stopping: finishing what is under way");
    app.hang_up();
    handle.stop(true).await;
    let _ = server.await;
    app.stop().await
}

/// Resolves at SIGTERM or SIGINT.
async fn stop_signal() {
    use tokio::signal::unix::SignalKind;
    use tokio::signal::unix::signal;
    match (signal(SignalKind::terminate()), signal(SignalKind::interrupt())) {
        (Ok(mut terminate), Ok(mut interrupt)) => {
            tokio::select! {
                _ = terminate.recv() => {},
                _ = interrupt.recv() => {},
            }
        }
        _ => std::future::pending().await,
    }
}

fn welcome(introduced: &Introduced, address: &str) {
    println!();
    println!("This box is new. Its first administrator, shown this once:");
    println!("  administrator: {}", introduced.email);
    match &introduced.password {
        Some(password) => println!("  password: {password}"),
        None => println!("  password: as given by CLOAKROOM_ADMIN_PASSWORD"),
    }
    println!("  API key: {}", introduced.keys.api_key);
    println!("  upload key: {}", introduced.keys.upload_key);
    println!();
    println!("Try it:");
    println!("  curl -H 'X-FileSpin-Api-Key: {}' -F file=@photo.jpg \\", introduced.keys.api_key);
    println!("       {address}/api/v1/assets/new/content/original/upload");
    println!();
}

/// The accounts of a data directory, also while a server runs on it.
fn accounts(config: &Config) -> Result<(Accounts, Db)> {
    let db = app::open_db(config)?;
    let data_dir = PathBuf::from(&config.data_dir);
    Ok((app::open_accounts(&config.accounts, &data_dir, &db, &Clock::system(), &Cpu::open(2))?, db))
}

async fn user(config: &Config, command: UserCommand) -> Result<()> {
    let (accounts, db) = accounts(config)?;
    match command {
        UserCommand::List => {
            for user in accounts.users().await? {
                let state = if user.enabled { "" } else { "  (disabled)" };
                println!("{:>4}  {:<8} {}  {}{state}", user.id, user.role.word(), user.access_id, user.email);
            }
        }
        UserCommand::Add { email, role, password } => {
            let role = role_of(&role)?;
            let (password, made_up) = or_made_up(password)?;
            let (user, keys) = accounts.create(email, password.clone(), role, None).await?;
            println!("user: {} ({})\naccess id: {}", user.email, user.role.word(), user.access_id);
            if made_up {
                println!("password: {password}");
            }
            println!("API key: {}\nupload key: {}", keys.api_key, keys.upload_key);
        }
        UserCommand::Password { email, password } => {
            let (password, made_up) = or_made_up(password)?;
            accounts.set_password(email, password.clone()).await?;
            println!("{}", if made_up { format!("password: {password}") } else { "done".to_owned() });
        }
        UserCommand::Enable { email } => accounts.set_enabled(email, true).await?,
        UserCommand::Disable { email } => accounts.set_enabled(email, false).await?,
        UserCommand::Role { email, role } => {
            let user = accounts.by_email(email).await?;
            accounts.change(user.id, Change { role: Some(role_of(&role)?), ..Change::default() }).await?;
        }
        UserCommand::Logout { email } => {
            let user = accounts.by_email(email).await?;
            accounts.log_out(user.id).await?;
        }
        UserCommand::DisableSecondFactor { email } => {
            let user = accounts.by_email(email).await?;
            accounts.reset_second_factor(user.id).await?;
        }
    }
    db.close().await
}

fn role_of(word: &str) -> Result<Role> {
    Role::from_word(word)
        .ok_or_else(|| Code::InvalidRequest.because(format!("`{word}` is not admin, manager, creator or user")))
}

async fn key(config: &Config, command: KeyCommand) -> Result<()> {
    let (accounts, db) = accounts(config)?;
    match command {
        KeyCommand::Show { email } => {
            let keys = accounts.keys(email).await?;
            println!("API key: {}\nupload key: {}", keys.api_key, keys.upload_key);
        }
        KeyCommand::Rotate { email, grace_hours } => {
            rotate(&accounts, email, CredentialKind::Api, grace_hours).await?;
        }
        KeyCommand::RotateUpload { email, grace_hours } => {
            rotate(&accounts, email, CredentialKind::Upload, grace_hours).await?;
        }
        KeyCommand::Token { email, name, scopes } => {
            let user = accounts.by_email(email).await?;
            let known = |word: &String| {
                Scope::from_word(word).ok_or_else(|| {
                    Code::InvalidRequest.because(format!("`{word}` is not a scope: see `cloakroom key token --help`"))
                })
            };
            let scopes = scopes.iter().map(known).collect::<Result<Scopes>>()?;
            let (number, token) = accounts.give_token(user.id, name, scopes).await?;
            println!("token: {token}\nnumber: {number}\nscopes: {scopes}");
        }
        KeyCommand::List { email } => {
            let user = accounts.by_email(email).await?;
            for key in accounts.list_keys(user.id).await? {
                let until = key.expires_at.map(|at| format!("  until {}", at.iso())).unwrap_or_default();
                let what = key.label.map(|label| format!("  {label}")).unwrap_or_default();
                let scopes = key.scopes.map(|scopes| format!("  ({scopes})")).unwrap_or_default();
                let since = key.created_at.iso();
                println!("{:>4}  {:<6}  {}…  since {since}{until}{what}{scopes}", key.id, key.kind.word(), key.hint);
            }
        }
        KeyCommand::Revoke { email, id } => {
            let user = accounts.by_email(email).await?;
            accounts.revoke(user.id, id).await?;
        }
    }
    db.close().await
}

async fn rotate(accounts: &Accounts, email: String, kind: CredentialKind, grace_hours: u64) -> Result<()> {
    let user = accounts.by_email(email).await?;
    let key = accounts.rotate(user.id, kind, NewKey::Random, Duration::from_hours(grace_hours.min(8760))).await?;
    println!("{}: {key}", if kind == CredentialKind::Api { "API key" } else { "upload key" });
    Ok(())
}

async fn storage(config: &Config, command: StorageCommand) -> Result<()> {
    // Copies of originals are for this account alone.
    rustix::process::umask(Mode::RWXG | Mode::RWXO);
    let (homes, db) = app::open_homes(config)?;
    match command {
        StorageCommand::Status => {
            let (tallies, failures) = homes.survey().await?;
            let counts = homes.counts().await?;
            for Tally { home, objects, bytes, waiting } in &tallies {
                let place = if home.bucket.is_empty() { "this disk" } else { &home.bucket };
                println!(
                    "{:<3} {place}: {objects} originals, {bytes} bytes; {waiting} on their way elsewhere",
                    home.backend.word()
                );
            }
            println!("all others: on this disk");
            println!("waiting to be moved: {} originals, {} bytes", counts.waiting, counts.waiting_bytes);
            println!("to be removed from buckets: {}", counts.leftovers);
            println!("copies on this disk of what lies in buckets: {} bytes", counts.copies_bytes);
            for (id, error) in failures {
                println!("held up: {id}: {error}");
            }
            for (bucket, answer) in homes.check().await {
                println!("{bucket}: {}", answer.map_or_else(|e| e.to_string(), |()| "answers".to_owned()));
            }
        }
        StorageCommand::Migrate { to, keep_source, rate } => {
            let plan =
                Plan { to, keep_source, bytes_per_second: rate.saturating_mul(1 << 20), patience: MIGRATION_PATIENCE };
            let began = std::time::Instant::now();
            let mut said = began;
            let done = homes
                .migrate(&plan, |progress| {
                    if progress.moved == 0 || said.elapsed() > Duration::from_secs(2) {
                        said = std::time::Instant::now();
                        println!(
                            "{} of {} originals, {} of {} bytes",
                            progress.moved, progress.planned, progress.moved_bytes, progress.planned_bytes
                        );
                    }
                })
                .await?;
            let seconds = began.elapsed().as_secs_f64();
            println!("moved {} originals, {} bytes, in {seconds:.1} s", done.moved, done.moved_bytes);
            if done.failed > 0 {
                return Err(Code::StorageUnavailable.because(format!(
                    "{} originals could not be moved: `storage status` and the log say why",
                    done.failed
                )));
            }
        }
    }
    db.close().await
}

fn or_made_up(password: Option<String>) -> Result<(String, bool)> {
    match password {
        Some(password) => Ok((password, false)),
        None => Ok((id::hex(&id::random::<8>()?), true)),
    }
}

async fn doctor(config: &Config) -> Result<()> {
    let data_dir = PathBuf::from(&config.data_dir);
    let program = config.workers.program.clone().filter(|p| !p.as_os_str().is_empty());
    let workers = Workers::start(workers::Config { program, ..config.workers.clone() })?;
    let mut ill = 0;
    let mut say = |what: &str, outcome: Result<String>| match outcome {
        Ok(found) => println!("ok    {what}: {found}"),
        Err(e) => {
            ill += 1;
            println!("FAIL  {what}: {}", e.detail);
        }
    };
    say("version", Ok(format!("{} with SQLite {}", env!("CARGO_PKG_VERSION"), rusqlite::version())));
    say("data directory", std::fs::metadata(&data_dir).map(|_| data_dir.display().to_string()).map_err(Error::from));
    let free = rustix::fs::statvfs(&data_dir).map(|s| s.f_bavail * s.f_frsize);
    say(
        "free disk",
        match free {
            Ok(free) if free > config.storage.free_floor_bytes => Ok(format!("{} GiB", free >> 30)),
            Ok(free) => Err(Code::DiskFull.because(format!(
                "{} MiB: uploads are refused below {} MiB",
                free >> 20,
                config.storage.free_floor_bytes >> 20
            ))),
            Err(e) => Err(std::io::Error::from(e).into()),
        },
    );
    say("flush", flush_time(&data_dir));
    for (name, bucket) in config.storage.buckets()? {
        let answer = bucket.check().await.map(|()| "answers".to_owned());
        say(&format!("{} bucket {name}", bucket.backend().word()), answer);
    }
    let sandbox = workers.sandbox();
    say(
        "sandbox",
        if sandbox.holds {
            Ok(sandbox.layers.join(", "))
        } else {
            Err(Code::MediaUnavailable.because(sandbox.why.clone()))
        },
    );
    let survey = films::survey(&config.films).await;
    say(
        "films",
        match &survey {
            Ok(survey) if survey.best().is_none() => {
                Err(Code::MediaUnavailable.because("no H.264 encoder works on this machine"))
            }
            Ok(survey) => Ok(survey.version.clone()),
            Err(e) => Err(e.code.because(e.detail.clone())),
        },
    );
    for line in survey.iter().flat_map(|survey| survey.lines().into_iter().skip(1)) {
        println!("      {line}");
    }
    if app::database(&data_dir).exists() {
        let checked = match app::open_db(config) {
            Ok(db) => db.quick_check().await.map(|()| "sound".to_owned()),
            Err(e) => Err(e),
        };
        say("database", checked);
    }
    if ill == 0 { Ok(()) } else { Err(Code::Internal.because(format!("{ill} checks failed"))) }
}

/// A disk that flushes faster than physics allows is lying.
fn flush_time(data_dir: &std::path::Path) -> Result<String> {
    let mut file = tempfile::NamedTempFile::new_in(data_dir)?;
    let began = std::time::Instant::now();
    for _ in 0..20 {
        file.write_all(&[0; 4096])?;
        file.as_file().sync_all()?;
    }
    let each = began.elapsed() / 20;
    let hint =
        if each < Duration::from_micros(50) { " (suspiciously fast: does this disk honour flushes?)" } else { "" };
    Ok(format!("{:.2} ms{hint}", each.as_secs_f64() * 1000.0))
}
