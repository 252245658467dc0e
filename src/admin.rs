//! The administrators' endpoints under `/_synapse/admin`, which operators' tools expect.

pub mod register;
