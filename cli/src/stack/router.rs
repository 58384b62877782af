//! The router behind `$default`: the example, a program for this machine, or a handler in JavaScript or Python.

use std::{
    fmt, fs,
    io::{Cursor, Write as _},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, ensure};
use aws_sdk_lambda::types::Runtime;
use zip::{CompressionMethod, DateTime, ZipArchive, ZipWriter, write::SimpleFileOptions};

use super::build::{Binaries, ROUTER};
use crate::package::inspect;

/// Maximum size in bytes of the files of a function.
///
/// Source: "Deployment package size" in <https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html>.
const MAX_BYTES: usize = 250 * 1024 * 1024;

/// Maximum number of files and folders of a function. It ends the walk through a folder that links to itself.
const MAX_FILES: usize = 100_000;

/// The first bytes of a zip.
const ZIP: &[u8] = b"PK\x03\x04";

/// The router behind `$default`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Router {
    /// The example router.
    Example,
    /// A router of the user's: a program, a folder with a handler, or a zip of one.
    Own(PathBuf),
}

impl fmt::Display for Router {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Example => formatter.write_str("example router"),
            Self::Own(path) => write!(formatter, "router {}", path.display()),
        }
    }
}

/// The code of a function.
#[derive(Debug)]
pub struct Code {
    /// The zip with its files.
    pub zip: Vec<u8>,
    /// The runtime that runs it.
    pub runtime: Runtime,
    /// The function to call.
    pub handler: &'static str,
}

impl Code {
    /// Returns the code of a program, the file `bootstrap` of a zip.
    #[must_use]
    pub fn of_program(zip: Vec<u8>) -> Self {
        Self { zip, runtime: Runtime::Providedal2023, handler: "bootstrap" }
    }
}

/// A handler that the emulator runs with the Node or Python of this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Handler {
    JavaScript,
    Python,
}

impl Handler {
    /// Returns the handler among the names of a function's files.
    fn among(names: impl IntoIterator<Item: AsRef<str>>) -> Option<Self> {
        names.into_iter().find_map(|name| match name.as_ref() {
            "index.mjs" | "index.js" => Some(Self::JavaScript),
            "lambda_function.py" => Some(Self::Python),
            _ => None,
        })
    }

    fn code(self, zip: Vec<u8>) -> Code {
        match self {
            Self::JavaScript => Code { zip, runtime: Runtime::Nodejs22x, handler: "index.handler" },
            Self::Python => {
                Code { zip, runtime: Runtime::Python313, handler: "lambda_function.lambda_handler" }
            }
        }
    }
}

impl Router {
    /// Checks that the emulator can run a router of the user's.
    ///
    /// # Errors
    /// When it is no program for this machine, and no folder or zip with a handler. The error says what is expected.
    pub fn check(path: PathBuf) -> anyhow::Result<PathBuf> {
        let kind = fs::metadata(&path)?;
        if kind.is_dir() {
            in_folder(&path)?;
            return Ok(path);
        }
        // Reading a device or a pipe might not end.
        ensure!(kind.is_file(), "it is no regular file");
        let content = fs::read(&path)?;
        match content.starts_with(ZIP) {
            true => _ = in_zip(&content)?,
            false => inspect::runs_here(&content)?,
        }
        Ok(path)
    }

    /// Returns the router's code.
    ///
    /// # Errors
    /// When its files cannot be read, or are no router.
    pub fn code(&self, binaries: &Binaries) -> anyhow::Result<Code> {
        let Self::Own(path) = self else { return binaries.zip(ROUTER).map(Code::of_program) };
        if path.is_dir() {
            let handler = in_folder(path)?;
            return zip_folder(path).map(|zip| handler.code(zip));
        }
        let content = fs::read(path).with_context(|| format!("cannot read the router {}", path.display()))?;
        match content.starts_with(ZIP) {
            true => in_zip(&content).map(|handler| handler.code(content)),
            false => Binaries::zip_program(&content).map(Code::of_program),
        }
    }
}

