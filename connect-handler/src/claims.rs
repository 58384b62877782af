//! Reads the claims of a token, and names the one that refuses it.

use std::{
    collections::BTreeSet,
    fmt,
    time::{Duration, SystemTime},
};

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};
use serde_json::{Number, Value, value::RawValue};
use streamer_message::{InvalidId, TenantId, UserId};

use crate::{
    claim_path::ClaimPath,
    fault::{ClaimFault, Fault, Kind, Problem},
    issuer::is_cognito,
    rules::{Audience, ClaimNames, Rules},
};

/// Tolerated difference between the clocks of issuer and verifier.
const LEEWAY: Duration = Duration::from_secs(30);

/// How far ahead an `exp` may lie. A time in milliseconds lies further ahead.
const MAX_LIFETIME: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);

/// The claims that a connection's row needs.
#[derive(Debug, Clone, PartialEq)]
pub struct Claims {
    /// The user.
    pub user_id: UserId,
    /// The user's tenant.
    pub tenant_id: TenantId,
    /// The user's permissions, none if the claim is missing. A claim of another shape refuses the token only where a
    /// permission is required.
    pub permissions: Result<BTreeSet<String>, ClaimFault>,
    /// The token's `exp`: seconds since the epoch, possibly with a fraction (RFC 7519, section 2: NumericDate).
    exp: Option<f64>,
}

/// The members of a JSON object, such as all claims of a token.
#[derive(Debug)]
pub(crate) struct ClaimSet(Vec<(String, Box<RawValue>)>);

impl Claims {
    /// Reads the claims of a token that satisfies the rules, or the context of an authorizer.
    pub(crate) fn read(claims: &ClaimSet, names: &ClaimNames) -> Result<Self, ClaimFault> {
        let missing = |path: &ClaimPath| ClaimFault::new(path, Problem::Missing);
        let user = claims.text(&names.user)?.ok_or_else(|| missing(&names.user))?;
        let tenant_id = match (claims.text(&names.tenant)?, &names.default_tenant) {
            (Some(tenant), _) => id(&names.tenant, &tenant, TenantId::new)?,
            (None, Some(tenant)) => tenant.clone(),
            (None, None) => return Err(missing(&names.tenant)),
        };
        Ok(Self {
            user_id: id(&names.user, &user, UserId::new)?,
            tenant_id,
            permissions: claims.permissions(&names.permissions),
            exp: claims.time("exp").unwrap_or_default(),
        })
    }

    /// Returns the time when the token expires, or `None` if there is no `exp` that is a representable time.
    #[must_use]
    pub fn expires_at(&self) -> Option<SystemTime> {
        let since_epoch = Duration::try_from_secs_f64(self.exp?).ok()?;
        SystemTime::UNIX_EPOCH.checked_add(since_epoch)
    }
}

/// Checks the text of a claim that becomes an id.
fn id<T>(path: &ClaimPath, text: &str, new: fn(String) -> Result<T, InvalidId>) -> Result<T, ClaimFault> {
    new(text.to_owned()).map_err(|error| {
        let problem = match text {
            "" => Problem::Empty,
            _ if error.is_too_long() => Problem::TooLong,
            _ => Problem::ForbiddenCharacter,
        };
        ClaimFault::new(path, problem)
    })
}

impl ClaimSet {
    /// Checks the claims of a token whose signature is verified. An expiry is named before any other fault.
    pub(crate) fn check(&self, rules: &Rules, now: SystemTime) -> Result<(), Fault> {
        let now = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        let leeway = LEEWAY.as_secs_f64();
        let invalid = |claim, problem| Err(Fault::InvalidClaims(ClaimFault::new(claim, problem)));
        match self.time("exp").map_err(Fault::InvalidClaims)? {
            None => return invalid("exp", Problem::Missing),
            Some(exp) if exp < now - leeway => return Err(Fault::Expired),
            Some(exp) if exp > now + MAX_LIFETIME.as_secs_f64() => {
                return invalid("exp", Problem::TooFarAhead);
            }
            Some(_) => {}
        }
        if self.time("nbf").map_err(Fault::InvalidClaims)?.is_some_and(|nbf| nbf > now + leeway) {
            return Err(Fault::NotYetValid);
        }
        self.check_issuer(rules).map_err(Fault::WrongIssuer)?;
        self.check_audience(&rules.audience).map_err(Fault::WrongAudience)?;
        self.check_use(&rules.audience).map_err(Fault::InvalidClaims)
    }

    /// Returns the claim `iss`.
    pub(crate) fn issuer(&self) -> Result<String, Problem> {
        match self.value(&ClaimPath::named("iss")).map_err(|fault| fault.problem)? {
            None => Err(Problem::Missing),
            Some(Value::String(iss)) => Ok(iss),
            Some(other) => Err(Problem::Found(Kind::of(&other))),
        }
    }

    /// Returns the claim `tid`, Entra's tenant, if it is a string.
    pub(crate) fn directory(&self) -> Option<String> {
        match self.value(&ClaimPath::named("tid")) {
            Ok(Some(Value::String(tid))) => Some(tid),
            _ => None,
        }
    }

    fn check_issuer(&self, rules: &Rules) -> Result<(), Problem> {
        if rules.issuers.is_empty() {
            return Ok(());
        }
        let (iss, tid) = (self.issuer()?, self.directory());
        let is_accepted = rules.issuers.iter().any(|issuer| issuer.matches(&iss, tid.as_deref()));
        if is_accepted { Ok(()) } else { Err(Problem::Other) }
    }

