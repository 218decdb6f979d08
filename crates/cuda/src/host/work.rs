//! What can be captured: kernels, convolutions, copies within the memory.

use std::ptr;
use std::thread;

use super::memory::Memory;
use super::{HostConvolution, Values, ValuesMut};
use crate::convolution::{Convolution, Direction, Operands};
use crate::launch::{Cost, Launch, Scalar};
use crate::map::Format;
use crate::memory::Region;
use crate::ops::THREADS;
use crate::sources::{Function, host_function};

/// Bytes and operations below which one thread runs a kernel: to start a thread takes as long as some 100 KB of
/// memory traffic.
const SMALL: usize = 1 << 19;

/// A start of a kernel whose handles were looked up when it was made.
#[derive(Clone, Debug)]
pub(super) struct KernelStart {
    function: Function,
    blocks: u32,
    regions: Vec<Region>,
    scalars: Vec<Scalar>,
    cost: Cost,
}

impl KernelStart {
    /// Finds the kernel.
    ///
    /// # Panics
    /// There is none of the name, or its arguments have another size.
    pub(super) fn new(launch: &Launch<'_>) -> KernelStart {
        let Launch { kernel, blocks, threads, regions, scalars, cost } = *launch;
        let Some((function, bytes)) = host_function(kernel) else {
            panic!("there is no kernel {kernel}")
        };
        assert_eq!(threads, THREADS, "threads of a block of {kernel}");
        assert!(blocks > 0, "{kernel} in no block");
        let blocks =
            u32::try_from(blocks).unwrap_or_else(|_| panic!("{kernel} in {blocks} blocks"));
        let start = KernelStart {
            function,
            blocks,
            regions: regions.to_vec(),
            scalars: scalars.to_vec(),
            cost,
        };
        let words = start.regions.len() + start.scalars.len().div_ceil(2);
        assert_eq!(words * 8, bytes, "bytes of the arguments of {kernel}");
        start
    }

    /// Addresses, and scalars behind them, as the kernel declares them.
    fn arguments(&self, memory: &Memory) -> Vec<u64> {
        let addresses = self.regions.iter().map(|region| memory.address(region) as u64);
        let bits = |scalar: &Scalar| match *scalar {
            Scalar::U32(value) => u64::from(value),
            Scalar::F32(value) => u64::from(value.to_bits()),
        };
        let pairs = self.scalars.chunks(2).map(|pair| {
            let high = pair.get(1).map_or(0, bits);
            if cfg!(target_endian = "little") {
                bits(&pair[0]) | high << 32
            } else {
                bits(&pair[0]) << 32 | high
            }
        });
        addresses.chain(pairs).collect()
    }

    /// Runs all blocks, on as many threads as are worth it; their number never changes a bit, because blocks do
    /// not read what others of the same start write.
    ///
    /// # Safety
    /// As [`crate::Device::launch`].
    unsafe fn run(&self, memory: &Memory, threads: usize) {
        let arguments = self.arguments(memory);
        let large = self.cost.bytes + self.cost.operations >= SMALL;
        let parts = if large { threads.min(self.blocks as usize) as u64 } else { 1 };
        let bound = |part: u64| (u64::from(self.blocks) * part / parts) as u32;
        let run = |part: u64| {
            // SAFETY: the arguments have the size that the kernel declares (`new`), and the caller vouches for what
            // they say; the memory that they point to belongs to buffers that stay while `memory` is borrowed.
            unsafe { (self.function)(bound(part), bound(part + 1), arguments.as_ptr().cast()) }
        };
        thread::scope(|scope| {
            for part in 1..parts {
                scope.spawn(move || run(part));
            }
            run(0);
        });
    }
}

/// One thing that is started.
#[derive(Clone, Debug)]
pub(super) enum Work {
    /// A kernel.
    Kernel(KernelStart),
    /// A copy within the memory.
    Copy(Region, Region),
    /// Bytes of zero.
    Clear(Region),
    /// A convolution.
    Convolution(Convolution, Operands),
}

impl Work {
    /// What it reads and writes.
    pub(super) fn regions(&self) -> Vec<Region> {
        match self {
            Work::Kernel(start) => start.regions.clone(),
            Work::Copy(from, to) => vec![*from, *to],
            Work::Clear(region) => vec![*region],
            Work::Convolution(_, Operands { input, filters, output, .. }) => {
                vec![*input, *filters, *output]
            }
        }
    }

