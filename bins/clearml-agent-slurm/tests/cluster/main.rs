//! The built glue on a real Slurm cluster, with the embedded server and the built agent inside of the jobs.
//!
//! Each test starts a cluster of its own (`xtask::e2e::slurm`), a few at the same time. Where there is no Slurm, or no
//! root, they are skipped.

#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod containers;
mod ends;
mod journeys;
mod kills;
mod outages;
mod refusals;
mod restarts;
mod scale;
mod scene;
mod users;
mod waiting;
