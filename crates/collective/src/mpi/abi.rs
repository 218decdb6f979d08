//! The three binary interfaces of MPI libraries: what their constants are. Functions have the same names and
//! arguments in all of them; a handle is a pointer or an int, which travels in one register either way.
//!
//! Sources: MPI 5.0, chapter 20 (the standard interface); MPICH's `mpi.h.in`; Open MPI's `mpi.h.in`. All three were
//! run unchanged by one program.

use std::ffi::c_int;

/// A handle: a pointer, or an int in the lower half.
pub(super) type Handle = usize;

/// Constants of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Abi {
    pub name: &'static str,
    pub comm_world: Handle,
    pub byte: Handle,
    /// `MPI_THREAD_FUNNELED`: one thread makes all calls.
    pub thread_funneled: c_int,
}

impl Abi {
    /// MPI 5.0's own, which MPICH 5 and others offer as `libmpi_abi`.
    pub(super) const STANDARD: Abi =
        Abi { name: "standard", comm_world: 0x101, byte: 0x247, thread_funneled: 1024 };

    /// MPICH, Intel MPI, MVAPICH, Cray MPICH.
    pub(super) const MPICH: Abi =
        Abi { name: "MPICH", comm_world: 0x4400_0000, byte: 0x4c00_010d, thread_funneled: 1 };

    /// Open MPI, whose handles are addresses of these variables.
    pub(super) fn open_mpi(comm_world: Handle, byte: Handle) -> Abi {
        Abi { name: "Open MPI", comm_world, byte, thread_funneled: 1 }
    }
}
