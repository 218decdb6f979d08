//! Listing folders, several at a time, and remembering what was in them.
//!
//! Nothing but folder listings is remembered, each with what the system tells of the folder
//! (`FolderState`), so that a scan with a cache goes through the same steps as one without and
//! finds the same. A folder changes its state when an entry is added, removed or renamed, which is
//! all that a listing shows. Not remembered are:
//!
//! - folders of file systems that are not known to show every change: network file systems, FUSE;
//! - folders with links, whose targets change without a trace in the folder;
//! - folders that changed shortly before they were listed: another change in the same tick of the
//!   file system's clock would not show;
//! - folders with names that are not UTF-8.
//!
//! Of a folder is also remembered for which of its files, by which rules, headers were found to be
//! sound. A file that is written over in place leaves no trace in its folder; it is met when it is
//! decoded.

use std::borrow::Borrow;
use std::collections::{BTreeSet, HashMap};
use std::ffi::OsStr;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, UNIX_EPOCH};

use crate::decode_options::DecodeOptions;
use crate::error::DataError;
use crate::fields::{Reader, put_text};
use crate::folder_state::{FileSystems, FolderState, NUMBERS};
use crate::guard::lock;
use crate::sample::Sample;

/// Entries from which on a scan leaves a cache behind without being asked: fewer are listed again
/// in less time than a person notices.
const WORTH_CACHING: usize = 20_000;

/// First bytes of a cache file; the number is the version of the format.
const MAGIC: &[u8; 24] = b"bninception listings v2\n";

/// How folders are listed.
#[derive(Default)]
pub struct Lister<'a> {
    cache_dir: Option<PathBuf>,
    workers: usize,
    stop: Option<&'a (dyn Fn() -> bool + Sync)>,
    known: HashMap<PathBuf, Listing>,
    /// Folders whose listing was taken from `known`.
    seen: Mutex<BTreeSet<PathBuf>>,
    /// What was listed; without a listing where it may not be remembered.
    found: Mutex<Vec<(PathBuf, Option<Listing>)>>,
    file_systems: FileSystems,
    listed: AtomicUsize,
    marked: bool,
}

/// What a scan read and reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Folders that were listed.
    pub listed: usize,
    /// Folders whose listing came from the cache.
    pub reused: usize,
}

/// What a directory entry is, after following links.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EntryKind {
    Folder,
    File,
    /// A link whose target is missing.
    Broken,
    /// A socket, a device and the like.
    Other,
}

/// An entry of a folder.
pub(crate) struct Entry {
    pub(crate) path: PathBuf,
    pub(crate) kind: EntryKind,
}

/// A folder's entries that are not hidden, by name.
struct Listing {
    state: FolderState,
    /// A digest of the files whose headers were found to be sound; 0 for none.
    sound: u64,
    /// One byte for the kind, the name, and a NUL, for each entry.
    entries: String,
}

