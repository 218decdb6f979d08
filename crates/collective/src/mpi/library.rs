//! The functions of an MPI library, found by name.

use std::ffi::{c_char, c_int, c_void};
use std::fs;
use std::path::PathBuf;

use libloading::os::unix::{Library as System, RTLD_GLOBAL, RTLD_NOW};

use super::abi::{Abi, Handle};
use crate::error::CollectiveError;
use crate::found_library::FoundLibrary;

/// Bytes for what a library says of itself: `MPI_MAX_LIBRARY_VERSION_STRING` of all of them is at most this.
const TEXT_BYTES: usize = 8192;

pub(super) type InitThread =
    unsafe extern "C" fn(*mut c_int, *mut *mut *mut c_char, c_int, *mut c_int) -> c_int;
pub(super) type Ask = unsafe extern "C" fn(Handle, *mut c_int) -> c_int;
pub(super) type Text = unsafe extern "C" fn(*mut c_char, *mut c_int) -> c_int;
pub(super) type ErrorText = unsafe extern "C" fn(c_int, *mut c_char, *mut c_int) -> c_int;
/// A call under way, as the library names it: a pointer, or an int in the first four bytes.
pub(super) type Request = u64;
pub(super) type Broadcast =
    unsafe extern "C" fn(*mut c_void, c_int, Handle, c_int, Handle, *mut Request) -> c_int;
pub(super) type AllToAll = unsafe extern "C" fn(
    *const c_void,
    *const c_int,
    *const c_int,
    Handle,
    *mut c_void,
    *const c_int,
    *const c_int,
    Handle,
    Handle,
    *mut Request,
) -> c_int;
pub(super) type AllGather = unsafe extern "C" fn(
    *const c_void,
    c_int,
    Handle,
    *mut c_void,
    *const c_int,
    *const c_int,
    Handle,
    Handle,
    *mut Request,
) -> c_int;
pub(super) type AllReduce = unsafe extern "C" fn(
    *const c_void,
    *mut c_void,
    c_int,
    Handle,
    Handle,
    Handle,
    *mut Request,
) -> c_int;
pub(super) type Barrier = unsafe extern "C" fn(Handle, *mut Request) -> c_int;
pub(super) type Send =
    unsafe extern "C" fn(*const c_void, c_int, Handle, c_int, c_int, Handle, *mut Request) -> c_int;
pub(super) type Probe =
    unsafe extern "C" fn(c_int, c_int, Handle, *mut c_int, *mut c_void) -> c_int;
pub(super) type Receive =
    unsafe extern "C" fn(*mut c_void, c_int, Handle, c_int, c_int, Handle, *mut c_void) -> c_int;
pub(super) type Free = unsafe extern "C" fn(*mut Request) -> c_int;
pub(super) type Test = unsafe extern "C" fn(*mut Request, *mut c_int, *mut c_void) -> c_int;
pub(super) type Duplicate = unsafe extern "C" fn(Handle, *mut Handle) -> c_int;
pub(super) type Abort = unsafe extern "C" fn(Handle, c_int) -> c_int;
pub(super) type Finalize = unsafe extern "C" fn() -> c_int;
type AbiVersion = unsafe extern "C" fn(*mut c_int, *mut c_int) -> c_int;

/// A library whose functions have been found. It stays open for the rest of the process: MPI has threads and
/// handlers of its own, which must not lose their code.
pub(super) struct Library {
    pub path: PathBuf,
    pub abi: Abi,
    pub init_thread: InitThread,
    pub comm_rank: Ask,
    pub comm_size: Ask,
    pub comm_dup: Duplicate,
    pub library_version: Text,
    pub error_string: ErrorText,
    pub broadcast: Broadcast,
    pub all_to_all: AllToAll,
    pub all_gather: AllGather,
    pub all_reduce: AllReduce,
    pub barrier: Barrier,
    pub send: Send,
    pub probe: Probe,
    pub receive: Receive,
    pub test: Test,
    pub request_free: Free,
    pub abort: Abort,
    pub finalize: Finalize,
}

