//! The kernels as C give no warning. Users do not see any: their compilers may know others.
#![allow(clippy::unwrap_used)] // a compiler that cannot be started is a failed test

use std::env;
use std::process::Command;

#[test]
fn the_c_program_gives_no_warning() {
    let compiler = env::var("CC").unwrap_or_else(|_| "cc".to_owned());
    let output = Command::new(compiler)
        .args([
            "-std=gnu11",
            "-O1",
            "-Wall",
            "-Wextra",
            "-Wshadow",
            "-Wno-unused-parameter",
            "-Werror",
        ])
        .args(["-fsyntax-only", "-x", "c", "kernels/host.c"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
