//! Files of `torch.save`: a pickle that describes tensors, and the numbers of their storages. Since PyTorch
//! 1.6 both lie in a zip archive; before, they followed one another (`torch/serialization.py`,
//! <https://github.com/pytorch/pytorch/blob/main/torch/serialization.py>, `_legacy_load`).
//!
//! candle reads the pickle. It builds a tree of what the pickle names and calls nothing. What of that tree is
//! a tensor is decided here, because the two formats differ and a tree from outside may have any form.

use std::collections::{BTreeMap, HashMap};
use std::io::{Cursor, Read};
use std::thread;

use candle_core::pickle::{Object, Stack};
use zip::{CompressionMethod, ZipArchive};

use super::tensor::{ForeignTensor, Number};

/// The first bytes of a zip archive.
const ZIP: &[u8] = b"PK\x03\x04";

/// The first pickle of a legacy file: `MAGIC_NUMBER`, 0x1950a86a20f9469cfc6c, under protocol 2.
const LEGACY: &[u8] = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19\x2e";

/// Largest pickle, in bytes. That of this network has 60 kB.
const MAX_PICKLE_BYTES: usize = 1 << 19;

/// Most objects that a pickle may repeat by reference; each is copied. That of this network repeats some
/// thousands. A text counts as one for each [`TEXT_OF_OBJECT`] bytes.
const MAX_REPEATED: usize = 1 << 20;
const TEXT_OF_OBJECT: usize = 16;

/// Stack of the thread that reads a pickle, of which only what is used takes memory: an object may lie as
/// deep in others as the pickle has bytes.
const STACK_BYTES: usize = 1 << 30;

/// Keys under which training programs put the weights beside other things.
const NESTED: [&str; 4] = ["state_dict", "model_state_dict", "model", "net"];

/// Whether a file with these first bytes is one of `torch.save`.
pub(super) fn is_torch(bytes: &[u8]) -> bool {
    bytes.starts_with(ZIP) || bytes.starts_with(LEGACY)
}

/// The tensors of a file that [`is_torch`] knows.
///
/// # Errors
/// What is wrong with it.
pub(super) fn parse(bytes: &[u8]) -> Result<BTreeMap<String, ForeignTensor>, String> {
    // The tree is dropped as deeply as it is nested, so all that holds it runs on a thread with room.
    thread::scope(|scope| {
        let reader = thread::Builder::new().stack_size(STACK_BYTES).spawn_scoped(scope, || {
            match bytes.strip_prefix(LEGACY) {
                Some(rest) => of_legacy(rest),
                None => of_zip(bytes),
            }
        });
        let reader = reader.map_err(|error| format!("it cannot be read: {error}"))?;
        reader.join().unwrap_or_else(|_| Err("its pickle cannot be read".to_owned()))
    })
}

/// A tensor that a pickle describes.
struct Described {
    name: String,
    shape: Vec<usize>,
    /// Numbers from the beginning of the storage.
    offset: usize,
    /// The key of its storage.
    key: String,
    number: Number,
}

fn of_zip(bytes: &[u8]) -> Result<BTreeMap<String, ForeignTensor>, String> {
    let broken = |error| format!("it is no valid zip archive ({error})");
    let mut zip = ZipArchive::new(Cursor::new(bytes)).map_err(broken)?;
    let names: Vec<String> =
        zip.file_names().filter_map(Result::ok).map(|name| name.into_owned()).collect();
    // Entries could lie on the same bytes; those of torch.save do not.
    let mut left = bytes.len();
    let mut read = |name: &str| -> Result<Vec<u8>, String> {
        let missing = |error| format!("its entry {name} cannot be read ({error})");
        let mut entry = zip.by_name(name).map_err(missing)?;
        if entry.compression() != CompressionMethod::Stored {
            return Err(format!(
                "its entry {name} is compressed, and torch.save compresses nothing"
            ));
        }
        let mut content = Vec::new();
        // A stored entry is no longer than the file.
        let read = entry.by_ref().take(bytes.len() as u64).read_to_end(&mut content);
        read.map_err(|error| format!("its entry {name} cannot be read ({error})"))?;
        left = left
            .checked_sub(content.len())
            .ok_or_else(|| "its entries have more bytes than the file".to_owned())?;
        Ok(content)
    };
    let Some(pickle) = names.iter().find(|name| name.ends_with("data.pkl")) else {
        return Err(
            "it is a zip archive without data.pkl, so torch.save did not write it".to_owned()
        );
    };
    let (tree, _) = unpickle(&read(pickle)?)?;
    let folder = pickle.trim_end_matches("data.pkl").to_owned();
    let order = format!("{folder}byteorder");
    if names.contains(&order) && read(&order)? != b"little" {
        return Err("its numbers are big-endian: save it on another machine".to_owned());
    }
    let mut storages: HashMap<String, Vec<u8>> = HashMap::new();
    let described = described(tree)?;
    for tensor in &described {
        if let Number::Integer { .. } = tensor.number {
            continue;
        }
        if !storages.contains_key(&tensor.key) {
            let content = read(&format!("{folder}data/{}", tensor.key))?;
            storages.insert(tensor.key.clone(), content);
        }
    }
    assemble(described, bytes.len(), &|key| storages.get(key).map(Vec::as_slice))
}

