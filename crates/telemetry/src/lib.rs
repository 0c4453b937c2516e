//! Logging, metrics and health for the resident programs.
