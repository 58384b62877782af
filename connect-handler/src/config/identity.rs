//! The settings of clients' identities.

use streamer_environment::{Environment, Faulty, Variable, values};
use streamer_message::TenantId;

use crate::{
    claim_path::ClaimPath,
    fetch::{HttpFetch, KeyUrl, Source},
    identity::Identity,
    issuer::IssuerName,
    jwks::Jwks,
    keys::PublicKey,
    rules::{Audience, ClaimNames, Rules},
    verify::{Keys, Verifier},
};

pub(super) const IDENTITY_SOURCE: Variable = Variable {
    name: "IDENTITY_SOURCE",
    expected: "the source of user, tenant and permissions: `token` (the default), or `authorizer` for the context of a \
               Lambda authorizer on `$connect`",
    example: "authorizer",
};
pub(super) const JWT_PUBLIC_KEY: Variable = Variable {
    name: "JWT_PUBLIC_KEY",
    expected: "the public key that verifies tokens, as PEM: RSA (2048 to 8192 bits), EC (P-256, P-384) or Ed25519; \
               alternatively JWT_JWKS_URL, or JWT_ISSUER for OpenID Connect discovery",
    example: "-----BEGIN PUBLIC KEY-----…",
};
pub(super) const JWT_JWKS_URL: Variable = Variable {
    name: "JWT_JWKS_URL",
    expected: "the https URL of the issuer's JWK set, instead of JWT_PUBLIC_KEY",
    example: "https://auth.example.com/.well-known/jwks.json",
};
pub(super) const JWT_ISSUER: Variable = Variable {
    name: "JWT_ISSUER",
    expected: "the accepted values of a token's `iss`, separated by commas; any if unset. Without JWT_PUBLIC_KEY and \
               JWT_JWKS_URL, the https URLs of the issuers, whose OpenID Connect configurations name the keys. \
               The token's `tid` replaces `{tenantid}`, for Entra ID",
    example: "https://auth.example.com",
};
pub(super) const JWT_AUDIENCE: Variable = Variable {
    name: "JWT_AUDIENCE",
    expected: "the accepted values of a token's `aud`, separated by commas, or `any`; required with JWT_JWKS_URL or \
               discovery, whose keys may sign tokens for other applications. If unset, a token with an `aud` is refused",
    example: "streamer",
};
pub(super) const JWT_AUDIENCE_CLAIM: Variable = Variable {
    name: "JWT_AUDIENCE_CLAIM",
    expected: "the claim that holds the audience, a name or a JSON pointer; `aud` if unset. `client_id` for access \
               tokens of Amazon Cognito",
    example: "client_id",
};
pub(super) const USER_CLAIM: Variable = Variable {
    name: "USER_CLAIM",
    expected: "the claim that holds the user, a name or a JSON pointer; `sub` if unset, and `principalId` with an \
               authorizer",
    example: "oid",
};
pub(super) const TENANT_CLAIM: Variable = Variable {
    name: "TENANT_CLAIM",
    expected: "the claim that holds the tenant, a name or a JSON pointer; `tenant_id` if unset",
    example: "https://app.example/tenant_id",
};
pub(super) const DEFAULT_TENANT: Variable = Variable {
    name: "DEFAULT_TENANT",
    expected: "the tenant of a user whose claims name none; if unset, such a user is refused",
    example: "acme",
};
pub(super) const PERMISSIONS_CLAIM: Variable = Variable {
    name: "PERMISSIONS_CLAIM",
    expected: "the claim that holds the permissions, a list of strings or a string with spaces, a name or a JSON \
               pointer; `permissions` if unset",
    example: "scope",
};

/// Settings that have no meaning with an authorizer.
const OF_TOKENS: [Variable; 5] = [JWT_PUBLIC_KEY, JWT_JWKS_URL, JWT_ISSUER, JWT_AUDIENCE, JWT_AUDIENCE_CLAIM];

#[derive(Clone, Copy, PartialEq, Eq)]
enum IdentitySource {
    Token,
    Authorizer,
}

/// Reads the settings of clients' identities.
pub(super) fn read(environment: &mut Environment) -> Result<Identity, Faulty> {
    let source = environment.optional_not_empty(&IDENTITY_SOURCE, identity_source);
    let source = source.map(|source| source.unwrap_or(IdentitySource::Token));
    let names = names(environment, source == Ok(IdentitySource::Authorizer));
    match source? {
        IdentitySource::Token => {
            let verifier = verifier(environment, names);
            Ok(Identity::from(verifier?))
        }
        IdentitySource::Authorizer => {
            for variable in &OF_TOKENS {
                if environment.optional(variable, values::text)?.is_some() {
                    environment.fault(variable, "set together with IDENTITY_SOURCE=authorizer");
                }
            }
            Ok(Identity::Authorizer(names?))
        }
    }
}

