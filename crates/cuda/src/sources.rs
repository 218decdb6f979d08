//! The sources of the kernels, and their names.

/// What lets the kernels compile as CUDA C and as C, and the kernels.
const SOURCES: [&str; 8] = [
    include_str!("../kernels/shim.h"),
    include_str!("../kernels/image.cu"),
    include_str!("../kernels/batch_norm.cu"),
    include_str!("../kernels/pool.cu"),
    include_str!("../kernels/lrn.cu"),
    include_str!("../kernels/layout.cu"),
    include_str!("../kernels/head.cu"),
    include_str!("../kernels/update.cu"),
];

/// All kernels as one program in CUDA C, which needs no header.
pub fn source() -> String {
    SOURCES.concat()
}

/// Names a list of kernels, and finds their C functions.
macro_rules! kernels {
    ($($name:ident),* $(,)?) => {
        /// The names of all kernels.
        pub const KERNELS: &[&str] = &[$(stringify!($name)),*];

        /// A kernel as C: runs blocks of a range, with arguments at an address.
        pub(crate) type Function = unsafe extern "C" fn(u32, u32, *const u8);

        mod c {
            unsafe extern "C" {
                $(
                    #[link_name = concat!("bninception_", stringify!($name))]
                    pub(super) fn $name(first: u32, end: u32, arguments: *const u8);
                )*
            }
            pub(super) mod bytes {
                unsafe extern "C" {
                    $(
                        #[link_name = concat!("bninception_", stringify!($name), "_bytes")]
                        pub(in super::super) static $name: u32;
                    )*
                }
            }
        }

        /// The C function of a kernel, and the bytes of its arguments; `None` if there is no such kernel.
        pub(crate) fn host_function(name: &str) -> Option<(Function, usize)> {
            match name {
                $(
                    stringify!($name) => {
                        // SAFETY: a constant of the C program that `build.rs` compiles.
                        let bytes = unsafe { c::bytes::$name };
                        Some((c::$name, bytes as usize))
                    }
                )*
                _ => None,
            }
        }
    };
}

// A name that the C program lacks is found by the linker.
kernels!(
    activation_gradient,
    add,
    average,
    average_pool,
    average_pool_gradient,
    batch_norm_moments,
    batch_norm_sums,
    bias_moments,
    column_sums,
    divide,
    dropout,
    flatten,
    flatten_gradient,
    from_bf16,
    global_average,
    global_average_gradient,
    gradient_merge,
    gradient_sums,
    image_levels,
    image_values,
    input_gradient,
    loss_report,
    lrn,
    lrn_gradient,
    max_pool,
    max_pool_gradient,
    move_statistics,
    multiply,
    norm_merge,
    normalise,
    running_moments,
    settle,
    sgd,
    softmax_loss,
    squared_norm,
    to_bf16,
    to_planes,
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_names_each_kernel_of_the_sources_once() {
        let source = source();
        let declared = |line: &str| {
            let rest = line.strip_prefix("KERNEL(").or_else(|| line.strip_prefix("MAP_KERNEL("))?;
            Some(rest.split(',').next()?.to_owned())
        };
        let mut found: Vec<String> = source.lines().filter_map(declared).collect();
        found.sort();
        assert_eq!(found, KERNELS);
    }

    /// The C program runs one phase behind the other anyway; a GPU does so at a barrier only.
    #[test]
    fn a_barrier_stands_between_the_phases_of_a_block() {
        let source = source();
        let kernels = source.split("KERNEL(").filter(|kernel| kernel.contains(") {\n"));
        let mut phases = 0;
        for kernel in kernels {
            let body = kernel.split("\n}\n").next().unwrap_or(kernel);
            // A sum of a block is a phase that ends with a barrier.
            let body = body.replace("ADD_UP(", "EACH_THREAD BARRIER (");
            let mut between = body.split("EACH_THREAD").skip(1).collect::<Vec<_>>();
            between.pop();
            phases += between.len();
            for phase in between {
                assert!(phase.contains("BARRIER"), "no barrier behind {phase}");
            }
        }
        assert!(phases > 20, "{phases} phases were found");
    }
}
