//! A media worker that misbehaves as it is told, for the tests of the pool.
//!
//! The request is `{"do": …}`; every word but `echo`, `pid` and `open` does what a hostile file
//! could make a decoder do. Errands likewise. Built only as a test binary; no package ships it.
#![expect(unsafe_code, reason = "misbehaving is its purpose")]

use std::io::Write;
use std::os::fd::AsRawFd;
use std::time::Duration;

use cloakroom::infra::workers;
use cloakroom::infra::workers::Class;
use cloakroom::infra::workers::Config;
use cloakroom::infra::workers::OutputFile;
use cloakroom::infra::workers::Workers;
use cloakroom::infra::workers::errand;
use cloakroom::infra::workers::errand::Errands;
use cloakroom::infra::workers::errand::Grants;
use serde_json::Value;
use serde_json::json;

fn main() {
    match std::env::args().nth(1).as_deref() {
        Some("server") => serve_until_killed(),
        Some("errand server") => serve_errand_until_killed(),
        Some("errand") => errand::serve(|_| Ok(()), |errand, tell| run(&errand, tell)),
        _ => workers::serve(|request, sources, output| answer(&request, sources, output)),
    }
}

/// Plays the server instead: has a worker work for ever, and tells which.
#[expect(clippy::unwrap_used, clippy::print_stdout, reason = "a part of a test")]
fn serve_until_killed() {
    let config = Config { slots: 1, program: Some(std::env::current_exe().unwrap()), ..Config::default() };
    let workers = Workers::start(config).unwrap();
    let ask = |deed| workers.run(Class::Interactive, json!({"do": deed}), vec![], workers.limits());
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
        println!("{}", ask("pid").await.unwrap().reply);
        ask("loop").await.unwrap();
    });
}

/// The same with an errand, whose first line tells its number.
#[expect(clippy::unwrap_used, clippy::print_stdout, reason = "a part of a test")]
fn serve_errand_until_killed() {
    let config = errand::Config { program: Some(std::env::current_exe().unwrap()), ..errand::Config::default() };
    let errands = Errands::new(config, &[]);
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
        let deed = json!({"do": "loop"});
        errands.run(deed, Grants::default(), errands.limits(), |line| println!("{line}")).await.unwrap();
    });
}

/// Misdeeds of errands; each begins with a line that tells the process.
fn run(errand: &Value, tell: &mut dyn FnMut(Value)) {
    tell(json!(std::process::id()));
    let folder = std::path::Path::new(errand.get("folder").and_then(Value::as_str).unwrap_or("/nonexistent"));
    match errand.get("do").and_then(Value::as_str).unwrap_or_default() {
        "chatter" => loop {
            tell(json!("word ".repeat(2000)));
        },
        "drone" => tell(json!("word ".repeat(2_000_000))),
        // SAFETY: the pipe to the server has some number; the others are nobody's.
        "hang up" => unsafe {
            for fd in 1..64 {
                libc::close(fd);
            }
            libc::usleep(100_000_000);
        },
        // SAFETY: plain calls; what a library says must not reach the server.
        "print" => unsafe {
            libc::puts(c"a library greets".as_ptr());
            libc::fflush(std::ptr::null_mut());
            tell(json!("printed"));
        },
        "threads" => {
            let threads: Vec<_> = (0..8).map(|n| std::thread::Builder::new().spawn(move || n * n)).collect();
            let squares = threads.into_iter().flatten().map(|t| t.join().unwrap_or_default()).sum::<u32>();
            tell(json!(squares));
        }
        "spin" => {
            for _ in 0..4 {
                let _ = std::thread::Builder::new().spawn(|| {
                    loop {
                        std::hint::spin_loop();
                    }
                });
            }
            // SAFETY: a plain call.
            while unsafe { libc::usleep(50_000) } == 0 {
                tell(json!({"progress": 1}));
            }
        }
        "swell" => {
            let mut kept: Vec<Vec<u8>> = vec![];
            loop {
                kept.push(vec![1; 16 << 20]);
                // SAFETY: a plain call.
                unsafe { libc::usleep(2000) };
                tell(json!(kept.len()));
            }
        }
        "write a large file" => {
            let _ = std::fs::write(folder.join("large"), vec![1; 8 << 20]);
            tell(json!("written"));
        }
        "write many files" => {
            for number in 0.. {
                let _ = std::fs::create_dir_all(folder.join("many"));
                if std::fs::write(folder.join("many").join(number.to_string()), vec![1; 256 << 10]).is_err() {
                    break;
                }
                // SAFETY: a plain call.
                unsafe { libc::usleep(20_000) };
                tell(json!(number));
            }
        }
        "open" => {
            let source = std::path::Path::new(errand.get("source").and_then(Value::as_str).unwrap_or("/nonexistent"));
            tell(json!({
                "read the source": std::fs::read(source).is_ok(),
                "write the source": std::fs::File::options().append(true).open(source).is_err(),
                "delete the source": std::fs::remove_file(source).is_err(),
                "read its neighbour": std::fs::read(source.with_extension("other")).is_err(),
                "list its folder": source.parent().is_none_or(|parent| std::fs::read_dir(parent).is_err()),
                "write": std::fs::write(folder.join("made"), "x").is_ok(),
                "rename across": std::fs::create_dir(folder.join("a")).is_ok()
                    && std::fs::rename(folder.join("made"), folder.join("a/made")).is_ok(),
                "list": std::fs::read_dir(folder).is_ok(),
                "link": std::os::unix::fs::symlink("/etc/passwd", folder.join("link")).is_err(),
                "hard link": std::fs::hard_link(source, folder.join("hard")).is_err(),
                "leave the folder": std::fs::write(folder.join("../out"), "x").is_err(),
                "libraries": std::fs::read("/etc/ld.so.cache").is_ok(),
                "memory": std::fs::read("/proc/self/maps").is_err(),
                "socket": std::os::unix::net::UnixDatagram::pair().is_err(),
                "child": std::process::Command::new("/bin/true").spawn().is_err(),
                // SAFETY: signal 0 only asks.
                "signal": unsafe { libc::kill(libc::getppid(), 0) } == -1,
                "home": std::env::vars_os().any(|(name, value)| name == "HOME" && value == folder.as_os_str()),
                "environment": std::env::vars_os().count() == 6,
            }));
        }
        "ignore" => {
            // SAFETY: takes away the only signal that comes before the last one.
            unsafe { libc::signal(libc::SIGXCPU, libc::SIG_IGN) };
            loop {
                std::hint::spin_loop();
            }
        }
        "nothing" => {}
        other => tell(misbehave(other)),
    }
}

