//! What may be done with stored resources: create, replace, apply, delete, and initialising an empty store.
