//! The composition root: configuration, rooms from the ground up, interfaces, and the stop.
//!
//! The body of [`App::open`] is the wiring diagram. Only this file sees all rooms; each holds
//! just the collaborators that its constructor names.

use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;

use actix_web::web::Data;
use actix_web::web::ServiceConfig;
use prometheus_client::registry::Registry;

use crate::accounts;
use crate::accounts::Accounts;
use crate::accounts::FirstAdministrator;
use crate::accounts::Introduced;
use crate::accounts::MasterKey;
use crate::assets::Assets;
use crate::assets::place;
use crate::catalogue::Catalogue;
use crate::collections::Collections;
use crate::config::Config;
use crate::custody::Custody;
use crate::custody::RunBulk;
use crate::custody::Sweep;
use crate::delivery::Delivery;
use crate::error::Code;
use crate::error::Result;
use crate::films::Films;
use crate::homes::Homes;
use crate::infra::db::DataLock;
use crate::infra::db::Db;
use crate::infra::jobs;
use crate::infra::jobs::Jobs;
use crate::infra::jobs::Queue;
use crate::infra::storage::Storage;
use crate::infra::workers;
use crate::infra::workers::Workers;
use crate::ingest::ExpireVoucher;
use crate::ingest::FetchOriginal;
use crate::ingest::GiveUpPhased;
use crate::ingest::Ingest;
use crate::ingest::SaveOriginal;
use crate::ingest::resumable::ExpireUploads;
use crate::ingest::resumable::FinishUpload;
use crate::interfaces::filespin::limits::CallLimits;
use crate::interfaces::filespin::limits::FilmLimits;
use crate::interfaces::filespin::limits::ImageLimits;
use crate::interfaces::filespin::limits::LimitsData;
use crate::interfaces::filespin::limits::UploadLimits;
use crate::interfaces::filespin::limits::WebhookLimits;
use crate::interfaces::http::health::Vitals;
use crate::interfaces::http::observe::Cors;
use crate::interfaces::http::observe::Figures;
use crate::interfaces::http::pace::Pace;
use crate::interfaces::http::server;
use crate::interfaces::http::server::Bound;
use crate::interfaces::http::throttle::Throttle;
use crate::interfaces::router;
use crate::journal::Journal;
use crate::news::News;
use crate::processing::Processing;
use crate::processing::RunFilm;
use crate::processing::RunStep;
use crate::processing::SweepConversions;
use crate::schemas::ReapplySchema;
use crate::schemas::Schemas;
use crate::search::Search;
use crate::settings::Settings;
use crate::stills::Stills;
use crate::support::clock::Clock;
use crate::support::cpu::Cpu;
use crate::support::fetch::Fetch;
use crate::webhooks::ReissueCallbacks;
use crate::webhooks::Webhooks;

/// The whole database as it is today.
pub const SCHEMA: &str = include_str!("../schema.sql");

/// Blocking work at once: mostly waiting for the disk, so more than there are cores.
const BLOCKING_SLOTS: usize = 32;

/// Errands in the network that are jobs, at once: a file that comes slowly holds one for long.
const NET_SLOTS: usize = 4;

/// How long a stop waits for jobs under way before it hands them back.
const JOB_GRACE: Duration = Duration::from_secs(10);

/// How long it waits for callbacks and moves under way: they will be begun again, so this is a courtesy.
const COURTESY: Duration = Duration::from_secs(3);

/// The rooms, wired.
pub struct App {
    config: Config,
    data_dir: PathBuf,
    clock: Clock,
    _lock: DataLock,
    db: Db,
    cpu: Cpu,
    jobs: Jobs,
    workers: Workers,
    films: Films,
    homes: Homes,
    accounts: Accounts,
    assets: Assets,
    settings: Settings,
    schemas: Schemas,
    search: Search,
    collections: Collections,
    catalogue: Catalogue,
    processing: Processing,
    custody: Custody,
    ingest: Ingest,
    delivery: Delivery,
    news: News,
    webhooks: Webhooks,
    vitals: Vitals,
    registry: Data<Mutex<Registry>>,
    figures: Figures,
}

