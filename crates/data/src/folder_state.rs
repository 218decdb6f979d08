//! What the system tells of a folder that changes when an entry comes, goes or is renamed.
//!
//! The modification time alone does not do: tar and `rsync -a` set it back. The time of the last
//! change of the inode (ctime, `inode(7)`) can be set by nobody, if the file system keeps one. So
//! only file systems are believed that are known to keep it, and only times that they can have made:
//! an image of a disk may give one time to all of its folders.

#[cfg(target_os = "linux")]
pub(crate) use linux::FolderState;
#[cfg(not(target_os = "linux"))]
pub(crate) use other::FolderState;

use std::collections::HashMap;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::guard::lock;

/// Numbers of a state in a cache file.
pub(crate) const NUMBERS: usize = 8;

/// Which file systems are believed, by the device number of their folders.
#[derive(Default)]
pub(crate) struct FileSystems {
    believed: Mutex<HashMap<u64, bool>>,
    has_refused: AtomicBool,
}

impl FileSystems {
    /// The state of the folder at `dir`; none where it would not show every change.
    pub(crate) fn state(&self, dir: &Path) -> Option<FolderState> {
        let state = FolderState::of(dir)?;
        let is_believed = *lock(&self.believed)
            .entry(state.device())
            .or_insert_with(|| FolderState::is_of_a_believed_file_system(dir));
        if !is_believed || !state.is_believable() {
            self.has_refused.store(true, Ordering::Relaxed);
            return None;
        }
        Some(state)
    }

    /// Whether there was a folder without a state that is believed.
    pub(crate) fn has_refused(&self) -> bool {
        self.has_refused.load(Ordering::Relaxed)
    }
}

#[cfg(target_os = "linux")]
mod linux {
    use std::fs;
    use std::os::unix::fs::MetadataExt;
    use std::path::Path;
    use std::time::{Duration, SystemTime, UNIX_EPOCH};

    use super::NUMBERS;

    /// Age at which a change time is believed: another change in the same tick of the file system's
    /// clock would not show (git's index calls such entries racy). The ticks of the believed file
    /// systems are of 10 ms or less; the clocks of two processors may differ by some more.
    const SETTLED: Duration = Duration::from_secs(2);

    /// Local file systems that keep change times, by their numbers in `statfs(2)`: ext2 to ext4,
    /// XFS, Btrfs, tmpfs, overlayfs, F2FS, ZFS, bcachefs, JFS. Not among them are NFS, SMB, 9p, Ceph,
    /// Lustre and whatever else may change on another machine, FUSE (s3fs and goofys show one time
    /// always), FAT (no change times), and images that are mounted (SquashFS, EROFS, ISO 9660).
    const BELIEVED: [u64; 9] = [
        0xef53,
        0x5846_5342,
        0x9123_683e,
        0x0102_1994,
        0x794c_7630,
        0xf2f5_2010,
        0x2fc1_2fc1,
        0xca45_1a4e,
        0x3153_464a,
    ];

