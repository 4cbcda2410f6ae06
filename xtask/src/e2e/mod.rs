//! `cargo xtask e2e`: whole systems of real processes, treated badly, and looked at afterwards.

pub mod chaos;
pub mod docker;
pub mod slurm;
