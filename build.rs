//! Compiles the C side of AVIF and links the system's libavif.
//!
//! Everything else in C comes with the crates that wrap it. Both binaries of the package are
//! linked with `--as-needed` (rustc's default), so only the one that decodes loads libavif.

fn main() {
    let source = "src/media/imaging/avif.c";
    println!("cargo::rerun-if-changed={source}");
    let avif = match pkg_config::Config::new().atleast_version("0.11").probe("libavif") {
        Ok(avif) => avif,
        Err(error) => {
            println!("cargo::error=libavif 0.11 or later is needed (Debian: libavif-dev): {error}");
            return;
        }
    };
    cc::Build::new().file(source).includes(avif.include_paths).std("c11").warnings(true).compile("cloakroom_avif");
    // The shim calls libavif, so the library must come after it on the linker's line.
    println!("cargo::rustc-link-lib=avif");
}