impl<'a> Lister<'a> {
    /// Lists with `workers` threads, 0 for one on each core, and without a cache.
    pub fn new(workers: usize) -> Lister<'a> {
        Lister { workers, ..Lister::default() }
    }

    /// Keeps cache files in `cache_dir`; none keeps nothing.
    pub fn with_cache(self, cache_dir: Option<PathBuf>) -> Lister<'a> {
        Lister { cache_dir, ..self }
    }

    /// Looks at `stop` before each folder; `true` ends the scan with [`DataError::Stopped`].
    pub fn with_stop(self, stop: &'a (dyn Fn() -> bool + Sync)) -> Lister<'a> {
        Lister { stop: Some(stop), ..self }
    }

    /// The folder for caches: `BNINCEPTION_CACHE`, else `bninception` in `XDG_CACHE_HOME` or
    /// `~/.cache`; none where the environment names none of them.
    pub fn default_cache_dir() -> Option<PathBuf> {
        let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty());
        let user = || {
            let home = || variable("HOME").map(|home| Path::new(&home).join(".cache"));
            Some(variable("XDG_CACHE_HOME").map(PathBuf::from).or_else(home)?.join("bninception"))
        };
        variable("BNINCEPTION_CACHE").map(PathBuf::from).or_else(user)
    }

    /// The cache file for the tree at `dir`, which must exist.
    pub fn cache_file(&self, dir: &Path) -> Option<PathBuf> {
        let canonical = fs::canonicalize(dir).ok()?;
        let key = fnv(canonical.as_os_str().as_encoded_bytes());
        Some(self.cache_dir.as_ref()?.join("listings").join(format!("{key:016x}.cache")))
    }

    /// Takes over what the cache knows of the tree at `dir`. A cache that is missing or damaged is
    /// none.
    pub fn load(&mut self, dir: &Path) {
        let bytes = self.cache_file(dir).and_then(|file| fs::read(file).ok());
        self.known = bytes.and_then(|bytes| parse(&bytes)).unwrap_or_default();
    }

    /// The folders of which the headers of these `samples` were found to be sound with the same
    /// `options`, and that have not changed since.
    pub(crate) fn sound_folders<'s>(
        &self,
        samples: &'s [impl Borrow<Sample>],
        options: &DecodeOptions,
    ) -> BTreeSet<&'s Path> {
        let seen = lock(&self.seen);
        let is_known = |dir: &Path| seen.contains(dir) && self.known.contains_key(dir);
        let is_sound = |(dir, digest): &(&Path, u64)| {
            is_known(dir) && self.known.get(*dir).is_some_and(|known| known.sound == *digest)
        };
        match seen.is_empty() {
            true => BTreeSet::new(),
            false => {
                digests(samples, options).into_iter().filter(is_sound).map(|(dir, _)| dir).collect()
            }
        }
    }

    /// Notes that the headers of `samples` are sound with `options`, for [`Lister::save`].
    pub fn mark_sound(&mut self, samples: &[impl Borrow<Sample>], options: &DecodeOptions) {
        if self.cache_dir.is_none() {
            return;
        }
        let digests: HashMap<&Path, u64> = digests(samples, options).into_iter().collect();
        let seen = self.seen.get_mut().unwrap_or_else(PoisonError::into_inner);
        for dir in &*seen {
            if let Some(listing) = self.known.get_mut(dir)
                && let Some(&digest) = digests.get(dir.as_path())
                && listing.sound != digest
            {
                listing.sound = digest;
                self.marked = true;
            }
        }
        let found = self.found.get_mut().unwrap_or_else(PoisonError::into_inner);
        for (dir, listing) in found {
            if let (Some(listing), Some(&digest)) = (listing, digests.get(dir.as_path())) {
                listing.sound = digest;
            }
        }
    }

    /// Whether there were folders whose state is not believed, so that they are listed each time:
    /// those of network file systems and the like.
    pub fn has_disbelieved(&self) -> bool {
        self.file_systems.has_refused()
    }

    /// Writes the cache for the tree at `dir` if the scan found anything new and the tree is large,
    /// or if `always`. Says where, or why not.
    ///
    /// # Errors
    /// The cache cannot be written; whoever does not ask for it may ignore that.
    pub fn save(&mut self, dir: &Path, always: bool) -> Result<Option<PathBuf>, DataError> {
        let found = std::mem::take(self.found.get_mut().unwrap_or_else(PoisonError::into_inner));
        if found.is_empty() && !self.marked && !always {
            return Ok(None);
        }
        for (dir, listing) in found {
            match listing {
                Some(listing) => self.known.insert(dir, listing),
                None => self.known.remove(&dir),
            };
        }
        let entries: usize = self.known.values().map(|listing| listing.entries().count()).sum();
        let Some(file) = self.cache_file(dir).filter(|_| always || entries >= WORTH_CACHING) else {
            return Ok(None);
        };
        let folder = file.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(folder).map_err(DataError::io("create", folder))?;
        // Of two processes that write at once one wins; each writes its own file first.
        let partial = file.with_extension(format!("{}.partial", std::process::id()));
        let written = fs::File::create(&partial)
            .and_then(|mut to| to.write_all(&serialise(&self.known)))
            .and_then(|()| fs::rename(&partial, &file));
        if let Err(error) = written {
            let _ = fs::remove_file(&partial); // it may not exist; the error says what counts
            return Err(DataError::io("write", &file)(error));
        }
        Ok(Some(file))
    }

    /// What was listed and reused so far.
    pub fn counts(&self) -> Listed {
        Listed { listed: self.listed.load(Ordering::Relaxed), reused: lock(&self.seen).len() }
    }

    /// [`DataError::Stopped`] once the lister is asked to stop.
    pub(crate) fn check_stop(&self) -> Result<(), DataError> {
        match self.stop {
            Some(stop) if stop() => Err(DataError::Stopped),
            _ => Ok(()),
        }
    }

    /// The entries of `dir` that are not hidden, sorted by name.
    pub(crate) fn list(&self, dir: &Path) -> Result<Vec<Entry>, DataError> {
        self.check_stop()?;
        if self.cache_dir.is_none() {
            self.listed.fetch_add(1, Ordering::Relaxed);
            return Ok(read(dir)?.0);
        }
        // The state is taken before the listing: a change in between makes the listing look old.
        let state = self.file_systems.state(dir);
        if let Some(known) = self.known.get(dir)
            && Some(known.state) == state
        {
            lock(&self.seen).insert(dir.to_path_buf());
            let entry = |(kind, name): (EntryKind, &str)| Entry { path: dir.join(name), kind };
            return Ok(known.entries().map(entry).collect());
        }
        let (entries, has_links) = read(dir)?;
        self.listed.fetch_add(1, Ordering::Relaxed);
        let listing = state
            .filter(|state| !has_links && state.is_settled())
            .and_then(|state| Listing::new(state, &entries));
        if listing.is_some() || self.known.contains_key(dir) {
            lock(&self.found).push((dir.to_path_buf(), listing));
        }
        Ok(entries)
    }

    /// `visit` of every folder, in the order of `folders`, several at a time.
    pub(crate) fn each<T: Send, F: Sync>(
        &self,
        folders: &[F],
        visit: impl Fn(&F) -> Result<T, DataError> + Sync,
    ) -> Result<Vec<T>, DataError> {
        let cores = || thread::available_parallelism().map_or(1, usize::from);
        let workers = if self.workers == 0 { cores() } else { self.workers }.min(folders.len());
        let next = AtomicUsize::new(0);
        let work = || {
            let mut done = Vec::new();
            while let Some((index, folder)) = {
                let index = next.fetch_add(1, Ordering::Relaxed);
                folders.get(index).map(|folder| (index, folder))
            } {
                let visited = visit(folder);
                let failed = visited.is_err();
                done.push((index, visited));
                if failed {
                    break; // the others end with the folder in hand
                }
            }
            done
        };
        let mut done: Vec<(usize, Result<T, DataError>)> = if workers <= 1 {
            work()
        } else {
            thread::scope(|scope| {
                let threads: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
                let join = |thread: thread::ScopedJoinHandle<'_, _>| match thread.join() {
                    Ok(done) => done,
                    Err(panic) => std::panic::resume_unwind(panic),
                };
                threads.into_iter().flat_map(join).collect()
            })
        };
        // Of several errors the first in order is reported, whichever thread met its own first: a
        // folder before it was taken earlier and is therefore among the results.
        done.sort_unstable_by_key(|(index, _)| *index);
        done.into_iter().map(|(_, visited)| visited).collect()
    }
}

