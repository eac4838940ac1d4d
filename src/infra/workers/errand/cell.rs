//! The cell of an errand: wider than that of the pool's workers, because films need more.
//!
//! [`enter`] runs before a library is loaded or a byte read. What stays allowed: threads; the
//! system's libraries, the sources and nothing else to read; one folder to write in; and, if
//! granted, the nodes of graphics hardware. What is gone for good: every socket, other programs
//! and processes, signals to others, links, device nodes, and every path not named.
//!
//! [`forbid_new_code`] comes second, when all libraries are loaded: from then on no memory
//! becomes executable. Drivers of graphics hardware compile as they go, so that an errand with
//! devices does without this one.
//!
//! Invariant: unlike the pool's cell this one needs Landlock, because files are opened by name
//! here; without it nothing runs unless the operator has said that it may.
//!
//! Calls that are not listed answer EPERM; `clone3` answers ENOSYS, since its arguments lie
//! where a filter cannot look and the C library then uses `clone`.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::path::PathBuf;

use landlock::AccessFs;
use landlock::BitFlags;
use landlock::PathBeneath;
use landlock::PathFd;
use landlock::RulesetCreated;
use landlock::RulesetCreatedAttr;
use landlock::path_beneath_rules;
use rustix::process::DumpableBehavior;
use rustix::process::Resource;
use rustix::process::Rlimit;
use seccompiler::BpfProgram;
use seccompiler::SeccompAction;
use seccompiler::SeccompCmpArgLen;
use seccompiler::SeccompCmpOp;
use seccompiler::SeccompCondition;
use seccompiler::SeccompFilter;
use seccompiler::SeccompRule;
use serde::Deserialize;
use serde::Serialize;

use super::super::protocol::Attempt;
use super::super::sandbox;
use super::super::sandbox::Try;
use crate::error::BoxError;

/// Descriptors an errand may hold: a handful for each stream that is written.
const OPEN_FILES: u64 = 256;
/// Beyond what the server tolerates, so that its verdict comes first where there is time for one.
const SPARE_BYTES: u64 = 1 << 30;
/// After the first warning (SIGXCPU), which a decoder might have caught.
const SPARE_CPU_SECONDS: u64 = 2;

/// Where libraries and their plug-ins are, and what they ask before they start threads.
const LIBRARIES: &[&str] = &[
    "/usr/lib",
    "/usr/lib64",
    "/usr/local/lib",
    "/lib",
    "/lib64",
    "/etc/ld.so.cache",
    "/sys/devices/system/cpu",
    "/proc/cpuinfo",
];
/// Nodes that are no devices.
const NODES: &[&str] = &["/dev/null", "/dev/zero", "/dev/urandom"];
/// Beginnings of names in `/dev`: graphics hardware and encoders on boards.
const DEVICES: &[&str] = &["dri", "nvidia", "video", "media"];
/// Where drivers look what there is.
const DRIVERS: &[&str] = &[
    "/sys/bus/pci",
    "/sys/class/drm",
    "/sys/class/video4linux",
    "/sys/dev/char",
    "/sys/devices",
    "/sys/module",
    "/proc/devices",
    "/proc/driver/nvidia",
    "/etc/drirc",
    "/etc/libva.conf",
    "/usr/share",
];

/// Calls that are allowed whatever their arguments are.
const CALLS: &[i64] = &[
    // Files; which ones, Landlock decides.
    libc::SYS_openat,
    libc::SYS_close,
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_readv,
    libc::SYS_writev,
    libc::SYS_pread64,
    libc::SYS_pwrite64,
    libc::SYS_lseek,
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_statfs,
    libc::SYS_fstatfs,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_readlinkat,
    libc::SYS_getcwd,
    libc::SYS_getdents64,
    libc::SYS_ftruncate,
    libc::SYS_fallocate,
    libc::SYS_fadvise64,
    libc::SYS_fsync,
    libc::SYS_fdatasync,
    libc::SYS_mkdirat,
    libc::SYS_unlinkat,
    libc::SYS_renameat2,
    libc::SYS_umask,
    libc::SYS_dup,
    libc::SYS_dup3,
    // How threads wake one another.
    libc::SYS_pipe2,
    libc::SYS_eventfd2,
    libc::SYS_ppoll,
    libc::SYS_pselect6,
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    // Memory.
    libc::SYS_brk,
    libc::SYS_mmap,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_mprotect,
    libc::SYS_madvise,
    libc::SYS_membarrier,
    // Threads.
    libc::SYS_futex,
    libc::SYS_set_robust_list,
    libc::SYS_rseq,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_getparam,
    libc::SYS_sched_getscheduler,
    libc::SYS_sched_get_priority_max,
    libc::SYS_sched_get_priority_min,
    libc::SYS_getcpu,
    // Who and where this is.
    libc::SYS_getpid,
    libc::SYS_getppid,
    libc::SYS_gettid,
    libc::SYS_getuid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getegid,
    libc::SYS_getrusage,
    libc::SYS_times,
    libc::SYS_uname,
    libc::SYS_sysinfo,
    libc::SYS_getrandom,
    libc::SYS_clock_gettime,
    libc::SYS_clock_getres,
    libc::SYS_clock_nanosleep,
    libc::SYS_nanosleep,
    libc::SYS_gettimeofday,
    // Shutting further doors.
    libc::SYS_seccomp,
    // Dying of a signal in an orderly manner.
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_restart_syscall,
    libc::SYS_exit,
    libc::SYS_exit_group,
];