impl App {
    /// Opens the data directory and builds the rooms. Recovery is done when this returns.
    pub async fn open(config: Config, clock: Clock) -> Result<App> {
        let data_dir = PathBuf::from(&config.data_dir);
        std::fs::create_dir_all(&data_dir).map_err(|e| {
            Code::StorageUnavailable.from(format!("cannot use the data directory {}: {e}", config.data_dir), e)
        })?;
        let lock = DataLock::take(&data_dir)?;
        let cpu = Cpu::open(BLOCKING_SLOTS);
        let db = Db::open(&database(&data_dir), SCHEMA, clock.clone(), &config.db)?;
        let storage = Storage::open(&data_dir, &config.storage, &[place::ON_DEMAND], &[place::ORIGINALS])?;
        let jobs = Jobs::new(db.clone(), jobs::Config::default());
        let program = config.workers.program.clone().filter(|p| !p.as_os_str().is_empty());
        let workers = Workers::start(workers::Config { program, ..config.workers.clone() })?;
        let stills = Stills::new(workers.clone(), config.images.clone());
        let films = Films::new(config.films.clone(), storage.clone(), cpu.clone());

        let accounts = open_accounts(&config.accounts, &data_dir, &db, &clock, &cpu)?;
        let journal = Journal::new(db.clone());
        let assets = Assets::new(db.clone());
        let settings = Settings::open(db.clone(), assets.clone()).await?;
        let schemas = Schemas::new(db.clone(), jobs.clone());
        let search = Search::new(db.clone());
        let homes = Homes::new(config.storage.clone(), db.clone(), cpu.clone(), storage.clone(), assets.clone())?;
        let collections = Collections::new(db.clone(), cpu.clone(), homes.clone());
        let catalogue = Catalogue::new(db.clone(), assets.clone(), journal.clone());

        let processing = Processing::new(
            config.processing.clone(),
            Duration::from_secs(config.custody.linger_seconds),
            db.clone(),
            cpu.clone(),
            storage.clone(),
            homes.clone(),
            jobs.clone(),
            assets.clone(),
            journal.clone(),
            settings.clone(),
            stills.clone(),
            films.clone(),
        );
        let custody = Custody::new(
            config.custody.clone(),
            db.clone(),
            storage.clone(),
            homes.clone(),
            jobs.clone(),
            assets.clone(),
            journal.clone(),
            processing.clone(),
            schemas.clone(),
        );
        let fetch = Fetch::new(&config.net)?;
        let master = open_master(&data_dir)?;
        let ingest = Ingest::new(
            config.ingest.clone(),
            db.clone(),
            cpu.clone(),
            storage.clone(),
            homes.clone(),
            jobs.clone(),
            assets.clone(),
            journal.clone(),
            settings.clone(),
            processing.clone(),
            custody.clone(),
            schemas.clone(),
            stills.clone(),
            fetch.clone(),
            Fetch::of_the_operator()?,
            &master,
        );
        let delivery = Delivery::new(
            config.delivery.clone(),
            clock.clone(),
            accounts.clone(),
            settings.clone(),
            assets.clone(),
            storage.clone(),
            homes.clone(),
            journal.clone(),
            stills.clone(),
            cpu.clone(),
        )?;

        let news = News::new(db.clone(), journal.clone());
        let webhooks = Webhooks::new(
            config.webhooks.clone(),
            db.clone(),
            jobs.clone(),
            journal.clone(),
            settings.clone(),
            fetch,
            master,
            config.http.public_url.trim_end_matches('/').to_owned(),
        );

        Box::pin(ingest.recover()).await?;
        delivery.recover().await?;
        jobs.register::<SaveOriginal>(Arc::new(ingest.clone()));
        jobs.register::<FetchOriginal>(Arc::new(ingest.clone()));
        jobs.register::<ExpireVoucher>(Arc::new(ingest.clone()));
        jobs.register::<FinishUpload>(Arc::new(ingest.clone()));
        jobs.register::<ExpireUploads>(Arc::new(ingest.clone()));
        jobs.register::<GiveUpPhased>(Arc::new(ingest.clone()));
        jobs.register::<ReapplySchema>(Arc::new(schemas.clone()));
        jobs.register::<RunStep>(Arc::new(processing.clone()));
        jobs.register::<RunFilm>(Arc::new(processing.clone()));
        jobs.register::<SweepConversions>(Arc::new(processing.clone()));
        jobs.register::<Sweep>(Arc::new(custody.clone()));
        jobs.register::<RunBulk>(Arc::new(custody.clone()));
        jobs.register::<ReissueCallbacks>(Arc::new(webhooks.clone()));
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let receiving = ingest.clone();
        // Making pictures yields to taking them in: nobody can repeat the second.
        jobs.pause(RunStep::QUEUE_NAME, move || receiving.under_way() > cores);

        let mut registry = Registry::with_prefix("cloakroom");
        let figures = Figures::new(&mut registry);
        let vitals = Vitals {
            db: db.clone(),
            storage: storage.clone(),
            homes: homes.clone(),
            workers: workers.clone(),
            films: films.clone(),
            news: news.clone(),
            webhooks: webhooks.clone(),
        };
        let registry = Data::new(Mutex::new(registry));
        Ok(App {
            config,
            data_dir,
            clock,
            _lock: lock,
            db,
            cpu,
            jobs,
            workers,
            films,
            homes,
            accounts,
            assets,
            settings,
            schemas,
            search,
            collections,
            catalogue,
            processing,
            custody,
            ingest,
            delivery,
            news,
            webhooks,
            vitals,
            registry,
            figures,
        })
    }

