//! Cells and markers: words of shared memory that the program writes by itself.

use std::ffi::c_char;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use super::kernel::{iok_kernel, live};
use super::{fail, guard, null};
use crate::ring::layout::MarkerSlot;
use crate::status::{IOK_STATUS_BAD_CONFIG, Status};

/// A counter of whole numbers: `*cell` is its cell of this process, which begins at any number. It is `iok_cells` with
/// `name=NAME`, for a name without `&`, `=` or `%`. [N]
///
/// Errors: as `iok_cells`.
///
/// # Safety
/// `name` is NULL or a string; `cell` is NULL or writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn iok_counter(kernel: *mut iok_kernel, name: *const c_char, cell: *mut *mut u64) -> Status {
    guard(|| {
        if cell.is_null() || name.is_null() {
            return Err(null(if cell.is_null() { "cell" } else { "name" }));
        }
        // SAFETY: the caller's promise.
        let name = unsafe { super::config(name) }?;
        if name.contains(['&', '=', '%']) {
            let expected = "expected [a-zA-Z_:][a-zA-Z0-9_:]*, 200 bytes at most";
            return Err(fail(IOK_STATUS_BAD_CONFIG, format!("name: {name:?}: {expected}")));
        }
        let cells = live(kernel)?.cells(&format!("name={name}"))?;
        // SAFETY: not NULL, and writable by the caller's promise.
        unsafe { *cell = cells[0].as_ptr() };
        Ok(())
    })
}

/// The cells of a series, made if nobody has made it before. `spec` describes it, percent-encoded:
/// `kind=histogram&name=took_seconds&unit=seconds&help=How%20long.&label.shop=a&buckets=0.1,1`. [N]
///
/// `kind`: `counter` (the default: a u64 that only grows), `sum` (the bits of a double that only grows), `gauge` (the
/// bits of a double), `histogram` (one u64 for each bucket, the last one without a bound, then the sum: the bits of a
/// double; a value is counted in the first bucket whose bound it does not exceed, and in no other). `name`:
/// `[a-zA-Z_:][a-zA-Z0-9_:]*`; a `_total` at the end of what counts is left out, as exporters add it; `unit` is added at
/// its end where it is missing. `buckets`: upper bounds, growing, 128 at most (default: 0.005 to 10). `merge`: how gauges
/// of several processes make one: `sum`, `max` or `min`. Beyond 1000 series of a name, all are one, with the label
/// `overflow="true"`.
///
/// `*cells` points to the first cell, `*count` says how many there are. They are written without any call: by one thread
/// with a load and a store, by several with an atomic addition (relaxed). The same series has the same cells each time.
/// They are readable and writable for as long as the process lives, whatever becomes of the kernel. In a forked child
/// they are the child's own; a counter there begins where a process that has ended left it, a gauge begins at 0. Readers
/// see the sum over all processes, also of those that have ended; gauges of those that live.
///
/// Errors: BAD_CONFIG (the text names the key), OVERLOADED (the area has no room for another series), BAD_HANDLE, FORKED,
/// CLOSED, NULL.
///
/// # Safety
/// `spec` is NULL or a string; `cells` and `count` are NULL or writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn iok_cells(
    kernel: *mut iok_kernel,
    spec: *const c_char,
    cells: *mut *mut u64,
    count: *mut u32,
) -> Status {
    guard(|| {
        if cells.is_null() || count.is_null() {
            return Err(null(if cells.is_null() { "cells" } else { "count" }));
        }
        // SAFETY: the caller's promise.
        let found = live(kernel)?.cells(unsafe { super::config(spec) }?)?;
        // SAFETY: not NULL, and writable by the caller's promise.
        unsafe {
            *cells = AtomicU64::as_ptr(&found[0]);
            *count = found.len() as u32;
        }
        Ok(())
    })
}

/// Adds to a cell of whole numbers: one atomic addition (relaxed). For languages that cannot make one, and that may change
/// threads, or run the handler of a signal, between a load and a store. [N]
///
/// # Safety
/// `cell` is one that `iok_cells` or `iok_counter` gave.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn iok_cell_count(cell: *mut u64, more: u64) {
    // SAFETY: the caller's promise; cells are written atomically by everyone.
    unsafe { AtomicU64::from_ptr(cell) }.fetch_add(more, Relaxed);
}

/// Adds to a cell that holds the bits of a double: see `iok_cell_count`. [N]
///
/// # Safety
/// As `iok_cell_count`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn iok_cell_add(cell: *mut u64, more: f64) {
    // SAFETY: as above.
    let cell = unsafe { AtomicU64::from_ptr(cell) };
    let sum = |bits| Some((f64::from_bits(bits) + more).to_bits());
    // Never fails: there is always a sum.
    let _ = cell.fetch_update(Relaxed, Relaxed, sum);
}

/// The slot in which the calling thread says what it is doing: see `iok_marker`. The same one each time, for as long as
/// the thread lives; other threads must not write to it. What the thread submits carries the slot's `current` from here
/// on. A forked child asks again (the slot's `tid` is 0 there). 64 threads of a process have one at a time. [N]
///
/// Errors: OVERLOADED (no slot is left), BAD_HANDLE, FORKED, CLOSED, NULL.
///
/// # Safety
/// `out` is NULL or writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn iok_marker_slot(kernel: *mut iok_kernel, out: *mut *mut MarkerSlot) -> Status {
    guard(|| {
        if out.is_null() {
            return Err(null("out"));
        }
        let words = live(kernel)?.marker_slot()?;
        // SAFETY: not NULL, and writable by the caller's promise. The slot's words are as many as the struct has.
        unsafe { *out = words[0].as_ptr().cast() };
        Ok(())
    })
}
