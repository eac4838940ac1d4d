//! Compiles the C sides of AVIF and HEIC and links the system's libavif and libde265.
//!
//! Everything else in C comes with the crates that wrap it. Both binaries of the package are
//! linked with `--as-needed` (rustc's default), so only the one that decodes loads them.

fn main() {
    link("libavif", "0.11", "avif", "src/media/imaging/avif.c");
    link("libde265", "1.0.11", "de265", "src/media/imaging/heic/hevc.c");
}

/// Finds a library of the system and compiles the file that calls it.
fn link(package: &str, oldest: &str, library: &str, source: &str) {
    println!("cargo::rerun-if-changed={source}");
    let found = match pkg_config::Config::new().atleast_version(oldest).probe(package) {
        Ok(found) => found,
        Err(error) => {
            println!("cargo::error={package} {oldest} or later is needed (Debian: {package}-dev): {error}");
            return;
        }
    };
    let compiled = format!("cloakroom_{library}");
    cc::Build::new().file(source).includes(found.include_paths).std("c11").warnings(true).compile(&compiled);
    // The shim calls the library, so the library must come after it on the linker's line.
    println!("cargo::rustc-link-lib={library}");
}
