//! `include/iokernel.h` is what cbindgen makes of the sources, to the byte. `BLESS=1` (`make header`) writes it.

use std::path::{Path, PathBuf};

#[test]
fn the_committed_header_is_the_generated_one() {
    let committed = root().join("include/iokernel.h");
    let generated = generate();
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(&committed, &generated).expect("include/iokernel.h is writable");
    }
    let text = std::fs::read_to_string(&committed).unwrap_or_default();
    assert!(
        text == generated,
        "include/iokernel.h is stale: run `make header` and commit it\n{}",
        first_difference(&text, &generated)
    );
}

#[test]
fn every_function_says_whether_it_blocks() {
    let header = generate();
    let unmarked: Vec<&str> = functions(&header)
        .filter(|(_, doc)| doc.contains("[N]") == doc.contains("[B]"))
        .map(|(name, _)| name)
        .collect();
    assert!(unmarked.is_empty(), "exactly one of [N] and [B] in the doc comment of {unmarked:?}");
}

#[test]
fn every_name_of_the_header_has_our_prefix() {
    let header = generate();
    let strangers: Vec<&str> = defined_names(&header).filter(|name| !name.to_lowercase().starts_with("iok")).collect();
    assert!(strangers.is_empty(), "{strangers:?}");
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Only what these rooms declare is part of the ABI.
fn generate() -> String {
    let config =
        cbindgen::Config::from_file(root().join("cbindgen.toml").to_str().expect("UTF-8")).expect("cbindgen.toml");
    let sources =
        ["src/status.rs", "src/ring/layout.rs"].map(|file| root().join(file)).into_iter().chain(rust_files("src/ffi"));
    let builder = sources.fold(cbindgen::Builder::new().with_config(config), cbindgen::Builder::with_src);
    let mut header = Vec::new();
    builder.generate().expect("cbindgen reads the sources").write(&mut header);
    without_safety(&String::from_utf8(header).expect("UTF-8"))
}

/// Rust wants a Safety section in each unsafe function's comment; for C the header's first comment says it once.
fn without_safety(header: &str) -> String {
    let mut kept = String::new();
    let mut in_section = false;
    for line in header.lines() {
        in_section = (in_section || line == " * # Safety") && line != " */";
        if !in_section {
            kept.push_str(line);
            kept.push('\n');
        }
    }
    kept.replace(" *\n */", " */")
}

/// In the order in which a reader wants them; a file without a place comes last.
const ORDER: &[&str] = &["version", "kernel", "channel", "record", "stack", "error"];

fn rust_files(folder: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(root().join(folder)).expect("the folder is there");
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    // From mod.rs, cbindgen would walk into all the others a second time.
    files.retain(|path| path.extension().is_some_and(|end| end == "rs") && !path.ends_with("mod.rs"));
    files.sort_by_key(|path| {
        (ORDER.iter().position(|name| path.file_stem() == Some(name.as_ref())).unwrap_or(ORDER.len()), path.clone())
    });
    files
}

fn first_difference(committed: &str, generated: &str) -> String {
    let same = committed.lines().zip(generated.lines()).take_while(|(a, b)| a == b).count();
    let line = |text: &str| text.lines().nth(same).unwrap_or("(end)").to_owned();
    format!("line {}:\n- {}\n+ {}", same + 1, line(committed), line(generated))
}

/// Each declared function with the comment above it.
fn functions(header: &str) -> impl Iterator<Item = (&str, &str)> {
    header.split("/**\n").filter_map(|part| {
        let (doc, rest) = part.split_once("*/\n")?;
        let declared = rest.split_once(';').map_or("", |(declaration, _)| declaration);
        let name = declared.split_once('(')?.0.rsplit([' ', '*']).next()?;
        (!declared.contains('{') && !declared.contains('#')).then_some((name, doc))
    })
}

/// What `#define` and `typedef` bring.
fn defined_names(header: &str) -> impl Iterator<Item = &str> {
    header.lines().filter_map(|line| {
        line.strip_prefix("#define ").and_then(|rest| rest.split([' ', '(']).next()).or_else(|| {
            let name = line.strip_prefix("typedef ").or_else(|| line.strip_prefix("} "))?.strip_suffix(';')?;
            name.rsplit(' ').next()
        })
    })
}
