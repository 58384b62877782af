//! The stub as a process of its own, and its certificate.

use std::{
    env, fs,
    io::{BufRead as _, BufReader},
    process::{Child, Stdio},
};

use anyhow::Context as _;
use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};

use crate::{
    place,
    process::{SERVER, pinned},
};

/// A stub on the servers' core that runs until it is dropped.
pub(crate) struct Stub {
    process: Child,
    /// The beginning of its URLs.
    pub(crate) origin: String,
}

impl Stub {
    /// Starts a stub that answers after so many milliseconds.
    pub(crate) fn start(delay: u64, tls: bool) -> anyhow::Result<Self> {
        Self::run(["stub", &delay.to_string(), if tls { "tls" } else { "plain" }], tls)
    }

    /// Starts this program in the role of a stub.
    pub(crate) fn run(arguments: [&str; 3], tls: bool) -> anyhow::Result<Self> {
        let mut command = pinned(SERVER, env::current_exe()?);
        command.args(arguments).stdout(Stdio::piped());
        let mut process = command.spawn()?;
        let mut address = String::new();
        BufReader::new(process.stdout.take().context("no output")?).read_line(&mut address)?;
        let port = address.trim().rsplit(':').next().unwrap_or_default().to_owned();
        let origin =
            if tls { format!("https://localhost:{port}") } else { format!("http://127.0.0.1:{port}") };
        Ok(Self { process, origin })
    }
}

impl Drop for Stub {
    fn drop(&mut self) {
        _ = self.process.kill();
        _ = self.process.wait();
    }
}

/// Creates a certificate for the stub, which clients trust.
pub(crate) fn certificate() -> anyhow::Result<()> {
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed(["localhost".to_owned()])?;
    fs::write(place("certificate.pem"), cert.pem())?;
    Ok(fs::write(place("key.pem"), signing_key.serialize_pem())?)
}

/// Returns the configuration of a server with this certificate.
pub(crate) fn server_config() -> anyhow::Result<rustls::ServerConfig> {
    let certificate = CertificateDer::from_pem_file(place("certificate.pem"))?;
    let key = PrivateKeyDer::from_pem_file(place("key.pem"))?;
    let provider = rustls::crypto::aws_lc_rs::default_provider().into();
    let config =
        rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    Ok(config.with_no_client_auth().with_single_cert(vec![certificate], key)?)
}