    /// What the system tells of a folder.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) struct FolderState {
        device: u64,
        inode: u64,
        links: u64,
        bytes: u64,
        /// Seconds since 1970 and nanoseconds.
        modified: (i64, i64),
        changed: (i64, i64),
    }

    impl FolderState {
        pub(crate) fn of(dir: &Path) -> Option<FolderState> {
            let metadata = fs::metadata(dir).ok()?;
            Some(FolderState {
                device: metadata.dev(),
                inode: metadata.ino(),
                links: metadata.nlink(),
                bytes: metadata.size(),
                modified: (metadata.mtime(), metadata.mtime_nsec()),
                changed: (metadata.ctime(), metadata.ctime_nsec()),
            })
        }

        pub(super) fn is_of_a_believed_file_system(dir: &Path) -> bool {
            rustix::fs::statfs(dir).is_ok_and(|system| is_believed(system.f_type as u64))
        }

        pub(crate) fn device(&self) -> u64 {
            self.device
        }

        /// Whether the change time comes from a clock. One of whole seconds is that of an image, of a
        /// file system that has none, or of one whose ticks are too long.
        pub(super) fn is_believable(&self) -> bool {
            let (seconds, nanoseconds) = self.changed;
            seconds > 0 && nanoseconds != 0
        }

        /// Whether any later change would show.
        pub(crate) fn is_settled(&self) -> bool {
            let (seconds, nanoseconds) = self.changed;
            let (Ok(seconds), Ok(nanoseconds)) = (seconds.try_into(), nanoseconds.try_into())
            else {
                return false;
            };
            let changed =
                Duration::from_secs(seconds).checked_add(Duration::from_nanos(nanoseconds));
            let now = SystemTime::now().duration_since(UNIX_EPOCH).ok();
            let age = now.zip(changed).and_then(|(now, changed)| now.checked_sub(changed));
            age.is_some_and(|age| age > SETTLED)
        }

        pub(crate) fn numbers(&self) -> [u64; NUMBERS] {
            let FolderState { device, inode, links, bytes, modified, changed } = *self;
            let times = [modified.0, modified.1, changed.0, changed.1].map(i64::cast_unsigned);
            let [a, b, c, d] = times;
            [device, inode, links, bytes, a, b, c, d]
        }

        pub(crate) fn from_numbers(numbers: [u64; NUMBERS]) -> FolderState {
            let [device, inode, links, bytes, times @ ..] = numbers;
            let [a, b, c, d] = times.map(u64::cast_signed);
            FolderState { device, inode, links, bytes, modified: (a, b), changed: (c, d) }
        }
    }

    fn is_believed(file_system: u64) -> bool {
        BELIEVED.contains(&file_system)
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        fn state(changed: (i64, i64)) -> FolderState {
            FolderState { device: 1, inode: 2, links: 3, bytes: 4, modified: (5, 6), changed }
        }

        #[test]
        fn only_local_file_systems_are_believed() {
            // tmpfs and ext4, beside NFS, SMB 2, CIFS, FUSE, 9p, Ceph, FAT, SquashFS and proc
            // (linux/magic.h).
            assert!(is_believed(0x0102_1994) && is_believed(0xef53));
            for magic in [
                0x6969,
                0xfe53_4d42,
                0xff53_4d42,
                0x6573_5546,
                0x0102_1997,
                0x00c3_6400,
                0x4d44,
                0x7371_7368,
                0x9fa0,
                0,
            ] {
                assert!(!is_believed(magic), "{magic:x}");
            }
            assert!(!FolderState::is_of_a_believed_file_system(Path::new("/proc")));
        }

        #[test]
        fn times_that_no_clock_made_are_not_believed() {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as i64;
            for (changed, is_believable, is_settled) in [
                ((now - 3600, 7), true, true),
                ((now - 1, 7), true, false),
                ((now + 3600, 7), true, false),
                ((now - 3600, 0), false, true),
                ((0, 0), false, true),
                ((0, 7), false, true),
                ((-1, 7), false, false),
                ((i64::MAX, i64::MAX), true, false),
            ] {
                let state = state(changed);
                assert_eq!(state.is_believable(), is_believable, "{changed:?}");
                assert_eq!(state.is_settled(), is_settled, "{changed:?}");
                assert_eq!(FolderState::from_numbers(state.numbers()), state);
            }
        }
    }
}

/// Elsewhere nothing is believed: what is told of a folder differs too much.
#[cfg(not(target_os = "linux"))]
mod other {
    use std::path::Path;

    use super::NUMBERS;

    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) struct FolderState([u64; NUMBERS]);

    impl FolderState {
        pub(crate) fn of(_dir: &Path) -> Option<FolderState> {
            None
        }

        pub(super) fn is_of_a_believed_file_system(_dir: &Path) -> bool {
            false
        }

        pub(crate) fn device(&self) -> u64 {
            0
        }

        pub(super) fn is_believable(&self) -> bool {
            false
        }

        pub(crate) fn is_settled(&self) -> bool {
            false
        }

        pub(crate) fn numbers(&self) -> [u64; NUMBERS] {
            self.0
        }

        pub(crate) fn from_numbers(numbers: [u64; NUMBERS]) -> FolderState {
            FolderState(numbers)
        }
    }
}
