//! Certificates for `mqtts://`.

use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

use crate::options::{OptionsError, TlsOptions};

/// What a TLS connection goes by.
///
/// # Errors
/// When a file cannot be read or is no certificate or key.
pub(crate) fn configuration(options: &TlsOptions) -> Result<Arc<ClientConfig>, OptionsError> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if let Some(file) = &options.ca {
        for certificate in certificates(file)? {
            roots.add(certificate).map_err(|error| wrong(file, &error))?;
        }
    }
    if roots.is_empty() {
        let why = "this system has no certificate authorities; name a file".into();
        return Err(OptionsError::Tls { file: "ca".into(), why });
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| OptionsError::Tls { file: "tls".into(), why: error.to_string() })?
        .with_root_certificates(roots);
    let configuration = match &options.client {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => {
            let pem = PrivateKeyDer::from_pem_file(key).map_err(|error| wrong(key, &error))?;
            builder
                .with_client_auth_cert(certificates(certificate)?, pem)
                .map_err(|error| wrong(certificate, &error))?
        }
    };
    Ok(Arc::new(configuration))
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, OptionsError> {
    let all: Result<Vec<_>, _> =
        CertificateDer::pem_file_iter(file).and_then(Iterator::collect).map_err(|error| wrong(file, &error));
    let all = all?;
    if all.is_empty() {
        return Err(wrong(file, &"there is no certificate in it"));
    }
    Ok(all)
}

fn wrong(file: &Path, why: &dyn std::fmt::Display) -> OptionsError {
    OptionsError::Tls { file: file.display().to_string(), why: why.to_string() }
}