fn of_legacy(bytes: &[u8]) -> Result<BTreeMap<String, ForeignTensor>, String> {
    // Version of the protocol, facts on the machine, the tree, the keys of the storages.
    let mut rest = bytes;
    let mut next = || -> Result<Object, String> {
        let (object, len) = unpickle(rest)?;
        rest = &rest[len..];
        Ok(object)
    };
    let (_, _) = (next()?, next()?);
    let tree = next()?;
    let sizes = storage_numbers(&tree);
    let described = described(tree)?;
    let Object::List(keys) = next()? else {
        return Err("its list of storages is missing".to_owned());
    };
    let mut storages: HashMap<String, &[u8]> = HashMap::new();
    for key in keys {
        let key = key.unicode().map_err(|_| "a storage has no name".to_owned())?;
        let cut = || format!("it ends inside of storage {key}");
        let (count, behind) = rest.split_first_chunk::<8>().ok_or_else(cut)?;
        // What lies behind one of an unknown size cannot be found.
        let Some(number) = sizes.get(&key) else { break };
        let count = usize::try_from(u64::from_le_bytes(*count)).map_err(|_| cut())?;
        let len = count.checked_mul(number.size()).ok_or_else(cut)?;
        let (content, behind) = behind.split_at_checked(len).ok_or_else(cut)?;
        storages.insert(key, content);
        rest = behind;
    }
    assemble(described, bytes.len(), &|key| storages.get(key).copied())
}

/// Cuts the tensors out of their storages. All together have at most `most` bytes.
fn assemble<'a>(
    described: Vec<Described>,
    most: usize,
    storage: &dyn Fn(&str) -> Option<&'a [u8]>,
) -> Result<BTreeMap<String, ForeignTensor>, String> {
    let mut tensors = BTreeMap::new();
    let mut left = most;
    for Described { name, shape, offset, key, number } in described {
        if let Number::Integer { .. } = number {
            continue;
        }
        let content = storage(&key).ok_or_else(|| format!("storage {key} of {name} is missing"))?;
        let count = shape.iter().try_fold(1_usize, |count, &extent| count.checked_mul(extent));
        let range = count.and_then(|count| {
            let (start, len) =
                (offset.checked_mul(number.size())?, count.checked_mul(number.size())?);
            Some(start..start.checked_add(len)?)
        });
        let found = range.and_then(|range| content.get(range));
        left = left
            .checked_sub(found.map_or(0, <[u8]>::len))
            .ok_or_else(|| "its tensors have more bytes than the file".to_owned())?;
        let Some(values) = found.map(|bytes| number.values(bytes)) else {
            return Err(format!(
                "tensor {name} of the shape {shape:?} does not fit into its storage of {} bytes",
                content.len()
            ));
        };
        tensors.insert(name, ForeignTensor { shape, values });
    }
    Ok(tensors)
}

