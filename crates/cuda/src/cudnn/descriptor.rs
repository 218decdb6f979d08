//! An object of cuDNN's graph API.

use std::ffi::{c_int, c_void};
use std::ptr;
use std::sync::Arc;

use super::api::{Functions, Kind, Type};
use crate::error::DeviceError;

/// A descriptor: attributes are set, then it is finished; from then on it is only read.
pub(super) struct Descriptor {
    functions: Arc<Functions>,
    raw: *mut c_void,
    /// What it names; cuDNN does not say whether it copies them.
    keeps: Vec<Arc<Descriptor>>,
}

// SAFETY: a finished descriptor is only read, and cuDNN lets any thread do that.
unsafe impl Send for Descriptor {}
// SAFETY: as above; it is changed only by functions that own it.
unsafe impl Sync for Descriptor {}

impl Descriptor {
    /// An empty one.
    pub(super) fn new(functions: &Arc<Functions>, kind: Kind) -> Result<Descriptor, DeviceError> {
        let mut raw = ptr::null_mut();
        // SAFETY: it writes one pointer.
        let status = unsafe { (functions.create_descriptor)(kind as c_int, &raw mut raw) };
        functions.check("cudnnBackendCreateDescriptor", status)?;
        Ok(Descriptor { functions: Arc::clone(functions), raw, keeps: Vec::new() })
    }

    pub(super) fn raw(&self) -> *mut c_void {
        self.raw
    }

    /// Sets `count` values of a type at `values`.
    ///
    /// # Safety
    /// There are as many values there, of the C type that `of` names.
    unsafe fn set(
        self,
        attribute: c_int,
        of: Type,
        count: usize,
        values: *const c_void,
    ) -> Result<Descriptor, DeviceError> {
        // SAFETY: the descriptor is one of cuDNN's; the rest is the caller's.
        let status = unsafe {
            (self.functions.set_attribute)(self.raw, attribute, of as c_int, count as i64, values)
        };
        self.functions.check("cudnnBackendSetAttribute", status)?;
        Ok(self)
    }

    pub(super) fn integers(
        self,
        attribute: c_int,
        values: &[i64],
    ) -> Result<Descriptor, DeviceError> {
        // SAFETY: the values are int64_t.
        unsafe { self.set(attribute, Type::Int64, values.len(), values.as_ptr().cast()) }
    }

    pub(super) fn double(self, attribute: c_int, value: f64) -> Result<Descriptor, DeviceError> {
        // SAFETY: the value is one double.
        unsafe { self.set(attribute, Type::Double, 1, (&raw const value).cast()) }
    }

    /// One value of an enumeration.
    pub(super) fn choice(
        self,
        attribute: c_int,
        of: Type,
        value: c_int,
    ) -> Result<Descriptor, DeviceError> {
        // SAFETY: enumerations are ints in C.
        unsafe { self.set(attribute, of, 1, (&raw const value).cast()) }
    }

    pub(super) fn pointers(
        self,
        attribute: c_int,
        of: Type,
        values: &[*mut c_void],
    ) -> Result<Descriptor, DeviceError> {
        // SAFETY: handles and addresses are pointers.
        unsafe { self.set(attribute, of, values.len(), values.as_ptr().cast()) }
    }

    pub(super) fn text(self, attribute: c_int, text: &str) -> Result<Descriptor, DeviceError> {
        // SAFETY: the values are bytes.
        unsafe { self.set(attribute, Type::Char, text.len(), text.as_ptr().cast()) }
    }

    pub(super) fn named(
        self,
        attribute: c_int,
        other: &Arc<Descriptor>,
    ) -> Result<Descriptor, DeviceError> {
        self.keeping(other).pointers(attribute, Type::Descriptor, &[other.raw])
    }

    /// Lets another one live as long as this one.
    pub(super) fn keeping(mut self, other: &Arc<Descriptor>) -> Descriptor {
        self.keeps.push(Arc::clone(other));
        self
    }

    /// Ends its making.
    pub(super) fn finish(self) -> Result<Arc<Descriptor>, DeviceError> {
        // SAFETY: the descriptor is one of cuDNN's.
        let status = unsafe { (self.functions.finalize)(self.raw) };
        self.functions.check("cudnnBackendFinalize", status)?;
        Ok(Arc::new(self))
    }

    /// Reads at most `room` values into `values`; the number of those that there are.
    ///
    /// # Safety
    /// There is room for as many, of the C type that `of` names.
    unsafe fn get(
        &self,
        attribute: c_int,
        of: Type,
        room: usize,
        values: *mut c_void,
    ) -> Result<usize, DeviceError> {
        let mut count = 0;
        // SAFETY: the descriptor is one of cuDNN's; the rest is the caller's.
        let status = unsafe {
            (self.functions.get_attribute)(
                self.raw,
                attribute,
                of as c_int,
                room as i64,
                &raw mut count,
                values,
            )
        };
        self.functions.check("cudnnBackendGetAttribute", status)?;
        Ok(usize::try_from(count).unwrap_or(0).min(room))
    }

    pub(super) fn integer(&self, attribute: c_int) -> Result<i64, DeviceError> {
        let mut value = 0i64;
        // SAFETY: there is room for one int64_t.
        unsafe { self.get(attribute, Type::Int64, 1, (&raw mut value).cast()) }?;
        Ok(value)
    }

    /// Values of an enumeration; there are never more than 32.
    pub(super) fn choices(&self, attribute: c_int, of: Type) -> Result<Vec<c_int>, DeviceError> {
        let mut values = [0; 32];
        // SAFETY: there is room for 32 ints.
        let count = unsafe { self.get(attribute, of, values.len(), values.as_mut_ptr().cast()) }?;
        Ok(values[..count].to_vec())
    }

    /// The descriptors of an attribute, at most `room`, written into new ones of this kind.
    pub(super) fn descriptors(
        &self,
        attribute: c_int,
        kind: Kind,
        room: usize,
    ) -> Result<Vec<Descriptor>, DeviceError> {
        let made: Result<Vec<Descriptor>, DeviceError> =
            (0..room).map(|_| Descriptor::new(&self.functions, kind)).collect();
        let mut made = made?;
        let mut raw: Vec<*mut c_void> = made.iter().map(|descriptor| descriptor.raw).collect();
        // SAFETY: there are `room` descriptors of the kind that the attribute has.
        let count =
            unsafe { self.get(attribute, Type::Descriptor, room, raw.as_mut_ptr().cast()) }?;
        made.truncate(count);
        Ok(made)
    }
}

impl Drop for Descriptor {
    fn drop(&mut self) {
        // SAFETY: nothing else names it: what does holds a reference to it. An error has no remedy here.
        unsafe { (self.functions.destroy_descriptor)(self.raw) };
    }
}