    /// Does it.
    ///
    /// # Safety
    /// As [`crate::Device::launch`] for kernels. Regions of copies and convolutions have the right lengths, and what
    /// is written meets nothing else.
    pub(super) unsafe fn run(
        &self,
        memory: &Memory,
        threads: usize,
        convolution: &mut dyn HostConvolution,
    ) {
        match self {
            // SAFETY: the caller vouches for it.
            Work::Kernel(start) => unsafe { start.run(memory, threads) },
            Work::Copy(from, to) => {
                let (source, target) = (memory.address(from), memory.address(to));
                // SAFETY: both lie inside their buffers, have one length and do not meet.
                unsafe { ptr::copy_nonoverlapping(source, target, from.bytes) }
            }
            Work::Clear(region) => {
                // SAFETY: the region lies inside its buffer.
                unsafe { ptr::write_bytes(memory.address(region), 0, region.bytes) }
            }
            Work::Convolution(sizes, operands) => {
                // SAFETY: the caller vouches for the lengths, and that what is written meets nothing else.
                unsafe { convolve(memory, sizes, operands, convolution) }
            }
        }
    }
}

/// Hands a convolution to who computes it.
///
/// # Safety
/// As [`Work::run`].
unsafe fn convolve(
    memory: &Memory,
    sizes: &Convolution,
    operands: &Operands,
    convolution: &mut dyn HostConvolution,
) {
    let format = sizes.precision.format();
    let [input_len, filter_len, output_len] =
        [sizes.input_len(), sizes.filter_len(), sizes.output_len()];
    let read = |region: &Region, len: usize| {
        let address = aligned(memory.address(region), format);
        // SAFETY: the caller vouches for the length, and that nobody writes here meanwhile; the memory is there.
        unsafe {
            match format {
                Format::F32 => Values::F32(std::slice::from_raw_parts(address.cast(), len)),
                Format::Bf16 => Values::Bf16(std::slice::from_raw_parts(address.cast(), len)),
            }
        }
    };
    let write = |region: &Region, len: usize, format: Format| {
        let address = aligned(memory.address(region), format);
        // SAFETY: as above, and the caller vouches that nothing else is read or written here meanwhile.
        unsafe {
            match format {
                Format::F32 => ValuesMut::F32(std::slice::from_raw_parts_mut(address.cast(), len)),
                Format::Bf16 => {
                    ValuesMut::Bf16(std::slice::from_raw_parts_mut(address.cast(), len))
                }
            }
        }
    };
    let (from, to) = match sizes.direction {
        Direction::Forward => (
            [read(&operands.input, input_len), read(&operands.filters, filter_len)],
            write(&operands.output, output_len, format),
        ),
        Direction::InputGradient => (
            [read(&operands.filters, filter_len), read(&operands.output, output_len)],
            write(&operands.input, input_len, format),
        ),
        Direction::FilterGradient => (
            [read(&operands.input, input_len), read(&operands.output, output_len)],
            write(&operands.filters, filter_len, Format::F32),
        ),
    };
    convolution.run(sizes, from, to);
}

/// Panics unless numbers of `format` can lie at `address`.
fn aligned(address: *mut u8, format: Format) -> *mut u8 {
    assert!((address as usize).is_multiple_of(format.size()), "an operand between two numbers");
    address
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANY: Region = Region { buffer: 0, start: 0, bytes: 8 };

    fn start(kernel: &'static str, blocks: usize, threads: usize, regions: &[Region]) {
        let cost = Cost::default();
        KernelStart::new(&Launch { kernel, blocks, threads, regions, scalars: &[], cost });
    }

    #[test]
    #[should_panic(expected = "there is no kernel nonsense")]
    fn an_unknown_kernel_is_refused() {
        start("nonsense", 1, THREADS, &[]);
    }

    #[test]
    #[should_panic(expected = "bytes of the arguments of settle")]
    fn arguments_of_another_size_are_refused() {
        start("settle", 1, THREADS, &[ANY; 2]);
    }

    #[test]
    #[should_panic(expected = "threads of a block of settle")]
    fn blocks_of_another_size_are_refused() {
        start("settle", 1, 128, &[ANY]);
    }

    #[test]
    #[should_panic(expected = "settle in no block")]
    fn no_block_is_refused() {
        start("settle", 0, THREADS, &[ANY]);
    }
}
