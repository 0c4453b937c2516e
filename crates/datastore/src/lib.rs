//! Which store to open, from a CNI configuration, the environment or a file, and the one face that programs use.
