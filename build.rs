//! Generates the messages of `proto/` with the feature `grpc`; no protoc is needed.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=build.rs");
    #[cfg(feature = "grpc")]
    grpc::generate()?;
    Ok(())
}

#[cfg(feature = "grpc")]
mod grpc {
    use std::path::PathBuf;

    use protox::prost_reflect::prost_types::field_descriptor_proto::Type;
    use protox::prost_reflect::prost_types::{DescriptorProto, FileDescriptorSet};

    pub(crate) fn generate() -> Result<(), Box<dyn std::error::Error>> {
        println!("cargo::rerun-if-changed=proto");
        let out = PathBuf::from(std::env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR")?);
        let mut compiler = protox::Compiler::new(["proto"])?;
        compiler.include_imports(true).include_source_info(true).open_file("user_api/v1/user_api.proto")?;
        // For server reflection, comments included.
        std::fs::write(out.join("user_api.v1.bin"), compiler.encode_file_descriptor_set())?;
        prost_build::Config::new()
            // What holds a secret does not print it.
            .skip_debug(["AuthnWithPasswordRequest", "RefreshAccessTokenRequest", "AuthToken"])
            .btree_map(["."])
            .compile_fds(compiler.file_descriptor_set())?;
        let mut compiler = protox::Compiler::new(["proto"])?;
        compiler
            .include_imports(true)
            .include_source_info(true)
            .open_file("envoy/service/auth/v3/external_auth.proto")?;
        std::fs::write(out.join("ext_authz.bin"), compiler.encode_file_descriptor_set())?;
        prost_build::Config::new()
            // Headers have credentials.
            .skip_debug(["HttpRequest", "HeadersEntry", "HeaderValue"])
            .bytes(["."])
            .compile_well_known_types()
            .include_file("ext_authz.rs")
            .compile_fds(lean(compiler.file_descriptor_set()))?;
        Ok(())
    }

    /// The same messages on the wire, in fewer allocations: text is bytes, which a message shares with the buffer that it
    /// was read from, and a map is the list of its entries. The reader of a message checks what this leaves open: whether
    /// text is UTF-8, and whether a key is there twice.
    fn lean(mut files: FileDescriptorSet) -> FileDescriptorSet {
        for file in &mut files.file {
            file.message_type.iter_mut().for_each(lean_message);
            // Comments have places in the source, and entries have none.
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
}
