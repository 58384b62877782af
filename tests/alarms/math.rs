//! CloudWatch's metric math, as far as the alarms use it.
//!
//! Source: <https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/using-metric-math.html>.

use std::iter::Peekable;

use anyhow::{Context as _, bail, ensure};

/// Datapoints, one for each period, the oldest first.
pub(crate) type Series = Vec<Option<f64>>;

/// A parsed expression.
#[derive(Debug)]
pub(crate) enum Expression {
    Number(f64),
    Metric(String),
    /// The second argument of `FILL` that repeats the datapoint before a missing one.
    Repeat,
    Operator(String, Box<Self>, Box<Self>),
    Call(String, Vec<Self>),
}

/// The value of an expression.
#[derive(Debug, Clone, PartialEq)]
enum Value {
    Number(f64),
    Series(Series),
    Repeat,
}

impl Expression {
    pub(crate) fn parse(expression: &str) -> anyhow::Result<Self> {
        let mut parser = Parser(tokens(expression)?.into_iter().peekable());
        let parsed = parser.operators(0)?;
        ensure!(parser.0.next().is_none(), "`{expression}` has a surplus end");
        Ok(parsed)
    }

    /// Returns `periods` datapoints. `series` returns the datapoints of an id.
    pub(crate) fn evaluate(
        &self,
        periods: usize,
        series: &dyn Fn(&str) -> Option<Series>,
    ) -> anyhow::Result<Series> {
        match self.value(series)? {
            Value::Series(series) => Ok(series),
            Value::Number(number) => Ok(vec![Some(number); periods]),
            Value::Repeat => bail!("REPEAT has no value"),
        }
    }

    fn value(&self, series: &dyn Fn(&str) -> Option<Series>) -> anyhow::Result<Value> {
        match self {
            Self::Number(number) => Ok(Value::Number(*number)),
            Self::Repeat => Ok(Value::Repeat),
            Self::Metric(id) => {
                series(id).map(Value::Series).with_context(|| format!("no metric has the id `{id}`"))
            }
            Self::Operator(operator, left, right) => {
                zip(&left.value(series)?, &right.value(series)?, |left, right| apply(operator, left, right))
            }
            Self::Call(function, arguments) => {
                let arguments = arguments.iter().map(|argument| argument.value(series));
                call(function, &arguments.collect::<anyhow::Result<Vec<_>>>()?)
            }
        }
    }
}

/// Binary operators by precedence, the weakest first.
const OPERATORS: [&[&str]; 5] =
    [&["OR"], &["AND"], &["<", "<=", ">", ">=", "==", "!="], &["+", "-"], &["*", "/"]];

/// Returns the words, numbers and operators of an expression.
pub(crate) fn tokens(expression: &str) -> anyhow::Result<Vec<String>> {
    let (mut tokens, mut rest) = (Vec::new(), expression.trim_start());
    while let Some(first) = rest.chars().next() {
        let is_word = |character: char| character.is_ascii_alphanumeric() || "_.".contains(character);
        let length = match first {
            _ if is_word(first) => rest.find(|character| !is_word(character)).unwrap_or(rest.len()),
            _ if ["<=", ">=", "==", "!="].iter().any(|operator| rest.starts_with(operator)) => 2,
            '(' | ')' | ',' | '+' | '-' | '*' | '/' | '<' | '>' => 1,
            _ => bail!("`{first}` in `{expression}`"),
        };
        let (token, after) = rest.split_at(length);
        tokens.push(token.to_owned());
        rest = after.trim_start();
    }
    Ok(tokens)
}

struct Parser<T: Iterator<Item = String>>(Peekable<T>);

impl<T: Iterator<Item = String>> Parser<T> {
    fn operators(&mut self, level: usize) -> anyhow::Result<Expression> {
        let Some(operators) = OPERATORS.get(level) else { return self.operand() };
        let mut left = self.operators(level + 1)?;
        while let Some(operator) = self.0.next_if(|token| operators.contains(&token.as_str())) {
            let right = self.operators(level + 1)?;
            left = Expression::Operator(operator, Box::new(left), Box::new(right));
        }
        Ok(left)
    }

    fn operand(&mut self) -> anyhow::Result<Expression> {
        let token = self.0.next().context("an expression ends early")?;
        if let Ok(number) = token.parse() {
            return Ok(Expression::Number(number));
        }
        if token == "(" {
            let inner = self.operators(0)?;
            self.expect(")")?;
            return Ok(inner);
        }
        if self.0.next_if(|next| next == "(").is_some() {
            let mut arguments = vec![self.operators(0)?];
            while self.0.next_if(|next| next == ",").is_some() {
                arguments.push(self.operators(0)?);
            }
            self.expect(")")?;
            return Ok(Expression::Call(token, arguments));
        }
        Ok(if token == "REPEAT" { Expression::Repeat } else { Expression::Metric(token) })
    }

    fn expect(&mut self, token: &str) -> anyhow::Result<()> {
        ensure!(self.0.next().as_deref() == Some(token), "`{token}` is missing");
        Ok(())
    }
}

