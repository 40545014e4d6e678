//! Who vouches for plugins, which bytes a recipe means, and packages for registries.

use std::path::Path;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::support::{Folder, guest};

/// The folder with an installed plugin's file of its own, that a test may change.
fn plugin(folder: &Folder, name: &str) -> String {
    let installed = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("target/plugins/{name}.wasm"));
    let file = folder.path(&format!("plugins/{name}.wasm"));
    std::fs::create_dir_all(file.parent().unwrap()).unwrap();
    std::fs::copy(installed, &file).unwrap();
    file.to_str().unwrap().to_owned()
}

/// A new key: its file and its public half.
fn key(folder: &Folder, name: &str) -> (String, String) {
    let file = folder.path(name).to_str().unwrap().to_owned();
    let public = folder.plumb(&["--json", "plugin", "keygen", "--out", &file]).ok().lines()[0]["data"]["public_key"].clone();
    (file, public.as_str().unwrap().to_owned())
}

fn data(folder: &Folder, args: &[&str]) -> Value {
    folder.plumb(&[&["--json"], args].concat()).ok().lines()[0]["data"].clone()
}

/// The recipe of the tests with the eval's plugin, its stages cut to nothing that takes time.
fn recipe(folder: &Folder, trusted: &str) -> String {
    let text = std::fs::read_to_string(folder.recipe())
        .unwrap()
        .replace("max_steps = 5", "max_steps = 1")
        .replace("max_steps = 7", "max_steps = 1");
    folder.file("tiny.toml", &format!("trust.keys = [{trusted}]\n{text}"))
}

#[test]
fn signed_plugin_is_verified_and_a_changed_one_is_not() {
    let folder = Folder::new();
    let file = plugin(&folder, "reward-exact-match");
    let (key_file, public) = key(&folder, "a.pem");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(std::fs::metadata(&key_file).unwrap().permissions().mode() & 0o777, 0o600);
    }
    assert_eq!(folder.plumb(&["plugin", "keygen", "--out", &key_file]).code, Some(4), "a key is never overwritten");
    assert_eq!(folder.plumb(&["plugin", "verify", &file]).code, Some(1));
    folder.plumb(&["plugin", "sign", &file, "--key", &key_file]).ok();
    assert_eq!(data(&folder, &["plugin", "verify", &file, "--key", &public])["signer"], json!(public));
    assert_eq!(data(&folder, &["plugin", "inspect", &file])["signature"], json!({"by": public}));

    let (_, other) = key(&folder, "b.pem");
    assert_eq!(folder.plumb(&["plugin", "verify", &file, "--key", &other]).code, Some(1));
    change(&file);
    let done = folder.plumb(&["plugin", "verify", &file]);
    assert_eq!(done.code, Some(1));
    assert!(done.stdout.contains("the file has sha256"), "{}", done.stdout);
    assert!(folder.plumb(&["plugin", "inspect", &file]).ok().stdout.contains("DOES NOT HOLD"));
}

#[test]
fn recipe_with_trusted_keys_loads_what_they_signed_and_nothing_else() {
    let folder = Folder::new();
    let file = plugin(&folder, "reward-exact-match");
    let (ours, public) = key(&folder, "ours.pem");
    let (theirs, _) = key(&folder, "theirs.pem");
    let recipe = recipe(&folder, &format!("\"{public}\""));
    let code = |run: &str| folder.plumb(&["--json", "train", &recipe, "--run-dir", run]).error()["code"].clone();
    assert_eq!(code("r1"), "plugin.unsigned");
    folder.plumb(&["plugin", "sign", &file, "--key", &theirs]).ok();
    assert_eq!(code("r2"), "plugin.foreign");
    folder.plumb(&["plugin", "sign", &file, "--key", &ours]).ok();
    folder.plumb(&["train", &recipe, "--run-dir", "r3"]).ok();
    let lock = std::fs::read_to_string(folder.path("r3/plugins.lock")).unwrap();
    assert!(lock.contains(&format!("signer = \"{public}\"")), "{lock}");
}