    fn check_audience(&self, audience: &Audience) -> Result<(), ClaimFault> {
        let aud = ClaimPath::named("aud");
        let (claim, values) = match audience {
            Audience::Any => return Ok(()),
            Audience::None if self.value(&aud)?.is_none() => return Ok(()),
            Audience::None => return Err(ClaimFault::new(&aud, Problem::Unexpected)),
            Audience::OneOf { claim, values } => (claim, values),
        };
        let named = match self.value(claim)? {
            None => return Err(ClaimFault::new(claim, Problem::Missing)),
            Some(Value::Array(named)) => named,
            Some(named) => vec![named],
        };
        if let Some(other) = named.iter().find(|named| !named.is_string()) {
            return Err(ClaimFault::new(claim, Problem::Found(Kind::of(other))));
        }
        let is_accepted =
            named.iter().filter_map(Value::as_str).any(|named| values.iter().any(|value| value == named));
        if is_accepted { Ok(()) } else { Err(ClaimFault::new(claim, Problem::Other)) }
    }

    /// Checks the `token_use` of Cognito's tokens, which is `id` or `access`. Only an access token has a `client_id`.
    fn check_use(&self, audience: &Audience) -> Result<(), ClaimFault> {
        let path = ClaimPath::named("token_use");
        if !self.issuer().is_ok_and(|iss| is_cognito(&iss)) {
            return Ok(());
        }
        let needs_access = matches!(audience, Audience::OneOf { claim, .. } if claim.is("client_id"));
        match self.value(&path)? {
            None if needs_access => Err(ClaimFault::new(&path, Problem::Missing)),
            None => Ok(()),
            Some(Value::String(found)) if found == "access" || (found == "id" && !needs_access) => Ok(()),
            Some(Value::String(_)) => Err(ClaimFault::new(&path, Problem::Other)),
            Some(other) => Err(ClaimFault::new(&path, Problem::Found(Kind::of(&other)))),
        }
    }

    /// Reads a text: a string, a whole number, or a list of one of these. `None` if it is absent.
    fn text(&self, path: &ClaimPath) -> Result<Option<String>, ClaimFault> {
        let found = match self.value(path)? {
            Some(Value::Array(mut items)) if items.len() == 1 => items.pop(),
            found => found,
        };
        match found {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(Value::Number(number)) if whole(&number).is_some() => Ok(whole(&number)),
            Some(other) => Err(ClaimFault::new(path, Problem::Found(Kind::of(&other)))),
        }
    }

    /// Reads permissions: a list of strings, or a string with spaces between them, as in `scope` (RFC 6749, section 3.3).
    fn permissions(&self, path: &ClaimPath) -> Result<BTreeSet<String>, ClaimFault> {
        let found = match self.value(path)? {
            None => return Ok(BTreeSet::new()),
            Some(Value::String(text)) => return Ok(text.split_whitespace().map(str::to_owned).collect()),
            Some(Value::Array(items)) => items,
            Some(other) => return Err(ClaimFault::new(path, Problem::Found(Kind::of(&other)))),
        };
        let texts = found.into_iter().map(|item| match item {
            Value::String(text) => Ok(text),
            other => Err(ClaimFault::new(path, Problem::Found(Kind::of(&other)))),
        });
        let mut permissions = texts.collect::<Result<BTreeSet<_>, _>>()?;
        permissions.remove("");
        Ok(permissions)
    }

    /// Reads a time in seconds since the epoch.
    fn time(&self, claim: &str) -> Result<Option<f64>, ClaimFault> {
        let path = ClaimPath::named(claim);
        let Some(found) = self.value(&path)? else { return Ok(None) };
        match found.as_f64().filter(|seconds| *seconds >= 0.0) {
            Some(seconds) => Ok(Some(seconds)),
            None if found.is_number() => Err(ClaimFault::new(&path, Problem::NotATime)),
            None => Err(ClaimFault::new(&path, Problem::Found(Kind::of(&found)))),
        }
    }

    /// Reads the value at a path. `None` if it is absent; `null` counts as absent.
    fn value(&self, path: &ClaimPath) -> Result<Option<Value>, ClaimFault> {
        let mut values = self.0.iter().filter(|(name, _)| name == path.claim()).map(|(_, value)| value.get());
        let Some(value) = values.next() else { return Ok(None) };
        if values.next().is_some() {
            return Err(ClaimFault::new(path, Problem::Repeated));
        }
        // A number may be too large, and a string may hold half a surrogate pair.
        let value = serde_json::from_str(value).map_err(|_| ClaimFault::new(path, Problem::Unreadable))?;
        path.find(value).map_err(|kind| ClaimFault::new(path, Problem::Found(kind)))
    }
}

/// Returns a whole number as text.
fn whole(number: &Number) -> Option<String> {
    // From 2^53 on, several numbers become one.
    let is_exact = |number: f64| number.fract() == 0.0 && number.abs() < 9_007_199_254_740_992.0;
    match number.as_f64() {
        Some(float) if number.is_f64() => is_exact(float).then(|| format!("{float:.0}")),
        _ => Some(number.to_string()),
    }
}

impl<'de> Deserialize<'de> for ClaimSet {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;

        impl<'de> Visitor<'de> for Members {
            type Value = ClaimSet;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<ClaimSet, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(ClaimSet(members))
            }
        }

        deserializer.deserialize_map(Members)
    }
}