/// Reads one pickle, and says how many bytes it has.
fn unpickle(bytes: &[u8]) -> Result<(Object, usize), String> {
    let broken = |error: candle_core::Error| {
        let text: String = error.to_string().chars().take_while(|c| *c != '\n').take(200).collect();
        format!("its pickle cannot be read ({text})")
    };
    let bytes = &bytes[..bytes.len().min(MAX_PICKLE_BYTES)];
    let mut rest = bytes;
    let mut stack = Stack::empty();
    let mut repeated = 0;
    loop {
        let (code, argument) = (rest.first().copied(), rest.get(1).copied().unwrap_or(0));
        match code {
            None if bytes.len() == MAX_PICKLE_BYTES => {
                return Err(format!("its pickle has more than {MAX_PICKLE_BYTES} bytes"));
            }
            None => return Err("its pickle has no end".to_owned()),
            // LONG1: candle reads eight bytes of it at most.
            Some(0x8a) if argument > 8 => {
                return Err("its pickle has too large a number".to_owned());
            }
            // BINUNICODE: memory for the text is taken before it is read.
            Some(b'X') if length(rest).is_none_or(|len| len > rest.len()) => {
                return Err("its pickle ends inside of a text".to_owned());
            }
            // The reader would print the whole object, however large or deep.
            Some(code) if !has_container(code, stack.stack()) => {
                return Err("its pickle adds to something that is no list or dictionary".to_owned());
            }
            Some(_) => {}
        }
        if stack.read(&mut rest).map_err(broken)? {
            break;
        }
        // BINPUT, LONG_BINPUT, BINGET and LONG_BINGET copy the newest object.
        if let Some(b'q' | b'r' | b'h' | b'j') = code {
            repeated += stack.stack().last().map_or(0, |object| count(object, MAX_REPEATED));
            if repeated > MAX_REPEATED {
                return Err("its pickle repeats too many objects".to_owned());
            }
        }
    }
    let len = bytes.len() - rest.len();
    Ok((stack.finalize().map_err(broken)?, len))
}

/// The length of the text behind BINUNICODE.
fn length(at: &[u8]) -> Option<usize> {
    let bytes: [u8; 4] = at.get(1..5)?.try_into().ok()?;
    usize::try_from(u32::from_le_bytes(bytes)).ok()
}

/// Whether APPEND, APPENDS, SETITEM and SETITEMS find the list or dictionary that they add to.
fn has_container(code: u8, stack: &[Object]) -> bool {
    let marked = || stack.iter().rposition(|object| matches!(object, Object::Mark));
    let below = match code {
        b'a' => stack.len().checked_sub(2),
        b's' => stack.len().checked_sub(3),
        b'e' | b'u' => marked().and_then(|mark| mark.checked_sub(1)),
        _ => return true,
    };
    match below.and_then(|below| stack.get(below)) {
        Some(Object::List(_)) => matches!(code, b'a' | b'e'),
        Some(Object::Dict(_)) => matches!(code, b's' | b'u'),
        _ => false,
    }
}

/// The objects in `object`, itself included; more than `most` are not counted.
fn count(object: &Object, most: usize) -> usize {
    let mut waiting = vec![object];
    let mut n = 0;
    while let Some(object) = waiting.pop() {
        n += 1 + text_len(object) / TEXT_OF_OBJECT;
        if n > most {
            break;
        }
        push_inner(object, &mut waiting);
    }
    n
}

/// Adds the objects that lie right inside of `object`.
fn push_inner<'a>(object: &'a Object, to: &mut Vec<&'a Object>) {
    match object {
        Object::Tuple(inner) | Object::List(inner) => to.extend(inner),
        Object::Dict(pairs) => to.extend(pairs.iter().flat_map(|(a, b)| [a, b])),
        Object::Reduce { callable, args } | Object::Build { callable, args } => {
            to.extend([callable.as_ref(), args.as_ref()]);
        }
        Object::PersistentLoad(inner) => to.push(inner),
        _ => {}
    }
}

/// Bytes of text in an object, those inside of it left out.
fn text_len(object: &Object) -> usize {
    match object {
        Object::Unicode(text) => text.len(),
        Object::Class { module_name, class_name } => module_name.len() + class_name.len(),
        _ => 0,
    }
}

/// The numbers of each storage that a tree mentions, by its key; tensors of an optimizer's state are among
/// them.
fn storage_numbers(tree: &Object) -> HashMap<String, Number> {
    let mut waiting = vec![tree];
    let mut numbers = HashMap::new();
    while let Some(object) = waiting.pop() {
        if let Object::PersistentLoad(inner) = object
            && let Object::Tuple(parts) = inner.as_ref()
            && let [_, Object::Class { class_name, .. }, Object::Unicode(key), ..] = &parts[..]
            && let Some(number) = number_of(class_name)
        {
            numbers.insert(key.clone(), number);
        }
        push_inner(object, &mut waiting);
    }
    numbers
}

