//! The pages under `docs/` against the code: tables, tests, links and paths.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::{Map, Value};
use streamer_cli::stack::build;
use streamer_message::{
    OutboundMessage, Receipt, ReceiptEvent, ReceiptOutcome, ReceiptTally,
    dead_letter::{self, Reason},
};
use streamer_telemetry::metric;

use super::variables;

const FUNCTIONS: [&str; 4] = ["connect", "disconnect", "delivery", "mailbox"];

/// A table of a page. Code fences are not searched for tables.
struct Table {
    /// The text of the heading above it.
    section: String,
    header: Vec<String>,
    rows: Vec<Vec<String>>,
}

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn read(path: &str) -> String {
    fs::read_to_string(workspace().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Returns the lines outside code fences.
fn prose(page: &str) -> impl Iterator<Item = &str> {
    let mut fenced = false;
    page.lines().filter(move |line| {
        let is_fence = line.trim_start().starts_with("```");
        fenced ^= is_fence;
        !fenced && !is_fence
    })
}

fn heading(line: &str) -> Option<&str> {
    let text = line.trim_start_matches('#');
    (text.len() < line.len()).then(|| text.trim())
}

fn tables(page: &str) -> Vec<Table> {
    let (mut tables, mut section, mut in_table) = (Vec::<Table>::new(), String::new(), false);
    for line in prose(page) {
        if let Some(text) = heading(line) {
            text.clone_into(&mut section);
        }
        let Some(inner) = line.strip_prefix('|').and_then(|line| line.strip_suffix('|')) else {
            in_table = false;
            continue;
        };
        let cells: Vec<_> = inner.split('|').map(|cell| cell.trim().to_owned()).collect();
        match tables.last_mut().filter(|_| in_table) {
            Some(_) if cells.iter().all(|cell| cell.chars().all(|character| character == '-')) => {}
            Some(table) => table.rows.push(cells),
            None => tables.push(Table { section: section.clone(), header: cells, rows: Vec::new() }),
        }
        in_table = true;
    }
    tables
}

/// Returns the rows of the tables of one section that have this many columns.
fn rows(page: &str, section: &str, columns: usize) -> Vec<Vec<String>> {
    let matching =
        tables(page).into_iter().filter(|table| table.section == section && table.header.len() == columns);
    let rows: Vec<_> = matching.flat_map(|table| table.rows).collect();
    assert!(!rows.is_empty(), "no table with {columns} columns in section `{section}`");
    rows
}

fn quoted(cell: &str) -> impl Iterator<Item = &str> {
    cell.split('`').skip(1).step_by(2)
}

/// Returns the quoted words of the first column.
fn keys(rows: &[Vec<String>]) -> BTreeSet<&str> {
    rows.iter().flat_map(|row| quoted(&row[0])).collect()
}

/// Returns the variants of an enum, from its source.
fn variants(source: &str, name: &str) -> Vec<String> {
    let (_, body) = source.split_once(&format!("pub enum {name} {{")).unwrap();
    let (body, _) = body.split_once("\n}").unwrap();
    let first =
        |line: &str| line.split(|character: char| !character.is_alphanumeric()).next().map(str::to_owned);
    let is_variant = |word: &String| word.starts_with(|character: char| character.is_ascii_uppercase());
    body.lines().filter_map(|line| first(line.trim())).filter(is_variant).collect()
}

fn snake_case(name: &str) -> String {
    let mut snake = String::new();
    for character in name.chars() {
        if character.is_ascii_uppercase() && !snake.is_empty() {
            snake.push('_');
        }
        snake.push(character.to_ascii_lowercase());
    }
    snake
}

fn files(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries
        .flat_map(|path| match path.is_dir() {
            true => files(&path, extension),
            false => vec![path],
        })
        .filter(|path| path.extension().is_some_and(|found| found == extension))
        .collect()
}

/// Returns every page: its path in the workspace, and its text.
fn pages() -> Vec<(PathBuf, String)> {
    let root = workspace();
    let single = ["README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "infra/README.md"];
    let paths = files(&root.join("docs"), "md").into_iter().chain(single.map(|path| root.join(path)));
    paths.map(|path| (path.clone(), fs::read_to_string(path).unwrap())).collect()
}

#[test]
fn configuration_lists_every_variable() {
    let page = read("docs/reference/configuration.md");
    let tables: Vec<_> = tables(&page).into_iter().filter(|table| table.header.len() == 5).collect();
    for function in FUNCTIONS {
        let read_by = |row: &&Vec<String>| row[1].split(", ").any(|reader| reader == function);
        let rows = tables.iter().flat_map(|table| &table.rows).filter(read_by);
        let listed: BTreeSet<_> = rows.flat_map(|row| quoted(&row[0])).collect();
        let expected: BTreeSet<_> = variables(function).iter().map(|variable| variable.name).collect();
        assert_eq!(listed, expected, "{function}");
    }
}

#[test]
fn configuration_names_terraform_variables() {
    let spec: Value = serde_json::from_str(&read("infra/stack.json")).unwrap();
    let (declared, page) = (read("infra/variables.tf"), read("docs/reference/configuration.md"));
    let mut checked = 0;
    for row in tables(&page).iter().filter(|table| table.header.len() == 5).flat_map(|table| &table.rows) {
        let (variable, Some(terraform)) = (quoted(&row[0]).next().unwrap(), quoted(&row[4]).next()) else {
            continue;
        };
        assert!(declared.contains(&format!("variable \"{terraform}\"")), "{terraform}");
        for function in row[1].split(", ") {
            assert_eq!(
                spec["functions"][function]["environment"][variable], terraform,
                "{function}: {variable}"
            );
        }
        checked += 1;
    }
    assert!(checked >= 15, "{checked}");
}

#[test]
fn metrics_lists_every_metric() {
    let page = read("docs/reference/metrics.md");
    let tables = tables(&page);
    let rows = tables.iter().filter(|table| table.header.len() == 5).flat_map(|table| &table.rows);
    let listed: BTreeSet<_> =
        rows.map(|row| (quoted(&row[0]).next().unwrap().to_owned(), row[1].clone())).collect();
    let expected: BTreeSet<_> =
        metric::ALL.iter().map(|metric| (metric.name.to_owned(), format!("{:?}", metric.unit))).collect();
    assert_eq!(listed, expected);
}

/// Returns the alarms of the Terraform module, without the prefix of their names: keys of the maps of alarms, and
/// literal names.
fn alarms(source: &str) -> BTreeSet<&str> {
    let is_lowercase = |character: char| character.is_ascii_lowercase() || character == '-';
    let keys = source.lines().filter_map(|line| {
        let (key, value) = line.split_once('=')?;
        Some(key.trim()).filter(|key| value.trim() == "{" || key.contains('-'))
    });
    let literals = source.split("${local.name}-").skip(1).filter_map(|rest| rest.split('"').next());
    keys.chain(literals).filter(|name| name.chars().all(is_lowercase)).collect()
}

#[test]
fn operations_explains_every_alarm() {
    let (page, source) = (read("docs/operations.md"), read("infra/alarms.tf"));
    let listed = rows(&page, "Alarms", 3);
    let listed: Vec<_> = listed.iter().flat_map(|row| quoted(&row[0])).collect();
    let alarms = alarms(&source);
    assert_eq!(listed.len(), alarms.len(), "{listed:?}: {alarms:?}");
    for alarm in alarms {
        assert!(listed.iter().any(|name| name.ends_with(&format!("-{alarm}"))), "{alarm}");
    }
}

/// Returns the long flags in a help text: lines that begin with a dash.
fn flags(help: &str) -> BTreeSet<String> {
    let options = help.lines().map(str::trim_start).filter(|line| line.starts_with('-'));
    let long =
        |line: &str| line.split([' ', ',', '=']).find(|word| word.starts_with("--")).map(str::to_owned);
    options.filter_map(long).collect()
}

#[tokio::test]
async fn cli_lists_every_command_and_flag() -> anyhow::Result<()> {
    let (page, binaries) = (read("docs/reference/cli.md"), build::build().await?);
    let binary = binaries.path("streamer")?;
    let help = |command: Option<&str>| {
        let output = Command::new(binary).args(command).arg("--help").output().unwrap();
        assert!(output.status.success(), "{command:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let documented = |section: &str| -> BTreeSet<String> {
        let tables = tables(&page);
        let rows = tables.iter().filter(|table| table.section == section).flat_map(|table| &table.rows);
        let long = |word: &&str| word.starts_with("--");
        rows.flat_map(|row| quoted(&row[0]).filter(long).map(str::to_owned)).collect()
    };

    let overview = help(None);
    assert_eq!(documented("streamer"), flags(&overview));
    let name = |line: &str| {
        let (name, _) = line.strip_prefix("  ")?.split_once(' ')?;
        (!name.is_empty() && name.chars().all(|character| character.is_ascii_lowercase()))
            .then(|| name.to_owned())
    };
    let commands: BTreeSet<_> = overview
        .lines()
        .take_while(|line| !line.starts_with("Examples:"))
        .filter_map(name)
        .filter(|name| name != "help")
        .collect();
    let sections: BTreeSet<_> = page.lines().filter_map(|line| line.strip_prefix("## streamer ")).collect();
    assert_eq!(sections, commands.iter().map(String::as_str).collect());

    let common = documented("Flags that select a deployment");
    for command in &commands {
        let section = format!("streamer {command}");
        let (_, text) = page.split_once(&format!("\n## {section}\n")).unwrap();
        let text = text.split("\n## ").next().unwrap();
        let mut listed = documented(&section);
        if text.contains("(#flags-that-select-a-deployment)") {
            listed.extend(common.clone());
        }
        let mut expected = flags(&help(Some(command)));
        expected.remove("--help");
        assert_eq!(listed, expected, "{command}");
    }
    Ok(())
}

/// Returns the checks of `streamer doctor` that a page's tables name in the column `check`.
fn checks_in(page: &str) -> BTreeSet<String> {
    let mut checks = BTreeSet::new();
    for table in tables(page) {
        if let Some(column) = table.header.iter().position(|name| name == "check") {
            checks.extend(table.rows.iter().flat_map(|row| quoted(&row[column])).map(str::to_owned));
        }
    }
    checks
}

#[test]
fn cli_lists_every_check_of_doctor() {
    let is_name = |word: &&str| {
        let lower = |part: &str| {
            !part.is_empty() && part.chars().all(|c| c == '_' || c.is_ascii_lowercase() || c.is_ascii_digit())
        };
        word.split_once('.').is_some_and(|(group, rest)| lower(group) && lower(rest) && group != "streamer")
    };
    let mut checks = BTreeSet::new();
    let is_code = |file: &PathBuf| !file.ends_with("tests.rs");
    for file in files(&workspace().join("cli/src/doctor"), "rs").into_iter().filter(is_code) {
        let source = fs::read_to_string(file).unwrap();
        let code = source.split("mod tests {").next().unwrap();
        checks.extend(code.split('"').filter(is_name).map(str::to_owned));
    }
    assert_eq!(checks_in(&read("docs/reference/cli.md")), checks);
}

#[test]
fn assumptions_name_existing_checks() {
    let documented = checks_in(&read("docs/reference/cli.md"));
    let named = checks_in(&read("docs/reference/assumptions.md"));
    assert!(!named.is_empty());
    let unknown: Vec<_> = named.difference(&documented).collect();
    assert!(unknown.is_empty(), "{unknown:?}");
}

fn properties(schema: &Value) -> &Map<String, Value> {
    schema["properties"].as_object().unwrap()
}

fn names(schema: &Value) -> BTreeSet<&str> {
    properties(schema).keys().map(String::as_str).collect()
}

/// Compares a table of fields, with a column that says which are required, with a schema.
fn check_fields(rows: &[Vec<String>], schema: &Value) {
    assert_eq!(keys(rows), names(schema));
    let required: Vec<_> = rows.iter().filter(|row| row[1] == "yes").cloned().collect();
    let expected: BTreeSet<_> =
        schema["required"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    assert_eq!(keys(&required), expected);
}

#[test]
fn wire_format_lists_every_outbound_field() {
    let page = read("docs/reference/wire-format.md");
    let schema: Value = serde_json::from_str(&read("message/schema/outbound-message.v1.json")).unwrap();
    check_fields(&rows(&page, "Outbound message", 3), &schema);
    assert_eq!(keys(&rows(&page, "Request", 2)), names(&schema["$defs"]["Request"]));
    let audiences = schema["$defs"]["Audience"]["anyOf"].as_array().unwrap();
    assert_eq!(keys(&rows(&page, "Audience", 3)), audiences.iter().flat_map(names).collect());
}

#[test]
fn wire_format_lists_every_frame_field() {
    let page = read("docs/reference/wire-format.md");
    for (file, heading) in
        [("client-frame.json", "Frames of clients"), ("server-frame.json", "Frames of Streamer")]
    {
        let schema: Value = serde_json::from_str(&read(&format!("message/schema/{file}"))).unwrap();
        let rows = rows(&page, heading, 4);
        let documented: BTreeSet<_> = rows.iter().flatten().flat_map(|cell| quoted(cell)).collect();
        let objects =
            schema["oneOf"].as_array().unwrap().iter().chain(schema["$defs"].as_object().unwrap().values());
        for name in objects.filter(|object| object["properties"].is_object()).flat_map(names) {
            assert!(documented.contains(name), "{file}: `{name}` is not in the tables of `{heading}`");
        }
    }
}

#[test]
fn wire_format_lists_every_client_field() {
    let page = read("docs/reference/wire-format.md");
    let schema: Value = serde_json::from_str(&read("message/schema/client-message.json")).unwrap();
    let rows = rows(&page, "Client message", 4);
    let fields = |kind: &str| -> BTreeSet<_> {
        let of_kind = rows.iter().filter(|row| row[0].trim_matches('`') == kind);
        of_kind.flat_map(|row| quoted(&row[1]).map(|field| (field, row[2] == "yes"))).collect()
    };
    let expected = |schema: &Value| -> BTreeSet<(String, bool)> {
        let required = schema["required"].as_array().unwrap();
        let field = |name: &&String| (name.to_string(), required.contains(&Value::from(name.as_str())));
        properties(schema).keys().collect::<Vec<_>>().iter().map(field).collect()
    };
    let owned = |fields: BTreeSet<(&str, bool)>| -> BTreeSet<(String, bool)> {
        fields.into_iter().map(|(name, required)| (name.to_owned(), required)).collect()
    };
    let of_type = ("type".to_owned(), true);
    let mut common = expected(&schema);
    common.insert(of_type.clone());
    assert_eq!(owned(fields("all")), common);
    for content in schema["oneOf"].as_array().unwrap() {
        let kind = content["properties"]["type"]["const"].as_str().unwrap();
        let mut expected = expected(content);
        expected.remove(&of_type);
        assert_eq!(owned(fields(kind)), expected, "{kind}");
    }
    check_fields(&self::rows(&page, "Client message", 3), &schema["$defs"]["ClientError"]);
}

#[test]
fn dead_letter_tables_match_the_code() {
    let wire = read("docs/reference/wire-format.md");
    let attributes = [dead_letter::REASON, dead_letter::DETAIL, dead_letter::ATTEMPTS, dead_letter::SINCE];
    assert_eq!(keys(&rows(&wire, "Dead letters", 2)), BTreeSet::from(attributes));
    let operations = read("docs/operations.md");
    assert_eq!(keys(&rows(&operations, "Dead letters", 3)), BTreeSet::from(Reason::ALL.map(Reason::as_str)));
}

#[test]
fn outcomes_lists_every_outcome_and_cause() {
    let (page, source) = (read("docs/reference/outcomes.md"), read("delivery-worker/src/outcome.rs"));
    let listed = |section: &str, columns: usize| -> BTreeSet<String> {
        rows(&page, section, columns).iter().flat_map(|row| quoted(&row[0]).map(str::to_owned)).collect()
    };
    let outcomes = variants(&source, "Outcome").iter().map(|name| snake_case(name)).collect();
    assert_eq!(listed("Outcomes", 3), outcomes);
    assert_eq!(listed("Rejections", 2), variants(&source, "Rejection").into_iter().collect());
    assert_eq!(listed("Causes", 3), variants(&source, "Cause").into_iter().collect());
    for row in rows(&page, "Causes", 3) {
        for text in quoted(&row[1]).filter(|text| !text.contains('…')) {
            assert!(source.contains(&format!("\"{text}\"")), "no cause has the text `{text}`");
        }
    }
}

#[test]
fn outcomes_lists_every_refusal() {
    let page = read("docs/reference/outcomes.md");
    let rows = rows(&page, "Refused connections", 3);
    let sources = files(&workspace().join("connect-handler/src"), "rs");
    let sources: Vec<_> = sources.iter().map(|path| fs::read_to_string(path).unwrap()).collect();
    let bodies = sources.iter().flat_map(|source| source.split("fn reason(").skip(1));
    let bodies = bodies.map(|body| body.split("\n    }\n").next().unwrap());
    let reasons: BTreeSet<_> = bodies.flat_map(|body| body.split('"').skip(1).step_by(2)).collect();
    assert_eq!(keys(&rows), reasons);
}

/// Whether the function before which a text ends is a test: its attributes say so.
fn is_test(before: &str) -> bool {
    let (above, _) = before.rsplit_once('\n').unwrap_or_default();
    let mut attributes = above
        .lines()
        .rev()
        .map(str::trim)
        .take_while(|line| line.starts_with("#[") || line.starts_with("//"));
    attributes.any(|line| line.starts_with("#[test]") || line.starts_with("#[tokio::test"))
}

/// A promise names its tests as a file, then test functions of that file.
#[test]
fn promises_name_existing_tests() {
    let page = read("docs/explanation/semantics.md");
    let tables = tables(&page);
    let promises = tables.iter().filter(|table| table.header == ["promise", "tests"]);
    let mut checked = 0;
    for row in promises.flat_map(|table| &table.rows) {
        let (mut file, mut tests) = (None, 0);
        for word in quoted(&row[1]) {
            if workspace().join(word).is_file() {
                file = Some((word, read(word)));
                continue;
            }
            let (path, source) = file.as_ref().unwrap_or_else(|| panic!("`{word}` is not a file"));
            let before = source.split_once(&format!("fn {word}(")).map(|(before, _)| before);
            assert!(before.is_some_and(is_test), "{path} has no test `{word}`");
            tests += 1;
        }
        assert!(tests > 0, "a promise without a test: {}", row[0]);
        checked += tests;
    }
    assert!(checked >= 80, "{checked}");
}

/// Removes inline code, which holds no links.
fn without_code(line: &str) -> String {
    line.split('`').step_by(2).collect::<Vec<_>>().join("`")
}

/// Returns the anchors of a page as GitHub makes them.
fn anchors(page: &str) -> BTreeSet<String> {
    let slug = |text: &str| -> String {
        let kept = |character: &char| character.is_alphanumeric() || [' ', '-', '_'].contains(character);
        text.to_lowercase()
            .chars()
            .filter(kept)
            .map(|character| if character == ' ' { '-' } else { character })
            .collect()
    };
    prose(page).filter_map(heading).map(slug).collect()
}

/// The end-to-end tests run that example.
#[test]
fn guide_shows_the_tested_router() {
    let (page, example) = (read("docs/guide/router.md"), read("producer/examples/hello.rs"));
    let shown = page.split("```").nth(1).and_then(|block| block.strip_prefix("rust,no_run\n")).unwrap();
    let (_, code) = example.split_once("\n\n").unwrap();
    assert_eq!(shown, code);
}

/// Returns the code of the blocks in this language.
fn blocks<'a>(page: &'a str, language: &str) -> Vec<&'a str> {
    let blocks = page.split("\n```").skip(1).step_by(2).filter_map(|block| block.split_once('\n'));
    blocks.filter(|(found, _)| *found == language).map(|(_, code)| code).collect()
}

#[test]
fn guide_to_receipts_has_valid_json() -> anyhow::Result<()> {
    let page = read("docs/guide/receipts.md");
    let blocks = blocks(&page, "json");
    let values =
        blocks.iter().flat_map(|block| serde_json::Deserializer::from_str(block).into_iter::<Value>());
    let values = values.collect::<Result<Vec<_>, _>>()?;
    let (messages, others): (Vec<_>, Vec<_>) =
        values.into_iter().partition(|value| value.get("payload").is_some());
    let (events, others): (Vec<_>, Vec<_>) =
        others.into_iter().partition(|value| value.get("type").is_some());
    let (receipts, patterns): (Vec<_>, Vec<_>) =
        others.into_iter().partition(|value| value.get("outcome").is_some());

    assert!(OutboundMessage::decode(&messages[0].to_string())?.receipt.is_some());
    let event = ReceiptEvent::decode(&events[0].to_string())?;
    assert_eq!(serde_json::to_value(&event)?, events[0]);
    assert_eq!((messages.len(), events.len(), receipts.len(), patterns.len()), (1, 1, 4, 1));

    let mut tally = ReceiptTally::default();
    for receipt in receipts {
        let read: Receipt = serde_json::from_value(receipt.clone())?;
        assert_eq!(serde_json::to_value(&read)?, receipt);
        if read.id.as_str() == "notice-3" {
            tally.add(read);
        }
    }
    assert!(tally.is_complete());
    let expected = [(ReceiptOutcome::Delivered, 105), (ReceiptOutcome::Gone, 2)];
    assert_eq!(tally.connections(), expected.into());
    let names: Vec<_> = ReceiptOutcome::ALL.iter().map(|outcome| outcome.as_str()).collect();
    let pattern = patterns[0]["detail"]["outcome"].as_array().unwrap();
    assert!(pattern.iter().all(|outcome| names.contains(&outcome.as_str().unwrap())));
    Ok(())
}

#[test]
fn links_between_pages_resolve() {
    let mut checked = 0;
    for (path, page) in pages() {
        for line in prose(&page).map(without_code) {
            let targets = line.split("](").skip(1).filter_map(|rest| rest.split(')').next());
            for target in targets.filter(|target| !target.contains("://")) {
                let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
                let linked = if file.is_empty() { path.clone() } else { path.parent().unwrap().join(file) };
                assert!(linked.exists(), "{}: {target} does not exist", path.display());
                if !anchor.is_empty() {
                    let anchors = anchors(&fs::read_to_string(&linked).unwrap());
                    assert!(anchors.contains(anchor), "{}: {target} has no such heading", path.display());
                }
                checked += 1;
            }
        }
    }
    assert!(checked >= 60, "{checked}");
}

/// A word in backquotes that begins with a folder of the workspace is a path.
#[test]
fn paths_in_pages_exist() {
    let root = workspace();
    let is_source = |folder: &str| folder != "target" && !folder.is_empty() && root.join(folder).is_dir();
    let mut checked = 0;
    // The changelog names the paths of its time.
    for (path, page) in pages().into_iter().filter(|(path, _)| !path.ends_with("CHANGELOG.md")) {
        for line in prose(&page) {
            for word in quoted(line).filter(|word| !word.contains([' ', '{', '*'])) {
                let Some((folder, _)) = word.split_once('/') else { continue };
                if is_source(folder) {
                    assert!(root.join(word).exists(), "{}: `{word}` does not exist", path.display());
                    checked += 1;
                }
            }
        }
    }
    assert!(checked >= 60, "{checked}");
}
