//! Which word of memory tells, for each thread, what it is doing: the number in its upper half goes with whatever the
//! thread submits. A program that never said so pays one relaxed load for it.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::fork;

/// Some thread of this process has a word.
static USED: AtomicBool = AtomicBool::new(false);

/// Areas in which a thread may have a word of its own.
const AREAS_MAX: usize = 4;

#[derive(Clone, Copy)]
struct Said {
    /// Where the words of all threads begin.
    area: usize,
    word: &'static AtomicU64,
    epoch: u32,
}

thread_local! {
    static SAID: [Cell<Option<Said>>; AREAS_MAX] = const { [const { Cell::new(None) }; AREAS_MAX] };
}

fn area_of(words: &'static [AtomicU64]) -> usize {
    words.as_ptr() as usize
}

/// This thread's word among those of an area is that one, from here on. A forked child's thread has none.
pub fn set(words: &'static [AtomicU64], word: &'static AtomicU64) {
    let said = Said { area: area_of(words), word, epoch: fork::epoch() };
    // A thread that is ending submits nothing more.
    let _ = SAID.try_with(|all| {
        let of_area = |cell: &&Cell<Option<Said>>| cell.get().is_none_or(|known| known.area == said.area);
        all.iter().find(of_area).unwrap_or(&all[AREAS_MAX - 1]).set(Some(said));
    });
    USED.store(true, Ordering::Relaxed);
}

fn find(words: &'static [AtomicU64]) -> Option<&'static AtomicU64> {
    let is_it = |said: &Said| said.area == area_of(words) && said.epoch == fork::epoch();
    SAID.try_with(|all| all.iter().find_map(|cell| cell.get().filter(is_it))).ok().flatten().map(|said| said.word)
}

/// This thread's word among those of an area, if it has one.
pub fn word(words: &'static [AtomicU64]) -> Option<&'static AtomicU64> {
    if USED.load(Ordering::Relaxed) { find(words) } else { None }
}

/// The number that this thread's word holds at this moment; 0: it says nothing.
#[inline]
pub fn current(words: &'static [AtomicU64]) -> u32 {
    if USED.load(Ordering::Relaxed) { number(words) } else { 0 }
}

#[cold]
fn number(words: &'static [AtomicU64]) -> u32 {
    find(words).map_or(0, |word| (word.load(Ordering::Relaxed) >> 32) as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_has_a_word_for_each_area() {
        static AREAS: [[AtomicU64; 2]; 3] = [const { [const { AtomicU64::new(0) }; 2] }; 3];
        let areas: [&'static [AtomicU64]; 3] = [&AREAS[0], &AREAS[1], &AREAS[2]];
        for (number, words) in areas.iter().enumerate() {
            assert_eq!(current(words), 0);
            words[1].store((number as u64 + 7) << 32 | 1, Ordering::Relaxed);
            set(words, &words[1]);
        }
        assert_eq!(areas.map(current), [7, 8, 9]);
        areas[0][0].store(1 << 32, Ordering::Relaxed);
        set(areas[0], &areas[0][0]);
        assert_eq!(areas.map(current), [1, 8, 9]);
        let other = std::thread::spawn(move || areas.map(current)).join().unwrap();
        assert_eq!(other, [0, 0, 0], "another thread says nothing");
    }
}
