//! Whom to trust: TLS 1.2 or newer, certificates verified, no way to switch that off.
#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::{CertificateDer, pem::PemObject};
use rustls::{CertificateError, ClientConfig, RootCertStore};

use crate::error::{Error, Result};

/// Client settings that trust the system's certificate authorities and those of the PEM files `extra`.
///
/// The system's are found by `rustls-native-certs` (which follows `SSL_CERT_FILE` and `SSL_CERT_DIR`); a system
/// without any will do if `extra` names some.
///
/// # Errors
/// [`Error::File`] if a file cannot be read, [`Error::InvalidConfig`] if it holds no certificate or a broken one,
/// [`Error::Upload`] if there is nobody to trust.
pub fn client_config(extra: &[PathBuf]) -> Result<ClientConfig> {
    let system = rustls_native_certs::load_native_certs();
    let why = system.errors.first().map(ToString::to_string);
    client_config_with(system.certs, why, extra)
}

fn client_config_with(
    system: Vec<CertificateDer<'static>>,
    system_error: Option<String>,
    extra: &[PathBuf],
) -> Result<ClientConfig> {
    let mut roots = RootCertStore::empty();
    // Some systems carry certificates that no modern parser takes; the others are still good.
    roots.add_parsable_certificates(system);
    for path in extra {
        add_file(&mut roots, path)?;
    }
    if roots.is_empty() {
        let cause = system_error.map(|e| format!(" ({e})")).unwrap_or_default();
        return Err(Error::Upload(format!(
            "no certificate authority to trust: the system has none{cause}; install ca-certificates or name a PEM \
             file with .certificate_authority()"
        )));
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map_err(|e| Error::Upload(format!("TLS 1.2 and 1.3 cannot be set up: {e}")))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(config)
}

/// Whether the PEM files can be used, without looking at the system's authorities.
///
/// # Errors
/// As [`client_config`] for each file.
pub fn check_authorities(extra: &[PathBuf]) -> Result<()> {
    extra.iter().try_for_each(|path| add_file(&mut RootCertStore::empty(), path))
}

fn add_file(roots: &mut RootCertStore, path: &Path) -> Result<()> {
    let pem = std::fs::read(path).map_err(|e| Error::file(path, "read certificate authorities from", e))?;
    let invalid = |why: String| Error::InvalidConfig {
        field: "certificate_authority",
        reason: format!("{} {why}; it takes a PEM file with BEGIN CERTIFICATE blocks", path.display()),
    };
    let mut found = false;
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|e| invalid(format!("is no PEM file: {e}")))?;
        roots.add(certificate).map_err(|e| invalid(format!("holds a broken certificate: {e}")))?;
        found = true;
    }
    if found { Ok(()) } else { Err(invalid("holds no certificate".to_owned())) }
}

/// Cause and way out of a failed handshake, in words for a log.
pub fn explain(error: &rustls::Error) -> String {
    use rustls::{AlertDescription, Error as Tls, InvalidMessage, PeerIncompatible};
    match error {
        Tls::InvalidCertificate(certificate) => explain_certificate(certificate),
        // The first bytes of "HTTP/1.1 400" are no TLS record.
        Tls::InvalidMessage(
            InvalidMessage::InvalidContentType
            | InvalidMessage::UnknownProtocolVersion
            | InvalidMessage::MessageTooLarge,
        ) => "the server does not speak TLS on this port (plain http?); check the destination's port"
            .to_owned(),
        Tls::PeerIncompatible(
            PeerIncompatible::ServerDoesNotSupportTls12Or13
            | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig
            | PeerIncompatible::ServerSentHelloRetryRequestWithUnknownExtension,
        )
        | Tls::AlertReceived(AlertDescription::ProtocolVersion) => {
            "the server offers no TLS 1.2 or 1.3; it needs an update".to_owned()
        }
        Tls::AlertReceived(alert) => format!("the server refused the TLS handshake ({alert:?})"),
        other => format!("TLS failed: {other}"),
    }
}

fn explain_certificate(error: &CertificateError) -> String {
    match error {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "the server's certificate has expired; renew it, or check this device's clock".to_owned()
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "the server's certificate is not valid yet; check this device's clock".to_owned()
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            "the server's certificate is for another host; check the destination's host name".to_owned()
        }
        CertificateError::UnknownIssuer => "the server's certificate is from an unknown issuer, or an intermediate \
             certificate is missing; if the collector is yours, name its authority with .certificate_authority()"
            .to_owned(),
        // What a re-made authority of the same name looks like.
        CertificateError::BadSignature => "the server's certificate was not signed by the trusted authority of that \
             name; renew the file named with .certificate_authority()"
            .to_owned(),
        CertificateError::Revoked => "the server's certificate was revoked; renew it".to_owned(),
        other => format!(
            "the server's certificate is not acceptable ({other}); a self-signed one needs an authority named with \
             .certificate_authority()"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn authority() -> String {
        let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap().pem()
    }

    #[test]
    fn nobody_to_trust_is_an_error_and_a_file_is_enough() {
        let none = client_config_with(Vec::new(), Some("no such directory".into()), &[]).unwrap_err();
        let text = none.to_string();
        assert!(text.contains("no such directory") && text.contains("ca-certificates"), "{text}");

        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("ca.pem");
        std::fs::write(&file, authority() + &authority()).unwrap();
        client_config_with(Vec::new(), None, &[file]).unwrap();
    }

    #[test]
    fn bad_files_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = dir.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let missing = client_config(&[dir.path().join("missing.pem")]).unwrap_err();
        assert!(matches!(missing, Error::File { .. }), "{missing}");
        assert!(missing.to_string().contains("missing.pem"));
        for (name, text) in [
            ("empty.pem", String::new()),
            ("key.pem", rcgen::KeyPair::generate().unwrap().serialize_pem()),
            ("cut.pem", authority()[..100].to_owned()),
            ("base64.pem", authority().replace("M", "!")),
            ("der.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n".to_owned()),
        ] {
            let error = client_config(&[write(name, &text)]).unwrap_err();
            assert!(matches!(error, Error::InvalidConfig { .. }), "{name}: {error}");
            assert!(error.to_string().contains(name), "{error}");
        }
    }
}
