//! The PEM files of `[backends.*]`: whether TLS can go by them, before a broker is asked.

use std::io;
use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

use crate::config::Upstream;

/// The key that is wrong, and what is.
type Wrong = (Option<&'static str>, String);

/// Whether `ca`, `certificate` and `key` are there and can be used.
///
/// # Errors
/// The first that cannot.
pub fn check(upstream: &Upstream) -> Result<(), Wrong> {
    let mut roots = RootCertStore::empty();
    if let Some(file) = &upstream.ca {
        let wrong = |why: String| (Some("ca"), format!("{}: {why}", file.display()));
        for certificate in certificates("ca", file)? {
            roots.add(certificate).map_err(|error| wrong(error.to_string()))?;
        }
    }
    let Some((certificate, key)) = &upstream.identity else { return Ok(()) };
    let chain = certificates("certificate", certificate)?;
    let private = PrivateKeyDer::from_pem_slice(&read("key", key)?)
        .map_err(|error| (Some("key"), format!("{}: {}", key.display(), told(&error, "private key"))))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let fit = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_root_certificates(roots).with_client_auth_cert(chain, private));
    fit.map(|_| ()).map_err(|error| {
        let (certificate, key) = (certificate.display(), key.display());
        (Some("certificate"), format!("{certificate} cannot be used with the key {key}: {error}"))
    })
}

/// The content of the file that the key `key` names.
///
/// # Errors
/// Why it cannot be read.
pub fn read(key: &'static str, file: &Path) -> Result<Vec<u8>, Wrong> {
    std::fs::read(file).map_err(|error| {
        // Relative names are a puzzle in the log of a service.
        let whole = std::path::absolute(file).unwrap_or_else(|_| file.to_owned());
        let why = match error.kind() {
            io::ErrorKind::NotFound => "there is no such file".to_owned(),
            _ => error.to_string(),
        };
        (Some(key), format!("{} cannot be read: {why}", whole.display()))
    })
}

/// The certificates in the file that the key `key` names.
///
/// # Errors
/// Why there are none.
pub fn certificates(key: &'static str, file: &Path) -> Result<Vec<CertificateDer<'static>>, Wrong> {
    let text = read(key, file)?;
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    let all = all.and_then(|all| if all.is_empty() { Err(pem::Error::NoItemsFound) } else { Ok(all) });
    all.map_err(|error| (Some(key), format!("{}: {}", file.display(), told(&error, "certificate"))))
}

/// rustls shows the bytes of lines as numbers.
fn told(error: &pem::Error, what: &str) -> String {
    match error {
        pem::Error::NoItemsFound => format!("there is no {what} in it; expected PEM text"),
        pem::Error::MissingSectionEnd { .. } => {
            "its last PEM section has no end: the file was cut off".into()
        }
        pem::Error::IllegalSectionStart { .. } => "a PEM section in it has no proper first line".into(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Backend, Config};

    /// What is said of a back end whose files hold these texts.
    fn said(ca: &str, identity: Option<(&str, &str)>) -> Wrong {
        let folder = tempfile::tempdir().unwrap();
        let place = |name: &str, text: &str| {
            let file = folder.path().join(name);
            std::fs::write(&file, text).unwrap();
            format!("{name} = \"{}\"\n", file.display())
        };
        let mut toml = "[backends.b]\nkind = \"mqtt\"\nurl = \"mqtts://h\"\n".to_owned();
        if !ca.is_empty() {
            toml.push_str(&place("ca", ca));
        }
        if let Some((certificate, key)) = identity {
            toml.push_str(&place("certificate", certificate));
            toml.push_str(&place("key", key));
        }
        let config = Config::parse(Some(("x.toml", &toml)), []).unwrap();
        let Some(Backend::Mqtt { upstream, .. }) = config.backends.get("b") else { panic!("it is there") };
        check(upstream).unwrap_err()
    }

    #[test]
    fn what_is_no_certificate_or_key_is_told_by_its_key() {
        let nothing = "hello\n";
        let broken = "-----BEGIN CERTIFICATE-----\naGVsbG8=\n-----END CERTIFICATE-----\n";
        for (ca, identity, key, why) in [
            (nothing, None, "ca", "there is no certificate in it"),
            (broken, None, "ca", "invalid peer certificate"),
            ("-----BEGIN CERTIFICATE-----\naGVsbG8=\n", None, "ca", "was cut off"),
            ("-----BEGIN CERT\naGVsbG8=\n", None, "ca", "no proper first line"),
            ("-----BEGIN CERTIFICATE-----\n!!\n-----END CERTIFICATE-----\n", None, "ca", "base64"),
            ("", Some((nothing, nothing)), "certificate", "there is no certificate in it"),
            ("", Some((broken, nothing)), "key", "there is no private key in it"),
        ] {
            let (named, said) = said(ca, identity);
            assert_eq!(named, Some(key), "{said}");
            assert!(said.contains(why), "`{why}` in {said}");
        }
    }
}
