//! The selection language of the `get_all` family.
