//! Server administrators.

use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::json;
use sha1::Sha1;

use super::{
    server::{PASSWORD, SHARED_SECRET, Server},
    user::User,
};

impl Server {
    /// Makes a server administrator, who is then logged in.
    #[track_caller]
    pub(crate) fn admin(&self, name: &str) -> User {
        let path = "/_synapse/admin/v1/register";
        let nonce = self.http.get(path).text("nonce");
        let mut mac = Hmac::<Sha1>::new_from_slice(SHARED_SECRET.as_bytes()).unwrap();
        mac.update(format!("{nonce}\0{name}\0{PASSWORD}\0admin").as_bytes());
        let mac = mac.finalize().into_bytes();
        let mac: String = mac.iter().map(|byte| format!("{byte:02x}")).collect();
        let body = json!({ "nonce": nonce, "username": name, "password": PASSWORD, "admin": true,
            "mac": mac });
        User::from_login(&self.http, &self.http.post(path, &body).ok())
    }
}
