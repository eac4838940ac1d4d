//! A media worker that misbehaves as it is told, for the tests of the pool.
//!
//! The request is `{"do": …}`; every word but `echo`, `pid` and `open` does what a hostile file
//! could make a decoder do. Built only as a test binary; no package ships it.
#![expect(unsafe_code, reason = "misbehaving is its purpose")]

use std::io::Write;
use std::os::fd::AsRawFd;
use std::time::Duration;

use cloakroom::infra::workers;
use cloakroom::infra::workers::Class;
use cloakroom::infra::workers::Config;
use cloakroom::infra::workers::OutputFile;
use cloakroom::infra::workers::Workers;
use serde_json::Value;
use serde_json::json;

fn main() {
    if std::env::args().nth(1).as_deref() == Some("server") {
        return serve_until_killed();
    }
    workers::serve(|request, sources, output| answer(&request, sources, output))
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
        other => json!({"unknown": other}),
    }
}

#[expect(unconditional_recursion, reason = "this is the point")]
#[inline(never)]
fn recurse(depth: u64) -> u64 {
    let frame = std::hint::black_box([depth; 512]);
    recurse(depth + 1) + frame.iter().sum::<u64>()
}
