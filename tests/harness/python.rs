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

/// The modules of boto3 and of its dependencies.
const BOTO3: [&str; 7] = ["boto3", "botocore", "dateutil", "jmespath", "s3transfer", "six.py", "urllib3"];

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
    for name in BOTO3 {
        std::os::unix::fs::symlink(packages.join(name), router.join(name))?;
    }
    Ok(())
}