fn names(environment: &mut Environment, is_authorizer: bool) -> Result<ClaimNames, Faulty> {
    let default = ClaimNames::default();
    let default_user = if is_authorizer { ClaimPath::named("principalId") } else { default.user };
    let user = environment.optional_not_empty(&USER_CLAIM, ClaimPath::parse);
    let tenant = environment.optional_not_empty(&TENANT_CLAIM, ClaimPath::parse);
    let default_tenant = environment.optional_not_empty(&DEFAULT_TENANT, |text| TenantId::new(text).ok());
    let permissions = environment.optional_not_empty(&PERMISSIONS_CLAIM, ClaimPath::parse);
    Ok(ClaimNames {
        user: user?.unwrap_or(default_user),
        tenant: tenant?.unwrap_or(default.tenant),
        default_tenant: default_tenant?,
        permissions: permissions?.unwrap_or(default.permissions),
    })
}

fn verifier(environment: &mut Environment, names: Result<ClaimNames, Faulty>) -> Result<Verifier, Faulty> {
    let key = environment.optional(&JWT_PUBLIC_KEY, PublicKey::from_pem);
    let url = environment.optional(&JWT_JWKS_URL, KeyUrl::new);
    let issuers = environment.optional_not_empty(&JWT_ISSUER, issuers).map(Option::unwrap_or_default);
    let audience = audience(environment);
    let serves_others = matches!(key, Ok(None)) && (!matches!(url, Ok(None)) || issuers != Ok(Vec::new()));
    let keys = keys(environment, key, url, issuers.clone());
    if serves_others && audience == Ok(Audience::None) {
        return Err(environment.fault(&JWT_AUDIENCE, "missing"));
    }
    Ok(Verifier::new(keys?, Rules { issuers: issuers?, audience: audience?, names: names? }))
}

fn audience(environment: &mut Environment) -> Result<Audience, Faulty> {
    let values = environment.optional_not_empty(&JWT_AUDIENCE, audiences);
    let claim = environment.optional_not_empty(&JWT_AUDIENCE_CLAIM, ClaimPath::parse);
    match (values?, claim?) {
        (Some(values), claim) if values != ["any"] => {
            Ok(Audience::OneOf { claim: claim.unwrap_or_else(|| ClaimPath::named("aud")), values })
        }
        (_, Some(_)) => {
            Err(environment.fault(&JWT_AUDIENCE_CLAIM, "set without an audience in JWT_AUDIENCE"))
        }
        (Some(_), None) => Ok(Audience::Any),
        (None, None) => Ok(Audience::None),
    }
}

/// Returns the configured key, else the JWK set at the configured URL, else the JWK sets of the issuers.
fn keys(
    environment: &mut Environment,
    key: Result<Option<PublicKey>, Faulty>,
    url: Result<Option<KeyUrl>, Faulty>,
    issuers: Result<Vec<IssuerName>, Faulty>,
) -> Result<Keys, Faulty> {
    let set = |source| Jwks::new(HttpFetch::new(source));
    match (key?, url?, issuers?) {
        (Some(_), Some(_), _) => Err(environment.fault(&JWT_JWKS_URL, "set together with JWT_PUBLIC_KEY")),
        (Some(key), None, _) => Ok(Keys::One(key)),
        (None, Some(url), _) => Ok(Keys::Set(set(Source::Url(url)))),
        (None, None, issuers) if issuers.is_empty() => Err(environment.fault(&JWT_PUBLIC_KEY, "missing")),
        (None, None, issuers) => {
            let keys = issuers.into_iter().map(|issuer| {
                let base = issuer.url()?;
                Some((issuer.clone(), set(Source::Issuer(issuer, base))))
            });
            let keys: Option<_> = keys.collect();
            keys.map(Keys::Issuers).ok_or_else(|| environment.fault(&JWT_ISSUER, "not an https URL"))
        }
    }
}

fn identity_source(text: &str) -> Option<IdentitySource> {
    match text {
        "token" => Some(IdentitySource::Token),
        "authorizer" => Some(IdentitySource::Authorizer),
        _ => None,
    }
}

fn issuers(text: &str) -> Option<Vec<IssuerName>> {
    Some(values::list(text)?.into_iter().map(IssuerName::new).collect())
}

/// Parses audiences. `any` must stand alone.
fn audiences(text: &str) -> Option<Vec<String>> {
    values::list(text).filter(|all| all.len() == 1 || all.iter().all(|audience| audience != "any"))
}
