//! Events, models and files as a client sees them, over HTTP.

mod events;
mod files;
mod models;
mod raw;
mod sdk;
