//! Links the program for a fixed address.
//!
//! A position-independent program writes the addresses of its tables into memory when it starts: about a
//! megabyte that each process has for itself. An agent with a thousand services has a thousand supervisors, and
//! that megabyte would be nearly all that they need. Libraries, heap and stack still lie where nobody can know.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    if std::env::var("CARGO_CFG_TARGET_OS").is_ok_and(|system| system == "linux") {
        println!("cargo:rustc-link-arg-bins=-no-pie");
    }
}
