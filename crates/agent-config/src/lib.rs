//! x
#![allow(dead_code)]
mod error; mod origin; mod hocon;
pub use error::*; pub use origin::*;
