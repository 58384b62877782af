//! AWS Signature Version 4 for `PostToConnection`.
//!
//! A general signer derives the key and writes the whole canonical request for each call. This one derives the key
//! once a day, writes the headers once a second and hashes a payload once for all its connections, so that a post
//! costs one hash and one HMAC.
//!
//! Source: <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html>.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use aws_credential_types::{
    Credentials,
    provider::{ProvideCredentials, SharedCredentialsProvider},
};
use aws_lc_rs::{
    digest::{SHA256, digest},
    hmac,
};
use aws_sigv4::sign::v4::generate_signing_key;
use aws_smithy_types::date_time::{DateTime, Format};
use bytes::Bytes;
use http::{HeaderName, HeaderValue};

/// The content type of every post. It is part of the signature.
pub const CONTENT_TYPE: &str = "application/octet-stream";

/// The header with the time of the signature.
pub const X_AMZ_DATE: HeaderName = HeaderName::from_static("x-amz-date");

/// The header with the session token of temporary credentials, such as those of a Lambda function.
pub const X_AMZ_SECURITY_TOKEN: HeaderName = HeaderName::from_static("x-amz-security-token");

const SERVICE: &str = "execute-api";

/// Time before their expiry at which credentials are renewed. A post takes less than that.
const RENEW_BEFORE: Duration = Duration::from_secs(5 * 60);

/// Signs posts to one host.
pub struct Signer {
    provider: SharedCredentialsProvider,
    region: String,
    host: String,
    template: Mutex<Option<Arc<Template>>>,
    /// The payload that was signed last, and its hash: a message has one payload for all its connections. The signer
    /// keeps the payload, so that no other one can have the same address.
    last_payload: Mutex<Option<(Bytes, Hex)>>,
    /// Held by the post that renews the credentials.
    renewal: tokio::sync::Mutex<()>,
}

/// The headers of a signature.
#[derive(Clone)]
pub struct Signature {
    /// `x-amz-date`.
    pub date: HeaderValue,
    /// `x-amz-security-token`, only with temporary credentials.
    pub token: Option<HeaderValue>,
    /// `authorization`.
    pub authorization: Vec<u8>,
}

/// The parts of a signature that all posts of one second share.
struct Template {
    key: Arc<SigningKey>,
    /// The second since the epoch.
    second: u64,
    date: HeaderValue,
    token: Option<HeaderValue>,
    /// The canonical request from the end of the path to the payload's hash.
    canonical_headers: String,
    /// The string to sign, up to the canonical request's hash.
    string_to_sign: String,
    /// The header `authorization`, up to the signature.
    authorization: String,
}

/// The signing key, which is valid for one day, and its credentials.
struct SigningKey {
    credentials: Credentials,
    /// The day as `YYYYMMDD`.
    day: String,
    hmac_key: hmac::Key,
}

impl Signer {
    /// Builds a signer of posts to `host` in `region`, with the credentials of `provider`.
    #[must_use]
    pub fn new(provider: SharedCredentialsProvider, region: &str, host: &str) -> Self {
        Self {
            provider,
            region: region.to_owned(),
            host: host.to_owned(),
            template: Mutex::new(None),
            last_payload: Mutex::new(None),
            renewal: tokio::sync::Mutex::new(()),
        }
    }

    /// Signs a post of `payload` to the canonical path `path`.
    ///
    /// # Errors
    /// The reason why there are no valid credentials, as text.
    pub async fn sign(&self, path: &str, payload: &Bytes, now: SystemTime) -> Result<Signature, String> {
        let template = self.template(now).await?;
        let Template { key, canonical_headers, string_to_sign, authorization, .. } = &*template;
        let request = [b"POST\n", path.as_bytes(), canonical_headers.as_bytes(), &self.hash(payload)];
        let request_hash = hex(digest(&SHA256, &request.concat()));
        let string_to_sign = [string_to_sign.as_bytes(), &request_hash].concat();
        let signature = hex(hmac::sign(&key.hmac_key, &string_to_sign));
        let authorization = [authorization.as_bytes(), &signature].concat();
        Ok(Signature { date: template.date.clone(), token: template.token.clone(), authorization })
    }

    fn hash(&self, payload: &Bytes) -> Hex {
        let mut last = self.last_payload.lock().unwrap_or_else(PoisonError::into_inner);
        let is_same = |(last, _): &&(Bytes, Hex)| std::ptr::eq::<[u8]>(&**last, &**payload);
        if let Some((_, hash)) = last.as_ref().filter(is_same) {
            return *hash;
        }
        let hash = hex(digest(&SHA256, payload));
        *last = Some((payload.clone(), hash));
        hash
    }

