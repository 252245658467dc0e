//! What people are told of runs.

pub(crate) mod html;
mod svg;
pub(crate) mod table;
