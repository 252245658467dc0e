//! The operators' API under `/_synapse/admin`, in the form that tools for it know.

pub mod destinations;
pub mod event_reports;
pub mod logins;
mod page;
pub mod register;
pub mod registration_tokens;
mod request;
mod room_list;
mod room_shape;
pub mod rooms;
pub mod server_notices;
pub mod testing;
mod user_list;
pub mod users;
pub mod version;
