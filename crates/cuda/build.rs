//! Compiles the kernels as C for the host.

fn main() {
    println!("cargo::rerun-if-changed=kernels");
    cc::Build::new()
        .file("kernels/host.c")
        .std("gnu11")
        .opt_level(3) // of debug builds too: tests run the kernels
        .flag("-ffp-contract=off") // the same results on machines with and without fused multiply-add
        .flag("-fno-strict-aliasing") // memory of a device has no type
        .warnings(false)
        .compile("bninception_kernels");
}
