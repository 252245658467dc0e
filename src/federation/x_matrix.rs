//! The `X-Matrix` header: how servers sign requests, and how such a signature is read.
//!
//! Specification: <https://spec.matrix.org/v1.19/server-server-api/#request-authentication>

use std::collections::BTreeMap;

use parlour_event::{
    hashes,
    json::{self, Object, Value},
    signing::SigningKey,
};
use ruma::{OwnedServerName, ServerName};

/// The header's scheme.
const SCHEME: &str = "X-Matrix";

/// What one header says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct XMatrix {
    /// Who has signed.
    pub(super) origin: OwnedServerName,
    /// For whom; old servers don't say.
    pub(super) destination: Option<OwnedServerName>,
    /// With which key.
    pub(super) key: String,
    /// The signature in base64.
    pub(super) signature: String,
}

impl XMatrix {
    /// Reads the value of an `Authorization` header; `None` if it is not of this scheme, or not
    /// well-formed.
    pub(super) fn parse(header: &str) -> Option<Self> {
        let (scheme, rest) = header.split_once(' ')?;
        if !scheme.eq_ignore_ascii_case(SCHEME) {
            return None;
        }
        let mut parameters = parameters(rest)?;
        // The specification's list of parameters says `signature`, its example `sig`.
        let signature = parameters.remove("sig").or_else(|| parameters.remove("signature"))?;
        let destination = parameters.remove("destination").map(OwnedServerName::try_from);
        Some(Self {
            origin: parameters.remove("origin")?.try_into().ok()?,
            destination: destination.transpose().ok()?,
            key: parameters.remove("key")?,
            signature,
        })
    }

    /// The header's value: small letters, quoted, no white space, as old servers want it.
    pub(super) fn to_header(&self) -> String {
        let Self { origin, key, signature, .. } = self;
        let destination = self.destination.iter().map(|name| format!("destination=\"{name}\","));
        let destination: String = destination.collect();
        format!("{SCHEME} origin=\"{origin}\",{destination}key=\"{key}\",sig=\"{signature}\"")
    }
}

/// A request as it is signed, but for the signature. `uri` is path and query as they are sent.
pub(super) fn signed_object(
    method: &str,
    uri: &str,
    origin: &ServerName,
    destination: &ServerName,
    content: Option<Value>,
) -> Object {
    let mut object = Object::from([
        ("method".to_owned(), method.into()),
        ("uri".to_owned(), uri.into()),
        ("origin".to_owned(), origin.as_str().into()),
        ("destination".to_owned(), destination.as_str().into()),
    ]);
    object.extend(content.map(|content| ("content".to_owned(), content)));
    object
}

/// What is signed of a request, given without its content: that comes as canonical JSON.
pub(super) fn signed_bytes(request: &Object, content: Option<&[u8]>) -> Vec<u8> {
    let mut rest = Vec::with_capacity(512);
    json::write_canonical(request, &mut rest);
    let Some(content) = content else { return rest };
    // `content` is the first of the keys.
    [br#"{"content":"#, content, b",", rest.get(1..).unwrap_or_default()].concat()
}

/// Signs a request of this server.
pub(super) fn sign(
    key: &SigningKey,
    origin: &ServerName,
    destination: &ServerName,
    request: &Object,
) -> XMatrix {
    let mut bytes = Vec::with_capacity(512);
    json::write_canonical(request, &mut bytes);
    XMatrix {
        origin: origin.to_owned(),
        destination: Some(destination.to_owned()),
        key: key.key_id().to_owned(),
        signature: hashes::encode_base64(&key.sign(&bytes)),
    }
}

/// Adds what headers say to the request that they are said to have signed.
pub(super) fn add_signatures(request: &mut Object, headers: &[XMatrix]) {
    for XMatrix { origin, key, signature, .. } in headers {
        let by_key = Object::from([(key.clone(), Value::from(signature.as_str()))]);
        let signatures = request.entry("signatures".to_owned());
        let signatures = signatures.or_insert_with(|| Value::Object(Object::new()));
        let Some(signatures) = signatures.as_object_mut() else { continue };
        let of_origin = signatures.entry(origin.to_string());
        let of_origin = of_origin.or_insert_with(|| Value::Object(Object::new()));
        of_origin.as_object_mut().into_iter().for_each(|keys| keys.extend(by_key.clone()));
    }
}

/// The parameters after the scheme; names in small letters. None of them twice.
fn parameters(mut rest: &str) -> Option<BTreeMap<String, String>> {
    const WHITE: [char; 2] = [' ', '\t'];
    let mut found = BTreeMap::new();
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        if rest.is_empty() {
            return Some(found);
        }
        let (name, after) = rest.split_once('=')?;
        let name = name.trim_end_matches(WHITE).to_ascii_lowercase();
        let after = after.trim_start_matches(WHITE);
        let (value, left) = match after.strip_prefix('"') {
            Some(quoted) => unquote(quoted)?,
            None => {
                let end = after.find(',').unwrap_or(after.len());
                (after[..end].trim_end_matches(WHITE).to_owned(), &after[end..])
            }
        };
        let well_formed = !name.is_empty() && !name.contains(WHITE) && !value.is_empty();
        if !well_formed || found.insert(name, value).is_some() {
            return None;
        }
        rest = left.trim_start_matches(WHITE);
        if !(rest.is_empty() || rest.starts_with(',')) {
            return None;
        }
    }
}

