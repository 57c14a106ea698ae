//! The files of the project, for tests that read them.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its part of this")]

use std::fs;
use std::path::{Path, PathBuf};

/// The folder of the workspace.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a workspace around the crate").to_path_buf()
}

/// All files of the tree that hold text, by their path from the root.
pub fn files() -> Vec<(String, String)> {
    let root = root();
    let mut found = Vec::new();
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap().map(Result::unwrap) {
            let (path, name) = (entry.path(), entry.file_name().into_string().unwrap());
            if entry.file_type().unwrap().is_dir() {
                // What is built, what git keeps, what fuzzing and Python leave behind.
                if !["target", ".git", "corpus", "found", "artifacts", "__pycache__", "node_modules"]
                    .contains(&name.as_str())
                {
                    folders.push(path);
                }
            } else if !["Cargo.lock", ".git", ".gitignore"].contains(&name.as_str())
                && let Ok(text) = fs::read_to_string(&path)
            {
                found.push((path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned(), text));
            }
        }
    }
    assert!(found.len() > 100, "the tree was found");
    found.sort();
    found
}
