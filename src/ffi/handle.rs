//! Handles: a place in a fixed table, and how often that place was used. Looking one up takes no lock, touches no memory
//! of a closed object, and tells stale handles, and those of a parent process, from live ones.

use std::sync::atomic::{AtomicPtr, AtomicU32, Ordering};

use super::fail;
use crate::kernel::Failure;
use crate::status::{IOK_STATUS_BAD_HANDLE, IOK_STATUS_FORKED, IOK_STATUS_NULL, IOK_STATUS_OVERLOADED, Status};
use crate::sys::fork;

struct Place<T> {
    /// Odd while the place is taken.
    uses: AtomicU32,
    epoch: AtomicU32,
    object: AtomicPtr<T>,
}

/// A table of objects of one kind.
pub struct Table<T: 'static, const N: usize> {
    places: [Place<T>; N],
}

/// Handles are multiples of this, as pointers to aligned objects are.
const STEP: usize = 16;
/// Bits of a handle that name its place.
const INDEX_BITS: u32 = 20;

impl<T, const N: usize> Table<T, N> {
    #[allow(clippy::new_without_default)]
    pub const fn new() -> Self {
        Table {
            places: [const {
                Place {
                    uses: AtomicU32::new(0),
                    epoch: AtomicU32::new(0),
                    object: AtomicPtr::new(std::ptr::null_mut()),
                }
            }; N],
        }
    }

    /// Takes a place for the object and makes its handle.
    pub fn insert(&self, object: Box<T>) -> Result<usize, Failure> {
        fork::exclusive(|| {
            let free =
                self.places.iter().enumerate().find(|(_, place)| place.uses.load(Ordering::Relaxed).is_multiple_of(2));
            let Some((index, place)) = free else {
                return Err(fail(IOK_STATUS_OVERLOADED, format!("{N} handles of this kind are open already")));
            };
            let uses = place.uses.load(Ordering::Relaxed).wrapping_add(1);
            place.epoch.store(fork::epoch(), Ordering::Relaxed);
            place.object.store(Box::into_raw(object), Ordering::Relaxed);
            place.uses.store(uses, Ordering::Release);
            Ok(((uses as usize) << INDEX_BITS | (index + 1)) * STEP)
        })
    }

    fn place(&self, handle: usize) -> Option<(&Place<T>, u32)> {
        if !handle.is_multiple_of(STEP) {
            return None;
        }
        let index = ((handle / STEP) & ((1 << INDEX_BITS) - 1)).wrapping_sub(1);
        let place = self.places.get(index)?;
        let uses = ((handle / STEP) >> INDEX_BITS) as u32;
        (place.uses.load(Ordering::Acquire) == uses && uses % 2 == 1).then_some((place, uses))
    }

    /// The object of a handle.
    ///
    /// The pointer is good until the handle is closed; the ABI's thread rules say who may close it when.
    #[inline]
    pub fn get(&self, handle: usize) -> Result<*mut T, Status> {
        if handle == 0 {
            return Err(IOK_STATUS_NULL);
        }
        let (place, _) = self.place(handle).ok_or(IOK_STATUS_BAD_HANDLE)?;
        if place.epoch.load(Ordering::Relaxed) != fork::epoch() {
            return Err(IOK_STATUS_FORKED);
        }
        Ok(place.object.load(Ordering::Relaxed))
    }

    /// Takes the object out; its handle is stale from here on. An object of the parent process is left where it is.
    pub fn remove(&self, handle: usize) -> Result<Box<T>, Status> {
        if handle == 0 {
            return Err(IOK_STATUS_NULL);
        }
        fork::exclusive(|| {
            let (place, uses) = self.place(handle).ok_or(IOK_STATUS_BAD_HANDLE)?;
            if place.epoch.load(Ordering::Relaxed) != fork::epoch() {
                return Err(IOK_STATUS_FORKED);
            }
            let object = place.object.swap(std::ptr::null_mut(), Ordering::Relaxed);
            place.uses.store(uses.wrapping_add(1), Ordering::Release);
            // SAFETY: `insert` made it from a Box, and the swap under the lock hands it out once.
            Ok(unsafe { Box::from_raw(object) })
        })
    }
}

/// The text for a handle that cannot be used.
pub fn unusable(kind: &str, status: Status) -> Failure {
    let why = match status {
        IOK_STATUS_NULL => "NULL: expected an open handle",
        IOK_STATUS_FORKED => "opened before this process was forked: open a new one here",
        IOK_STATUS_BAD_HANDLE => "unknown or closed: expected an open handle",
        status => crate::status::row(status).map_or("unusable", |row| row.sentence),
    };
    fail(status, format!("{kind}: {why}"))
}
