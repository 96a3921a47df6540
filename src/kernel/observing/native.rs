//! Names for the frames of a native stack, from a copy of it: which function of which file each return address is in.
//!
//! Nothing here touches the stack's own memory or asks the dynamic loader: a program that hangs may hold its lock. What
//! is mapped where comes from `/proc/self/maps`, how to unwind and what functions are called from the mapped files
//! (`.eh_frame`, the symbol tables). Everything read is bounded; what lies beyond is shown as a place in a file.

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::panic::{AssertUnwindSafe, catch_unwind};

use framehop::{ExplicitModuleSectionInfo, FrameAddress, Module, Unwinder as _};
use object::elf::{self, FileHeader64};
use object::read::elf::{FileHeader, ProgramHeader, SectionHeader, SectionTable, Sym};
use object::{Endianness, ReadCache};

use crate::sys::file;
use crate::sys::owned::Owned;

/// Frames of one stack.
const FRAMES_MAX: usize = 128;
/// Bytes of `/proc/self/maps` that are read.
const MAPS_BYTES_MAX: u64 = 4 << 20;
/// Bytes of a file's unwind tables, and of all files'.
const UNWIND_BYTES_MAX: u64 = 16 << 20;
const UNWIND_BYTES_ALL: u64 = 48 << 20;
/// Bytes of a file's symbol table.
const SYMBOLS_BYTES_MAX: u64 = 8 << 20;
/// Files and names that are kept.
const MODULES_MAX: usize = 256;
const NAMES_MAX: usize = 8192;
/// Characters of a function's name.
const NAME_CHARS_MAX: usize = 200;

type Elf = FileHeader64<Endianness>;
type Sections<'a> = SectionTable<'a, Elf, &'a ReadCache<Owned<File>>>;

/// Where a thread was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Registers {
    pub pc: u64,
    pub sp: u64,
    pub fp: u64,
    /// The return address where it is in a register.
    pub lr: u64,
}

/// A file's code in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Mapping {
    start: u64,
    end: u64,
    offset: u64,
    inode: u64,
    path: String,
}

/// A mapped file that a stack has led to.
struct Known {
    map: Mapping,
    /// How far it lies above its own addresses; None if its file cannot be read.
    bias: Option<u64>,
}

/// A frame: its address, and one that is surely inside of the function (a return address may be right behind it).
#[derive(Clone, Copy)]
struct Frame {
    address: u64,
    inside: u64,
}

impl From<FrameAddress> for Frame {
    fn from(address: FrameAddress) -> Self {
        Frame { address: address.address(), inside: address.address_for_lookup() }
    }
}

/// Keeps what it has read of files from one stack to the next.
#[derive(Default)]
pub struct Symbols {
    known: Vec<Known>,
    names: HashMap<u64, String>,
    unwind_bytes: u64,
    unwinder: machine::Unwinder,
    cache: machine::Cache,
}

impl Symbols {
    /// The frames of a stack, innermost first, as `function+0x1c (file)` or `file+0x1c`.
    pub fn frames(&mut self, registers: Registers, stack: &[u8]) -> Vec<String> {
        // A fault in foreign tables is no reason to end anything.
        let found = catch_unwind(AssertUnwindSafe(|| self.look(registers, stack)));
        found.unwrap_or_else(|_| {
            *self = Symbols::default();
            vec![format!("{:#x}", registers.pc)]
        })
    }

    fn look(&mut self, registers: Registers, stack: &[u8]) -> Vec<String> {
        if registers.pc == 0 {
            return Vec::new();
        }
        let maps = maps();
        self.forget_moved(&maps);
        let frames = self.walk(&maps, registers, stack);
        self.name_all(&frames);
        frames.iter().map(|frame| self.shown(frame)).collect()
    }

    /// Forgets everything when a file is not where it was.
    fn forget_moved(&mut self, maps: &[Mapping]) {
        let stays = self.known.iter().all(|known| maps.contains(&known.map));
        if !stays || self.known.len() >= MODULES_MAX {
            *self = Symbols::default();
        }
        if self.names.len() >= NAMES_MAX {
            self.names.clear();
        }
    }

