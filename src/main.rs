//! The server: parse, run, exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    cloakroom::cli::run()
}
