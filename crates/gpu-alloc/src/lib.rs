//! Placing ClearML tasks on GPUs: what a request for GPUs may say.
