//! Where a plugin's file is: a path, or a name looked up in the plugin folders.

use std::collections::BTreeSet;
use std::path::{MAIN_SEPARATOR, Path, PathBuf};

use crate::diagnostic::{Diagnostic, did_you_mean};

/// Folders to look in, separated as in `PATH`.
pub const PLUGIN_PATH: &str = "PLUMB_PLUGIN_PATH";

/// Folders that names are looked up in, in order: `plugins` beside the recipe, `PLUMB_PLUGIN_PATH`, and `plugins` in and beside
/// the folder of this program.
pub fn folders(recipe_folder: Option<&Path>) -> Vec<PathBuf> {
    let mut folders: Vec<PathBuf> = recipe_folder.map(|folder| folder.join("plugins")).into_iter().collect();
    folders.extend(std::env::var_os(PLUGIN_PATH).iter().flat_map(std::env::split_paths));
    if let Some(home) = std::env::current_exe().ok().as_deref().and_then(Path::parent) {
        folders.push(home.join("plugins"));
        folders.extend(home.parent().map(|above| above.join("plugins")));
    }
    folders
}

/// The file of plugin `plugin`: a path (relative to `recipe_folder`) if it has a separator, ends in `.wasm`, or is a file with
/// another ending, which whoever reads it can say more about; else a name.
pub fn resolve(plugin: &str, recipe_folder: Option<&Path>) -> Result<PathBuf, Diagnostic> {
    let path = recipe_folder.map_or_else(|| PathBuf::from(plugin), |folder| folder.join(plugin));
    let ending = Path::new(plugin).extension();
    let is_path = plugin.contains(MAIN_SEPARATOR) || plugin.contains('/') || ending.is_some_and(|ending| ending == "wasm");
    if is_path || (ending.is_some() && path.is_file()) {
        return if path.is_file() {
            Ok(path)
        } else {
            Err(Diagnostic::usage("plugin.not_found", format!("there is no plugin file `{}`", path.display())))
        };
    }
    let folders = folders(recipe_folder);
    let file = |folder: &PathBuf| folder.join(format!("{plugin}.wasm"));
    if let Some(found) = folders.iter().map(file).find(|path| path.is_file()) {
        return Ok(found);
    }
    let there: BTreeSet<String> = folders.iter().flat_map(|folder| installed(folder)).collect();
    let error = Diagnostic::usage("plugin.not_found", format!("there is no plugin `{plugin}`"))
        .because(if there.is_empty() {
            "no plugins are installed".to_owned()
        } else {
            format!("there are {}", there.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", "))
        })
        .at(format!("looked in {}", folders.iter().map(|f| format!("`{}`", f.display())).collect::<Vec<_>>().join(", ")));
    Err(match did_you_mean(plugin, there.iter().map(String::as_str)) {
        Some(hint) => error.hint(hint),
        None => error.hint(format!("give the path of a .wasm file, or put its folder into {PLUGIN_PATH}")),
    })
}

/// Names of the plugins in a folder; a folder that is not there has none.
pub fn installed(folder: &Path) -> Vec<String> {
    let items = std::fs::read_dir(folder).into_iter().flatten().filter_map(|item| item.ok().map(|item| item.path()));
    let mut names: Vec<String> = items
        .filter(|path| path.extension().is_some_and(|e| e == "wasm"))
        .filter_map(|path| Some(path.file_stem()?.to_str()?.to_owned()))
        .collect();
    names.sort();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_beside_the_recipe_and_typos_get_a_hint() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("plugins")).unwrap();
        let file = folder.path().join("plugins/reward-exact-match.wasm");
        std::fs::write(&file, "").unwrap();
        assert_eq!(resolve("reward-exact-match", Some(folder.path())).unwrap(), file);
        assert_eq!(resolve("plugins/reward-exact-match.wasm", Some(folder.path())).unwrap(), file);
        let error = resolve("reward-exact-mach", Some(folder.path())).unwrap_err();
        assert_eq!(error.code, "plugin.not_found");
        assert_eq!(error.hint.as_deref(), Some("did you mean `reward-exact-match`?"));
        assert!(error.causes[0].contains("`reward-exact-match`"), "{:?}", error.causes);
        let compiled = folder.path().join("x.cwasm");
        std::fs::write(&compiled, "").unwrap();
        assert_eq!(resolve("x.cwasm", Some(folder.path())).unwrap(), compiled);
        assert_eq!(resolve("y.cwasm", Some(folder.path())).unwrap_err().code, "plugin.not_found");
        let error = resolve("none/x.wasm", Some(folder.path())).unwrap_err();
        assert!(error.message.starts_with("there is no plugin file"), "{}", error.message);
    }
}