    /// Makes the first administrator of an empty box.
    pub async fn introduce(&self, given: FirstAdministrator) -> Result<Option<Introduced>> {
        self.accounts.introduce(given).await
    }

    /// Starts the jobs and binds the listeners.
    pub async fn start(&self) -> Result<Bound> {
        self.jobs.start(&self.slots()).await?;
        self.homes.start().await?;
        self.news.start();
        self.webhooks.start();
        self.films.look_around();
        server::bind(&self.config.http, &self.data_dir, &self.clock, self.mount())
    }

    /// How many jobs of which queue run at once.
    fn slots(&self) -> [(Queue, usize); 5] {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let films = self.config.films.workers.slots.max(1);
        [
            (Queue("save"), cores.max(2)),
            (RunStep::QUEUE_NAME, 1),
            (RunFilm::QUEUE_NAME, films),
            (Sweep::QUEUE_NAME, 2),
            (ReissueCallbacks::QUEUE_NAME, NET_SLOTS),
        ]
    }

    /// Whether a write commits: what the watchdog is told.
    pub async fn is_well(&self) -> bool {
        self.db.ping_write().await.is_ok()
    }

    /// What is done for the database once a day: its statistics, and a look through the whole file for damage.
    pub fn look_after(&self) -> impl Future<Output = Result<()>> + Send + use<> {
        let (db, films) = (self.db.clone(), self.films.clone());
        async move {
            db.optimize().await?;
            // A film needs the disk and the processor more.
            while films.counts().running > 0 {
                tokio::time::sleep(Duration::from_mins(1)).await;
            }
            db.quick_check().await
        }
    }

    /// Ends the answers that would go on for ever. The listeners can be stopped then.
    pub fn hang_up(&self) {
        self.news.hang_up();
    }

    /// Ends what is under way and puts everything in order. The listeners have stopped before.
    pub async fn stop(self) -> Result<()> {
        tokio::join!(self.jobs.stop(JOB_GRACE), self.webhooks.stop(COURTESY), self.homes.stop(COURTESY));
        let workers = self.workers.clone();
        self.cpu
            .run(move || {
                workers.stop();
                Ok(())
            })
            .await?;
        self.db.close().await
    }

    /// What callers are told about limits that the configuration sets.
    fn limits(&self) -> LimitsData {
        let Config { http, ingest, accounts, images, films, webhooks, .. } = &self.config;
        LimitsData {
            requests: http.rates.clone().into(),
            uploads: UploadLimits {
                max_file_bytes: ingest.max_file_bytes,
                max_parts: ingest.max_parts,
                min_bytes_per_second: http.body_min_bytes_per_second,
                max_pause_seconds: http.body_stall_seconds,
                upload_key_max_bytes: accounts.upload_key_max_bytes,
                upload_key_calls_per_minute: accounts.upload_key_calls_per_minute,
            },
            images: ImageLimits {
                max_pixels: images.max_pixels,
                max_side: images.max_side,
                max_frames: images.max_frames,
                ..ImageLimits::default()
            },
            films: FilmLimits { max_seconds_of_work: films.workers.wall_seconds, at_once: films.workers.slots },
            webhooks: WebhookLimits {
                max_urls: webhooks.max_urls,
                attempts: webhooks.schedule_seconds.len() + 1,
                timeout_seconds: webhooks.timeout_seconds,
            },
            calls: CallLimits::default(),
        }
    }

