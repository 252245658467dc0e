//! Rooms from the inside.

mod simulation;
