//! A certificate authority of the collector's own, and a certificate for loopback.
#![forbid(unsafe_code)]

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use rustls::ServerConfig;
use rustls::pki_types::PrivatePkcs8KeyDer;

use crate::failure::{Failure, Result};

/// Settings for a TLS server on `host`, certified by an authority whose certificate is now in `DIR/ca.pem`.
///
/// The authority's key stays in `DIR/ca.key` (mode 0600), so that clients that trust it can come back after a restart.
pub(crate) fn self_signed(dir: &Path, host: std::net::IpAddr) -> Result<(Arc<ServerConfig>, PathBuf)> {
    let made = |e: rcgen::Error| Failure::Failed(format!("a certificate cannot be made: {e}"));
    let key = authority_key(&dir.join("ca.key"))?;
    let mut authority = CertificateParams::new(Vec::new()).map_err(made)?;
    authority.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    authority.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    authority.distinguished_name.push(DnType::CommonName, "Cenotaph development collector");
    let pem = authority.self_signed(&key).map_err(made)?.pem();
    let path = dir.join("ca.pem");
    fs::write(&path, pem).map_err(|e| Failure::file(&path, "write", e))?;
    let issuer = Issuer::new(authority, key);

    let key = KeyPair::generate().map_err(made)?;
    let mut names = vec!["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()];
    names.push(host.to_string());
    names.sort();
    names.dedup();
    let certificate =
        CertificateParams::new(names).and_then(|params| params.signed_by(&key, &issuer)).map_err(made)?;
    let tls = |e: rustls::Error| Failure::Failed(format!("TLS cannot be set up: {e}"));
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(tls)?
        .with_no_client_auth()
        .with_single_cert(
            vec![certificate.der().clone()],
            PrivatePkcs8KeyDer::from(key.serialize_der()).into(),
        )
        .map_err(tls)?;
    Ok((Arc::new(config), path))
}

fn authority_key(path: &Path) -> Result<KeyPair> {
    match fs::read_to_string(path) {
        Ok(pem) => KeyPair::from_pem(&pem).map_err(|e| {
            Failure::file(path, "use the key in it", format!("{e}; delete it to get a fresh one"))
        }),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let key = KeyPair::generate().map_err(|e| Failure::file(path, "make a key for", e))?;
            let mut file = OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(path)
                .map_err(|e| Failure::file(path, "make", e))?;
            file.write_all(key.serialize_pem().as_bytes()).map_err(|e| Failure::file(path, "write", e))?;
            Ok(key)
        }
        Err(error) => Err(Failure::file(path, "read", error)),
    }
}