    /// What every HTTP worker's application holds.
    fn mount(&self) -> impl Fn(&mut ServiceConfig) + Clone + Send + 'static {
        let accounts = Data::new(self.accounts.clone());
        let assets = Data::new(self.assets.clone());
        let settings = Data::new(self.settings.clone());
        let schemas = Data::new(self.schemas.clone());
        let search = Data::new(self.search.clone());
        let collections = Data::new(self.collections.clone());
        let catalogue = Data::new(self.catalogue.clone());
        let prepr = Data::new(self.config.prepr.clone());
        let processing = Data::new(self.processing.clone());
        let custody = Data::new(self.custody.clone());
        let ingest = Data::new(self.ingest.clone());
        let delivery = Data::new(self.delivery.clone());
        let news = Data::new(self.news.clone());
        let webhooks = Data::new(self.webhooks.clone());
        let cpu = Data::new(self.cpu.clone());
        let http = Data::new(self.config.http.clone());
        let pace = Data::new(Pace::new(&self.config.http));
        let throttle = Data::new(Throttle::new(&self.config.http.rates));
        let limits = Data::new(self.limits());
        let cors = Data::new(Cors { origins: self.config.http.cors_origins.clone() });
        let vitals = Data::new(self.vitals.clone());
        let figures = Data::new(self.figures.clone());
        let registry = self.registry.clone();
        move |app| {
            app.app_data(accounts.clone())
                .app_data(assets.clone())
                .app_data(settings.clone())
                .app_data(schemas.clone())
                .app_data(search.clone())
                .app_data(collections.clone())
                .app_data(catalogue.clone())
                .app_data(prepr.clone())
                .app_data(processing.clone())
                .app_data(custody.clone())
                .app_data(ingest.clone())
                .app_data(delivery.clone())
                .app_data(news.clone())
                .app_data(webhooks.clone())
                .app_data(cpu.clone())
                .app_data(http.clone())
                .app_data(pace.clone())
                .app_data(throttle.clone())
                .app_data(limits.clone())
                .app_data(cors.clone())
                .app_data(vitals.clone())
                .app_data(figures.clone())
                .app_data(registry.clone());
            router::mount(app);
        }
    }
}

/// Where the database lies.
pub fn database(data_dir: &Path) -> PathBuf {
    data_dir.join("cloakroom.db")
}

/// The database of a box that has been started before, for the command line, which may be used beside a
/// running server.
pub fn open_db(config: &Config) -> Result<Db> {
    let path = database(Path::new(&config.data_dir));
    if !path.exists() {
        return Err(
            Code::InvalidRequest.because(format!("there is no box at {}: start it once with `serve`", config.data_dir))
        );
    }
    // A server that is running has settled what the run before it left.
    match DataLock::take(Path::new(&config.data_dir)) {
        Ok(_held) => Db::open(&path, SCHEMA, Clock::system(), &config.db),
        Err(_) => Db::open_beside(&path, SCHEMA, Clock::system(), &config.db),
    }
}

/// The accounts alone, for the command line.
pub fn open_accounts(
    config: &accounts::Config,
    data_dir: &Path,
    db: &Db,
    clock: &Clock,
    cpu: &Cpu,
) -> Result<Accounts> {
    Ok(Accounts::new(config.clone(), db.clone(), clock.clone(), cpu.clone(), open_master(data_dir)?))
}

/// Where originals are, alone, for the command line.
pub fn open_homes(config: &Config) -> Result<(Homes, Db)> {
    let data_dir = PathBuf::from(&config.data_dir);
    let db = open_db(config)?;
    let storage = Storage::open(&data_dir, &config.storage, &[place::ON_DEMAND], &[place::ORIGINALS])?;
    let homes = Homes::new(config.storage.clone(), db.clone(), Cpu::open(8), storage, Assets::new(db.clone()))?;
    Ok((homes, db))
}

