//! The commands: one file each; parsing, printing and exit codes. Nothing else prints.
