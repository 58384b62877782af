//! The one TLS stack, and whom it trusts.
//!
//! Parsing the system's root certificates makes a Lambda's start two thirds longer. In Lambda only AWS is called, so only the five certificates that AWS's endpoints chain to are trusted there
//! ([`AMAZON_ROOTS`]). Where that is too little, such as behind a custom domain with a certificate of another
//! authority, `SSL_CERT_FILE` or `SSL_CERT_DIR` name others; Amazon Linux's are in
//! `/etc/pki/tls/certs/ca-bundle.crt`.

use std::env;

use rustls::{
    ClientConfig, RootCertStore,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, pem::PemObject as _},
};

/// The root certificates of Amazon Trust Services, as PEM.
///
/// Source: <https://www.amazontrust.com/repository/>.
pub const AMAZON_ROOTS: &[u8] = include_bytes!("amazon-roots.pem");

/// Whether only [`AMAZON_ROOTS`] are trusted: in Lambda, unless its environment names certificates or another
/// endpoint than AWS's, and but for the partitions that are not known to chain to them.
#[must_use]
pub fn trusts_amazon_only() -> bool {
    only_amazon(
        env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?))),
    )
}

fn only_amazon(variables: impl Iterator<Item = (String, String)>) -> bool {
    const OTHERWISE: [&str; 3] = ["SSL_CERT_FILE", "SSL_CERT_DIR", "AWS_ENDPOINT_URL"];
    const ELSEWHERE: [&str; 3] = ["cn-", "us-iso", "eusc-"];
    let mut in_lambda = false;
    for (name, value) in variables.filter(|(_, value)| !value.is_empty()) {
        let elsewhere = name == "AWS_REGION" && ELSEWHERE.iter().any(|prefix| value.starts_with(prefix));
        // The endpoint of one service is named by a variable with that service's name behind it.
        if elsewhere || OTHERWISE.iter().any(|otherwise| name.starts_with(otherwise)) {
            return false;
        }
        in_lambda |= name == "AWS_LAMBDA_FUNCTION_NAME";
    }
    in_lambda
}

/// A client's TLS configuration.
///
/// # Errors
/// When there is no root certificate to trust, or the crypto library lacks what TLS needs.
pub fn client_config() -> Result<ClientConfig, rustls::Error> {
    let mut roots = RootCertStore::empty();
    if trusts_amazon_only() {
        roots.add_parsable_certificates(CertificateDer::pem_slice_iter(AMAZON_ROOTS).flatten());
    } else {
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    }
    if roots.is_empty() {
        let remedy = "no root certificate was found: install ca-certificates, or set SSL_CERT_FILE";
        return Err(rustls::Error::General(remedy.to_owned()));
    }
    Ok(ClientConfig::builder_with_provider(aws_lc_rs::default_provider().into())
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_five_roots_of_amazon_can_be_trusted() {
        let mut roots = RootCertStore::empty();
        let added = roots.add_parsable_certificates(CertificateDer::pem_slice_iter(AMAZON_ROOTS).flatten());
        assert_eq!(added, (5, 0));
    }

    #[test]
    fn only_amazon_is_trusted_in_lambda_unless_told_otherwise() {
        let only = |set: &[(&str, &str)]| {
            only_amazon(set.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())))
        };
        let lambda = ("AWS_LAMBDA_FUNCTION_NAME", "worker");
        assert!(only(&[lambda, ("AWS_REGION", "eu-central-1"), ("SSL_CERT_FILE", "")]));
        assert!(!only(&[]));
        for other in [
            ("SSL_CERT_FILE", "/ca.pem"),
            ("SSL_CERT_DIR", "/certs"),
            ("AWS_ENDPOINT_URL", "https://localhost"),
            ("AWS_ENDPOINT_URL_SQS", "https://localhost"),
            ("AWS_REGION", "cn-north-1"),
        ] {
            assert!(!only(&[lambda, other]), "{other:?}");
        }
    }
}