fn open_master(data_dir: &Path) -> Result<MasterKey> {
    MasterKey::open_or_create(&data_dir.join("secret/master.key"))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::FileExt;
    use std::os::unix::fs::MetadataExt;
    use std::process::Command;

    use tempfile::TempDir;
    use tokio::sync::oneshot;

    use super::*;
    use crate::accounts::Caller;
    use crate::accounts::Role;
    use crate::assets::AssetId;
    use crate::catalogue::Draft;
    use crate::config::DEFAULTS;
    use crate::config::layers::Layers;
    use crate::infra::db::Conn;
    use crate::infra::db::flushes::Flushes;
    use crate::infra::db::is_in_doubt;
    use crate::ingest::Intake;
    use crate::ingest::Note;
    use crate::ingest::Repeat;
    use crate::ingest::Taken;
    use crate::ingest::resumable::Beginning;
    use crate::ingest::resumable::Claim;
    use crate::ingest::resumable::Piece;
    use crate::support::clock::Instant;

    const ME: Caller = Caller::Known { user_id: 1, role: Role::Admin };

    async fn open(folder: &Path) -> App {
        open_at(folder, Clock::system()).await
    }

    /// A box on this folder, whose jobs wait.
    async fn open_at(folder: &Path, clock: Clock) -> App {
        let mut config: Config = Layers::new(DEFAULTS).finish().unwrap().into().unwrap();
        config.data_dir = folder.to_str().unwrap().to_owned();
        config.storage.free_floor_bytes = 0;
        let app = Box::pin(App::open(config, clock)).await.unwrap();
        app.introduce(FirstAdministrator::default()).await.unwrap();
        app
    }

    async fn take(mut intake: Intake, text: &'static [u8]) -> Taken {
        intake.write(text.into()).await.unwrap();
        intake.finish().await.unwrap()
    }

    /// What a power cut leaves after a flush that failed, opened: what was in the log of the database by then
    /// is on the disk, or is not.
    async fn again(folder: &Path, log_bytes: Option<u64>) -> (TempDir, App) {
        let left = copy(folder);
        if let Some(bytes) = log_bytes {
            let log = fs::File::options().write(true).open(left.path().join("cloakroom.db-wal")).unwrap();
            log.set_len(bytes).unwrap();
        }
        let app = open(left.path()).await;
        (left, app)
    }

    /// What is on the disk. Names of one file stay names of one file.
    fn copy(folder: &Path) -> TempDir {
        let copy = tempfile::tempdir().unwrap();
        let copied = Command::new("cp").arg("-a").arg(folder.join(".")).arg(copy.path()).status().unwrap();
        assert!(copied.success());
        copy
    }

    fn at(folder: &Path, id: AssetId, revision: u32) -> PathBuf {
        folder.join(place::original(id, revision).unwrap().as_str())
    }

    fn names(folder: PathBuf) -> Vec<String> {
        let mut names: Vec<_> =
            fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn an_upload_whose_commit_is_in_doubt_is_decided_by_its_row() {
        for on_the_disk in [true, false] {
            let dir = tempfile::tempdir().unwrap();
            let (folder, flushes) = (dir.path(), Flushes::watch(dir.path()));
            let app = open(folder).await;
            let taken = take(app.ingest.begin("a.txt", 5).await.unwrap(), b"bytes").await;
            let (id, log_bytes) = (taken.id, app.db.stats().wal_bytes);
            flushes.fail();
            let error = app.ingest.keep(&ME, vec![taken], Note::default()).await.unwrap_err();
            assert!(is_in_doubt(&error), "{error}");
            assert_eq!(fs::metadata(at(folder, id, 1)).unwrap().nlink(), 2, "both names are there");

            let refused = take(app.ingest.begin("b.txt", 5).await.unwrap(), b"later").await;
            let (refused_id, error) = (refused.id, app.ingest.keep(&ME, vec![refused], Note::default()).await);
            assert!(!is_in_doubt(&error.unwrap_err()));
            while at(folder, refused_id, 1).exists() || names(folder.join("staging")).len() > 1 {
                tokio::task::yield_now().await;
            }
            assert!(!app.is_well().await, "who watches is told");

            let (left, app) = again(folder, (!on_the_disk).then_some(log_bytes)).await;
            let folder = left.path();
            assert_eq!(names(folder.join("staging")), [""; 0]);
            let found = app.assets.find(id).await;
            if on_the_disk {
                assert_eq!(found.unwrap().asset.size_bytes, 5);
                assert_eq!(fs::read(at(folder, id, 1)).unwrap(), b"bytes");
            } else {
                assert_eq!(found.unwrap_err().code, Code::AssetNotFound);
                assert!(!at(folder, id, 1).exists());
                assert_eq!(names(folder.join("quarantine")), [place::original_name(id, 1)]);
            }
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_replacement_whose_commit_is_in_doubt_leaves_one_content_or_the_other() {
        for on_the_disk in [true, false] {
            let dir = tempfile::tempdir().unwrap();
            let (folder, flushes) = (dir.path(), Flushes::watch(dir.path()));
            let app = open(folder).await;
            let taken = take(app.ingest.begin("a.txt", 3).await.unwrap(), b"old").await;
            let id = app.ingest.keep(&ME, vec![taken], Note::default()).await.unwrap()[0].id;
            app.db.write(|tx| Ok(tx.execute("UPDATE asset SET status = 'OK'", [])?)).await.unwrap();
            let taken = take(app.ingest.begin_replacing(id, "a.txt", 3).await.unwrap(), b"new").await;
            let log_bytes = app.db.stats().wal_bytes;
            flushes.fail();
            let error = app.ingest.replace(&ME, taken, Note::default()).await.unwrap_err();
            assert!(is_in_doubt(&error), "{error}");
            for revision in [1, 2] {
                assert!(at(folder, id, revision).exists(), "revision {revision} may be the one");
            }
            let (left, app) = again(folder, (!on_the_disk).then_some(log_bytes)).await;
            let folder = left.path();
            let revision = app.assets.find(id).await.unwrap().asset.revision;
            assert_eq!(revision, if on_the_disk { 2 } else { 1 });
            let content: &[u8] = if on_the_disk { b"new" } else { b"old" };
            assert_eq!(fs::read(at(folder, id, revision)).unwrap(), content);
            assert_eq!(names(folder.join("staging")), [""; 0]);
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_conversion_whose_commit_is_in_doubt_is_decided_by_its_row() {
        for on_the_disk in [true, false] {
            let dir = tempfile::tempdir().unwrap();
            let (folder, flushes) = (dir.path(), Flushes::watch(dir.path()));
            let app = open(folder).await;
            let taken = take(app.ingest.begin("a.txt", 3).await.unwrap(), b"old").await;
            let id = app.ingest.keep(&ME, vec![taken], Note::default()).await.unwrap()[0].id;
            app.db.write(|tx| Ok(tx.execute("UPDATE asset SET status = 'OK'", [])?)).await.unwrap();
            let taken = take(app.ingest.begin_handing_in(id, "notes", "n.txt", 5).await.unwrap(), b"notes").await;
            let log_bytes = app.db.stats().wal_bytes;
            flushes.fail();
            let error = app.ingest.hand_in(&ME, taken).await.unwrap_err();
            assert!(is_in_doubt(&error), "{error}");
            let (left, app) = again(folder, (!on_the_disk).then_some(log_bytes)).await;
            let folder = left.path();
            let full = app.assets.find(id).await.unwrap();
            let handed: Vec<_> = full.conversions.iter().filter(|c| c.handed.is_some()).collect();
            assert_eq!(handed.len(), usize::from(on_the_disk));
            for conversion in handed {
                let place = place::conversion(id, conversion).unwrap();
                assert_eq!(fs::read(folder.join(place.as_str())).unwrap(), b"notes");
            }
            assert_eq!(names(folder.join("staging")), [""; 0]);
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_quarantine_that_was_cut_off_is_gone_on_with() {
        let text = b"nobody was told";
        let id = AssetId::random().unwrap();
        let name = place::original_name(id, 1);
        // As each step of it leaves them: staged and final; in quarantine, too; final no more.
        for steps in 0..3 {
            let dir = tempfile::tempdir().unwrap();
            let folder = dir.path();
            let _app = open(folder).await;
            let staged = folder.join("staging").join(&name);
            fs::write(&staged, text).unwrap();
            if steps < 2 {
                fs::hard_link(&staged, at(folder, id, 1)).unwrap();
            }
            if steps > 0 {
                fs::hard_link(&staged, folder.join("quarantine").join(&name)).unwrap();
            }
            let (dir, _app) = again(folder, None).await;
            let folder = dir.path();
            assert_eq!(names(folder.join("staging")), [""; 0]);
            assert!(!at(folder, id, 1).exists());
            assert_eq!(names(folder.join("quarantine")), [&*name], "after {steps}");
            assert_eq!(fs::read(folder.join("quarantine").join(&name)).unwrap(), text);
        }
    }

    async fn announce(app: &App, size_bytes: u64) -> AssetId {
        app.ingest.begin_phased(&ME, size_bytes, None, None, Draft::default(), None).await.unwrap().id
    }

    async fn transfer(app: &App, id: AssetId, chunk: &'static [u8]) -> crate::error::Result<u64> {
        let mut turn = app.ingest.turn(id).await?.unwrap();
        turn.write(chunk.into()).await?;
        Ok(turn.settle(None, None).await?.row().offset_bytes)
    }

    async fn begin_resumable(app: &App, caller: &Caller, length: u64) -> AssetId {
        let said = Beginning { length_bytes: Some(length), ..Beginning::default() };
        app.ingest.begin_resumable(caller, said).await.unwrap().id
    }

    async fn send(
        app: &App,
        caller: &Caller,
        id: AssetId,
        piece: Piece,
        bytes: &'static [u8],
    ) -> crate::error::Result<()> {
        let mut receiving = app.ingest.receive(caller, id, piece).await?;
        receiving.write(bytes.into()).await;
        receiving.finish().await.map(drop)
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_key_is_taken_until_its_note_can_be_found() {
        let dir = tempfile::tempdir().unwrap();
        let app = open(dir.path()).await;
        let (db, ingest) = (&app.db, &app.ingest);
        let Repeat::First(once) = ingest.repeat(&ME, "k").await.unwrap() else { panic!("made before") };

        // Three writes wait for the writer and share a commit, which the last holds up.
        let (begin, begins) = oneshot::channel::<()>();
        let (noted, is_noted) = oneshot::channel();
        let (go_on, goes_on) = oneshot::channel::<()>();
        let first = db.write(|_| {
            begins.blocking_recv().unwrap();
            Ok(())
        });
        // Its caller is gone: this holds the only copy.
        let noting = db.write(move |tx| once.note(tx, [AssetId::random()?]));
        let last = db.write(|_| {
            noted.send(()).unwrap();
            goes_on.blocking_recv().unwrap();
            Ok(())
        });
        let again = async {
            begin.send(()).unwrap();
            is_noted.await.unwrap();
            let refused = ingest.repeat(&ME, "k").await.map(drop);
            go_on.send(()).unwrap();
            assert_eq!(refused.unwrap_err().code, Code::KeyInUse);
        };
        let (first, noting, last, ()) = futures_util::future::join4(first, noting, last, again).await;
        first.and(noting).and(last).unwrap();
        assert!(matches!(ingest.repeat(&ME, "k").await.unwrap(), Repeat::Again(_)));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn room_for_what_is_still_to_come_is_set_aside_between_pieces() {
        let dir = tempfile::tempdir().unwrap();
        let app = open(dir.path()).await;
        let id = begin_resumable(&app, &ME, 1000).await;
        assert_eq!(app.ingest.set_aside_bytes(), 1000);
        send(&app, &ME, id, Piece::default(), &[b'x'; 300]).await.unwrap();
        assert_eq!(app.ingest.set_aside_bytes(), 700);
        // What is discarded is still to come.
        let claim = Some(Claim::Md5([0; 16]));
        let wrong = Piece { offset_bytes: 300, claim, ..Piece::default() };
        assert_eq!(send(&app, &ME, id, wrong, &[b'x'; 100]).await.unwrap_err().code, Code::ChecksumMismatch);
        assert_eq!(app.ingest.set_aside_bytes(), 700);
        let phased = announce(&app, 50).await;
        transfer(&app, phased, &[b'x'; 20]).await.unwrap();
        assert_eq!(app.ingest.set_aside_bytes(), 730);

        let (_left, later) = again(dir.path(), None).await;
        assert_eq!(later.ingest.set_aside_bytes(), 730, "and again after a restart");
        let rest = Piece { offset_bytes: 300, ..Piece::default() };
        send(&later, &ME, id, rest, &[b'x'; 700]).await.unwrap();
        assert!(later.ingest.give_up_phased(phased).await.unwrap());
        assert_eq!(later.ingest.set_aside_bytes(), 0);
        app.ingest.terminate(&ME, id).await.unwrap();
        assert_eq!(app.ingest.set_aside_bytes(), 30);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_key_that_anybody_may_have_promises_nothing_away() {
        let dir = tempfile::tempdir().unwrap();
        let app = open(dir.path()).await;
        let page = Caller::UploadKey { user_id: 1, role: Role::Creator, key_id: 1 };
        let id = begin_resumable(&app, &page, 1000).await;
        assert_eq!(app.ingest.set_aside_bytes(), 0);
        send(&app, &page, id, Piece::default(), &[b'x'; 300]).await.unwrap();
        assert_eq!(app.ingest.set_aside_bytes(), 0);
        let (_left, later) = again(dir.path(), None).await;
        assert_eq!(later.ingest.set_aside_bytes(), 0);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn an_upload_in_phases_that_lost_bytes_goes_on_where_they_end() {
        let dir = tempfile::tempdir().unwrap();
        let app = open(dir.path()).await;
        let id = announce(&app, 10).await;
        assert_eq!(transfer(&app, id, b"0123456").await.unwrap(), 7);
        let staged = format!("staging/phase-{id}");
        fs::File::options().write(true).open(dir.path().join(&staged)).unwrap().set_len(4).unwrap();
        assert_eq!(transfer(&app, id, b"789").await.unwrap_err().code, Code::Internal, "no zeros between them");
        let (left, app) = again(dir.path(), None).await;
        assert_eq!(app.ingest.phased(id).await.unwrap().unwrap().offset_bytes, 4);
        assert_eq!(transfer(&app, id, b"456789").await.unwrap(), 10);
        let asset = app.ingest.turn(id).await.unwrap().unwrap().finish(&ME, None, false).await.unwrap();
        assert_eq!(fs::read(at(left.path(), asset.id, 1)).unwrap(), b"0123456789");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn what_is_said_while_an_upload_is_finished_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let app = open(dir.path()).await;
        let id = announce(&app, 4).await;
        transfer(&app, id, b"text").await.unwrap();
        // From here on the finish works with the row as it is now.
        let turn = app.ingest.turn(id).await.unwrap().unwrap();
        let said = Draft { name: Some("Evening".to_owned()), ..Draft::default() };
        app.ingest.describe_phased(id, said).await.unwrap().unwrap();
        turn.finish(&ME, None, false).await.unwrap();
        assert_eq!(app.catalogue.find(id).await.unwrap().caption.name.as_deref(), Some("Evening"));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_clock_that_jumps_gives_up_nothing_that_was_sent() {
        let dir = tempfile::tempdir().unwrap();
        let began = Instant(1_800_000_000_000);
        let clock = Clock::by_hand(began);
        let app = open_at(dir.path(), clock.clone()).await;
        let id = announce(&app, 9).await;
        transfer(&app, id, b"text").await.unwrap();
        let permit = app.ingest.announce(&ME, "a.txt", None, None).await.unwrap();
        let fields = permit.fields.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
        let (intake, _) = app.ingest.begin_sent(&fields, 4).await.unwrap();
        app.ingest.sent(take(intake, b"sent").await).await.unwrap();
        let there = names(dir.path().join("staging"));
        assert_eq!(there.len(), 2);

        clock.advance(Duration::from_hours(400 * 24));
        app.jobs.start(&app.slots()).await.unwrap();
        let later = clock.now();
        let to_be_done = move |c: &Conn| {
            let kinds = "kind IN ('ingest.give_up_phased', 'ingest.expire_voucher')";
            let now = format!("SELECT count(*) FROM job WHERE {kinds} AND NOT (state = 'scheduled' AND run_at > ?1)");
            Ok(c.query_row(&now, [later], |r| r.get::<_, i64>(0))?)
        };
        while app.db.read(to_be_done).await.unwrap() > 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(names(dir.path().join("staging")), there);
        assert_eq!(app.ingest.phased(id).await.unwrap().unwrap().offset_bytes, 4);
    }

    #[tokio::test]
    async fn a_box_of_yesterday_s_clock_looks_at_what_was_owed_in_the_far_future() {
        let dir = tempfile::tempdir().unwrap();
        let began = Instant(1_800_000_000_000);
        let far = open_at(dir.path(), Clock::by_hand(began.plus(Duration::from_hours(400 * 24)))).await;
        announce(&far, 9).await;
        far.ingest.announce(&ME, "a.txt", None, None).await.unwrap();
        let left = copy(dir.path());
        let app = open_at(left.path(), Clock::by_hand(began)).await;
        let due = move |c: &Conn| {
            Ok(c.query_row("SELECT count(*) FROM job WHERE run_at <= ?1", [began], |r| r.get::<_, i64>(0))?)
        };
        assert_eq!(app.db.read(due).await.unwrap(), 2);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_clock_that_jumps_makes_no_second_asset_of_a_call_that_is_repeated() {
        let dir = tempfile::tempdir().unwrap();
        let clock = Clock::by_hand(Instant(1_800_000_000_000));
        let app = open_at(dir.path(), clock.clone()).await;
        for key in ["first", "second"] {
            let Repeat::First(once) = app.ingest.repeat(&ME, key).await.unwrap() else { panic!("{key} is new") };
            let taken = take(app.ingest.begin("a.txt", 4).await.unwrap(), b"text").await;
            app.ingest.keep(&ME, vec![taken], Note { once: Some(once), ..Note::default() }).await.unwrap();
            clock.advance(Duration::from_hours(400 * 24));
        }
        for key in ["first", "second"] {
            assert!(matches!(app.ingest.repeat(&ME, key).await.unwrap(), Repeat::Again(_)), "{key}");
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn the_daily_look_finds_a_database_that_has_gone_bad() {
        let dir = tempfile::tempdir().unwrap();
        let app = open(dir.path()).await;
        for i in 0..100 {
            let taken = take(app.ingest.begin(&format!("{i:0>200}.txt"), 5).await.unwrap(), b"bytes").await;
            app.ingest.keep(&ME, vec![taken], Note::default()).await.unwrap();
        }
        app.stop().await.unwrap();
        let app = open(dir.path()).await;
        app.look_after().await.unwrap();
        let pages: i64 = app.db.read(|c| Ok(c.query_row("PRAGMA page_count", [], |r| r.get(0))?)).await.unwrap();
        let file = fs::File::options().write(true).open(database(dir.path())).unwrap();
        // The first page holds the tables' names; all others have gone bad.
        for page in 1..pages {
            file.write_all_at(&[0x5a; 64], page as u64 * 8192).unwrap();
        }
        let error = app.look_after().await.unwrap_err();
        assert!(error.to_string().contains("damaged") || error.to_string().contains("malformed"), "{error}");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn an_upload_in_phases_whose_file_is_gone_is_told_to_have_ended() {
        let dir = tempfile::tempdir().unwrap();
        let app = open(dir.path()).await;
        let id = announce(&app, 4).await;
        fs::remove_file(dir.path().join(format!("staging/phase-{id}"))).unwrap();
        let (_left, app) = again(dir.path(), None).await;
        assert!(app.ingest.phased(id).await.unwrap().is_none());
        let told = app.db.read(move |c| {
            let mut rows = c.prepare("SELECT event FROM journal WHERE asset_id = ?1 ORDER BY seq")?;
            Ok(rows.query_map([id], |r| r.get::<_, String>(0))?.collect::<rusqlite::Result<Vec<_>>>()?)
        });
        assert_eq!(told.await.unwrap(), ["asset-created", "file-deleted"]);
    }
}
