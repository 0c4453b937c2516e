//! The embedded backend of the store: one SQLite file shared by the processes of a machine.