impl Library {
    /// Opens the first of `names` that the system finds.
    ///
    /// # Errors
    /// None can be opened, or what opens is no MPI library.
    pub(super) fn open(names: &[String]) -> Result<Library, CollectiveError> {
        let mut looked_for = Vec::new();
        for name in names {
            match open_system(name) {
                Ok(system) => return Library::of(system, PathBuf::from(name)),
                Err(reason) => looked_for.push(format!("{name} ({reason})")),
            }
        }
        Err(CollectiveError::NoLibrary {
            looked_for,
            hint: "Install the MPI whose launcher you use, add its folder to LD_LIBRARY_PATH, or name its \
                   library with BNINCEPTION_MPI_LIB"
                .to_owned(),
        })
    }

    fn of(system: System, path: PathBuf) -> Result<Library, CollectiveError> {
        let system: &'static System = Box::leak(Box::new(system));
        let missing = |symbol| CollectiveError::NoSymbol { path: path.clone(), symbol };
        macro_rules! function {
            ($name:literal, $kind:ty) => {
                // SAFETY: every MPI library has this function with these arguments (MPI 3.1 and later).
                *unsafe { system.get::<$kind>($name.as_bytes()) }.map_err(|_| missing($name))?
            };
        }
        let mut library = Library {
            abi: abi_of(system),
            init_thread: function!("MPI_Init_thread", InitThread),
            comm_rank: function!("MPI_Comm_rank", Ask),
            comm_size: function!("MPI_Comm_size", Ask),
            comm_dup: function!("MPI_Comm_dup", Duplicate),
            library_version: function!("MPI_Get_library_version", Text),
            error_string: function!("MPI_Error_string", ErrorText),
            broadcast: function!("MPI_Ibcast", Broadcast),
            all_to_all: function!("MPI_Ialltoallv", AllToAll),
            all_gather: function!("MPI_Iallgatherv", AllGather),
            all_reduce: function!("MPI_Iallreduce", AllReduce),
            barrier: function!("MPI_Ibarrier", Barrier),
            send: function!("MPI_Isend", Send),
            probe: function!("MPI_Iprobe", Probe),
            receive: function!("MPI_Recv", Receive),
            test: function!("MPI_Test", Test),
            request_free: function!("MPI_Request_free", Free),
            abort: function!("MPI_Abort", Abort),
            finalize: function!("MPI_Finalize", Finalize),
            path: path.clone(),
        };
        // Where the system found it, which a name alone does not tell.
        let maps = fs::read_to_string("/proc/self/maps").unwrap_or_default();
        if let Some(file) = file_at(&maps, library.library_version as *const () as usize) {
            library.path = file;
        }
        Ok(library)
    }

    /// The first line of what the library says of itself, as far as it is a name and a number: Open MPI also
    /// says who packed it.
    pub(super) fn version(&self) -> String {
        let text = self.text(|bytes, len| {
            // SAFETY: the buffer has the room that the standard asks for.
            unsafe { (self.library_version)(bytes, len) }
        });
        let words: Vec<&str> =
            text.split(',').next().unwrap_or_default().split_whitespace().collect();
        words.join(" ")
    }

    /// The library's words for an error code.
    pub(super) fn reason(&self, code: c_int) -> String {
        self.text(|bytes, len| {
            // SAFETY: as above.
            unsafe { (self.error_string)(code, bytes, len) }
        })
    }

    fn text(&self, ask: impl Fn(*mut c_char, *mut c_int) -> c_int) -> String {
        let mut bytes = vec![0_u8; TEXT_BYTES];
        let mut len: c_int = 0;
        ask(bytes.as_mut_ptr().cast(), &raw mut len);
        bytes.truncate(usize::try_from(len).unwrap_or(0));
        let text = String::from_utf8_lossy(&bytes);
        let line = text.lines().next().unwrap_or_default();
        line.trim_end_matches('\0').trim().chars().take(100).collect()
    }
}

