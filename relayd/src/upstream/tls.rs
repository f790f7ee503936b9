//! Whom we believe to be an upstream: the trusted roots, loaded once and shared by every client.

use std::io::BufReader;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};

/// Why TLS cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file of `upstream.extra_ca` is missing or holds no certificate.
    #[error("upstream.extra_ca: {} holds no certificate that can be read", .path.display())]
    Certificate {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The crypto provider refuses the protocol versions.
    #[error("TLS cannot be set up")]
    Setup(#[from] rustls::Error),
}

pub(super) fn client_config(extra_ca: &[PathBuf]) -> Result<Arc<ClientConfig>, TlsError> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }
    for path in extra_ca {
        add_file(&mut roots, path).map_err(|source| TlsError::Certificate { path: path.clone(), source })?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

fn add_file(
    roots: &mut RootCertStore,
    path: &PathBuf,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let mut found = 0;
    for certificate in CertificateDer::pem_reader_iter(BufReader::new(std::fs::File::open(path)?)) {
        roots.add(certificate?)?;
        found += 1;
    }
    if found == 0 { Err("the file holds no PEM certificate".into()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roots_are_found_and_bad_files_named() {
        assert!(client_config(&[]).is_ok());
        let error = client_config(&["/nowhere/ca.pem".into()]).unwrap_err();
        assert!(error.to_string().contains("/nowhere/ca.pem"), "{error}");
    }
}
