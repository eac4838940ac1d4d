//! The cell in which a media worker lives, and the proof that it holds.
//!
//! [`enter`] runs in the worker before it sees a stranger's byte. It gives up, for good:
//! its session and priority; memory, files and core dumps beyond the limits; being traced;
//! new privileges; every path of the file system, every TCP port, abstract sockets and
//! signals to others (Landlock); and every system call that decoding does not need (seccomp).
//!
//! Invariant: afterwards the process has its descriptors, its memory and nothing else. It
//! opens, connects, forks and executes nothing, and makes no memory executable. Any step that
//! fails is fatal, except Landlock on a kernel without it: the call filter alone forbids the
//! same things, and the layer's note says so.
//!
//! Calls outside the list answer EPERM instead of killing: C libraries ask harmless questions
//! and live with a no. [`attempts`] tries what must be refused, from inside.
//!
//! Layers, not namespaces: those need privileges that the service does not have.
//!
//! Errands live in a wider cell of their own (`errand/cell.rs`), which takes from here what
//! both have in common.

use std::collections::BTreeMap;
use std::fs::File;
use std::fs::OpenOptions;
use std::io;
use std::net::TcpStream;
use std::net::UdpSocket;

use landlock::ABI;
use landlock::Access;
use landlock::AccessFs;
use landlock::AccessNet;
use landlock::CompatLevel;
use landlock::Compatible;
use landlock::LandlockStatus;
use landlock::RestrictionStatus;
use landlock::Ruleset;
use landlock::RulesetAttr;
use landlock::RulesetCreated;
use landlock::RulesetStatus;
use landlock::Scope;
use rustix::process::DumpableBehavior;
use rustix::process::Resource;
use rustix::process::Rlimit;
use rustix::process::Signal;
use rustix::time::ClockId;
use seccompiler::BpfProgram;
use seccompiler::SeccompAction;
use seccompiler::SeccompCmpArgLen;
use seccompiler::SeccompCmpOp;
use seccompiler::SeccompCondition;
use seccompiler::SeccompFilter;
use seccompiler::SeccompRule;

use super::Class;
use super::protocol::Attempt;
use super::protocol::Setup;
use crate::error::BoxError;

/// Descriptors a worker may hold: its three, the output, the sources, and some air.
const OPEN_FILES: u64 = 32;

/// Calls that are allowed whatever their arguments are.
const CALLS: &[i64] = &[
    // The socket to the server and lent descriptors.
    libc::SYS_recvmsg,
    libc::SYS_sendmsg,
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_readv,
    libc::SYS_writev,
    libc::SYS_pread64,
    libc::SYS_pwrite64,
    libc::SYS_lseek,
    libc::SYS_fstat,
    libc::SYS_ftruncate,
    libc::SYS_close,
    // Memory.
    libc::SYS_brk,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    // One thread still takes locks, yields, and asks what it runs on.
    libc::SYS_futex,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_getpid,
    libc::SYS_gettid,
    libc::SYS_getrusage,
    libc::SYS_uname,
    libc::SYS_sysinfo,
    libc::SYS_getrandom,
    libc::SYS_clock_gettime,
    libc::SYS_clock_getres,
    libc::SYS_clock_nanosleep,
    libc::SYS_nanosleep,
    libc::SYS_gettimeofday,
    // Dying of a signal in an orderly manner.
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_restart_syscall,
    libc::SYS_exit,
    libc::SYS_exit_group,
];

/// Locks this process in; returns a note on each layer. On an error the caller must leave,
/// unless it was told that it may work unprotected.
pub fn enter(setup: &Setup) -> Result<Vec<String>, BoxError> {
    leave_the_family(setup.class)?;
    limit(setup)?;
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    rustix::thread::set_no_new_privs(true)?;
    // The first question about time makes the library look for the kernel's own code; later it
    // would knock at closed doors.
    let _ = rustix::time::clock_gettime(ClockId::ProcessCPUTime);
    let landlock = forbid_paths_and_ports()?;
    let calls = allow_only(allowed()?)?;
    Ok(vec![landlock, calls])
}

/// Lets the kernel stop this process after `seconds` more of processor time.
pub fn allow_cpu(seconds: u64) -> io::Result<()> {
    let used = rustix::time::clock_gettime(ClockId::ProcessCPUTime).tv_sec as u64 + 1;
    // Only the soft limit moves (SIGXCPU): a hard one could not be raised for the next request.
    let maximum = rustix::process::getrlimit(Resource::Cpu).maximum;
    Ok(rustix::process::setrlimit(Resource::Cpu, Rlimit { current: Some(used + seconds), maximum })?)
}

