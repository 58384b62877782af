//! The TLS stack and its trusted root certificates.
//!
//! Parsing the system's root certificates makes a Lambda function's start two thirds longer. The functions call
//! only AWS, so in Lambda they trust only the five certificates that AWS's endpoints chain to ([`AMAZON_ROOTS`]).
//! If that is not enough, for example for a custom domain with a certificate of another authority, set
//! `SSL_CERT_FILE` or `SSL_CERT_DIR`; Amazon Linux keeps its certificates in `/etc/pki/tls/certs/ca-bundle.crt`.

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

/// Returns whether only [`AMAZON_ROOTS`] are trusted. This is so in Lambda, unless the environment names certificates
/// or an endpoint other than AWS's, or the partition's endpoints are not known to chain to these roots.
#[must_use]
pub fn trusts_amazon_only() -> bool {
    only_amazon(
        env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?))),
    )
}

fn only_amazon(variables: impl Iterator<Item = (String, String)>) -> bool {
    const OVERRIDES: [&str; 3] = ["SSL_CERT_FILE", "SSL_CERT_DIR", "AWS_ENDPOINT_URL"];
    const OTHER_PARTITIONS: [&str; 3] = ["cn-", "us-iso", "eusc-"];
    let mut in_lambda = false;
    for (name, value) in variables.filter(|(_, value)| !value.is_empty()) {
        let other_partition =
            name == "AWS_REGION" && OTHER_PARTITIONS.iter().any(|prefix| value.starts_with(prefix));
        // A prefix, since the endpoint of one service has the service's name appended: `AWS_ENDPOINT_URL_SQS`.
        if other_partition || OVERRIDES.iter().any(|prefix| name.starts_with(prefix)) {
            return false;
        }
        in_lambda |= name == "AWS_LAMBDA_FUNCTION_NAME";
    }
    in_lambda
}

/// Returns a client's TLS configuration.
///
/// # Errors
/// If no root certificate is found (install `ca-certificates` or set `SSL_CERT_FILE`), or the crypto library does not
/// support the default TLS versions.
pub fn client_config() -> Result<ClientConfig, rustls::Error> {
    let mut roots = RootCertStore::empty();
    if trusts_amazon_only() {
        roots.add_parsable_certificates(CertificateDer::pem_slice_iter(AMAZON_ROOTS).flatten());
    } else {
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    }
    if roots.is_empty() {
        let remedy = "no root certificate found: install ca-certificates, or set SSL_CERT_FILE";
        return Err(rustls::Error::General(remedy.to_owned()));
    }
    Ok(ClientConfig::builder_with_provider(aws_lc_rs::default_provider().into())
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn all_five_amazon_roots_parse() {
        let mut roots = RootCertStore::empty();
        let added = roots.add_parsable_certificates(CertificateDer::pem_slice_iter(AMAZON_ROOTS).flatten());
        assert_eq!(added, (5, 0));
    }

    #[test]
    fn lambda_trusts_only_amazon_unless_overridden() {
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

    /// AWS-LC leaves the jitter source out of the build, as `.cargo/config.toml` says: in Lambda, its seed would take
    /// 70 to 350 ms of the first invocation. This program contains AWS-LC as the functions do, and names its symbols.
    #[cfg(unix)]
    #[test]
    fn random_numbers_need_no_cpu_jitter() {
        assert!(client_config().is_ok());
        let program = fs::read(env::current_exe().unwrap()).unwrap();
        let program = String::from_utf8_lossy(&program);
        // Joined here, so that the names are in the program only as symbols.
        let contains = |words: &[&str]| program.contains(&words.join("_"));
        assert!(contains(&["vm", "ube", "fallback", "get", "seed"]), "this program has no symbols of AWS-LC");
        assert!(!contains(&["jent", "read", "entropy"]), "build with AWS_LC_SYS_NO_JITTER_ENTROPY=1");
    }
}
