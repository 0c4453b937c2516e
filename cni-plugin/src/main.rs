//! The CNI network plugin: one ADD, DEL, CHECK, GC, STATUS or VERSION, then exit.

fn main() {}