    fn walk(&mut self, maps: &[Mapping], registers: Registers, stack: &[u8]) -> Vec<Frame> {
        let mut read = |address: u64| {
            let at = usize::try_from(address.wrapping_sub(registers.sp)).map_err(drop)?;
            let word = stack.get(at..at.checked_add(8).ok_or(())?).ok_or(())?;
            Ok(u64::from_ne_bytes(word.try_into().map_err(drop)?))
        };
        let mut state = machine::registers(&registers);
        let mut address = FrameAddress::from_instruction_pointer(registers.pc);
        let mut frames = Vec::new();
        while frames.len() < FRAMES_MAX {
            let frame = Frame::from(address);
            frames.push(frame);
            self.know(maps, frame.inside);
            let outer = self.unwinder.unwind_frame(address, &mut state, &mut self.cache, &mut read);
            let Some(outer) = outer.ok().flatten().and_then(FrameAddress::from_return_address) else { break };
            address = outer;
        }
        frames
    }

    fn known_at(&self, address: u64) -> Option<usize> {
        self.known.iter().position(|known| (known.map.start..known.map.end).contains(&address))
    }

    /// Reads the file that an address is in, if it has not been.
    fn know(&mut self, maps: &[Mapping], address: u64) {
        if self.known_at(address).is_some() || self.known.len() >= MODULES_MAX {
            return;
        }
        let Some(map) = maps.iter().find(|map| (map.start..map.end).contains(&address)) else { return };
        let bias = open(map).and_then(|data| self.learn(map, &data));
        self.known.push(Known { map: map.clone(), bias });
    }

    /// Takes the unwind tables of a file. Its bias.
    fn learn(&mut self, map: &Mapping, data: &ReadCache<Owned<File>>) -> Option<u64> {
        let header = Elf::parse(data).ok()?;
        let endian = header.endian().ok()?;
        let bias = bias(header, endian, data, map)?;
        let Ok(sections) = header.sections(endian, data) else { return Some(bias) };
        let section = |name: &[u8]| {
            let (_, section) = sections.section_by_name(endian, name)?;
            let (address, bytes) = (section.sh_addr(endian), section.sh_size(endian));
            Some((address..address.checked_add(bytes)?, section))
        };
        let (Some((frame, frame_section)), Some((index, index_section))) =
            (section(b".eh_frame"), section(b".eh_frame_hdr"))
        else {
            return Some(bias);
        };
        let bytes = (frame.end - frame.start).saturating_add(index.end - index.start);
        if bytes > UNWIND_BYTES_MAX || self.unwind_bytes + bytes > UNWIND_BYTES_ALL {
            return Some(bias);
        }
        self.unwind_bytes += bytes;
        let info = ExplicitModuleSectionInfo {
            eh_frame: frame_section.data(endian, data).ok().map(<[u8]>::to_vec),
            eh_frame_svma: Some(frame),
            eh_frame_hdr: index_section.data(endian, data).ok().map(<[u8]>::to_vec),
            eh_frame_hdr_svma: Some(index),
            text_svma: section(b".text").map(|(range, _)| range),
            got_svma: section(b".got").map(|(range, _)| range),
            ..ExplicitModuleSectionInfo::default()
        };
        self.unwinder.add_module(Module::new(map.path.clone(), map.start..map.end, bias, info));
        Some(bias)
    }

    /// Finds the names that are not known yet, each file read once.
    fn name_all(&mut self, frames: &[Frame]) {
        for at in 0..self.known.len() {
            let Known { map, bias: Some(bias) } = &self.known[at] else { continue };
            let range = map.start..map.end;
            let inside = frames.iter().filter(|frame| range.contains(&frame.inside));
            let unnamed = inside.filter(|frame| !self.names.contains_key(&frame.address));
            let mut wanted: Vec<Wanted> = unnamed.map(|frame| Wanted::new(frame, *bias)).collect();
            if wanted.is_empty() {
                continue;
            }
            if let Some(data) = open(map) {
                find_symbols(&data, &mut wanted);
            }
            let file = file_name(map).to_string();
            let named = wanted.iter().map(|one| (one.frame.address, one.shown(&file)));
            self.names.extend(named);
        }
    }

    fn shown(&self, frame: &Frame) -> String {
        if let Some(name) = self.names.get(&frame.address) {
            return name.clone();
        }
        match self.known_at(frame.inside) {
            Some(at) => {
                let map = &self.known[at].map;
                format!("{}+{:#x}", file_name(map), frame.address - map.start + map.offset)
            }
            None => format!("{:#x}", frame.address),
        }
    }
}