fn in_folder(path: &Path) -> anyhow::Result<Handler> {
    let entries = fs::read_dir(path)?.collect::<Result<Vec<_>, _>>()?;
    let names = entries.iter().filter_map(|entry| entry.file_name().into_string().ok());
    Handler::among(names).context(
        "it is a folder without a handler: name the router's binary in it, or a folder with index.mjs or \
         lambda_function.py",
    )
}

fn in_zip(content: &[u8]) -> anyhow::Result<Handler> {
    let archive = ZipArchive::new(Cursor::new(content)).context("it is a zip that cannot be read")?;
    Handler::among(archive.file_names().flatten()).context(
        "it is a zip without a handler: zip the files of the folder with index.mjs or lambda_function.py",
    )
}

/// Builds a zip with the files of a folder. It follows links, as `node_modules` may have them.
fn zip_folder(root: &Path) -> anyhow::Result<Vec<u8>> {
    let options = SimpleFileOptions::default()
        .compression_method(CompressionMethod::Deflated)
        .compression_level(Some(1))
        .last_modified_time(DateTime::DEFAULT)
        .unix_permissions(0o755);
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    let (mut folders, mut entries, mut bytes) = (vec![root.to_owned()], 0, 0);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))? {
            let path = entry?.path();
            entries += 1;
            if path.is_dir() {
                folders.push(path);
            } else {
                let content = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
                bytes += content.len();
                zip.start_file_from_path(path.strip_prefix(root)?, options)?;
                zip.write_all(&content)?;
            }
            ensure!(
                bytes <= MAX_BYTES && entries <= MAX_FILES,
                "{} is larger than a function may be, 250 MiB or {MAX_FILES} files: leave out what it doesn't need, \
                 such as the packages for development",
                root.display()
            );
        }
    }
    Ok(zip.finish()?.into_inner())
}

#[cfg(test)]
mod tests {
    use std::env;

    use super::*;

    /// A folder that is removed at the end.
    struct Folder(PathBuf);

    impl Folder {
        fn with(name: &str, files: &[&str]) -> Self {
            let path = env::temp_dir().join(format!("streamer-router-{name}-{}", std::process::id()));
            for file in files {
                let file = path.join(file);
                fs::create_dir_all(file.parent().unwrap()).unwrap();
                fs::write(file, "code").unwrap();
            }
            Self(path)
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn handler_decides_the_runtime() {
        for (file, handler) in [
            ("index.mjs", Handler::JavaScript),
            ("index.js", Handler::JavaScript),
            ("lambda_function.py", Handler::Python),
        ] {
            let folder = Folder::with(file, &["README.md", file]);
            assert_eq!(in_folder(&folder.0).unwrap(), handler);
            let zip = zip_folder(&folder.0).unwrap();
            assert_eq!(in_zip(&zip).unwrap(), handler);
        }
        let none = Folder::with("none", &["main.rb", "deeper/index.mjs"]);
        assert!(in_folder(&none.0).unwrap_err().to_string().contains("a folder without a handler"));
        let error = in_zip(&zip_folder(&none.0).unwrap()).unwrap_err().to_string();
        assert!(error.contains("a zip without a handler"), "{error}");
    }

    #[test]
    fn zip_has_every_file_with_its_path() {
        let folder = Folder::with("paths", &["index.mjs", "node_modules/a/index.js"]);
        let linked = Folder::with("linked", &["lib/b.js"]);
        std::os::unix::fs::symlink(&linked.0, folder.0.join("node_modules/b")).unwrap();
        let archive = ZipArchive::new(Cursor::new(zip_folder(&folder.0).unwrap())).unwrap();
        let mut names: Vec<_> = archive.file_names().map(Result::unwrap).collect();
        names.sort_unstable();
        assert_eq!(names, ["index.mjs", "node_modules/a/index.js", "node_modules/b/lib/b.js"]);
    }
}