/// `items` in pieces of `size`, each with the position of its first, for [`Lister::each`].
pub(crate) fn pieces<T>(items: &[T], size: usize) -> Vec<(usize, &[T])> {
    items.chunks(size).enumerate().map(|(i, piece)| (i * size, piece)).collect()
}

impl Listing {
    /// `None` if a name cannot be remembered.
    fn new(state: FolderState, entries: &[Entry]) -> Option<Listing> {
        let mut text = String::new();
        for Entry { path, kind } in entries {
            text.push(match kind {
                EntryKind::Folder => 'd',
                EntryKind::File => 'f',
                EntryKind::Broken => return None,
                EntryKind::Other => 'o',
            });
            text.push_str(path.file_name()?.to_str()?);
            text.push('\0');
        }
        Some(Listing { state, sound: 0, entries: text })
    }

    fn entries(&self) -> impl Iterator<Item = (EntryKind, &str)> {
        self.entries.split_terminator('\0').filter_map(|entry| {
            let kind = match entry.as_bytes().first()? {
                b'd' => EntryKind::Folder,
                b'f' => EntryKind::File,
                _ => EntryKind::Other,
            };
            Some((kind, &entry[1..]))
        })
    }
}

/// Lists `dir`, and says whether there are links in it.
fn read(dir: &Path) -> Result<(Vec<Entry>, bool), DataError> {
    let mut named = Vec::new();
    let mut has_links = false;
    for entry in fs::read_dir(dir).map_err(DataError::io("list", dir))? {
        let entry = entry.map_err(DataError::io("list", dir))?;
        let name = entry.file_name();
        if name.as_encoded_bytes().starts_with(b".") {
            continue;
        }
        // The type comes with the listing; only links cost a further look at the file.
        let mut kind = entry.file_type().map_err(DataError::io("inspect", &dir.join(&name)))?;
        if kind.is_symlink() {
            has_links = true;
            match fs::metadata(dir.join(&name)) {
                Ok(target) => kind = target.file_type(),
                Err(_) => {
                    named.push((name, EntryKind::Broken));
                    continue;
                }
            }
        }
        let kind = match kind {
            kind if kind.is_dir() => EntryKind::Folder,
            kind if kind.is_file() => EntryKind::File,
            _ => EntryKind::Other,
        };
        named.push((name, kind));
    }
    named.sort_unstable_by(|a, b| a.0.cmp(&b.0));
    let entry = |(name, kind)| Entry { path: dir.join(name), kind };
    Ok((named.into_iter().map(entry).collect(), has_links))
}

