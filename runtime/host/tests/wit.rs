//! The interface holds to what was released: a plugin built for an earlier 0.1.x keeps loading.

use std::path::{Path, PathBuf};

use wit_parser::Resolve;

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

#[test]
fn every_released_world_is_compatible_with_the_current_one() {
    let mut worlds = 0;
    for release in std::fs::read_dir(repository().join("tests/wit-released")).unwrap() {
        let release = release.unwrap().path();
        let mut resolve = Resolve::default();
        let (old, _) = resolve.push_dir(&release).unwrap();
        // Both may be the same version, but one `Resolve` holds a version once; the check itself ignores versions.
        resolve.packages[old].name.version.as_mut().unwrap().major += 1000;
        let name = resolve.packages[old].name.clone();
        resolve.package_names.clear();
        resolve.package_names.insert(name, old);
        let (new, _) = resolve.push_dir(repository().join("wit")).unwrap();
        for (name, old) in &resolve.packages[old].worlds {
            let Some(new) = resolve.packages[new].worlds.get(name) else {
                panic!("world `{name}` of {} is gone", release.display());
            };
            wit_component::semver_check(resolve.clone(), *old, *new)
                .unwrap_or_else(|error| panic!("world `{name}` breaks plugins built for {}: {error:#}", release.display()));
            worlds += 1;
        }
    }
    assert!(worlds >= 6, "base, stateful and the four kinds");
}
