//! A disk that fails to flush when told to: a layer between SQLite and the system, for tests alone.
//!
//! [`Flushes::watch`] looks at the files below one folder that are opened from then on, counts how
//! often they are flushed, and lets the next flush of a log fail when asked. As with Linux the failure
//! is told once: whoever flushes again is told that all is well. Everything else goes to the system
//! as it is, also for files elsewhere, so that tests may run beside one another.

#![expect(unsafe_code, reason = "SQLite's interface to the system is one of C")]

use std::collections::HashMap;
use std::ffi::CStr;
use std::ffi::c_int;
use std::path::Path;
use std::path::PathBuf;
use std::ptr;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::OnceLock;
use std::sync::PoisonError;

use rusqlite::ffi;

type Flush = unsafe extern "C" fn(*mut ffi::sqlite3_file, c_int) -> c_int;

/// The folder that is watched; until this is dropped.
pub struct Flushes(PathBuf);

#[derive(Default)]
struct Watched {
    /// Open files by their address in memory. One that was closed is found no more.
    files: HashMap<usize, PathBuf>,
    folders: HashMap<PathBuf, Folder>,
}

#[derive(Default)]
struct Folder {
    fails: bool,
    flushes: u64,
}

/// What the system's own layer is, and how it flushes: the same for all of its kinds of file.
struct System {
    layer: usize,
    sync: OnceLock<Flush>,
    /// A copy of each of its tables of functions, with another flush, by the address of the table.
    tables: Mutex<HashMap<usize, usize>>,
}

static SYSTEM: OnceLock<System> = OnceLock::new();

impl Flushes {
    pub fn watch(folder: &Path) -> Flushes {
        SYSTEM.get_or_init(stand_between);
        let folder = folder.canonicalize().unwrap();
        watched().folders.insert(folder.clone(), Folder::default());
        Flushes(folder)
    }

    /// Lets the next flush of a log fail.
    pub fn fail(&self) {
        watched().folders.get_mut(&self.0).unwrap().fails = true;
    }

    /// How often something was flushed, or tried to be.
    pub fn count(&self) -> u64 {
        watched().folders.get(&self.0).unwrap().flushes
    }
}

impl Drop for Flushes {
    fn drop(&mut self) {
        watched().folders.remove(&self.0);
    }
}

fn watched() -> MutexGuard<'static, Watched> {
    static WATCHED: OnceLock<Mutex<Watched>> = OnceLock::new();
    WATCHED.get_or_init(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner)
}

fn stand_between() -> System {
    // SAFETY: the system's layer lives as long as the process, and so does its copy, which is leaked.
    unsafe {
        let system = ffi::sqlite3_vfs_find(ptr::null());
        let between =
            ffi::sqlite3_vfs { pNext: ptr::null_mut(), zName: c"flushes".as_ptr(), xOpen: Some(open), ..*system };
        assert_eq!(ffi::sqlite3_vfs_register(Box::leak(Box::new(between)), 1), ffi::SQLITE_OK);
        System { layer: system as usize, sync: OnceLock::new(), tables: Mutex::default() }
    }
}

unsafe extern "C" fn open(
    _: *mut ffi::sqlite3_vfs,
    name: ffi::sqlite3_filename,
    file: *mut ffi::sqlite3_file,
    flags: c_int,
    out: *mut c_int,
) -> c_int {
    // Registered before it is known here: a neighbour may be the first to open something.
    let system = SYSTEM.wait();
    let layer = system.layer as *mut ffi::sqlite3_vfs;
    // SAFETY: all of it was given by SQLite for this call, and is given on as it is.
    let done = unsafe { (*layer).xOpen.unwrap()(layer, name, file, flags, out) };
    if done == ffi::SQLITE_OK && !name.is_null() {
        // SAFETY: a name ends with a zero; a file that was opened has its table of functions.
        unsafe {
            watched().files.insert(file as usize, PathBuf::from(CStr::from_ptr(name).to_str().unwrap()));
            (*file).pMethods = table(system, (*file).pMethods);
        }
    }
    done
}

fn table(system: &System, of_system: *const ffi::sqlite3_io_methods) -> *const ffi::sqlite3_io_methods {
    let copy = || {
        // SAFETY: the tables of functions are constants.
        let mut table = unsafe { *of_system };
        system.sync.get_or_init(|| table.xSync.unwrap());
        table.xSync = Some(flush);
        ptr::from_ref(Box::leak(Box::new(table))) as usize
    };
    let mut tables = system.tables.lock().unwrap_or_else(PoisonError::into_inner);
    *tables.entry(of_system as usize).or_insert_with(copy) as *const _
}

unsafe extern "C" fn flush(file: *mut ffi::sqlite3_file, flags: c_int) -> c_int {
    let mut watched = watched();
    let path = watched.files.get(&(file as usize)).cloned().unwrap_or_default();
    let folder = watched.folders.iter_mut().find(|(folder, _)| path.starts_with(folder));
    let fails = folder.is_some_and(|(_, folder)| {
        folder.flushes += 1;
        path.to_string_lossy().ends_with("-wal") && std::mem::take(&mut folder.fails)
    });
    drop(watched);
    if fails {
        return ffi::SQLITE_IOERR_FSYNC;
    }
    // SAFETY: the function that stood in the table which this one was put into.
    unsafe { SYSTEM.wait().sync.wait()(file, flags) }
}