/// The recipe of the tests with a reward that asks a tool, and the files of both.
fn with_tool(folder: &Folder, trusted: &str) -> (String, [String; 2]) {
    let copy = |name: &str| {
        let file = folder.path(&format!("{name}.wasm"));
        std::fs::copy(guest(name), &file).unwrap();
        file.to_str().unwrap().to_owned()
    };
    let files = [copy("reward-asks"), copy("tool-probe")];
    let text = std::fs::read_to_string(recipe(folder, trusted)).unwrap().replace(
        "rewards = [{ plugin = \"reward-exact-match\", name = \"exact\" }]",
        "rewards = [{ plugin = \"./reward-asks.wasm\", name = \"asks\", config = { mode = \"tool\", tool = \"add\" }, \
         grants = { models = [\"policy\"], tools = [\"add\"] } }]",
    );
    let text = format!("tools.add = {{ plugin = \"./tool-probe.wasm\", config = {{ add = 2.0 }} }}\n{text}");
    (folder.file("tiny.toml", &text), files)
}

/// A custom section more: the same plugin to look at, other bytes.
fn change(file: &str) {
    let mut bytes = std::fs::read(file).unwrap();
    bytes.extend([0, 2, 1, b'x']);
    std::fs::write(file, bytes).unwrap();
}

#[test]
fn run_goes_on_and_is_replayed_from_its_own_signed_copies_tools_included() {
    let folder = Folder::new();
    let file = plugin(&folder, "reward-exact-match");
    let (key_file, public) = key(&folder, "ours.pem");
    let (recipe, files) = with_tool(&folder, &format!("\"{public}\""));
    let train = |more: &[&str]| folder.plumb(&[&["--json", "train", &recipe, "--run-dir", "r"], more].concat());
    for file in [&file, &files[0]] {
        folder.plumb(&["plugin", "sign", file, "--key", &key_file]).ok();
    }
    assert_eq!(train(&[]).error()["code"], "plugin.unsigned", "tools are held to the same keys");
    folder.plumb(&["plugin", "sign", &files[1], "--key", &key_file]).ok();
    train(&[]).ok();
    for file in [&file, &files[0], &files[1]] {
        std::fs::remove_file(file).unwrap();
        std::fs::remove_file(format!("{file}.sig")).unwrap();
    }
    // The reward has an installed namesake without a signature: the run's own copy is what is trusted.
    train(&["--resume"]).ok();
    folder.plumb(&["run", "replay", "r"]).ok();
    for item in std::fs::read_dir(folder.path("r/plugins")).unwrap() {
        let path = item.unwrap().path();
        if path.extension().is_some_and(|e| e == "sig") {
            std::fs::remove_file(path).unwrap();
        }
    }
    let code = train(&["--resume"]).error()["code"].clone();
    assert_eq!(code, "plugin.unsigned", "a copy without its signature is as good as any file");
}

#[test]
fn run_holds_to_the_tools_that_it_began_with() {
    let folder = Folder::new();
    plugin(&folder, "reward-exact-match");
    let (recipe, files) = with_tool(&folder, "");
    folder.plumb(&["train", &recipe, "--run-dir", "r"]).ok();
    let ledger = std::fs::read_to_string(folder.path("r/ledger.jsonl")).unwrap();
    let digest = data(&folder, &["plugin", "inspect", &files[1]])["digest"].clone();
    let of_stages: Vec<Value> =
        ledger.lines().map(|line| serde_json::from_str(line).unwrap()).filter(|line: &Value| line["type"] == "plugins").collect();
    assert_eq!(of_stages.len(), 2);
    for record in of_stages {
        assert_eq!(record["tools"][0]["id"], json!({"name": "add", "kind": "tool", "digest": digest}));
        assert_eq!(record["tools"][0]["config"], json!({"add": 2.0}));
    }
    change(&files[1]);
    // A replay asks the run's copy, and without one it says what is missing.
    folder.plumb(&["run", "replay", "r"]).ok();
    let error = folder.plumb(&["--json", "train", &recipe, "--run-dir", "r", "--resume"]).error();
    assert_eq!(error["code"], "run.input_changed");
    assert!(error["message"].as_str().unwrap().contains("plugin `add`"), "{error}");
    std::fs::remove_file(folder.path(&format!("r/plugins/{}.wasm", digest.as_str().unwrap()))).unwrap();
    let error = folder.plumb(&["--json", "run", "replay", "r"]).error();
    assert_eq!(error["code"], "run.missing_plugin");
    assert!(error["message"].as_str().unwrap().contains("tool `add`"), "{error}");
}

