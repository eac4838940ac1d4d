//! CPU and wall time of the checksums of 1, 2, 4 and 8 uploads at once.
//!
//! Each stream is an async task with one batch in flight; a batch of 256 KiB is digested and
//! written to a file in memory by a blocking step, as an upload does. `crate` is the same with
//! the `md-5` crate instead of the lanes. The variants take turns; each figure is a median.
//!
//! Run with `cargo bench --bench md5 [rounds] [no-write]`.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a measurement, not the product: it may stop at the first trouble"
)]

use std::fs::File;
use std::io::Seek;
use std::io::Write;
use std::time::Duration;
use std::time::Instant;

use bytes::Bytes;
use cloakroom::support::checksum::Digester;
use cloakroom::support::checksum::Kernel;
use cloakroom::support::checksum::Lanes;
use md5::Digest;

const BATCH_BYTES: usize = 256 << 10;
const FILE_BYTES: usize = 3 << 20;
const ROUND_BYTES: usize = 384 << 20;

#[derive(Clone)]
enum Variant {
    Written,
    Crate,
    Lanes(Lanes),
}

fn main() {
    let rounds = std::env::args().find_map(|word| word.parse().ok()).unwrap_or(5);
    let write = !std::env::args().any(|word| word == "no-write");
    let mut variants = vec![("neither".to_owned(), Variant::Written), ("crate".to_owned(), Variant::Crate)];
    for kernel in Kernel::all() {
        variants.push((kernel.name().to_owned(), Variant::Lanes(Lanes::with_kernel(kernel))));
    }
    println!("{:<12} {:>8} {:>12} {:>12}", "variant", "streams", "CPU s/GB", "wall s/GB");
    for streams in [1, 2, 4, 8] {
        let mut figures = vec![Vec::new(); variants.len()];
        for _ in 0..rounds {
            for ((_, variant), figures) in variants.iter().zip(&mut figures) {
                figures.push(round(variant, streams, write));
            }
        }
        for ((name, _), figures) in variants.iter().zip(&figures) {
            let median = |of: fn(&(Duration, Duration)) -> Duration| {
                let mut all: Vec<Duration> = figures.iter().map(of).collect();
                all.sort();
                all[all.len() / 2].as_secs_f64() / (ROUND_BYTES as f64 / 1e9)
            };
            println!("{name:<12} {streams:>8} {:>12.2} {:>12.2}", median(|f| f.0), median(|f| f.1));
        }
    }
}

/// CPU and wall time of one round.
fn round(variant: &Variant, streams: usize, write: bool) -> (Duration, Duration) {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).max_blocking_threads(4).build().unwrap();
    let (cpu, wall) = (cpu_time(), Instant::now());
    runtime.block_on(async {
        let tasks: Vec<_> = (0..streams).map(|_| tokio::spawn(uploads(variant.clone(), streams, write))).collect();
        for task in tasks {
            task.await.unwrap();
        }
    });
    (cpu_time().saturating_sub(cpu), wall.elapsed())
}

async fn uploads(variant: Variant, streams: usize, write: bool) {
    let source = Bytes::from(vec![0x5a; BATCH_BYTES]);
    let place = if std::path::Path::new("/dev/shm").exists() { "/dev/shm".into() } else { std::env::temp_dir() };
    let mut file = Some(tempfile::tempfile_in(place).unwrap());
    for _ in 0..ROUND_BYTES / FILE_BYTES / streams {
        let mut digests = Some(match &variant {
            Variant::Written => Digests::None,
            Variant::Crate => Digests::Crate(Box::default()),
            Variant::Lanes(lanes) => Digests::Lanes(Box::new(Digester::new(lanes))),
        });
        file.as_mut().unwrap().rewind().unwrap();
        for _ in 0..FILE_BYTES / BATCH_BYTES {
            let batch = Bytes::copy_from_slice(&source);
            let (mut to, mut digesting) = (file.take().unwrap(), digests.take().unwrap());
            if let Digests::Lanes(digester) = &mut digesting {
                digester.settled().await;
            }
            let step = tokio::task::spawn_blocking(move || {
                digesting.update(&batch);
                if write {
                    File::write_all(&mut to, &batch).unwrap();
                }
                (to, digesting)
            });
            let (to, digesting) = step.await.unwrap();
            (file, digests) = (Some(to), Some(digesting));
        }
        if let Some(Digests::Lanes(mut digester)) = digests {
            digester.settled().await;
            std::hint::black_box(digester.finish());
        }
    }
}

enum Digests {
    None,
    Crate(Box<(md5::Md5, sha2::Sha256)>),
    Lanes(Box<Digester>),
}

impl Digests {
    fn update(&mut self, batch: &Bytes) {
        match self {
            Digests::None => {}
            Digests::Crate(both) => {
                both.0.update(batch);
                both.1.update(batch);
            }
            Digests::Lanes(digester) => digester.update(batch),
        }
    }
}

/// User and system time of this process.
fn cpu_time() -> Duration {
    let used = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(used.tv_sec as u64, used.tv_nsec as u32)
}
