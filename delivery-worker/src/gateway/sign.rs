//! AWS Signature Version 4 for `PostToConnection`.
//!
//! The general signer derives the key and writes the whole canonical request for each call. Here the key is
//! derived once a day, the headers are written once a second and a payload is hashed once for all its connections,
//! so that a post costs one hash and one HMAC.
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

/// The content type of every post, which is signed.
pub const CONTENT_TYPE: &str = "application/octet-stream";

/// When the request was signed.
pub const X_AMZ_DATE: HeaderName = HeaderName::from_static("x-amz-date");

/// The token of temporary credentials, such as those of a Lambda.
pub const X_AMZ_SECURITY_TOKEN: HeaderName = HeaderName::from_static("x-amz-security-token");

const SERVICE: &str = "execute-api";

/// Credentials are renewed this long before they expire: no post takes so long.
const RENEW_BEFORE: Duration = Duration::from_secs(5 * 60);

/// Signs posts to one host.
pub struct Signer {
    provider: SharedCredentialsProvider,
    region: String,
    host: String,
    current: Mutex<Option<Arc<Stamp>>>,
    /// The payload that was signed last, and its hash: a message has one payload for all its connections. It is
    /// kept, so that no other payload can have its address.
    hashed: Mutex<Option<(Bytes, Hex)>>,
    renewing: tokio::sync::Mutex<()>,
}

/// What a signature adds to a request.
#[derive(Clone)]
pub struct Signed {
    /// `x-amz-date`.
    pub date: HeaderValue,
    /// `x-amz-security-token`, with temporary credentials.
    pub token: Option<HeaderValue>,
    /// `authorization`.
    pub authorization: Vec<u8>,
}

/// All of a signature that is the same for every post of one second.
struct Stamp {
    keys: Arc<Keys>,
    second: u64,
    date: HeaderValue,
    token: Option<HeaderValue>,
    /// The canonical request from the end of the path to the payload's hash.
    headers: String,
    /// The string to sign, up to the canonical request's hash.
    to_sign: String,
    /// The header `authorization`, up to the signature.
    authorization: String,
}

/// What is the same for every post of one day.
struct Keys {
    credentials: Credentials,
    day: String,
    key: hmac::Key,
}

impl Signer {
    /// Signs posts to `host`, in `region`, with the credentials of `provider`.
    #[must_use]
    pub fn new(provider: SharedCredentialsProvider, region: &str, host: &str) -> Self {
        Self {
            provider,
            region: region.to_owned(),
            host: host.to_owned(),
            current: Mutex::new(None),
            hashed: Mutex::new(None),
            renewing: tokio::sync::Mutex::new(()),
        }
    }

    /// Signs a post of `payload` to the canonical path `path`.
    ///
    /// # Errors
    /// Why there are no credentials.
    pub async fn sign(&self, path: &str, payload: &Bytes, now: SystemTime) -> Result<Signed, String> {
        let stamp = self.stamp(now).await?;
        let canonical = [b"POST\n", path.as_bytes(), stamp.headers.as_bytes(), &self.hash(payload)];
        let canonical = hex(digest(&SHA256, &canonical.concat()));
        let signature = hex(hmac::sign(&stamp.keys.key, &[stamp.to_sign.as_bytes(), &canonical].concat()));
        let authorization = [stamp.authorization.as_bytes(), &signature].concat();
        Ok(Signed { date: stamp.date.clone(), token: stamp.token.clone(), authorization })
    }

    fn hash(&self, payload: &Bytes) -> Hex {
        let mut last = self.hashed.lock().unwrap_or_else(PoisonError::into_inner);
        let same = |(hashed, _): &&(Bytes, Hex)| std::ptr::eq::<[u8]>(&**hashed, &**payload);
        if let Some((_, hash)) = last.as_ref().filter(same) {
            return *hash;
        }
        let hash = hex(digest(&SHA256, payload));
        *last = Some((payload.clone(), hash));
        hash
    }

