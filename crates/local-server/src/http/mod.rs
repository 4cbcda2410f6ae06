//! From bytes on a socket to a call, and from its result to an envelope.

pub(crate) mod connection;
pub(crate) mod dispatch;
pub(crate) mod envelope;
pub(crate) mod faults;
pub(crate) mod host;
pub(crate) mod path;
pub(crate) mod request;
pub(crate) mod tls;