/// The time of the last change of a file since 1970; none where the system does not tell.
pub(crate) fn changed(metadata: &fs::Metadata) -> Option<Duration> {
    #[cfg(unix)] // where the modification time can be set back, and this one cannot
    {
        use std::os::unix::fs::MetadataExt;
        let (seconds, nanos) = (metadata.ctime().try_into(), metadata.ctime_nsec().try_into());
        if let (Ok(seconds), Ok(nanos)) = (seconds, nanos) {
            return Duration::from_secs(seconds).checked_add(Duration::from_nanos(nanos));
        }
    }
    metadata.modified().ok()?.duration_since(UNIX_EPOCH).ok()
}

/// FNV-1a (<http://www.isthe.com/chongo/tech/comp/fnv/>): names a file; the paths inside tell apart
/// what it may confuse.
fn fnv(bytes: &[u8]) -> u64 {
    fnv_from(0xcbf2_9ce4_8422_2325, bytes)
}

/// [`fnv`] of what `hash` is of, and `bytes` behind it.
fn fnv_from(hash: u64, bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(hash, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3))
}

/// For each folder of `samples` a number that is another one for other files, another order, or other
/// rules for their headers; never 0.
fn digests<'s>(
    samples: &'s [impl Borrow<Sample>],
    options: &DecodeOptions,
) -> Vec<(&'s Path, u64)> {
    let empty = fnv(&options.max_pixels.to_le_bytes());
    let mut places: HashMap<&OsStr, usize> = HashMap::new();
    let mut digests: Vec<(&Path, u64)> = Vec::new();
    // Samples of a folder stand together, but for those of folders inside it.
    let mut last: Option<(&OsStr, usize)> = None;
    for sample in samples {
        let sample = sample.borrow();
        let parent = sample.path.parent().unwrap_or(Path::new(""));
        let place = match last {
            Some((folder, place)) if folder == parent.as_os_str() => place,
            _ => *places.entry(parent.as_os_str()).or_insert_with(|| {
                digests.push((parent, empty));
                digests.len() - 1
            }),
        };
        last = Some((parent.as_os_str(), place));
        let name = sample.path.file_name().unwrap_or_default().as_encoded_bytes();
        let digest = &mut digests[place].1;
        *digest = fnv_from(fnv_from(*digest, name), &[0]);
    }
    digests.iter_mut().for_each(|(_, digest)| *digest = (*digest).max(1));
    digests
}