    async fn template(&self, now: SystemTime) -> Result<Arc<Template>, String> {
        let second = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        let latest = self.latest_template();
        if let Some(template) = latest.as_ref().filter(|template| template.second == second) {
            return Ok(Arc::clone(template));
        }
        let key = match latest.map(|template| Arc::clone(&template.key)) {
            Some(key) if key.is_valid_at(now + RENEW_BEFORE) => key,
            // Boxed because it is rare and large.
            key => Box::pin(self.renew(key, now, second)).await?,
        };
        let template = Arc::new(self.build_template(key, second)?);
        *self.template.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&template));
        Ok(template)
    }

    fn latest_template(&self) -> Option<Arc<Template>> {
        self.template.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Renews the credentials. One post requests them. The others use the old ones as long as these are valid.
    async fn renew(
        &self,
        old: Option<Arc<SigningKey>>,
        now: SystemTime,
        second: u64,
    ) -> Result<Arc<SigningKey>, String> {
        let still_valid = old.filter(|key| key.is_valid_at(now));
        let _renewal = match (self.renewal.try_lock(), &still_valid) {
            (Ok(renewal), _) => renewal,
            (Err(_), Some(key)) => return Ok(Arc::clone(key)),
            (Err(_), None) => self.renewal.lock().await,
        };
        // Another post may have renewed them while this one waited.
        let is_renewed = |template: &Arc<Template>| template.key.is_valid_at(now + RENEW_BEFORE);
        if let Some(template) = self.latest_template().filter(is_renewed) {
            return Ok(Arc::clone(&template.key));
        }
        match (self.provider.provide_credentials().await, still_valid) {
            (Ok(credentials), _) => Ok(Arc::new(SigningKey::derive(credentials, &self.region, second))),
            (Err(_), Some(key)) => Ok(key),
            (Err(error), None) => Err(format!("no credentials: {error}")),
        }
    }

    fn build_template(&self, mut key: Arc<SigningKey>, second: u64) -> Result<Template, String> {
        let date = basic_iso_8601(second);
        // A signing key is valid for its own day only.
        if !date.starts_with(&key.day) {
            key = Arc::new(SigningKey::derive(key.credentials.clone(), &self.region, second));
        }
        let (names, token) = match key.token() {
            None => ("content-type;host;x-amz-date", String::new()),
            Some(token) => (
                "content-type;host;x-amz-date;x-amz-security-token",
                format!("x-amz-security-token:{token}\n"),
            ),
        };
        let scope = format!("{}/{}/{SERVICE}/aws4_request", key.day, self.region);
        let header = |text: &str| {
            HeaderValue::try_from(text).map_err(|_| "the credentials contain characters that no header can")
        };
        let mut token_header = key.token().map(header).transpose()?;
        token_header.iter_mut().for_each(|token| token.set_sensitive(true));
        Ok(Template {
            second,
            date: header(&date)?,
            token: token_header,
            canonical_headers: format!(
                "\n\ncontent-type:{CONTENT_TYPE}\nhost:{}\nx-amz-date:{date}\n{token}\n{names}\n",
                self.host
            ),
            string_to_sign: format!("AWS4-HMAC-SHA256\n{date}\n{scope}\n"),
            authorization: format!(
                "AWS4-HMAC-SHA256 Credential={}/{scope}, SignedHeaders={names}, Signature=",
                key.credentials.access_key_id()
            ),
            key,
        })
    }
}

impl SigningKey {
    /// Derives the key for the day that contains `second`.
    fn derive(credentials: Credentials, region: &str, second: u64) -> Self {
        let at = SystemTime::UNIX_EPOCH + Duration::from_secs(second);
        let key = generate_signing_key(credentials.secret_access_key(), at, region, SERVICE);
        let mut day = basic_iso_8601(second);
        day.truncate(8);
        Self { credentials, day, hmac_key: hmac::Key::new(hmac::HMAC_SHA256, key.as_ref()) }
    }

    /// Returns the session token. Emulators provide an empty one, which does not count.
    fn token(&self) -> Option<&str> {
        self.credentials.session_token().filter(|token| !token.is_empty())
    }

    /// Returns whether the credentials are valid at `time`.
    fn is_valid_at(&self, time: SystemTime) -> bool {
        self.credentials.expiry().is_none_or(|expiry| expiry > time)
    }
}

/// Formats a second since the epoch in ISO 8601's basic format, such as `20261124T180000Z`.
fn basic_iso_8601(second: u64) -> String {
    let at = DateTime::from_secs(i64::try_from(second).unwrap_or(i64::MAX));
    let extended = at.fmt(Format::DateTime).unwrap_or_default();
    extended.chars().filter(|character| !matches!(character, '-' | ':')).collect()
}

/// A hash of 32 bytes in hexadecimal.
type Hex = [u8; 64];

fn hex(hash: impl AsRef<[u8]>) -> Hex {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = [0; 64];
    for (byte, digits) in hash.as_ref().iter().zip(text.as_chunks_mut().0) {
        *digits = [DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]];
    }
    text
}
