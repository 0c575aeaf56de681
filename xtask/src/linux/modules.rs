//! Linux's modules: which ones a list needs, in the order in which they can be loaded.
//!
//! A module's file names what it depends on in its section `.modinfo`, as `depends=a,b` between zero bytes; packages hold
//! no other list. In names `-` and `_` are the same.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// The files of these modules below `folder` and of all that they need, each behind what it needs.
pub(super) fn in_order(folder: &Path, wanted: &[&str]) -> Result<Vec<PathBuf>> {
    let mut all = BTreeMap::new();
    collect(folder, &mut all)?;
    let mut chosen = Vec::new();
    for name in wanted {
        add(&all, name, &mut chosen)?;
    }
    Ok(chosen)
}

fn collect(folder: &Path, all: &mut BTreeMap<String, PathBuf>) -> Result<()> {
    for entry in std::fs::read_dir(folder).with_context(|| format!("{} cannot be read", folder.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, all)?;
        } else if path.extension().is_some_and(|extension| extension == "ko")
            && let Some(stem) = path.file_stem().and_then(|stem| stem.to_str())
        {
            all.insert(plain(stem), path);
        }
    }
    Ok(())
}

fn plain(name: &str) -> String {
    name.replace('-', "_")
}

fn add(all: &BTreeMap<String, PathBuf>, name: &str, chosen: &mut Vec<PathBuf>) -> Result<()> {
    let path = all.get(&plain(name)).with_context(|| format!("Debian's kernel has no module {name}"))?;
    if chosen.contains(path) {
        return Ok(());
    }
    let content = std::fs::read(path).with_context(|| format!("{} cannot be read", path.display()))?;
    for needed in dependencies(&content) {
        add(all, &needed, chosen)?;
    }
    chosen.push(path.clone());
    Ok(())
}

/// What a module's file says that it depends on.
fn dependencies(module: &[u8]) -> Vec<String> {
    const KEY: &[u8] = b"\0depends=";
    let Some(at) = module.windows(KEY.len()).position(|window| window == KEY) else {
        return Vec::new();
    };
    let text = module[at + KEY.len()..].split(|&byte| byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(text).split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_comes_behind_what_it_needs() {
        let folder = tempfile::tempdir().expect("a folder");
        let module = |name: &str, text: &[u8]| std::fs::write(folder.path().join(name), text).expect("a file");
        module("ext4.ko", b"x\0license=GPL\0depends=jbd2,crc-16\0name=ext4\0");
        module("jbd2.ko", b"x\0depends=crc_16\0");
        module("crc-16.ko", b"x\0depends=\0");
        let files = in_order(folder.path(), &["ext4"]).expect("all are there");
        let names: Vec<_> = files.iter().filter_map(|path| path.file_stem()).collect();
        assert_eq!(names, ["crc-16", "jbd2", "ext4"]);
    }

    #[test]
    fn a_module_that_is_not_there_is_named() {
        let folder = tempfile::tempdir().expect("a folder");
        assert!(in_order(folder.path(), &["ext4"]).is_err_and(|error| error.to_string().contains("ext4")));
    }
}