/// Opens a library as the system finds it, or gives the system's reason.
fn open_system(name: &str) -> Result<System, String> {
    // SAFETY: the code that runs when an MPI library is opened asks nothing of its caller. Its symbols are
    // global because Open MPI's own plugins look for them there.
    unsafe { System::open(Some(name), RTLD_NOW | RTLD_GLOBAL) }.map_err(|error| {
        // The system's words stand behind the library's.
        let text = std::error::Error::source(&error).unwrap_or(&error).to_string();
        text.strip_prefix(&format!("{name}: ")).unwrap_or(&text).to_owned()
    })
}

impl FoundLibrary {
    /// Opens a library to ask what it is. MPI is not started: its version may be asked for before. What the library
    /// does to the process when it is opened stays, so that each is best opened in a process of its own.
    ///
    /// # Errors
    /// Why it cannot be opened, or is no MPI library.
    pub fn open(name: &str) -> Result<FoundLibrary, String> {
        let library = Library::of(open_system(name)?, PathBuf::from(name))
            .map_err(|error| error.to_string())?;
        let (version, interface) = (library.version(), library.abi.name);
        Ok(FoundLibrary { path: library.path, version, interface })
    }
}

/// The file that lies at an address, by the lines of `/proc/PID/maps`: first and last address, four fields that do
/// not matter here, path (<https://man7.org/linux/man-pages/man5/proc_pid_maps.5.html>).
fn file_at(maps: &str, address: usize) -> Option<PathBuf> {
    maps.lines().find_map(|line| {
        let (range, rest) = line.split_once(' ')?;
        let (start, end) = range.split_once('-')?;
        let number = |text| usize::from_str_radix(text, 16).ok();
        let is_it = (number(start)?..number(end)?).contains(&address);
        let path = &rest[rest.find('/')?..];
        is_it.then(|| PathBuf::from(path))
    })
}

/// Which interface a library has: the standard one says so, and Open MPI has variables that no other has.
fn abi_of(system: &System) -> Abi {
    // SAFETY: MPI 5.0 defines the function with these arguments.
    if let Ok(version) = unsafe { system.get::<AbiVersion>(b"MPI_Abi_get_version") } {
        let (mut major, mut minor): (c_int, c_int) = (-1, -1);
        // SAFETY: it may be called before MPI_Init_thread, and writes two ints.
        unsafe { version(&raw mut major, &raw mut minor) };
        if major > 0 {
            return Abi::STANDARD;
        }
    }
    let address = |name: &str| {
        // SAFETY: only the address is taken, nothing is read.
        let symbol = unsafe { system.get::<*const c_void>(name.as_bytes()) };
        symbol.ok().map(|symbol| symbol.into_raw() as Handle)
    };
    Abi::open_mpi(address).unwrap_or(Abi::MPICH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_told_by_an_address_in_it() {
        let maps = "00400000-00452000 r-xp 00000000 08:02 173521 /usr/bin/dbus\n\
                    00e03000-00e24000 rw-p 00000000 00:00 0 [heap]\n\
                    7f00-7fff r-xp 00000000 08:02 9   /opt/my mpi/libmpi.so.40\n";
        let file = |address| file_at(maps, address);
        assert_eq!(file(0x40_1000), Some(PathBuf::from("/usr/bin/dbus")));
        assert_eq!(file(0x7f00), Some(PathBuf::from("/opt/my mpi/libmpi.so.40")));
        assert_eq!((file(0xe0_3000), file(0x7fff)), (None, None));
    }

    #[test]
    fn what_is_no_library_says_why() {
        let error = FoundLibrary::open("libno-such-mpi.so.9").unwrap_err();
        assert!(error.contains("No such file"), "{error}");
        let error = FoundLibrary::open("libc.so.6").unwrap_err();
        assert!(error.contains("is no MPI library"), "{error}");
    }
}