/// Applies an operator. A comparison is 1 or 0, and a division by zero has no result.
fn apply(operator: &str, left: f64, right: f64) -> Option<f64> {
    let truth = |holds: bool| Some(f64::from(u8::from(holds)));
    match operator {
        "OR" => truth(left != 0.0 || right != 0.0),
        "AND" => truth(left != 0.0 && right != 0.0),
        "<" => truth(left < right),
        "<=" => truth(left <= right),
        ">" => truth(left > right),
        ">=" => truth(left >= right),
        "==" => truth(left == right),
        "!=" => truth(left != right),
        "+" => Some(left + right),
        "-" => Some(left - right),
        "*" => Some(left * right),
        _ => Some(left / right).filter(|quotient| quotient.is_finite()),
    }
}

fn call(function: &str, arguments: &[Value]) -> anyhow::Result<Value> {
    match (function, arguments) {
        ("IF", [condition, yes, no]) => {
            let periods = arguments.iter().find_map(|argument| match argument {
                Value::Series(series) => Some(series.len()),
                _ => None,
            });
            let chosen = (0..periods.unwrap_or(1)).map(|period| {
                let chosen = if at(condition, period)? != 0.0 { yes } else { no };
                at(chosen, period)
            });
            Ok(Value::Series(chosen.collect()))
        }
        ("FILL", [Value::Series(series), Value::Number(filler)]) => {
            Ok(Value::Series(series.iter().map(|point| point.or(Some(*filler))).collect()))
        }
        ("FILL", [Value::Series(series), Value::Repeat]) => {
            let repeat = |last: &mut Option<f64>, point: &Option<f64>| {
                *last = point.or(*last);
                Some(*last)
            };
            Ok(Value::Series(series.iter().scan(None, repeat).collect()))
        }
        ("DIFF", [Value::Series(series)]) => {
            let before = [None].into_iter().chain(series.iter().copied());
            let differences =
                series.iter().zip(before).map(|(point, before)| Some((*point)? - before?)).collect();
            Ok(Value::Series(differences))
        }
        _ => bail!("{function} with {} arguments is unknown", arguments.len()),
    }
}

fn at(value: &Value, period: usize) -> Option<f64> {
    match value {
        Value::Number(number) => Some(*number),
        Value::Series(series) => series.get(period).copied().flatten(),
        Value::Repeat => None,
    }
}

/// Combines two values. The result is missing where one of them is.
fn zip(left: &Value, right: &Value, combine: impl Fn(f64, f64) -> Option<f64>) -> anyhow::Result<Value> {
    let periods = match (left, right) {
        (Value::Number(left), Value::Number(right)) => {
            return combine(*left, *right).map(Value::Number).context("a constant has no value");
        }
        (Value::Series(series), _) | (_, Value::Series(series)) => series.len(),
        _ => bail!("REPEAT is only an argument of FILL"),
    };
    let combined = (0..periods).map(|period| combine(at(left, period)?, at(right, period)?));
    Ok(Value::Series(combined.collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(expression: &str) -> Series {
        let series = |id: &str| match id {
            "m" => Some(vec![Some(1.0), None, Some(4.0)]),
            "n" => Some(vec![Some(0.0), Some(2.0), Some(0.0)]),
            _ => None,
        };
        Expression::parse(expression).unwrap().evaluate(3, &series).unwrap()
    }

    #[test]
    fn operators_have_their_precedence() {
        assert_eq!(of("1 + 2 * 3"), [Some(7.0); 3]);
        assert_eq!(of("(1 + 2) * 3 - 4"), [Some(5.0); 3]);
        assert_eq!(of("1 >= 2 OR 2 > 1 AND 3 < 4"), [Some(1.0); 3]);
        assert_eq!(of("1 != 1 OR 2 <= 1 AND 3 == 3"), [Some(0.0); 3]);
    }

    #[test]
    fn missing_datapoints_stay_missing() {
        assert_eq!(of("m + 1"), [Some(2.0), None, Some(5.0)]);
        assert_eq!(of("m / n"), [None; 3], "division by zero has no result");
        assert_eq!(of("IF(m > 1, 5, 6)"), [Some(6.0), None, Some(5.0)]);
    }

    #[test]
    fn fill_replaces_or_repeats() {
        assert_eq!(of("FILL(m, 7)"), [Some(1.0), Some(7.0), Some(4.0)]);
        assert_eq!(of("FILL(m, REPEAT)"), [Some(1.0), Some(1.0), Some(4.0)]);
        assert_eq!(of("IF(FILL(m, 0) >= 1, m, 9)"), [Some(1.0), Some(9.0), Some(4.0)]);
    }

    #[test]
    fn diff_needs_two_datapoints() {
        assert_eq!(of("DIFF(n)"), [None, Some(2.0), Some(-2.0)]);
        assert_eq!(of("DIFF(m)"), [None; 3]);
        assert_eq!(of("DIFF(FILL(m, REPEAT))"), [None, Some(0.0), Some(3.0)]);
    }

    #[test]
    fn unknown_names_are_errors() {
        for expression in ["x", "MAX(m)", "m +", "m m", "FILL(m)", "m ? n", "(m"] {
            let evaluated = Expression::parse(expression)
                .and_then(|parsed| parsed.evaluate(3, &|id| (id == "m").then(Vec::new)));
            assert!(evaluated.is_err(), "{expression}");
        }
    }
}
