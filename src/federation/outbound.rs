//! Speaking to other servers.
//!
//! | file | what it does |
//! |---|---|
//! | [`client`] | asks: signs the request, limits how many are under way, reads the answer |
//! | [`courier`] | carries transactions, for the queues |
//! | [`transport`] | carries a request: a trait, so that a simulated network can stand in |
//! | [`https`] | the real transport, on a thread of its own |
//! | [`discovery`], [`well_known`], [`dns`] | finds where a server is |
//! | [`address`] | which addresses may be connected to |
//! | [`tls`] | whose certificates are believed |
//! | [`hierarchy`] | asks about rooms that this server is not in |
//! | [`key_updates`] | what is said of users' devices and keys, for the queues |
//! | [`membership`] | joins, leaves, knocks and invites through other servers |
//! | [`key_source`] | asks for keys, for the key ring |
//! | [`user_keys`] | asks for keys of other servers' users, which are remembered |
//! | [`remote_key`] | which of them are junk |
//! | [`rooms`] | asks for events, states and history of rooms |
//! | [`to_device`] | messages for devices, as EDUs |

pub mod address;
pub mod client;
pub mod courier;
pub mod discovery;
pub mod dns;
pub mod hierarchy;
pub mod https;
pub mod key_source;
pub mod key_updates;
pub mod membership;
pub mod policy;
pub mod remote_key;
pub mod rooms;
pub mod tls;
pub mod to_device;
pub mod transport;
pub mod user_keys;
pub mod well_known;
