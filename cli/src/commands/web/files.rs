//! The page and the client, embedded in this program.

/// A file of the page.
#[derive(Debug, Clone, Copy)]
pub(super) struct File {
    /// The path of its URL.
    pub path: &'static str,
    pub content_type: &'static str,
    pub content: &'static str,
}

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const JAVASCRIPT: &str = "text/javascript; charset=utf-8";
const SVG: &str = "image/svg+xml";

macro_rules! files {
    ($($path:literal $content_type:ident $source:literal)*) => {
        &[$(File { path: $path, content_type: $content_type, content: include_str!($source) }),*]
    };
}

const FILES: &[File] = files! {
    "/" HTML "../../../web/index.html"
    "/theme.css" CSS "../../../web/theme.css"
    "/page.css" CSS "../../../web/page.css"
    "/device.css" CSS "../../../web/device.css"
    "/lists.css" CSS "../../../web/lists.css"
    "/icon.svg" SVG "../../../web/icon.svg"
    "/page.js" JAVASCRIPT "../../../web/page.js"
    "/device.js" JAVASCRIPT "../../../web/device.js"
    "/panel.js" JAVASCRIPT "../../../web/panel.js"
    "/network.js" JAVASCRIPT "../../../web/network.js"
    "/frames.js" JAVASCRIPT "../../../web/frames.js"
    "/stack.js" JAVASCRIPT "../../../web/stack.js"
    "/streamer-client/index.js" JAVASCRIPT "../../../../client/index.js"
    "/streamer-client/core.js" JAVASCRIPT "../../../../client/core.js"
    "/streamer-client/errors.js" JAVASCRIPT "../../../../client/errors.js"
    "/streamer-client/frames.js" JAVASCRIPT "../../../../client/frames.js"
    "/streamer-client/job.js" JAVASCRIPT "../../../../client/job.js"
    "/streamer-client/limits.js" JAVASCRIPT "../../../../client/limits.js"
    "/streamer-client/requests.js" JAVASCRIPT "../../../../client/requests.js"
    "/streamer-client/schedule.js" JAVASCRIPT "../../../../client/schedule.js"
    "/streamer-client/store.js" JAVASCRIPT "../../../../client/store.js"
    "/streamer-client/stream.js" JAVASCRIPT "../../../../client/stream.js"
};

/// Returns the file at a path.
pub(super) fn find(path: &str) -> Option<&'static File> {
    FILES.iter().find(|file| file.path == path)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use std::collections::BTreeSet;

    use super::*;

    /// Returns the quoted texts that follow `mark`.
    fn quoted_after<'a>(content: &'a str, mark: &'a str) -> impl Iterator<Item = &'a str> {
        content.split(mark).skip(1).map(|rest| rest.split('"').next().unwrap())
    }

    /// Returns the path of a reference in a file, `./name` or an absolute path.
    fn resolve(file: &File, reference: &str) -> String {
        let folder = &file.path[..=file.path.rfind('/').unwrap()];
        match reference.strip_prefix("./") {
            Some(name) => format!("{folder}{name}"),
            None => reference.to_owned(),
        }
    }

    #[test]
    fn every_import_is_served() {
        let mut checked = 0;
        for file in FILES.iter().filter(|file| file.content_type == JAVASCRIPT) {
            for import in quoted_after(file.content, "from \"") {
                let path = resolve(file, import);
                assert!(find(&path).is_some(), "{} imports {path}, which is not served", file.path);
                checked += 1;
            }
        }
        assert!(checked >= 15, "{checked}");
    }

    #[test]
    fn every_reference_of_the_page_is_served() {
        let page = find("/").unwrap();
        let references =
            ["src=\"", "href=\""].map(|mark| quoted_after(page.content, mark).collect::<Vec<_>>());
        let references = references.concat();
        assert!(references.len() >= 3, "{references:?}");
        for reference in references {
            assert!(find(reference).is_some(), "the page needs {reference}, which is not served");
        }
    }

    #[test]
    fn every_verdict_is_documented() {
        let script = find("/frames.js").unwrap().content;
        let (_, verdicts) = script.split_once("const VERDICTS = {\n").unwrap();
        let (verdicts, _) = verdicts.split_once("};").unwrap();
        let verdict = |line: &'static str| line.rsplit_once(": ").unwrap().0.trim().trim_matches('"');
        let verdicts: BTreeSet<_> = verdicts.lines().map(verdict).collect();
        assert!(verdicts.contains("held, then shown"), "{verdicts:?}");
        let page = include_str!("../../../../docs/reference/cli.md");
        let (_, rows) = page.split_once("| verdict on a frame | meaning |\n|---|---|\n").unwrap();
        let rows = rows.lines().take_while(|line| line.starts_with('|'));
        let documented: BTreeSet<_> = rows.map(|row| row.split('|').nth(1).unwrap().trim()).collect();
        assert_eq!(verdicts, documented);
    }

    /// The policy of the page forbids both.
    #[test]
    fn page_has_no_inline_script_or_style() {
        let page = find("/").unwrap().content;
        for forbidden in ["<style", " style=", " onclick=", "<script>", "javascript:"] {
            assert!(!page.contains(forbidden), "{forbidden}");
        }
    }
}