/// Magic, then for each folder the numbers of its state and the digest of sound files (8 bytes each),
/// and path and entries, each with its length (4); last the CRC-32C of all before. Little endian.
/// Paths that are not UTF-8 are left out.
fn serialise(known: &HashMap<PathBuf, Listing>) -> Vec<u8> {
    let mut folders: Vec<(&str, &Listing)> =
        known.iter().filter_map(|(path, listing)| Some((path.to_str()?, listing))).collect();
    folders.sort_unstable_by_key(|(path, _)| *path);
    let mut bytes = MAGIC.to_vec();
    for (path, listing) in folders {
        for number in listing.state.numbers().into_iter().chain([listing.sound]) {
            bytes.extend(number.to_le_bytes());
        }
        put_text(&mut bytes, path);
        put_text(&mut bytes, &listing.entries);
    }
    bytes.extend(crc32c::crc32c(&bytes).to_le_bytes());
    bytes
}

/// `None` if the bytes are not what [`serialise`] wrote.
fn parse(bytes: &[u8]) -> Option<HashMap<PathBuf, Listing>> {
    let (content, checksum) = bytes.split_last_chunk::<4>()?;
    if crc32c::crc32c(content) != u32::from_le_bytes(*checksum) {
        return None;
    }
    let mut rest = Reader(content.strip_prefix(MAGIC)?);
    let mut known = HashMap::new();
    while !rest.0.is_empty() {
        let mut numbers = [0; NUMBERS];
        for number in &mut numbers {
            *number = rest.u64()?;
        }
        let (state, sound) = (FolderState::from_numbers(numbers), rest.u64()?);
        let (path, entries) = (PathBuf::from(rest.text()?), rest.text()?);
        known.insert(path, Listing { state, sound, entries });
    }
    Some(known)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known() -> HashMap<PathBuf, Listing> {
        let entry = |name: &str, kind| Entry { path: Path::new("/a").join(name), kind };
        let entries = [entry("x y.jpg", EntryKind::File), entry("ü", EntryKind::Folder)];
        let state = FolderState::from_numbers([1, 2, 3, 4, 5, 6, 7, 8]);
        let listing = Listing { sound: 9, ..Listing::new(state, &entries).unwrap() };
        HashMap::from([(PathBuf::from("/a"), listing)])
    }

    #[test]
    fn caches_survive_the_disk_and_damage_is_noticed() {
        let bytes = serialise(&known());
        let back = parse(&bytes).unwrap();
        let listing = &back[Path::new("/a")];
        assert_eq!((listing.state.numbers()[7], listing.sound), (8, 9));
        let entries: Vec<_> = listing.entries().collect();
        assert_eq!(entries, [(EntryKind::File, "x y.jpg"), (EntryKind::Folder, "ü")]);
        for cut in 0..bytes.len() {
            assert!(parse(&bytes[..cut]).is_none(), "cut at {cut}");
        }
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            assert!(parse(&damaged).is_none(), "damaged at {at}");
        }
    }

    #[test]
    fn results_come_in_order_and_the_first_error_wins() {
        let lister = Lister::new(4);
        let numbers: Vec<usize> = (0..100).collect();
        let squares = lister.each(&numbers, |n| Ok(n * n)).unwrap();
        assert!(squares.iter().enumerate().all(|(n, square)| n * n == *square));
        for _ in 0..50 {
            let error = lister.each(&numbers, |n| match n {
                10.. => Err(DataError::setting("n", n, "less")),
                _ => Ok(()),
            });
            assert!(error.unwrap_err().to_string().starts_with("n = 10"));
        }
    }
}
