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
    pub float: Handle,
    pub sum: Handle,
    /// `MPI_IN_PLACE`.
    pub in_place: Handle,
    /// `MPI_STATUS_IGNORE`.
    pub status_ignore: Handle,
    /// `MPI_THREAD_FUNNELED`: one thread makes all calls.
    pub thread_funneled: c_int,
}

impl Abi {
    /// MPI 5.0's own, which MPICH 5 and others offer as `libmpi_abi`.
    pub(super) const STANDARD: Abi = Abi {
        name: "standard",
        comm_world: 0x101,
        byte: 0x247,
        float: 0x210,
        sum: 0x21,
        in_place: 1,
        status_ignore: 0,
        thread_funneled: 1024,
    };

    /// MPICH, Intel MPI, MVAPICH, Cray MPICH.
    pub(super) const MPICH: Abi = Abi {
        name: "MPICH",
        comm_world: 0x4400_0000,
        byte: 0x4c00_010d,
        float: 0x4c00_040a,
        sum: 0x5800_0003,
        in_place: usize::MAX,
        status_ignore: 1,
        thread_funneled: 1,
    };

    /// Open MPI, whose handles are addresses of variables that `address` finds; `None` for another library.
    pub(super) fn open_mpi(address: impl Fn(&str) -> Option<Handle>) -> Option<Abi> {
        Some(Abi {
            name: "Open MPI",
            comm_world: address("ompi_mpi_comm_world")?,
            byte: address("ompi_mpi_byte")?,
            float: address("ompi_mpi_float")?,
            sum: address("ompi_mpi_op_sum")?,
            in_place: 1,
            status_ignore: 0,
            thread_funneled: 1,
        })
    }
}
