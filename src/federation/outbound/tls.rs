//! Whose certificates are believed.

use std::{path::PathBuf, sync::Arc};

use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, pem::PemObject as _},
};

use crate::server::StartError;

/// What this system believes, and what these files say.
///
/// # Errors
///
/// A file cannot be read or holds no certificates.
pub fn client_config(extra_ca_files: &[PathBuf]) -> Result<ClientConfig, StartError> {
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    for error in &found.errors {
        tracing::warn!(%error, "cannot read a certificate authority of this system");
    }
    roots.add_parsable_certificates(found.certs);
    for file in extra_ca_files {
        let failed = |reason: String| StartError::Tls { file: file.clone(), reason };
        let certificates = CertificateDer::pem_file_iter(file)
            .and_then(Iterator::collect::<Result<Vec<_>, _>>)
            .map_err(|error| failed(error.to_string()))?;
        if certificates.is_empty() {
            return Err(failed("there is no certificate in it".to_owned()));
        }
        for certificate in certificates {
            roots.add(certificate).map_err(|error| failed(error.to_string()))?;
        }
    }
    if roots.is_empty() {
        tracing::warn!("this system has no certificate authorities: no other server is believed");
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = builder.map_err(|error| StartError::Part(error.to_string()))?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}
