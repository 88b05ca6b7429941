//! The committed code is what the `.proto` files give. `WEFT_REGENERATE=1 cargo test -p weft-proto` writes it anew.

use std::fs;
use std::path::Path;

#[test]
fn the_committed_code_matches_the_protos() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let protos = [
        "weft/v1/destination.proto",
        "weft/v1/detection.proto",
        "weft/v1/identity.proto",
        "weft/v1/management.proto",
        "weft/v1/operations.proto",
        "envoy/discovery.proto",
    ];
    let mut descriptors = protox::Compiler::new([root]).expect("the folder is there");
    descriptors.include_source_info(true).include_imports(true).open_files(protos).expect("the protos compile");
    let out = tempfile::tempdir().expect("a temporary folder");
    tonic_prost_build::configure()
        .bytes(".envoy")
        .extern_path(".google.protobuf.Struct", "::envoy_types::pb::google::protobuf::Struct")
        .out_dir(out.path())
        .compile_fds(descriptors.file_descriptor_set())
        .expect("code is generated");

    let committed = root.join("src/gen");
    for entry in fs::read_dir(out.path()).expect("generated files") {
        let entry = entry.expect("an entry");
        if entry.file_name().to_string_lossy().starts_with("google") {
            continue;
        }
        let fresh = fs::read_to_string(entry.path()).expect("generated text");
        let target = committed.join(entry.file_name());
        if std::env::var_os("WEFT_REGENERATE").is_some() {
            fs::write(&target, &fresh).expect("write the generated file");
        }
        let stored = fs::read_to_string(&target).unwrap_or_default();
        assert!(
            stored == fresh,
            "{} is not what the protos give; run: WEFT_REGENERATE=1 cargo test -p weft-proto",
            target.display()
        );
    }
}
