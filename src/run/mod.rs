//! The record of a run: manifest, environment, logs, metrics; listing and difference.
