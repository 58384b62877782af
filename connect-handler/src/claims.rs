//! Reads the claims of a token, and names the one that refuses it.

use std::{
    collections::{BTreeSet, HashSet},
    fmt,
    time::{Duration, SystemTime},
};

use jsonwebtoken::Validation;
use serde::{
    Deserialize, Deserializer,
    de::{DeserializeOwned, MapAccess, Visitor},
};
use serde_json::value::RawValue;
use streamer_message::{TenantId, UserId};

use crate::fault::{ClaimFault, Fault, Problem};

/// The claims of a verified token.
#[derive(Debug, Clone, PartialEq)]
pub struct Claims {
    /// The user: `sub`.
    pub user_id: UserId,
    /// The user's tenant: `tenant_id`.
    pub tenant_id: TenantId,
    /// The user's permissions, none if the claim is missing. A claim of another shape refuses the token only where a
    /// permission is required.
    pub permissions: Result<BTreeSet<String>, ClaimFault>,
    /// Seconds since the epoch, possibly with a fraction (RFC 7519, section 2: NumericDate).
    exp: f64,
}

/// All claims of a token, each as JSON.
#[derive(Debug)]
pub(crate) struct ClaimSet(Vec<(String, Box<RawValue>)>);

impl Claims {
    /// Reads the claims of a token whose signature, times, issuer and audience are verified.
    pub(crate) fn read(claims: &ClaimSet) -> Result<Self, ClaimFault> {
        let text = |claim| claims.required::<String>(claim, Problem::NotAString);
        let of_size = |claim, text: &str| match text {
            "" => ClaimFault { claim, problem: Problem::Empty },
            _ => ClaimFault { claim, problem: Problem::TooLong },
        };
        let (sub, tenant) = (text("sub")?, text("tenant_id")?);
        let mut permissions = claims
            .optional("permissions", Problem::NotAListOfStrings)
            .map(Option::<BTreeSet<_>>::unwrap_or_default);
        _ = permissions.as_mut().map(|permissions| permissions.remove(""));
        Ok(Self {
            user_id: UserId::new(sub.as_str()).map_err(|_| of_size("sub", &sub))?,
            tenant_id: TenantId::new(tenant.as_str()).map_err(|_| of_size("tenant_id", &tenant))?,
            permissions,
            exp: claims.time("exp")?.ok_or(ClaimFault { claim: "exp", problem: Problem::Missing })?,
        })
    }

    /// Returns the time when the token expires, or `None` if `exp` is not a representable time.
    #[must_use]
    pub fn expires_at(&self) -> Option<SystemTime> {
        let since_epoch = Duration::try_from_secs_f64(self.exp).ok()?;
        SystemTime::UNIX_EPOCH.checked_add(since_epoch)
    }
}

impl ClaimSet {
    /// Returns why these claims do not satisfy `rules`, an expiry first. `None` if they do.
    pub(crate) fn fault(&self, rules: &Validation, now: SystemTime) -> Option<Fault> {
        let now = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        let leeway = Duration::from_secs(rules.leeway).as_secs_f64();
        let missing = Fault::InvalidClaims(ClaimFault { claim: "exp", problem: Problem::Missing });
        match self.time("exp") {
            Err(fault) => return Some(Fault::InvalidClaims(fault)),
            Ok(None) => return Some(missing),
            Ok(Some(exp)) if exp < now - leeway => return Some(Fault::Expired),
            Ok(Some(_)) => {}
        }
        match self.time("nbf") {
            Err(fault) => return Some(Fault::InvalidClaims(fault)),
            Ok(Some(nbf)) if nbf > now + leeway => return Some(Fault::NotYetValid),
            Ok(_) => {}
        }
        let other = |claim, expected: &Option<HashSet<String>>| self.other(claim, expected.as_ref());
        let unexpected = self.optional::<Box<RawValue>>("aud", Problem::Unexpected).transpose().is_some();
        match (other("iss", &rules.iss), other("aud", &rules.aud)) {
            (Some(problem), _) => Some(Fault::WrongIssuer(problem)),
            (None, Some(problem)) => Some(Fault::WrongAudience(problem)),
            (None, None) if rules.aud.is_none() && unexpected => {
                Some(Fault::WrongAudience(Problem::Unexpected))
            }
            (None, None) => None,
        }
    }

    /// Returns why a claim, a string or a list of strings, names none of the expected values. `None` if it does, or if
    /// none is expected.
    fn other(&self, claim: &'static str, expected: Option<&HashSet<String>>) -> Option<Problem> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Names {
            One(String),
            Many(Vec<String>),
        }

        let expected = expected?;
        let names = match self.required(claim, Problem::NotAString) {
            Ok(Names::One(name)) => vec![name],
            Ok(Names::Many(names)) => names,
            Err(fault) => return Some(fault.problem),
        };
        names.iter().all(|name| !expected.contains(name)).then_some(Problem::Other)
    }

    /// Reads a time in seconds since the epoch.
    fn time(&self, claim: &'static str) -> Result<Option<f64>, ClaimFault> {
        let seconds = self.optional(claim, Problem::NotATime)?;
        match seconds.is_none_or(|seconds: f64| seconds >= 0.0) {
            true => Ok(seconds),
            false => Err(ClaimFault { claim, problem: Problem::NotATime }),
        }
    }

    fn required<T: DeserializeOwned>(&self, claim: &'static str, other: Problem) -> Result<T, ClaimFault> {
        self.optional(claim, other)?.ok_or(ClaimFault { claim, problem: Problem::Missing })
    }

    /// Reads a claim that may be absent. `null` counts as absent. `other` is the problem with a value of another type.
    fn optional<T: DeserializeOwned>(
        &self,
        claim: &'static str,
        other: Problem,
    ) -> Result<Option<T>, ClaimFault> {
        let mut values = self.0.iter().filter(|(name, _)| name == claim).map(|(_, value)| value.get());
        let Some(value) = values.next() else { return Ok(None) };
        if values.next().is_some() {
            return Err(ClaimFault { claim, problem: Problem::Repeated });
        }
        serde_json::from_str(value).map_err(|_| ClaimFault { claim, problem: other })
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
