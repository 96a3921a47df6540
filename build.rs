//! Names the shared library for the loader: SONAME carries the ABI's major version, and `-z nodelete` keeps the
//! I/O thread's code mapped when an interpreter unloads the module that brought it.
fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,libiokernel.so.0");
    println!("cargo:rustc-cdylib-link-arg=-Wl,-z,nodelete");
}
