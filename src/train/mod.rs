//! Losses, optimizer, schedules, batching, the loop, checkpoints.
