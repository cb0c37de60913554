//! Compiles the constructor where it is needed: in a static program with the GNU C library.
#![allow(clippy::print_stdout, reason = "this is how a build script speaks to cargo")]

fn main() {
    println!("cargo::rerun-if-changed=src/pin.c");
    let target = |key| std::env::var(key).unwrap_or_default();
    let is_static = target("CARGO_CFG_TARGET_FEATURE").split(',').any(|feature| feature == "crt-static");
    if is_static && target("CARGO_CFG_TARGET_ENV") == "gnu" {
        // Nothing refers to a constructor, so the linker would leave it out of the archive.
        cc::Build::new().file("src/pin.c").link_lib_modifier("+whole-archive").compile("pin");
    }
}
