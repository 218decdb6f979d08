//! A table of a library's functions.

/// Declares a structure whose fields are functions of one library, and how it is filled. Statuses are plain
/// integers: a library may be newer than this program and return one that no list has.
macro_rules! functions {
    ($(#[$about:meta])* $table:ident { $($field:ident = $symbol:literal: fn($($argument:ty),*) -> $result:ty;)* }) => {
        $(#[$about])*
        #[derive(Clone, Copy)]
        pub(crate) struct $table {
            $(pub(crate) $field: unsafe extern "C" fn($($argument),*) -> $result,)*
        }

        impl $table {
            /// Finds the functions.
            ///
            /// # Errors
            /// The library lacks one: it is too old.
            pub(crate) fn of(found: &$crate::libraries::Found) -> Result<$table, $crate::error::DeviceError> {
                Ok($table {
                    $($field: {
                        // SAFETY: the declaration is that of NVIDIA's header.
                        let function = unsafe { found.library.function($symbol) };
                        function.ok_or_else(|| $crate::error::DeviceError::Unavailable(format!(
                            "{} has no function {}: it is too old",
                            found.path.display(),
                            $symbol
                        )))?
                    },)*
                })
            }
        }
    };
}

pub(crate) use functions;
