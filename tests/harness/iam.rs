//! IAM on an emulator that checks every call, and the policies of its roles.

use std::{collections::BTreeSet, net::SocketAddr, path::Path};

use anyhow::{Context as _, ensure};
use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use serde_json::{Value, json};
use streamer_cli::stack::emulator::{MINISTACK, Program};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

/// MiniStack with enforced policies: a function may do only what its role's policies allow.
pub const ENFORCING: Program = Program { variables, ..MINISTACK };

fn variables(address: SocketAddr, folder: &Path) -> Vec<(&'static str, String)> {
    let mut variables = (MINISTACK.variables)(address, folder);
    variables.push(("AUTH", "true".to_owned()));
    variables
}

/// An action that a policy allows on a resource.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Grant {
    /// The action.
    pub action: String,
    /// The resource's ARN.
    pub resource: String,
}

/// A role's policies: inline ones by name, attached ones by ARN.
#[derive(Debug, Clone)]
pub struct Policies {
    role: String,
    own: Vec<(String, Value)>,
    attached: Vec<(String, Value)>,
}

/// A client of IAM that may do everything.
#[derive(Debug, Clone)]
pub struct Iam {
    address: String,
}

impl Iam {
    /// Creates a client for the emulator at `url`.
    ///
    /// # Errors
    /// When `url` is not an http URL.
    pub fn new(url: &str) -> anyhow::Result<Self> {
        let address = url.strip_prefix("http://").context("not an http URL")?.to_owned();
        Ok(Self { address })
    }

    /// Returns a role's policies.
    ///
    /// # Errors
    /// When the role does not exist.
    pub async fn policies(&self, role: &str) -> anyhow::Result<Policies> {
        let names = self.call("ListRolePolicies", &[("RoleName", role)]).await?;
        let mut own = Vec::new();
        for name in elements(&names, "member") {
            let policy = self.call("GetRolePolicy", &[("RoleName", role), ("PolicyName", name)]).await?;
            own.push((name.to_owned(), document(&policy, "PolicyDocument")?));
        }
        let mut attached = Vec::new();
        for arn in self.attached(role).await? {
            let policy = [("PolicyArn", arn.as_str()), ("VersionId", "v1")];
            attached
                .push((arn.clone(), document(&self.call("GetPolicyVersion", &policy).await?, "Document")?));
        }
        Ok(Policies { role: role.to_owned(), own, attached })
    }

    async fn attached(&self, role: &str) -> anyhow::Result<Vec<String>> {
        let attached = self.call("ListAttachedRolePolicies", &[("RoleName", role)]).await?;
        Ok(elements(&attached, "PolicyArn").map(str::to_owned).collect())
    }

    /// Replaces a role's policies.
    ///
    /// # Errors
    /// When IAM rejects a policy.
    pub async fn put(&self, policies: &Policies) -> anyhow::Result<()> {
        let role = ("RoleName", policies.role.as_str());
        for (name, document) in &policies.own {
            let document = document.to_string();
            self.call("PutRolePolicy", &[role, ("PolicyName", name), ("PolicyDocument", &document)]).await?;
        }
        let (attached, wanted) =
            (self.attached(&policies.role).await?, policies.attached.iter().map(|(arn, _)| arn));
        for arn in wanted.clone().filter(|arn| !attached.contains(arn)) {
            self.call("AttachRolePolicy", &[role, ("PolicyArn", arn)]).await?;
        }
        for arn in attached.iter().filter(|arn| !wanted.clone().any(|wanted| wanted == *arn)) {
            self.call("DetachRolePolicy", &[role, ("PolicyArn", arn)]).await?;
        }
        Ok(())
    }

    async fn call(&self, action: &str, parameters: &[(&str, &str)]) -> anyhow::Result<String> {
        let encode = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
        let mut body = format!("Action={action}&Version=2010-05-08");
        for (name, value) in parameters {
            body.push_str(&format!("&{name}={}", encode(value)));
        }
        // The emulator does not check root's signature.
        let head = format!(
            "POST / HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nContent-Length: {}\r\n\
             Content-Type: application/x-www-form-urlencoded\r\nAuthorization: AWS4-HMAC-SHA256 \
             Credential=test/20261125/us-east-1/iam/aws4_request, SignedHeaders=host, Signature=none\r\n\r\n",
            self.address,
            body.len()
        );
        let mut stream = TcpStream::connect(&self.address).await?;
        stream.write_all(format!("{head}{body}").as_bytes()).await?;
        let mut response = String::new();
        stream.read_to_string(&mut response).await?;
        ensure!(response.starts_with("HTTP/1.1 200"), "{action}: {response}");
        Ok(response)
    }
}

impl Policies {
    /// Returns everything that the policies allow.
    #[must_use]
    pub fn grants(&self) -> BTreeSet<Grant> {
        self.own.iter().chain(&self.attached).flat_map(|(_, document)| grants(document)).collect()
    }

    /// Returns the policies without these actions on a resource. An attached policy that allows one of them is omitted.
    #[must_use]
    pub fn without(&self, actions: &[&str], resource: &str) -> Self {
        let removed = |grant: &Grant| actions.contains(&grant.action.as_str()) && grant.resource == resource;
        let own = self.own.iter().map(|(name, document)| {
            let kept = grants(document).filter(|grant| !removed(grant));
            let mut statements: Vec<_> = kept
                .map(|Grant { action, resource }| {
                    json!({ "Effect": "Allow", "Action": action, "Resource": resource })
                })
                .collect();
            if statements.is_empty() {
                // IAM rejects a policy without a statement.
                statements.push(json!({ "Effect": "Deny", "Action": "sqs:PurgeQueue", "Resource": "*" }));
            }
            (name.clone(), json!({ "Version": "2012-10-17", "Statement": statements }))
        });
        let attached =
            self.attached.iter().filter(|(_, document)| !grants(document).any(|grant| removed(&grant)));
        Self { role: self.role.clone(), own: own.collect(), attached: attached.cloned().collect() }
    }
}

/// Returns everything that a policy allows.
fn grants(document: &Value) -> impl Iterator<Item = Grant> {
    many(&document["Statement"]).flat_map(|statement| {
        many(&statement["Action"]).flat_map(move |action| {
            many(&statement["Resource"]).filter_map(move |resource| {
                Some(Grant { action: action.as_str()?.to_owned(), resource: resource.as_str()?.to_owned() })
            })
        })
    })
}

/// Parses the policy in the response's element with this name.
fn document(response: &str, name: &str) -> anyhow::Result<Value> {
    let document = elements(response, name).next().with_context(|| format!("no {name}"))?;
    let document = percent_decode_str(document).decode_utf8()?.replace("&quot;", "\"");
    Ok(serde_json::from_str(&document)?)
}

/// Iterates over the values of an array, or over a single value.
fn many(value: &Value) -> impl Iterator<Item = &Value> {
    match value {
        Value::Array(values) => values.iter(),
        one => std::slice::from_ref(one).iter(),
    }
}

/// Returns the texts of all elements with this name.
fn elements<'a>(xml: &'a str, name: &str) -> impl Iterator<Item = &'a str> {
    let (open, close) = (format!("<{name}>"), format!("</{name}>"));
    xml.split(&open)
        .skip(1)
        .filter_map(|rest| rest.split(&close).next().map(str::trim))
        .collect::<Vec<_>>()
        .into_iter()
}