#[test]
fn rescore_accepts_what_the_run_trusts_and_what_the_command_adds() {
    let folder = Folder::new();
    let file = plugin(&folder, "reward-exact-match");
    let (ours, public) = key(&folder, "ours.pem");
    let (theirs, other) = key(&folder, "theirs.pem");
    let recipe = recipe(&folder, &format!("\"{public}\""));
    folder.plumb(&["plugin", "sign", &file, "--key", &ours]).ok();
    folder.plumb(&["train", &recipe, "--run-dir", "r"]).ok();
    let second = folder.path("second.wasm");
    std::fs::copy(&file, &second).unwrap();
    let second = second.to_str().unwrap();
    let rescore = |more: &[&str]| folder.plumb(&[&["--json", "run", "rescore", "r", "--plugin", second], more].concat());
    assert_eq!(rescore(&[]).error()["code"], "plugin.unsigned");
    folder.plumb(&["plugin", "sign", second, "--key", &theirs]).ok();
    assert_eq!(rescore(&[]).error()["code"], "plugin.foreign");
    rescore(&["--trust", &other]).ok();
    assert_eq!(rescore(&["--trust", "nonsense"]).error()["code"], "usage.key");
}

#[test]
fn locked_recipe_refuses_another_file_with_both_digests_and_the_way_out() {
    let folder = Folder::new();
    let file = plugin(&folder, "reward-exact-match");
    let recipe = recipe(&folder, "");
    let train = |run: &str| folder.plumb(&["--json", "train", &recipe, "--run-dir", run, "--locked"]);
    assert_eq!(train("r0").error()["code"], "recipe.no_lock");
    let lock = data(&folder, &["plugin", "lock", &recipe]);
    assert_eq!(lock["file"], json!(folder.path("tiny.plugins.lock")));
    assert_eq!(lock["plugins"].as_array().unwrap().len(), 1, "one plugin, used twice: {lock}");
    train("r1").ok();

    let before = lock["plugins"][0]["sha256"].as_str().unwrap().to_owned();
    change(&file);
    // The lock counts without `--locked` too, once it is there.
    let error = folder.plumb(&["--json", "train", &recipe, "--run-dir", "r2"]).error();
    assert_eq!(error["code"], "plugin.not_locked");
    let causes = error["causes"].to_string();
    let now = data(&folder, &["plugin", "inspect", &file])["digest"].as_str().unwrap().to_owned();
    assert!(causes.contains(&before) && causes.contains(&now), "{causes}");
    assert!(error["hint"].as_str().unwrap().contains("plumb plugin lock"), "{error}");
    folder.plumb(&["plugin", "lock", &recipe]).ok();
    train("r3").ok();
}

