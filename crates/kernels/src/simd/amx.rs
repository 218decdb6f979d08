//! Tiles of AMX, for which stable Rust has assembly only.
//!
//! A tile is a register of 16 rows of 64 bytes. `tdpbf16ps` multiplies 16 rows of 32 bf16 numbers with
//! 32 rows of 16, which lie in pairs, and adds to 16x16 f32 (Intel SDM volume 1, chapter 18). Compiled
//! code never touches tiles, so what one function leaves in them is there for the next.

use std::arch::asm;
use std::arch::x86_64::__cpuid_count;

/// Bytes of a row.
const ROW: usize = 64;

/// Whether the machine has tiles of bf16, and the system lets this process use them.
pub(crate) fn is_usable() -> bool {
    // Leaf 7, EDX: bit 22 is AMX-BF16, bit 24 AMX-TILE (Intel SDM volume 2A, CPUID).
    const NEEDED: u32 = 1 << 22 | 1 << 24;
    __cpuid_count(7, 0).edx & NEEDED == NEEDED && may_be_used()
}

/// Asks for the use of tiles for all threads of this process, once and for all: they make what is
/// saved of a thread 8 KB larger, so Linux gives them on request only
/// (<https://docs.kernel.org/arch/x86/xstate.html>).
#[cfg(target_os = "linux")]
fn may_be_used() -> bool {
    const ARCH_PRCTL: usize = 158;
    const ARCH_REQ_XCOMP_PERM: usize = 0x1023;
    const TILE_DATA: usize = 18;
    let result: isize;
    // SAFETY: this system call touches no memory of the process; the kernel overwrites rcx and r11.
    // A kernel that does not know the request answers with an error.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") ARCH_PRCTL => result,
            in("rdi") ARCH_REQ_XCOMP_PERM,
            in("rsi") TILE_DATA,
            out("rcx") _,
            out("r11") _,
            options(nostack)
        );
    }
    result == 0
}

#[cfg(not(target_os = "linux"))]
fn may_be_used() -> bool {
    false
}

/// What `ldtilecfg` reads: palette 1, all eight tiles in full.
#[repr(C, align(64))]
struct Configuration {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

static CONFIGURATION: Configuration = Configuration {
    palette: 1,
    start_row: 0,
    reserved: [0; 14],
    row_bytes: [64, 64, 64, 64, 64, 64, 64, 64, 0, 0, 0, 0, 0, 0, 0, 0],
    rows: [16, 16, 16, 16, 16, 16, 16, 16, 0, 0, 0, 0, 0, 0, 0, 0],
};

/// Configures the tiles of this thread.
///
/// # Safety
/// Tiles must be usable.
pub(crate) unsafe fn configure() {
    // SAFETY: the address is that of 64 readable bytes.
    unsafe {
        asm!(
            "ldtilecfg [{at}]",
            at = in(reg) &raw const CONFIGURATION,
            options(nostack, readonly, preserves_flags)
        );
    }
}

/// Gives the tiles back, so that switching threads need not save them.
///
/// # Safety
/// Tiles must be usable.
pub(crate) unsafe fn release() {
    // SAFETY: as the caller vouches.
    unsafe { asm!("tilerelease", options(nostack, nomem, preserves_flags)) };
}

/// Adds to four tiles of f32, `[row tile][column tile]`, the products of two row tiles and two column
/// tiles for each of `depth` steps; with `fresh` they start from zero. The row tiles of a step follow one
/// another, and so do the steps; of the column tiles each has an address of its own, and the next step's
/// is `stride` bytes further. Tiles 0 to 3 hold the sums, 4 and 5 the rows, 6 and 7 the columns.
///
/// # Safety
/// Tiles must be configured on this thread, all addresses valid, and `depth` not zero.
pub(crate) unsafe fn multiply(
    rows: *const u32,
    columns: [*const u32; 2],
    stride: usize,
    depth: usize,
    sums: *mut f32,
    fresh: bool,
) {
    // SAFETY: as the caller vouches.
    unsafe {
        asm!(
            "test {fresh}, {fresh}",
            "jnz 2f",
            "tileloadd tmm0, [{sums} + {pitch}]",
            "tileloadd tmm1, [{sums} + {pitch} + 1024]",
            "tileloadd tmm2, [{sums} + {pitch} + 2048]",
            "tileloadd tmm3, [{sums} + {pitch} + 3072]",
            "jmp 3f",
            "2:",
            "tilezero tmm0",
            "tilezero tmm1",
            "tilezero tmm2",
            "tilezero tmm3",
            "3:",
            "tileloadd tmm4, [{rows} + {pitch}]",
            "tileloadd tmm6, [{first} + {pitch}]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tileloadd tmm7, [{second} + {pitch}]",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tileloadd tmm5, [{rows} + {pitch} + 1024]",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tdpbf16ps tmm3, tmm5, tmm7",
            "add {rows}, 2048",
            "add {first}, {stride}",
            "add {second}, {stride}",
            "dec {depth}",
            "jnz 3b",
            "tilestored [{sums} + {pitch}], tmm0",
            "tilestored [{sums} + {pitch} + 1024], tmm1",
            "tilestored [{sums} + {pitch} + 2048], tmm2",
            "tilestored [{sums} + {pitch} + 3072], tmm3",
            rows = inout(reg) rows => _,
            first = inout(reg) columns[0] => _,
            second = inout(reg) columns[1] => _,
            stride = in(reg) stride,
            depth = inout(reg) depth => _,
            sums = in(reg) sums,
            pitch = in(reg) ROW,
            fresh = in(reg) usize::from(fresh),
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack)
        );
    }
}

