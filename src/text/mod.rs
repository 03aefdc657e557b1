//! Reading documents, splitting them, counting tokens.
