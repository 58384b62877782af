//! Python, with the packages that tests of the producer use.

use std::{fs, path::Path};

use streamer_cli::{paths, stack::python::Packages};

/// The packages for the tests of the producer for Python.
pub const PRODUCER: Packages = Packages {
    name: "the packages for the producer's tests",
    folder: "producer-python",
    package: "boto3",
    requirements: include_str!("../../producer/python/requirements.txt"),
    pythons: &["python3"],
    versions: ("3.11 or newer", (3, 11), (3, u8::MAX)),
};

/// Writes the router for Python into a new folder, with the producer and with boto3, which Lambda's runtimes have. `packages`
/// is the folder in which boto3 is installed.
///
/// # Errors
/// When the folder cannot be written.
pub fn write_router(router: &Path, packages: &Path) -> anyhow::Result<()> {
    let producer = paths::workspace().join("producer/python");
    let module = router.join("streamer_producer");
    fs::create_dir_all(&module)?;
    fs::copy(producer.join("examples/router/lambda_function.py"), router.join("lambda_function.py"))?;
    for entry in fs::read_dir(producer.join("src/streamer_producer"))? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            fs::copy(entry.path(), module.join(entry.file_name()))?;
        }
    }
    for entry in fs::read_dir(packages)? {
        let entry = entry?;
        std::os::unix::fs::symlink(entry.path(), router.join(entry.file_name()))?;
    }
    Ok(())
}
