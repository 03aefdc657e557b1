//! Prompts and language-model clients.