/// Tries everything that must be refused here. The last one replaces this process by another
/// program where it is not refused, so the silence that follows is an answer, too.
pub fn attempts() -> Vec<Attempt> {
    attempts_and(&[])
}

/// As [`attempts`], with more to try.
pub fn attempts_and(more: &[(&str, Try)]) -> Vec<Attempt> {
    let all = ATTEMPTS.iter().chain(more);
    let mut tried: Vec<Attempt> = all.map(|(what, attempt)| judge(what, attempt().err())).collect();
    tried.push(judge("run another program", Some(execute())));
    tried
}

/// Something to try; an error is what it should end with.
pub type Try = fn() -> io::Result<()>;

/// What can be tried without leaving this process.
const ATTEMPTS: &[(&str, Try)] = &[
    ("connect to a TCP port", || TcpStream::connect(("127.0.0.1", 9)).map(drop)),
    ("open a UDP socket", || UdpSocket::bind(("127.0.0.1", 0)).map(drop)),
    ("read /etc/passwd", || File::open("/etc/passwd").map(drop)),
    ("create a file in /tmp", || create("/tmp/cloakroom-self-test")),
    ("create a file in the working directory", || create("cloakroom-self-test")),
    ("fork", fork),
];

/// Only a plain no counts: "connection refused" or "no such file" mean that the attempt got
/// through to whoever could say so.
pub fn judge(what: &str, error: Option<io::Error>) -> Attempt {
    let refused = matches!(error.as_ref().and_then(io::Error::raw_os_error), Some(libc::EPERM | libc::EACCES));
    let answer = error.map_or_else(|| "it worked".to_owned(), |e| e.to_string());
    Attempt { what: what.to_owned(), refused, answer }
}

fn create(path: &str) -> io::Result<()> {
    OpenOptions::new().write(true).create_new(true).open(path)?;
    std::fs::remove_file(path)
}

#[expect(unsafe_code, reason = "std offers no bare fork, and must not be asked for more than that")]
fn fork() -> io::Result<()> {
    // SAFETY: this process has one thread, and the child does nothing but leave.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        // SAFETY: leaves at once, running no destructor twice.
        0 => unsafe { libc::_exit(0) },
        _ => Ok(()),
    }
}

#[expect(unsafe_code, reason = "std's exec makes other calls first, whose refusal would prove nothing")]
fn execute() -> io::Error {
    let program = c"/bin/true".as_ptr();
    // SAFETY: both vectors end with a null pointer and outlive the call.
    unsafe { libc::execve(program, [program, std::ptr::null()].as_ptr(), [std::ptr::null()].as_ptr()) };
    io::Error::last_os_error()
}

/// A session of its own, at the place in the queue that its class has, gone when the server is.
pub fn leave_the_family(class: Class) -> Result<(), BoxError> {
    close_inherited()?;
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    rustix::process::setsid()?;
    rustix::process::chdir("/")?;
    // Should memory run out, the kernel takes a worker before the server. Best effort: /proc
    // may be hidden.
    let _ = std::fs::write("/proc/self/oom_score_adj", "700");
    if class == Class::Background {
        rustix::process::nice(10)?;
        yield_to_others();
    }
    Ok(())
}

/// Everything but the socket and the two ends of nothing; the server opens with CLOEXEC, a
/// library of its might not.
#[expect(unsafe_code, reason = "no safe wrapper exists")]
fn close_inherited() -> io::Result<()> {
    // SAFETY: called before this process has opened anything of its own.
    let closed = unsafe { libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, 0) };
    if closed == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Batch scheduling and idle disk priority; best effort, since neither guards anything.
#[expect(unsafe_code, reason = "no safe wrappers exist")]
fn yield_to_others() {
    const IOPRIO_WHO_PROCESS: libc::c_int = 1;
    const IOPRIO_IDLE: libc::c_int = 3 << 13;
    // SAFETY: all-zero is a valid `sched_param`.
    let nothing_special: libc::sched_param = unsafe { std::mem::zeroed() };
    // SAFETY: changes nothing but how this process is scheduled.
    unsafe {
        libc::sched_setscheduler(0, libc::SCHED_BATCH, &raw const nothing_special);
        libc::syscall(libc::SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0, IOPRIO_IDLE);
    }
}

fn limit(setup: &Setup) -> Result<(), BoxError> {
    for (resource, most) in [
        (Resource::As, setup.memory_bytes),
        (Resource::Fsize, setup.output_bytes),
        (Resource::Nofile, OPEN_FILES),
        (Resource::Nproc, 0),
        (Resource::Core, 0),
    ] {
        rustix::process::setrlimit(resource, Rlimit { current: Some(most), maximum: Some(most) })?;
    }
    Ok(())
}