fn file_name(map: &Mapping) -> &str {
    map.path.rsplit('/').next().unwrap_or_default()
}

/// A frame whose function is looked for.
struct Wanted {
    frame: Frame,
    bias: u64,
    /// Start, size and name of the best symbol yet.
    best: Option<(u64, u64, String)>,
}

impl Wanted {
    fn new(frame: &Frame, bias: u64) -> Self {
        Wanted { frame: *frame, bias, best: None }
    }

    /// Whether a symbol fits better: one that holds the address before one of no size below it.
    fn prefers(&self, start: u64, size: u64) -> bool {
        let at = self.frame.inside.wrapping_sub(self.bias);
        let fits = start <= at && (size == 0 || at - start < size);
        let better = |(known, known_size, _): &(u64, u64, String)| (size > 0, start) > (*known_size > 0, *known);
        fits && self.best.as_ref().is_none_or(better)
    }

    fn shown(&self, file: &str) -> String {
        let own = self.frame.address.wrapping_sub(self.bias);
        match &self.best {
            Some((start, _, name)) => format!("{name}+{:#x} ({file})", own.wrapping_sub(*start)),
            None => format!("{file}+{own:#x}"),
        }
    }
}

/// Looks through the file's symbols, once: the whole table if it was not stripped, else what it exports.
fn find_symbols(data: &ReadCache<Owned<File>>, wanted: &mut [Wanted]) -> Option<()> {
    let header = Elf::parse(data).ok()?;
    let endian = header.endian().ok()?;
    let sections = header.sections(endian, data).ok()?;
    let fits = |kind| {
        let found = sections.iter().find(|section| section.sh_type(endian) == kind);
        found.is_some_and(|section| section.sh_size(endian) <= SYMBOLS_BYTES_MAX)
    };
    let kind = [elf::SHT_SYMTAB, elf::SHT_DYNSYM].into_iter().find(|kind| fits(*kind))?;
    look_through(&sections, endian, data, kind, wanted)
}

fn look_through<'a>(
    sections: &Sections<'a>,
    endian: Endianness,
    data: &'a ReadCache<Owned<File>>,
    kind: elf::SectionType,
    wanted: &mut [Wanted],
) -> Option<()> {
    let symbols = sections.symbols(endian, data, kind).ok()?;
    for symbol in symbols.iter() {
        let is_code = matches!(symbol.st_type(), elf::STT_FUNC | elf::STT_GNU_IFUNC | elf::STT_NOTYPE);
        if !is_code || symbol.is_undefined(endian) {
            continue;
        }
        let (start, size) = (symbol.st_value(endian), symbol.st_size(endian));
        for one in wanted.iter_mut().filter(|one| one.prefers(start, size)) {
            let name = symbols.symbol_name(endian, symbol).unwrap_or_default();
            let name: String = String::from_utf8_lossy(name).chars().take(NAME_CHARS_MAX).collect();
            if !name.is_empty() && !name.starts_with('$') {
                one.best = Some((start, size, name));
            }
        }
    }
    Some(())
}

/// The file of a mapping, if it is still the one at its path: an upgrade may have put another there.
fn open(map: &Mapping) -> Option<ReadCache<Owned<File>>> {
    // Looked at before it is opened: opening what is no file (a pipe) might wait.
    let found = std::fs::metadata(&map.path).ok()?;
    let is_same = found.is_file() && found.ino() == map.inode;
    is_same.then(|| file::open(&map.path).ok()).flatten().map(ReadCache::new)
}

/// How far the file of a mapping lies above its own addresses.
fn bias(header: &Elf, endian: Endianness, data: &ReadCache<Owned<File>>, map: &Mapping) -> Option<u64> {
    let segments = header.program_headers(endian, data).ok()?;
    let holds = |segment: &&elf::ProgramHeader64<Endianness>| {
        let (from, bytes) = (segment.p_offset(endian), segment.p_filesz(endian));
        let is_code = segment.p_type(endian) == elf::PT_LOAD && segment.p_flags(endian).0 & elf::PF_X.0 != 0;
        is_code && from < map.offset + (map.end - map.start) && map.offset < from.saturating_add(bytes)
    };
    let segment = segments.iter().find(holds)?;
    let lies_at = (map.start + segment.p_offset(endian)).wrapping_sub(map.offset);
    Some(lies_at.wrapping_sub(segment.p_vaddr(endian)))
}

