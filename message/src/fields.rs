//! The fields of a JSON object, and the unknown fields inside their objects.

use std::{borrow::Cow, fmt};

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{MapAccess, Visitor},
    ser::SerializeMap,
};
use serde_json::{Value, value::RawValue};

use crate::{error::DecodeError, payload::Payload, wrapped};

/// A field that holds an object, and the fields of that object that this version knows.
pub(crate) struct Inner {
    name: &'static str,
    known: &'static [&'static str],
    inner: &'static [Inner],
}

const USER: Inner = Inner { name: "user", known: &["tenant", "user"], inner: &[] };
pub(crate) const TO: Inner = Inner {
    name: "to",
    known: &["connection", "connections", "user", "tenant", "shard", "after"],
    inner: &[USER],
};
pub(crate) const REQUEST: Inner = Inner { name: "request", known: &["id", "seq"], inner: &[] };

/// The fields of a JSON object, with their values as JSON text.
pub(crate) struct Fields<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'a> Fields<'a> {
    pub(crate) fn read(body: &'a str) -> Result<Self, DecodeError> {
        serde_json::from_str(body).map_err(|error| {
            let plain = DecodeError::NotAnObject { line: error.line(), column: error.column() };
            wrapped::text(body).unwrap_or(plain)
        })
    }

    pub(crate) fn required<T: Deserialize<'a>>(
        &mut self,
        field: &'static str,
        expected: &'static str,
    ) -> Result<T, DecodeError> {
        let value = self.take(field)?.ok_or(DecodeError::Missing { field, expected })?;
        serde_json::from_str(value.get()).map_err(|_| DecodeError::Invalid { field, expected })
    }

    /// Reads a field that may be absent. `null` counts as absent.
    pub(crate) fn optional<T: Deserialize<'a>>(
        &mut self,
        field: &'static str,
        expected: &'static str,
    ) -> Result<Option<T>, DecodeError> {
        self.take(field)?.map_or(Ok(None), |value| {
            serde_json::from_str(value.get()).map_err(|_| DecodeError::Invalid { field, expected })
        })
    }

    fn take(&mut self, field: &'static str) -> Result<Option<&'a RawValue>, DecodeError> {
        let position = |fields: &[(Cow<'a, str>, _)]| fields.iter().position(|(name, _)| name == field);
        let Some(found) = position(&self.0) else { return Ok(None) };
        let (_, value) = self.0.remove(found);
        match position(&self.0) {
            None => Ok(Some(value)),
            Some(_) => Err(DecodeError::Repeated(field)),
        }
    }

    pub(crate) fn get(&self, field: &str) -> Option<&'a RawValue> {
        self.0.iter().find(|(name, _)| name == field).map(|(_, value)| *value)
    }

    /// Returns a field's JSON text, empty if the field is absent.
    pub(crate) fn text(&self, field: &str) -> &'a str {
        self.get(field).map_or("", RawValue::get)
    }

    /// Writes the object, and adds the unknown fields that the same inner objects have in `theirs`.
    fn over(&self, theirs: &Fields<'_>, inner: &[Inner]) -> String {
        let field = |(name, value): &(Cow<'a, str>, &'a RawValue)| {
            let inner = inner.iter().find(|inner| inner.name == name);
            let value = inner.and_then(|inner| inner.merged(value.get(), theirs.get(name)?.get()));
            (name.clone().into_owned(), value)
        };
        let fields = self.0.iter().map(|pair| match field(pair) {
            (name, Some(value)) => object_field(&name, &value),
            (name, None) => object_field(&name, pair.1.get()),
        });
        format!("{{{}}}", fields.collect::<Vec<_>>().join(","))
    }

    pub(crate) fn rest(self) -> UnknownFields<'a> {
        UnknownFields(self.0.into_iter().map(|(name, value)| (name, Payload::borrowed(value))).collect())
    }
}

impl Inner {
    /// Adds to our object the unknown fields of theirs. Returns ours unchanged if theirs is not an object.
    pub(crate) fn merge(&self, ours: String, theirs: &str) -> String {
        self.merged(&ours, theirs).unwrap_or(ours)
    }

    /// Writes our object with the unknown fields of theirs. `None` if one of the two is not an object.
    fn merged(&self, ours: &str, theirs: &str) -> Option<String> {
        let (ours, theirs) = (Fields::read(ours).ok()?, Fields::read(theirs).ok()?);
        let mut merged = ours.over(&theirs, self.inner);
        merged.pop();
        for (name, value) in theirs.0.iter().filter(|(name, _)| !self.known.contains(&name.as_ref())) {
            merged.push(',');
            merged.push_str(&object_field(name, value.get()));
        }
        merged.push('}');
        Some(merged)
    }
}

/// Fields of a message that this version does not know, in their original order.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct UnknownFields<'a>(Vec<(Cow<'a, str>, Payload<'a>)>);

impl UnknownFields<'_> {
    /// Returns whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &Payload<'_>)> {
        self.0.iter().map(|(name, value)| (name.as_ref(), value))
    }

    pub(crate) fn into_owned(self) -> UnknownFields<'static> {
        let owned =
            |(name, value): (Cow<'_, str>, Payload<'_>)| (name.into_owned().into(), value.into_owned());
        UnknownFields(self.0.into_iter().map(owned).collect())
    }
}

impl Serialize for UnknownFields<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, value) in &self.0 {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

pub(crate) fn object_field(name: &str, value: &str) -> String {
    format!("{}:{value}", Value::from(name))
}

impl<'de: 'a, 'a> Deserialize<'de> for Fields<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

        struct FieldsVisitor;

        impl<'de> Visitor<'de> for FieldsVisitor {
            type Value = Fields<'de>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut fields = Vec::with_capacity(8);
                while let Some((Name(name), value)) = map.next_entry()? {
                    fields.push((name, value));
                }
                Ok(Fields(fields))
            }
        }

        deserializer.deserialize_map(FieldsVisitor)
    }
}