    async fn stamp(&self, now: SystemTime) -> Result<Arc<Stamp>, String> {
        let second = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        let current = self.current();
        if let Some(stamp) = current.as_ref().filter(|stamp| stamp.second == second) {
            return Ok(Arc::clone(stamp));
        }
        let keys = match current.map(|stamp| Arc::clone(&stamp.keys)) {
            Some(keys) if keys.last(now + RENEW_BEFORE) => keys,
            // Boxed, since it is rare and large.
            old => Box::pin(self.renew(old, now, second)).await?,
        };
        let stamp = Arc::new(self.write(keys, second)?);
        *self.current.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&stamp));
        Ok(stamp)
    }

    fn current(&self) -> Option<Arc<Stamp>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// New credentials. One post asks for them; the others go on with the old ones as long as these last.
    async fn renew(&self, old: Option<Arc<Keys>>, now: SystemTime, second: u64) -> Result<Arc<Keys>, String> {
        let still_good = old.filter(|keys| keys.last(now));
        let _renewing = match (self.renewing.try_lock(), &still_good) {
            (Ok(renewing), _) => renewing,
            (Err(_), Some(keys)) => return Ok(Arc::clone(keys)),
            (Err(_), None) => self.renewing.lock().await,
        };
        // Another post may have renewed them while this one waited.
        if let Some(stamp) = self.current().filter(|stamp| stamp.keys.last(now + RENEW_BEFORE)) {
            return Ok(Arc::clone(&stamp.keys));
        }
        match (self.provider.provide_credentials().await, still_good) {
            (Ok(credentials), _) => Ok(Arc::new(Keys::of(credentials, &self.region, second))),
            (Err(_), Some(keys)) => Ok(keys),
            (Err(error), None) => Err(format!("no credentials: {error}")),
        }
    }

    fn write(&self, mut keys: Arc<Keys>, second: u64) -> Result<Stamp, String> {
        let date = basic(second);
        // A key of yesterday signs nothing of today.
        if !date.starts_with(&keys.day) {
            keys = Arc::new(Keys::of(keys.credentials.clone(), &self.region, second));
        }
        let (names, token) = match keys.token() {
            None => ("content-type;host;x-amz-date", String::new()),
            Some(token) => (
                "content-type;host;x-amz-date;x-amz-security-token",
                format!("x-amz-security-token:{token}\n"),
            ),
        };
        let scope = format!("{}/{}/{SERVICE}/aws4_request", keys.day, self.region);
        let header = |text: &str| HeaderValue::try_from(text).map_err(|_| "credentials that are no header");
        let mut token_header = keys.token().map(header).transpose()?;
        token_header.iter_mut().for_each(|token| token.set_sensitive(true));
        Ok(Stamp {
            second,
            date: header(&date)?,
            token: token_header,
            headers: format!(
                "\n\ncontent-type:{CONTENT_TYPE}\nhost:{}\nx-amz-date:{date}\n{token}\n{names}\n",
                self.host
            ),
            to_sign: format!("AWS4-HMAC-SHA256\n{date}\n{scope}\n"),
            authorization: format!(
                "AWS4-HMAC-SHA256 Credential={}/{scope}, SignedHeaders={names}, Signature=",
                keys.credentials.access_key_id()
            ),
            keys,
        })
    }
}

impl Keys {
    /// The keys of the day in which `second` lies.
    fn of(credentials: Credentials, region: &str, second: u64) -> Self {
        let at = SystemTime::UNIX_EPOCH + Duration::from_secs(second);
        let key = generate_signing_key(credentials.secret_access_key(), at, region, SERVICE);
        let mut day = basic(second);
        day.truncate(8);
        Self { credentials, day, key: hmac::Key::new(hmac::HMAC_SHA256, key.as_ref()) }
    }

    /// The session token; emulators give an empty one.
    fn token(&self) -> Option<&str> {
        self.credentials.session_token().filter(|token| !token.is_empty())
    }

    /// Whether the credentials are good until then.
    fn last(&self, until: SystemTime) -> bool {
        self.credentials.expiry().is_none_or(|expiry| expiry > until)
    }
}

/// A second since the epoch in ISO 8601's basic format, such as `20261124T180000Z`.
fn basic(second: u64) -> String {
    let at = DateTime::from_secs(i64::try_from(second).unwrap_or(i64::MAX));
    let extended = at.fmt(Format::DateTime).unwrap_or_default();
    extended.chars().filter(|character| !matches!(character, '-' | ':')).collect()
}

/// The 32 bytes of a hash in hexadecimal.
type Hex = [u8; 64];

fn hex(hash: impl AsRef<[u8]>) -> Hex {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = [0; 64];
    for (byte, digits) in hash.as_ref().iter().zip(text.as_chunks_mut().0) {
        *digits = [DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]];
    }
    text
}
