//! The content-addressed store: objects, results by stage key, locks.
