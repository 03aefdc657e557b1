//! What to run and in what order: keys, plan with reasons, scheduler, cancellation, events.