#[test]
fn image_layout_gives_the_plugin_back_and_repeats_its_digests() {
    let folder = Folder::new();
    let file = plugin(&folder, "reward-exact-match");
    let (key_file, public) = key(&folder, "a.pem");
    folder.plumb(&["plugin", "sign", &file, "--key", &key_file]).ok();
    let export = |to: &str| data(&folder, &["plugin", "export", &file, "--oci", to]);
    let (one, two) = (export("one"), export("two"));
    assert_eq!(one["manifest"], two["manifest"]);
    assert_eq!(folder.plumb(&["plugin", "export", &file, "--oci", "one"]).code, Some(2), "a layout is not mixed with another");

    let read = |path: &str| -> Value { serde_json::from_slice(&std::fs::read(folder.path(path)).unwrap()).unwrap() };
    let blob = |digest: &Value| format!("one/blobs/sha256/{}", digest.as_str().unwrap().strip_prefix("sha256:").unwrap());
    let manifest = read(&blob(&one["manifest"]["digest"]));
    assert_eq!(manifest["layers"][0]["mediaType"], "application/wasm");
    assert_eq!(manifest["config"]["mediaType"], "application/vnd.wasm.config.v0+json");
    assert_eq!(manifest["annotations"]["org.opencontainers.image.title"], "reward-exact-match");
    let config = read(&blob(&manifest["config"]["digest"]));
    assert_eq!(config["layerDigests"][0], manifest["layers"][0]["digest"]);

    let back = data(&folder, &["plugin", "import", "--oci", "one", "--out", "back.wasm"]);
    assert_eq!(back["signer"], json!(public));
    assert_eq!(std::fs::read(folder.path("back.wasm")).unwrap(), std::fs::read(&file).unwrap());
    assert_eq!(data(&folder, &["plugin", "verify", "./back.wasm"])["signer"], json!(public));

    // One byte of the layer changes.
    let layer = folder.path(&blob(&manifest["layers"][0]["digest"]));
    let mut bytes = std::fs::read(&layer).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&layer, bytes).unwrap();
    let error = folder.plumb(&["--json", "plugin", "import", "--oci", "one", "--out", "bad.wasm"]).error();
    assert_eq!(error["code"], "oci.digest");
    assert!(!folder.path("bad.wasm").exists());
    // A digest that would lead out of the folder.
    let index = read("two/index.json").to_string().replace("sha256:", "sha256:../");
    std::fs::write(folder.path("two/index.json"), index).unwrap();
    assert_eq!(
        folder.plumb(&["--json", "plugin", "import", "--oci", "two", "--out", "bad.wasm"]).error()["code"],
        "oci.malformed"
    );
}

#[test]
fn compiled_code_is_refused_wherever_a_plugin_is_taken() {
    let folder = Folder::new();
    // What `wasmtime compile` writes, a .cwasm, is an ELF file; the header decides.
    let elf = [&b"\x7fELF\x02\x01\x01"[..], &[0; 200]].concat();
    let file = folder.path("compiled.wasm");
    std::fs::write(&file, &elf).unwrap();
    let file = file.to_str().unwrap();
    let (key_file, _) = key(&folder, "a.pem");
    let input = folder.file("in.jsonl", "{\"completion\": \"4\", \"answer\": \"4\"}\n");
    for args in [
        &["plugin", "inspect", file][..],
        &["plugin", "sign", file, "--key", &key_file],
        &["plugin", "export", file, "--oci", "layout"],
        &["score", "--plugin", file, "--input", &input],
        &["serve", "--plugin", file, "--listen", "127.0.0.1:0"],
    ] {
        let error = folder.plumb(&[&["--json"], args].concat()).error();
        assert_eq!(error["code"], "plugin.not_a_component", "{args:?}: {error}");
        assert!(error.to_string().contains("never loaded"), "{args:?}: {error}");
    }
    // And a layout that smuggles it in under the right types and digests.
    let good = guest("reward-misbehaves");
    let manifest = data(&folder, &["plugin", "export", &good, "--oci", "smuggle"])["manifest"].clone();
    let blobs = folder.path("smuggle/blobs/sha256");
    let hex = |digest: &str| digest.strip_prefix("sha256:").unwrap().to_owned();
    let old = std::fs::read_to_string(blobs.join(hex(manifest["digest"].as_str().unwrap()))).unwrap();
    let mut inner: Value = serde_json::from_str(&old).unwrap();
    let put = |bytes: &[u8]| {
        let digest: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        std::fs::write(blobs.join(&digest), bytes).unwrap();
        (format!("sha256:{digest}"), bytes.len())
    };
    let (digest, size) = put(&elf);
    (inner["layers"][0]["digest"], inner["layers"][0]["size"]) = (json!(digest), json!(size));
    let (digest, size) = put(inner.to_string().as_bytes());
    let mut index: Value = serde_json::from_slice(&std::fs::read(folder.path("smuggle/index.json")).unwrap()).unwrap();
    (index["manifests"][0]["digest"], index["manifests"][0]["size"]) = (json!(digest), json!(size));
    folder.file("smuggle/index.json", &index.to_string());
    let error = folder.plumb(&["--json", "plugin", "import", "--oci", "smuggle", "--out", "out.wasm"]).error();
    assert_eq!(error["code"], "plugin.not_a_component", "{error}");
    assert!(!folder.path("out.wasm").exists());
}