/// What only x86 still has, beside the calls above.
#[cfg(target_arch = "x86_64")]
const ONLY_X86: &[i64] = &[
    libc::SYS_open,
    libc::SYS_stat,
    libc::SYS_lstat,
    libc::SYS_access,
    libc::SYS_readlink,
    libc::SYS_mkdir,
    libc::SYS_rmdir,
    libc::SYS_unlink,
    libc::SYS_rename,
    libc::SYS_dup2,
    libc::SYS_pipe,
    libc::SYS_poll,
    libc::SYS_select,
    libc::SYS_epoll_wait,
    libc::SYS_time,
];

#[cfg(not(target_arch = "x86_64"))]
const ONLY_X86: &[i64] = &[];

/// What drivers of graphics hardware need besides.
const WITH_DEVICES: &[i64] = &[
    libc::SYS_ioctl,
    libc::SYS_memfd_create,
    libc::SYS_mlock,
    libc::SYS_munlock,
    libc::SYS_mbind,
    libc::SYS_get_mempolicy,
    libc::SYS_set_mempolicy,
    libc::SYS_sched_setaffinity,
    libc::SYS_kcmp,
];

/// What an errand may touch and cost, as the server tells its worker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cell {
    /// Of the server; a worker of another version refuses.
    pub version: String,
    pub read: Vec<PathBuf>,
    pub folder: Option<PathBuf>,
    pub devices: bool,
    pub memory_bytes: u64,
    pub cpu_seconds: u64,
    /// Also the largest single file.
    pub folder_bytes: u64,
    /// Whether a worker that cannot be locked in must leave.
    pub sandbox_required: bool,
}

/// Locks this process in; returns a note on each layer. Must come before any thread is started,
/// since threads that run already would stay outside.
pub fn enter(cell: &Cell) -> Result<Vec<String>, BoxError> {
    alone()?;
    limit(cell)?;
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    rustix::thread::set_no_new_privs(true)?;
    let landlock = grant(cell)?;
    let calls = forbid_calls(cell.devices)?;
    Ok(vec![landlock, calls])
}

/// No memory becomes executable any more, in no thread.
pub fn forbid_new_code() -> Result<String, BoxError> {
    let executable = || condition(2, SeccompCmpOp::MaskedEq(libc::PROT_EXEC as u64), libc::PROT_EXEC as u64);
    let mut rules = BTreeMap::new();
    for call in [libc::SYS_mmap, libc::SYS_mprotect] {
        rules.insert(call, vec![SeccompRule::new(vec![executable()?])?]);
    }
    seccompiler::apply_filter_all_threads(&refusing(rules, libc::EPERM)?)?;
    Ok("seccomp: no new code".to_owned())
}

/// Tries what must be refused, from inside.
pub fn attempts() -> Vec<Attempt> {
    sandbox::attempts_and(MORE_ATTEMPTS)
}

const MORE_ATTEMPTS: &[(&str, Try)] = &[
    ("list the processes", || std::fs::read_dir("/proc").map(drop)),
    ("look into its own process", || std::fs::read("/proc/self/environ").map(drop)),
    ("open a local socket", || std::os::unix::net::UnixDatagram::unbound().map(drop)),
    ("make a link", || std::os::unix::fs::symlink("/etc/passwd", "/tmp/cloakroom-self-test-link")),
    ("signal the server", signal_the_server),
    ("run code of its own", new_code),
];

fn signal_the_server() -> io::Result<()> {
    match rustix::process::getppid() {
        Some(server) => Ok(rustix::process::test_kill_process(server)?),
        None => Err(io::ErrorKind::NotFound.into()),
    }
}