/// What a storage of this class holds.
fn number_of(class: &str) -> Option<Number> {
    Some(match class {
        "FloatStorage" => Number::F32,
        "DoubleStorage" => Number::F64,
        "HalfStorage" => Number::F16,
        "BFloat16Storage" => Number::Bf16,
        // Counters, such as num_batches_tracked.
        "LongStorage" => Number::Integer { bytes: 8 },
        "IntStorage" => Number::Integer { bytes: 4 },
        "ShortStorage" => Number::Integer { bytes: 2 },
        "CharStorage" | "ByteStorage" | "BoolStorage" => Number::Integer { bytes: 1 },
        _ => return None,
    })
}

/// The tensors that a tree describes: those of a dictionary, or of one inside it that has a usual name.
fn described(tree: Object) -> Result<Vec<Described>, String> {
    let no_dictionary = "it holds no dictionary of tensors; save a model's state_dict()";
    let Object::Dict(pairs) = tree else { return Err(no_dictionary.to_owned()) };
    let mut tensors = Vec::new();
    let mut inner = HashMap::new();
    for (key, value) in pairs {
        let Ok(name) = key.unicode() else { continue };
        match value {
            Object::Dict(_) => {
                inner.insert(name, value);
            }
            value => tensors.extend(tensor(name, value)?),
        }
    }
    // Beside the weights there may be other tensors, such as the best accuracy.
    match NESTED.iter().find_map(|key| inner.remove(*key)) {
        Some(nested) => described(nested),
        None if tensors.is_empty() => Err(no_dictionary.to_owned()),
        None => Ok(tensors),
    }
}

/// The tensor that `value` describes: `torch._utils._rebuild_tensor_v2(storage, offset, size, stride, ...)`,
/// perhaps inside of `_rebuild_parameter(tensor, ...)`; none if it is something else.
fn tensor(name: String, value: Object) -> Result<Option<Described>, String> {
    let Ok((callable, args)) = value.reduce() else { return Ok(None) };
    let (Ok((_, function)), Ok(args)) = (callable.class(), args.tuple()) else { return Ok(None) };
    let mut args = args.into_iter();
    match function.as_str() {
        "_rebuild_parameter" => {
            return args.next().map_or(Ok(None), |inner| tensor(name, inner));
        }
        "_rebuild_tensor_v2" | "_rebuild_tensor" => {}
        _ => return Ok(None),
    }
    let wrong = |what: &str| format!("the {what} of tensor {name} cannot be understood");
    let [Some(storage), Some(offset), Some(size), Some(stride)] =
        [args.next(), args.next(), args.next(), args.next()]
    else {
        return Err(wrong("description"));
    };
    // ("storage", class, key, device, count)
    let storage = storage.persistent_load().and_then(Object::tuple);
    let mut storage = storage.map_err(|_| wrong("storage"))?.into_iter().skip(1);
    let (Some(class), Some(key)) = (storage.next(), storage.next()) else {
        return Err(wrong("storage"));
    };
    let (_, class) = class.class().map_err(|_| wrong("storage"))?;
    let Some(number) = number_of(&class) else {
        return Err(format!("tensor {name} has numbers of the type {class}"));
    };
    let key = key.unicode().map_err(|_| wrong("storage"))?;
    let numbers = |object: Object, what: &str| -> Result<Vec<usize>, String> {
        let numbers = object.tuple().map_err(|_| wrong(what))?.into_iter();
        let number =
            |object: Object| object.int_or_long().ok().and_then(|n| usize::try_from(n).ok());
        numbers.map(|object| number(object).ok_or_else(|| wrong(what))).collect()
    };
    let offset = offset.int_or_long().ok().and_then(|n| usize::try_from(n).ok());
    let offset = offset.ok_or_else(|| wrong("offset"))?;
    let (shape, stride) = (numbers(size, "shape")?, numbers(stride, "stride")?);
    if !is_contiguous(&shape, &stride) {
        return Err(format!(
            "tensor {name} of the shape {shape:?} has the strides {stride:?}: save it with .contiguous()"
        ));
    }
    Ok(Some(Described { name, shape, offset, key, number }))
}

/// Whether the values lie in the order of the indices.
fn is_contiguous(shape: &[usize], stride: &[usize]) -> bool {
    let mut expected = 1_usize;
    shape.len() == stride.len()
        && shape.iter().zip(stride).rev().all(|(&extent, &stride)| {
            let is_next = extent == 1 || stride == expected;
            expected = expected.saturating_mul(extent);
            is_next
        })
}