/// Handles every right that this kernel's Landlock knows and grants none.
fn forbid_paths_and_ports() -> Result<String, BoxError> {
    let status = handle_everything()?.restrict_self()?;
    Ok(describe(&status).unwrap_or_else(|| "Landlock: not in this kernel; the call filter stands alone".to_owned()))
}

/// A set of rules in which everything is forbidden that this kernel's Landlock can forbid.
pub fn handle_everything() -> Result<RulesetCreated, BoxError> {
    let newest = ABI::V9;
    Ok(Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(newest))?
        .handle_access(AccessNet::from_all(newest))?
        .scope(Scope::from_all(newest))?
        .create()?)
}

/// What Landlock does for this process; `None` when that is nothing.
pub fn describe(status: &RestrictionStatus) -> Option<String> {
    Some(match (&status.ruleset, status.landlock) {
        (RulesetStatus::NotEnforced, _) | (_, LandlockStatus::NotEnabled | LandlockStatus::NotImplemented) => {
            return None;
        }
        (_, LandlockStatus::Available { effective_abi, .. }) if effective_abi < ABI::V4 => {
            format!("Landlock: files only ({effective_abi:?}); the call filter stands alone before the network")
        }
        (_, LandlockStatus::Available { effective_abi, .. }) => format!("Landlock: {effective_abi:?}"),
    })
}

/// From here on only these calls reach the kernel, those of another architecture kill, and the rest
/// answer EPERM.
pub fn allow_only(rules: BTreeMap<i64, Vec<SeccompRule>>) -> Result<String, BoxError> {
    let note = format!("seccomp: {} calls allowed", rules.len());
    let refuse = SeccompAction::Errno(libc::EPERM as u32);
    let filter = SeccompFilter::new(rules, refuse, SeccompAction::Allow, std::env::consts::ARCH.try_into()?)?;
    let program: BpfProgram = filter.try_into()?;
    seccompiler::apply_filter(&program)?;
    Ok(note)
}

fn allowed() -> Result<BTreeMap<i64, Vec<SeccompRule>>, BoxError> {
    use SeccompCmpOp::Eq;
    use SeccompCmpOp::MaskedEq;

    let mut rules: BTreeMap<_, _> = CALLS.iter().map(|call| (*call, vec![])).collect();
    let own_pid = u64::from(std::process::id());
    let not_executable = (2, MaskedEq(libc::PROT_EXEC as u64), 0);
    for (call, conditions) in [
        (libc::SYS_mmap, vec![not_executable.clone()]),
        (libc::SYS_mprotect, vec![not_executable]),
        // `abort` signals itself, and nobody else.
        (libc::SYS_tgkill, vec![(0, Eq, own_pid)]),
        // The standard library looks whether a descriptor is open before it closes it.
        (libc::SYS_fcntl, vec![(1, Eq, libc::F_GETFD as u64)]),
        // `allow_cpu`, on this process only.
        (libc::SYS_prlimit64, vec![(0, Eq, 0), (1, Eq, u64::from(libc::RLIMIT_CPU))]),
    ] {
        let conditions: Result<Vec<_>, _> = conditions
            .into_iter()
            .map(|(argument, is, value)| SeccompCondition::new(argument, SeccompCmpArgLen::Dword, is, value))
            .collect();
        rules.insert(call, vec![SeccompRule::new(conditions?)?]);
    }
    Ok(rules)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outside_the_sandbox_the_attempts_get_through() {
        for (what, attempt) in ATTEMPTS {
            let judged = judge(what, attempt().err());
            assert!(!judged.refused, "a self-test that cannot fail proves nothing: {judged:?}");
        }
    }

    #[test]
    fn the_list_leaves_out_what_matters() {
        let rules = allowed().unwrap();
        for call in [
            libc::SYS_openat,
            libc::SYS_openat2,
            libc::SYS_socket,
            libc::SYS_connect,
            libc::SYS_clone,
            libc::SYS_clone3,
            libc::SYS_execve,
            libc::SYS_execveat,
            libc::SYS_kill,
            libc::SYS_ptrace,
            libc::SYS_process_vm_readv,
            libc::SYS_bpf,
            libc::SYS_io_uring_setup,
            libc::SYS_userfaultfd,
            libc::SYS_keyctl,
            libc::SYS_prctl,
            libc::SYS_memfd_create,
            libc::SYS_ioctl,
        ] {
            assert!(!rules.contains_key(&call), "system call {call}");
        }
    }
}
