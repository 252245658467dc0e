//! A certificate authority of the generator's own, which the target is told to believe.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};
use tokio_rustls::TlsAcceptor;

use crate::{accounts::write_private, error::LoadError};

const AUTHORITY: &str = "ca.pem";
const CERTIFICATE: &str = "tls.pem";
const KEY: &str = "tls.key";

/// What the played servers show.
#[derive(Clone)]
pub(crate) struct Certificates {
    /// The file that the target must believe.
    pub(crate) authority: PathBuf,
    pub(super) acceptor: TlsAcceptor,
}

/// Makes an authority and a certificate for these hosts.
pub(crate) fn make(dir: &Path, hosts: &[String]) -> Result<(), LoadError> {
    let broken = |error: rcgen::Error| LoadError::Broken(error.to_string());
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority_key = KeyPair::generate().map_err(broken)?;
    let authority = params.self_signed(&authority_key).map_err(broken)?;
    let issuer = Issuer::new(params, authority_key);
    let key = KeyPair::generate().map_err(broken)?;
    let params = CertificateParams::new(hosts).map_err(broken)?;
    let certificate = params.signed_by(&key, &issuer).map_err(broken)?;
    fs::create_dir_all(dir).map_err(LoadError::file(dir))?;
    for (name, text) in
        [(AUTHORITY, authority.pem()), (CERTIFICATE, certificate.pem()), (KEY, key.serialize_pem())]
    {
        let file = dir.join(name);
        write_private(&file, text.as_bytes()).map_err(LoadError::file(&file))?;
    }
    Ok(())
}

impl Certificates {
    pub(crate) fn load(dir: &Path) -> Result<Self, LoadError> {
        if !dir.join(KEY).exists() {
            return Err(LoadError::Usage(format!(
                "there are no certificates in {0}: run `parlour load certificates {0}`, let the \
                 server believe {0}/{AUTHORITY}, and start it again",
                dir.display()
            )));
        }
        let (file, key_file) = (dir.join(CERTIFICATE), dir.join(KEY));
        let chain = CertificateDer::pem_file_iter(&file).map_err(LoadError::file(&file))?;
        let chain = chain.collect::<Result<Vec<_>, _>>().map_err(LoadError::file(&file))?;
        let key = PrivateKeyDer::from_pem_file(&key_file).map_err(LoadError::file(&key_file))?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key))
            .map_err(LoadError::file(&file))?;
        let acceptor = TlsAcceptor::from(Arc::new(config));
        Ok(Self { authority: dir.join(AUTHORITY), acceptor })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_made_can_be_used_and_what_is_missing_is_explained() {
        let dir = tempfile::tempdir().expect("a directory");
        let missing = Certificates::load(dir.path()).err().expect("there is nothing");
        assert!(missing.to_string().contains("parlour load certificates"), "{missing}");
        make(dir.path(), &["localhost".to_owned()]).expect("made");
        assert!(Certificates::load(dir.path()).is_ok());
    }
}