/// What of files is mapped as code, from `/proc/self/maps` (proc(5)).
fn maps() -> Vec<Mapping> {
    let Ok(text) = file::read("/proc/self/maps", MAPS_BYTES_MAX) else { return Vec::new() };
    String::from_utf8_lossy(&text).lines().filter_map(mapping).collect()
}

/// `start-end r-xp offset major:minor inode    path`
fn mapping(line: &str) -> Option<Mapping> {
    let mut words = line.splitn(6, ' ');
    let (start, end) = words.next()?.split_once('-')?;
    let access = words.next()?;
    let offset = words.next()?;
    let _device = words.next()?;
    let inode = words.next()?.parse().ok()?;
    let path = words.next()?.trim_start();
    let hexadecimal = |text| u64::from_str_radix(text, 16).ok();
    let (start, end, offset) = (hexadecimal(start)?, hexadecimal(end)?, hexadecimal(offset)?);
    let is_code = access.contains('x') && !path.is_empty() && start < end;
    is_code.then(|| Mapping { start, end, offset, inode, path: path.into() })
}

/// What depends on the processor.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod machine {
    use super::Registers;

    pub type Unwinder = framehop::UnwinderNative<Vec<u8>, framehop::MayAllocateDuringUnwind>;
    pub type Cache = framehop::CacheNative<framehop::MayAllocateDuringUnwind>;

    #[cfg(target_arch = "x86_64")]
    pub fn registers(of: &Registers) -> framehop::UnwindRegsNative {
        framehop::UnwindRegsNative::new(of.pc, of.sp, of.fp)
    }

    #[cfg(target_arch = "aarch64")]
    pub fn registers(of: &Registers) -> framehop::UnwindRegsNative {
        framehop::UnwindRegsNative::new(of.lr, of.sp, of.fp)
    }
}

/// Elsewhere the handler tells no registers, and no stack is walked.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
mod machine {
    use framehop::x86_64::{CacheX86_64, UnwindRegsX86_64, UnwinderX86_64};

    pub type Unwinder = UnwinderX86_64<Vec<u8>, framehop::MayAllocateDuringUnwind>;
    pub type Cache = CacheX86_64<framehop::MayAllocateDuringUnwind>;

    pub fn registers(_of: &super::Registers) -> UnwindRegsX86_64 {
        UnwindRegsX86_64::new(0, 0, 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_name_the_code_of_files() {
        let line = "7f0-8f0 r-xp 00001000 fd:00 42                 /usr/lib/a b.so";
        let (start, end, path) = (0x7f0, 0x8f0, "/usr/lib/a b.so".to_string());
        assert_eq!(mapping(line), Some(Mapping { start, end, offset: 0x1000, inode: 42, path }));
        assert_eq!(mapping("7f0-8f0 rw-p 00001000 fd:00 42     /usr/lib/a.so"), None);
        assert_eq!(mapping("7f0-8f0 r-xp 00000000 00:00 0 "), None);
        assert_eq!(mapping("nonsense"), None);
        assert!(maps().len() > 1);
    }

    /// A function of this test's file, by an address inside of it.
    #[test]
    fn an_address_becomes_a_function() {
        let mut symbols = Symbols::default();
        let inside = maps as *const () as u64 + 4;
        let frames = symbols.frames(Registers { pc: inside, sp: 0x1000, fp: 0, lr: 0 }, &[]);
        assert!(frames[0].contains("maps") && frames[0].contains("+0x4 ("), "{frames:?}");
        assert_eq!(symbols.frames(Registers { pc: inside, sp: 0x1000, fp: 0, lr: 0 }, &[]), frames);
    }

    #[test]
    fn nonsense_is_shown_as_it_is() {
        let mut symbols = Symbols::default();
        let stack: Vec<u8> = (0..4096u32).map(|n| (n * 37) as u8).collect();
        let frames = symbols.frames(Registers { pc: 0x10, sp: 0x7000, fp: 0x7010, lr: 0x20 }, &stack);
        assert_eq!(frames[0], "0x10");
        assert!(frames.len() <= FRAMES_MAX);
        assert_eq!(symbols.frames(Registers::default(), &stack), Vec::<String>::new());
    }
}