fn answer(request: &Value, sources: &[&[u8]], output: &mut OutputFile) -> Value {
    match request.get("do").and_then(Value::as_str).unwrap_or_default() {
        "echo" => {
            for source in sources {
                if let Err(error) = output.write_all(source) {
                    return json!({"refused": error.to_string()});
                }
            }
            json!({"word": request.get("word"), "lengths": sources.iter().map(|s| s.len()).collect::<Vec<_>>()})
        }
        "pid" => json!(std::process::id()),
        "open" => json!({
            "read": std::fs::read("/proc/self/maps").is_err(),
            "list": std::fs::read_dir("/").is_err(),
            "write": std::fs::write("/dev/shm/cloakroom-poison", "x").is_err(),
            "delete": std::fs::remove_file("/etc/hostname").is_err(),
            "thread": std::thread::Builder::new().spawn(|| ()).is_err(),
            "socket": std::os::unix::net::UnixStream::pair().is_err(),
            // SAFETY: a plain call; nothing is executed from there.
            "code": unsafe { libc::mmap(std::ptr::null_mut(), 4096, libc::PROT_EXEC, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1, 0) } == libc::MAP_FAILED,
            // SAFETY: signal 0 only asks.
            "signal": unsafe { libc::kill(libc::getppid(), 0) } == -1,
        }),
        "flood" => {
            let block = vec![0; 1 << 20];
            // Past its own limit check, straight into the memory.
            // SAFETY: plain calls; the output is the first descriptor after the standard three.
            while unsafe { libc::write(3, block.as_ptr().cast(), block.len()) } > 0 {}
            json!("the kernel let it")
        }
        "hold" => {
            let _ = output.write_all(&[0; 4096]);
            let shared = libc::MAP_SHARED;
            // SAFETY: maps a page and keeps it, to write into it later.
            let held = unsafe { libc::mmap(std::ptr::null_mut(), 4096, libc::PROT_WRITE, shared, 3, 0) };
            json!(held == libc::MAP_FAILED)
        }
        "nonsense" => {
            // SAFETY: plain calls on the socket to the server.
            unsafe {
                libc::write(std::io::stdin().as_raw_fd(), c"{".as_ptr().cast(), 1);
                libc::usleep(100_000_000);
            }
            Value::Null
        }
        "hang up" => {
            // SAFETY: plain calls; the server is left waiting for nobody.
            unsafe {
                libc::close(0);
                libc::usleep(100_000_000);
            }
            Value::Null
        }
        "ramble" => json!("word ".repeat(100_000)),
        other => misbehave(other),
    }
}

/// What workers of both kinds can do.
fn misbehave(deed: &str) -> Value {
    match deed {
        #[expect(clippy::panic, reason = "this is the point")]
        "panic" => panic!("a bug in a decoder"),
        "abort" => std::process::abort(),
        "exit" => std::process::exit(0),
        // SAFETY: none; this is the point.
        "segfault" => unsafe { json!(std::ptr::read_volatile(std::ptr::without_provenance::<u8>(8))) },
        "recurse" => json!(recurse(1)),
        // SAFETY: a plain call.
        "killed" => json!(unsafe { libc::raise(libc::SIGKILL) }),
        "loop" => loop {
            std::hint::spin_loop();
        },
        "sleep" => {
            // SAFETY: a plain call; `std::thread::sleep` would do the same.
            while unsafe { libc::usleep(1_000_000) } == 0 {}
            json!(Duration::MAX)
        }
        "allocate" => json!(vec![1_u8; 10 << 30].len()),
        other => json!({"unknown": other}),
    }
}

#[expect(unconditional_recursion, reason = "this is the point")]
#[inline(never)]
fn recurse(depth: u64) -> u64 {
    let frame = std::hint::black_box([depth; 512]);
    recurse(depth + 1) + frame.iter().sum::<u64>()
}
