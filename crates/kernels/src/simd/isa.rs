//! The one place where the instruction set is chosen.

use std::sync::OnceLock;

/// Instruction sets that kernels are written for, weakest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Isa {
    /// Plain Rust, which the compiler vectorises as the target allows.
    Scalar,
    /// AVX2 and FMA.
    Avx2,
    /// AVX-512 F, BW, DQ and VL.
    Avx512,
    /// AVX-512 with BF16 dot products.
    Avx512Bf16,
    /// The same with AMX, tiles of BF16 that are multiplied as a whole.
    Amx,
}

/// Environment variable that lowers the choice, for tests: `scalar`, `avx2`, `avx512`, `avx512bf16`,
/// `amx`.
pub const ISA_VARIABLE: &str = "BNINCEPTION_ISA";

impl Isa {
    /// The name used in logs and in [`ISA_VARIABLE`].
    pub fn name(self) -> &'static str {
        match self {
            Isa::Scalar => "scalar",
            Isa::Avx2 => "avx2",
            Isa::Avx512 => "avx512",
            Isa::Avx512Bf16 => "avx512bf16",
            Isa::Amx => "amx",
        }
    }

    /// The strongest set that this machine can run.
    pub fn strongest() -> Isa {
        static STRONGEST: OnceLock<Isa> = OnceLock::new();
        *STRONGEST.get_or_init(detect)
    }

    /// All sets that this machine can run, weakest first.
    pub fn available() -> Vec<Isa> {
        [Isa::Scalar, Isa::Avx2, Isa::Avx512, Isa::Avx512Bf16, Isa::Amx]
            .into_iter()
            .filter(|&isa| isa <= Isa::strongest())
            .collect()
    }

    /// The set that kernels use: the strongest of this machine, or the one that
    /// [`ISA_VARIABLE`] names if the machine has it. Decided once per process.
    pub fn chosen() -> Isa {
        static CHOSEN: OnceLock<Isa> = OnceLock::new();
        *CHOSEN.get_or_init(|| {
            let wanted = std::env::var(ISA_VARIABLE).ok();
            Isa::available()
                .into_iter()
                .find(|isa| Some(isa.name()) == wanted.as_deref())
                .unwrap_or_else(Isa::strongest)
        })
    }
}

#[cfg(target_arch = "x86_64")]
fn detect() -> Isa {
    use std::arch::is_x86_feature_detected as has;
    if !(has!("avx2") && has!("fma")) {
        return Isa::Scalar;
    }
    if !(has!("avx512f") && has!("avx512bw") && has!("avx512dq") && has!("avx512vl")) {
        return Isa::Avx2;
    }
    if !has!("avx512bf16") {
        return Isa::Avx512;
    }
    if crate::simd::amx::is_usable() { Isa::Amx } else { Isa::Avx512Bf16 }
}

#[cfg(not(target_arch = "x86_64"))]
fn detect() -> Isa {
    Isa::Scalar
}
