//! Finding passages for queries.
