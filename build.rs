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
            .skip_debug(["HttpRequest", "HeaderValue"])
            .btree_map(["."])
            .include_file("ext_authz.rs")
            .compile_fds(compiler.file_descriptor_set())?;
        Ok(())
    }
}