/// A quoted value behind its first quote, and what comes after it.
fn unquote(quoted: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut letters = quoted.char_indices();
    while let Some((at, letter)) = letters.next() {
        match letter {
            '"' => return Some((value, &quoted[at + 1..])),
            '\\' => value.push(letters.next()?.1),
            letter => value.push(letter),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use parlour_event::signing;

    fn name(text: &str) -> OwnedServerName {
        text.try_into().expect("a server name")
    }

    #[test]
    fn what_others_write_is_read() {
        let full = XMatrix {
            origin: name("a.org:8448"),
            destination: Some(name("b.org")),
            key: "ed25519:k_1".to_owned(),
            signature: "ab/+=".to_owned(),
        };
        let old = XMatrix { destination: None, ..full.clone() };
        for (header, wanted) in [
            (full.to_header(), &full),
            (old.to_header(), &old),
            (
                r#"X-Matrix origin=a.org:8448,destination=b.org,key=ed25519:k_1,sig=ab/+="#.into(),
                &full,
            ),
            (
                r#"x-matrix   SIG="ab/+=" ,	Origin="a.org:8448" , kEy = "ed25519:k_1",new=1"#
                    .into(),
                &old,
            ),
            (r#"X-Matrix origin="a.org:8448",key="ed25519:\k_1",signature="ab\/+=","#.into(), &old),
        ] {
            assert_eq!(XMatrix::parse(&header).as_ref(), Some(wanted), "{header}");
        }
    }

    #[test]
    fn what_is_malformed_is_nothing() {
        for header in [
            "",
            "X-Matrix",
            "X-Matrix ",
            "Bearer abc",
            "X-Matrix origin=a.org,key=ed25519:a",
            "X-Matrix origin=a.org,sig=a",
            "X-Matrix key=ed25519:a,sig=a",
            "X-Matrix origin=a.org,origin=a.org,key=ed25519:a,sig=a",
            "X-Matrix origin=a.org,key=ed25519:a,sig=\"a",
            "X-Matrix origin=a.org,key=ed25519:a,sig=\"a\" x",
            "X-Matrix origin=a.org,key=ed25519:a,sig=\"a\\",
            "X-Matrix origin=/,key=ed25519:a,sig=a",
            "X-Matrix origin=a.org,destination=/,key=ed25519:a,sig=a",
            "X-Matrix origin a.org",
        ] {
            assert_eq!(XMatrix::parse(header), None, "{header}");
        }
    }

    #[test]
    fn what_is_signed_is_believed() {
        let key = SigningKey::from_seed(&[1; 32], "a").expect("a key");
        let (near, far) = (name("near.org"), name("far.org:1"));
        let object = || signed_object("PUT", "/x?y=%20", &near, &far, Some(true.into()));
        let header = sign(&key, &near, &far, &object()).to_header();
        let header = XMatrix::parse(&header).expect("a header");
        let mut request = object();
        add_signatures(&mut request, &[header]);
        let check = |request: &Object| {
            signing::verify_json(request, "near.org", |id| {
                (id == "ed25519:a").then(|| key.public_key())
            })
        };
        assert_eq!(check(&request), Ok(()));
        request.insert("uri".to_owned(), "/x?y= ".into());
        assert!(check(&request).is_err());
    }
}
