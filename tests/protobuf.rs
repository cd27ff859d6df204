//! The messages of `proto/` as Rust code, which is checked in, so that a build needs no compiler of Protocol Buffers. This
//! test generates the code again and compares; with `WRITE_PROTO` it writes the code:
//!
//! ```sh
//! WRITE_PROTO=1 cargo test --all-features --test protobuf
//! ```

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic fails the test")]

use std::fs;
use std::path::{Path, PathBuf};

use protox::prost_reflect::prost_types::field_descriptor_proto::Type;
use protox::prost_reflect::prost_types::{DescriptorProto, FileDescriptorSet};

fn root(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn compile(file: &str) -> protox::Compiler {
    let mut compiler = protox::Compiler::new([root("proto")]).unwrap();
    compiler.include_imports(true).include_source_info(true).open_file(file).unwrap();
    compiler
}

fn generate(out: &Path) {
    let compiler = compile("user_api/v1/user_api.proto");
    // The descriptors for server reflection, comments included.
    fs::write(out.join("user_api.v1.bin"), compiler.encode_file_descriptor_set()).unwrap();
    prost_build::Config::new()
        // Messages with secrets do not print them.
        .skip_debug(["AuthnWithPasswordRequest", "RefreshAccessTokenRequest", "AuthToken"])
        .btree_map(["."])
        .out_dir(out)
        .compile_fds(compiler.file_descriptor_set())
        .unwrap();
    let compiler = compile("envoy/service/auth/v3/external_auth.proto");
    fs::write(out.join("ext_authz.bin"), compiler.encode_file_descriptor_set()).unwrap();
    prost_build::Config::new()
        // Headers contain credentials.
        .skip_debug(["HttpRequest", "HeadersEntry", "HeaderValue"])
        .bytes(["."])
        .compile_well_known_types()
        .out_dir(out)
        .include_file("ext_authz.rs")
        .compile_fds(lean(compiler.file_descriptor_set()))
        .unwrap();
}

/// The same messages on the wire, in fewer allocations: text is bytes, which a message shares with the buffer that it
/// was read from, and a map is the list of its entries. The reader of a message checks what this leaves open: whether
/// text is UTF-8, and whether a key is there twice.
fn lean(mut files: FileDescriptorSet) -> FileDescriptorSet {
    for file in &mut files.file {
        file.message_type.iter_mut().for_each(lean_message);
        // Comments have positions in the source, and entries do not.
        file.source_code_info = None;
    }
    files
}

fn lean_message(message: &mut DescriptorProto) {
    for field in message.field.iter_mut().filter(|field| field.r#type() == Type::String) {
        field.set_type(Type::Bytes);
    }
    if let Some(options) = &mut message.options {
        options.map_entry = None;
    }
    message.nested_type.iter_mut().for_each(lean_message);
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn the_generated_messages_are_those_of_the_proto_files() {
    let known = root("proto/generated");
    let out = tempfile::tempdir().unwrap();
    generate(out.path());
    if std::env::var_os("WRITE_PROTO").is_some() {
        names(&known).iter().for_each(|name| fs::remove_file(known.join(name)).unwrap());
        for name in names(out.path()) {
            fs::copy(out.path().join(&name), known.join(&name)).unwrap();
        }
    }
    assert_eq!(names(&known), names(out.path()), "WRITE_PROTO=1 cargo test --all-features --test protobuf");
    for name in names(&known) {
        let is_current = fs::read(known.join(&name)).unwrap() == fs::read(out.path().join(&name)).unwrap();
        assert!(is_current, "proto/generated/{name}: WRITE_PROTO=1 cargo test --all-features --test protobuf");
    }
}