/// Four tiles of f32, `[row tile][column tile]`, the sums of the products of two row tiles and two column
/// tiles for each of `steps`. A step is the distance of its row tiles from `rows`, in bytes, and the rows
/// of a tile are `pitch` bytes apart; column tiles follow one another.
///
/// # Safety
/// Tiles must be configured on this thread, all addresses valid, and `steps` not empty.
pub(crate) unsafe fn multiply_in_place(
    rows: [*const u8; 2],
    pitch: usize,
    steps: &[usize],
    columns: *const u32,
    sums: *mut f32,
) {
    // SAFETY: as the caller vouches.
    unsafe {
        asm!(
            "tilezero tmm0",
            "tilezero tmm1",
            "tilezero tmm2",
            "tilezero tmm3",
            "2:",
            "mov {at}, [{steps}]",
            "lea {address}, [{first} + {at}]",
            "tileloadd tmm4, [{address} + {pitch}]",
            "tileloadd tmm6, [{columns} + {row}]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tileloadd tmm7, [{columns} + {row} + 1024]",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "lea {address}, [{second} + {at}]",
            "tileloadd tmm5, [{address} + {pitch}]",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tdpbf16ps tmm3, tmm5, tmm7",
            "add {steps}, 8",
            "add {columns}, 2048",
            "dec {depth}",
            "jnz 2b",
            "tilestored [{sums} + {row}], tmm0",
            "tilestored [{sums} + {row} + 1024], tmm1",
            "tilestored [{sums} + {row} + 2048], tmm2",
            "tilestored [{sums} + {row} + 3072], tmm3",
            at = out(reg) _,
            address = out(reg) _,
            first = in(reg) rows[0],
            second = in(reg) rows[1],
            pitch = in(reg) pitch,
            steps = inout(reg) steps.as_ptr() => _,
            columns = inout(reg) columns => _,
            depth = inout(reg) steps.len() => _,
            sums = in(reg) sums,
            row = in(reg) ROW,
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack)
        );
    }
}

/// Multiplies what tiles hold `rounds` times, four products each, to see how fast that is.
///
/// # Safety
/// Tiles must be usable, and `rounds` not zero.
pub(crate) unsafe fn multiply_registers(rounds: usize) {
    // SAFETY: as the caller vouches.
    unsafe {
        configure();
        asm!(
            "tilezero tmm4",
            "tilezero tmm5",
            "2:",
            "tdpbf16ps tmm0, tmm4, tmm5",
            "tdpbf16ps tmm1, tmm4, tmm5",
            "tdpbf16ps tmm2, tmm4, tmm5",
            "tdpbf16ps tmm3, tmm4, tmm5",
            "dec {rounds}",
            "jnz 2b",
            rounds = inout(reg) rounds => _,
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _,
            options(nostack, nomem)
        );
        release();
    }
}