#[expect(unsafe_code, reason = "no safe wrapper gives executable memory")]
fn new_code() -> io::Result<()> {
    let (access, kind) = (libc::PROT_READ | libc::PROT_EXEC, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    // SAFETY: a fresh page at a place that the kernel chooses; nothing is executed from there.
    let page = unsafe { libc::mmap(std::ptr::null_mut(), 4096, access, kind, -1, 0) };
    if page == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the page from above, which nobody uses.
    unsafe { libc::munmap(page, 4096) };
    Ok(())
}

/// Best effort where /proc is hidden.
fn alone() -> Result<(), BoxError> {
    let threads = std::fs::read_dir("/proc/self/task").map_or(1, Iterator::count);
    if threads > 1 { Err(format!("{threads} threads run before the cell is closed").into()) } else { Ok(()) }
}

fn limit(cell: &Cell) -> io::Result<()> {
    let memory = cell.memory_bytes.saturating_add(cell.memory_bytes / 2).saturating_add(SPARE_BYTES);
    // Not the address space, of which thread stacks reserve more than they use; drivers do so
    // even with this one.
    if !cell.devices {
        rustix::process::setrlimit(Resource::Data, Rlimit { current: Some(memory), maximum: Some(memory) })?;
    }
    for (resource, soft, hard) in [
        (Resource::Core, 0, 0),
        (Resource::Nofile, OPEN_FILES, OPEN_FILES),
        (Resource::Fsize, cell.folder_bytes, cell.folder_bytes),
        (Resource::Cpu, cell.cpu_seconds, cell.cpu_seconds.saturating_add(SPARE_CPU_SECONDS)),
    ] {
        rustix::process::setrlimit(resource, Rlimit { current: Some(soft), maximum: Some(hard) })?;
    }
    Ok(())
}

/// Opens the few paths that the cell names and shuts all others.
fn grant(cell: &Cell) -> Result<String, BoxError> {
    let read = AccessFs::ReadFile | AccessFs::ReadDir;
    let mut rules = sandbox::handle_everything()?
        .add_rules(path_beneath_rules(LIBRARIES, read))?
        .add_rules(path_beneath_rules(NODES, AccessFs::ReadFile | AccessFs::WriteFile))?;
    for source in &cell.read {
        rules = allow(rules, source, read)?;
    }
    if let Some(folder) = &cell.folder {
        let own = read
            | AccessFs::WriteFile
            | AccessFs::Truncate
            | AccessFs::MakeReg
            | AccessFs::MakeDir
            | AccessFs::RemoveFile
            | AccessFs::RemoveDir
            | AccessFs::Refer;
        rules = allow(rules, folder, own)?;
    }
    if cell.devices {
        let own = read | AccessFs::WriteFile | AccessFs::IoctlDev;
        rules = rules.add_rules(path_beneath_rules(devices(), own))?.add_rules(path_beneath_rules(DRIVERS, read))?;
    }
    let status = rules.restrict_self()?;
    sandbox::describe(&status).ok_or_else(|| "this kernel has no Landlock".into())
}

/// A path that must be there.
fn allow(rules: RulesetCreated, path: &Path, mut access: BitFlags<AccessFs>) -> Result<RulesetCreated, BoxError> {
    let opened = PathFd::new(path).map_err(|e| format!("{} cannot be opened: {e}", path.display()))?;
    if !path.is_dir() {
        access &= AccessFs::from_file(landlock::ABI::V9);
    }
    Ok(rules.add_rule(PathBeneath::new(opened, access))?)
}

fn devices() -> Vec<PathBuf> {
    let entries = std::fs::read_dir("/dev").into_iter().flatten().flatten();
    let ours = |name: &str| DEVICES.iter().any(|beginning| name.starts_with(beginning));
    entries.filter(|entry| entry.file_name().to_str().is_some_and(ours)).map(|entry| entry.path()).collect()
}

fn forbid_calls(devices: bool) -> Result<String, BoxError> {
    let note = sandbox::allow_only(allowed(devices)?)?;
    // The newer filter's answer counts.
    let clone3 = BTreeMap::from([(libc::SYS_clone3, vec![])]);
    seccompiler::apply_filter(&refusing(clone3, libc::ENOSYS)?)?;
    Ok(note)
}

/// What matches answers `error`.
fn refusing(rules: BTreeMap<i64, Vec<SeccompRule>>, error: i32) -> Result<BpfProgram, BoxError> {
    let refuse = SeccompAction::Errno(error as u32);
    Ok(SeccompFilter::new(rules, SeccompAction::Allow, refuse, std::env::consts::ARCH.try_into()?)?.try_into()?)
}

fn condition(argument: u8, is: SeccompCmpOp, value: u64) -> Result<SeccompCondition, BoxError> {
    Ok(SeccompCondition::new(argument, SeccompCmpArgLen::Dword, is, value)?)
}

fn allowed(devices: bool) -> Result<BTreeMap<i64, Vec<SeccompRule>>, BoxError> {
    use SeccompCmpOp::Eq;
    use SeccompCmpOp::MaskedEq;

    let with_devices = if devices { WITH_DEVICES } else { &[] };
    let mut rules: BTreeMap<_, _> =
        CALLS.iter().chain(ONLY_X86).chain(with_devices).map(|call| (*call, vec![])).collect();
    if !devices {
        // Whether it is a terminal, which nothing here is.
        rules.insert(libc::SYS_ioctl, vec![SeccompRule::new(vec![condition(1, Eq, libc::TCGETS)?])?]);
    }

    let own_pid = u64::from(std::process::id());
    let fcntl = [
        libc::F_GETFD,
        libc::F_SETFD,
        libc::F_GETFL,
        libc::F_SETFL,
        libc::F_DUPFD,
        libc::F_DUPFD_CLOEXEC,
        libc::F_SETLK,
        libc::F_SETLKW,
    ];
    let prctl = [libc::PR_SET_NAME, libc::PR_GET_NAME, libc::PR_SET_NO_NEW_PRIVS];
    let one = |condition| Ok::<_, BoxError>(SeccompRule::new(vec![condition])?);
    for (call, alternatives) in [
        // A thread, never a process.
        (libc::SYS_clone, vec![one(condition(0, MaskedEq(libc::CLONE_THREAD as u64), libc::CLONE_THREAD as u64)?)?]),
        // `abort` signals itself, and nobody else.
        (libc::SYS_tgkill, vec![one(condition(0, Eq, own_pid)?)?]),
        (libc::SYS_fcntl, fcntl.iter().map(|what| one(condition(1, Eq, *what as u64)?)).collect::<Result<_, _>>()?),
        (libc::SYS_prctl, prctl.iter().map(|what| one(condition(0, Eq, *what as u64)?)).collect::<Result<_, _>>()?),
        // How GStreamer wakes a thread that waits: a pair without a name, used like a pipe. With
        // no other socket call there is nobody else to speak to.
        (
            libc::SYS_socketpair,
            vec![SeccompRule::new(vec![
                condition(0, Eq, libc::AF_UNIX as u64)?,
                condition(1, MaskedEq(0xf), libc::SOCK_STREAM as u64)?,
            ])?],
        ),
        // Asking for limits, not setting them; both halves of the pointer.
        (
            libc::SYS_prlimit64,
            vec![SeccompRule::new(vec![
                condition(0, Eq, 0)?,
                SeccompCondition::new(2, SeccompCmpArgLen::Qword, Eq, 0)?,
            ])?],
        ),
    ] {
        rules.insert(call, alternatives);
    }
    Ok(rules)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outside_the_cell_the_attempts_get_through() {
        for (what, attempt) in MORE_ATTEMPTS {
            let judged = sandbox::judge(what, attempt().err());
            assert!(!judged.refused, "a self-test that cannot fail proves nothing: {judged:?}");
        }
        std::fs::remove_file("/tmp/cloakroom-self-test-link").unwrap();
    }

    #[test]
    fn the_list_leaves_out_what_matters() {
        for devices in [false, true] {
            let rules = allowed(devices).unwrap();
            for call in [
                libc::SYS_socket,
                libc::SYS_connect,
                libc::SYS_bind,
                libc::SYS_sendto,
                libc::SYS_sendmsg,
                libc::SYS_clone3,
                libc::SYS_execve,
                libc::SYS_execveat,
                libc::SYS_kill,
                libc::SYS_tkill,
                libc::SYS_ptrace,
                libc::SYS_process_vm_readv,
                libc::SYS_linkat,
                libc::SYS_symlinkat,
                libc::SYS_mknodat,
                libc::SYS_fchmodat,
                libc::SYS_mount,
                libc::SYS_bpf,
                libc::SYS_io_uring_setup,
                libc::SYS_userfaultfd,
                libc::SYS_keyctl,
                libc::SYS_setrlimit,
                libc::SYS_setsid,
            ] {
                assert!(!rules.contains_key(&call), "system call {call}");
            }
        }
    }
}
