//! The frame of a program that runs errands: read one, be locked in, run it, leave.
//!
//! In: one document on standard input. Out: JSON lines on standard output, which are the
//! business of the function given to [`serve`], and an exit code. Lines of the frame itself are
//! objects with the single key `cell`.
//!
//! Invariant: nothing but [`serve`] writes to the pipe. Standard output is moved away before a
//! library is loaded, because libraries print.
//!
//! The process leaves without the C libraries' farewells, in which drivers like to fall over;
//! whatever the errand made is closed by then.

use std::fs::File;
use std::io;
use std::io::Read;
use std::io::Write;
use std::os::fd::AsFd;
use std::panic::AssertUnwindSafe;

use rustix::event::PollFd;
use rustix::event::PollFlags;
use rustix::event::Timespec;
use serde_json::Value;

use super::super::Class;
use super::super::protocol::VERSION;
use super::super::sandbox;
use super::super::serve::remember_panics;
use super::super::serve::take;
use super::CellLine;
use super::Document;
use super::EXIT_NO_CELL;
use super::EXIT_NOT_UNDERSTOOD;
use super::EXIT_PANICKED;
use super::SELF_TEST;
use super::cell;
use super::cell::Cell;
use crate::error::BoxError;

/// Runs the errand on standard input. `prepare` loads what it needs, inside the cell, while code
/// may still be loaded; `run` sees the sources. What `run` tells last is the answer.
pub fn serve(
    prepare: impl FnOnce(&Value) -> Result<(), BoxError>,
    run: impl FnOnce(Value, &mut dyn FnMut(Value)),
) -> ! {
    let mut lines = match take_standard_output() {
        Ok(lines) => Lines(lines),
        Err(error) => refuse(&error),
    };
    let Document { cell, errand } = match read() {
        Ok(document) => document,
        Err(error) => refuse(&error),
    };
    let panics = remember_panics();
    let ran = std::panic::catch_unwind(AssertUnwindSafe(|| {
        let test = errand.as_str() == Some(SELF_TEST);
        let prepared = enter(&cell, || if test { Ok(()) } else { prepare(&errand) });
        let layers = match prepared {
            Ok(layers) => layers,
            Err(error) => {
                lines.tell(&CellLine::Broken(error.to_string()).line());
                leave(EXIT_NO_CELL)
            }
        };
        if test {
            lines.tell(&CellLine::Tried { layers, attempts: cell::attempts() }.line());
        } else {
            run(errand, &mut |line| lines.tell(&line));
        }
    }));
    if ran.is_err() {
        lines.tell(&CellLine::Panicked(take(&panics)).line());
        leave(EXIT_PANICKED);
    }
    leave(0)
}

fn enter(cell: &Cell, prepare: impl FnOnce() -> Result<(), BoxError>) -> Result<Vec<String>, BoxError> {
    if cell.version != VERSION {
        return Err(
            format!("this program is version {VERSION}, the service {}: restart the service", cell.version).into()
        );
    }
    let mut layers = match cell::enter(cell) {
        Ok(layers) => layers,
        Err(error) if cell.sandbox_required => return Err(error),
        Err(error) => vec![format!("no sandbox: {error}")],
    };
    prepare()?;
    if !cell.devices {
        layers.push(cell::forbid_new_code()?);
    }
    Ok(layers)
}

/// Leaves the server's family, and keeps the pipe to it where nobody else finds it.
fn take_standard_output() -> Result<File, BoxError> {
    sandbox::leave_the_family(Class::Background)?;
    let lines = io::stdout().as_fd().try_clone_to_owned()?;
    let nothing = File::options().read(true).write(true).open("/dev/null")?;
    rustix::stdio::dup2_stdout(&nothing)?;
    // The server may have died before this process asked to be told.
    let mut polled = [PollFd::new(&lines, PollFlags::OUT)];
    rustix::event::poll(&mut polled, Some(&Timespec::default()))?;
    let [pipe] = polled;
    if pipe.revents().intersects(PollFlags::ERR | PollFlags::HUP) {
        leave(0);
    }
    Ok(File::from(lines))
}

fn read() -> Result<Document, BoxError> {
    let mut text = Vec::new();
    io::stdin().lock().read_to_end(&mut text)?;
    let nothing = File::open("/dev/null")?;
    rustix::stdio::dup2_stdin(&nothing)?;
    Ok(serde_json::from_slice(&text)?)
}

fn refuse(error: &BoxError) -> ! {
    eprintln!("cloakroom starts this program itself, with an errand as standard input: {error}");
    leave(EXIT_NOT_UNDERSTOOD)
}

struct Lines(File);

impl Lines {
    /// A server that does not listen any more is gone, and so is the reason to go on.
    fn tell(&mut self, line: &Value) {
        let mut text = line.to_string();
        text.push('\n');
        if self.0.write_all(text.as_bytes()).is_err() {
            leave(0);
        }
    }
}

#[expect(unsafe_code, reason = "std's exit runs what libraries have left to be run at the end")]
fn leave(code: i32) -> ! {
    // SAFETY: ends the process at once.
    unsafe { libc::_exit(code) }
}
