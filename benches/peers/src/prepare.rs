//! Prepares a run: keys, tokens, stores.

use std::collections::BTreeMap;
use std::process::{Command, Stdio};
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use rotogate::token::Algorithm;

use crate::contender::Stage;
use crate::keys;
use crate::run::Options;
use crate::sets::Set;
use crate::template::{Contents, Template};
use crate::tokens::{self, Bad};

/// The results of the preparation.
pub struct Ready {
    pub stage: Stage,
    tokens: BTreeMap<&'static str, Tokens>,
    templates: BTreeMap<Contents, Template>,
    _folder: tempfile::TempDir,
}

/// The tokens of one algorithm.
pub struct Tokens {
    pub good: Arc<[String]>,
    pub bad: Vec<(Bad, Option<String>)>,
}

impl Ready {
    pub fn tokens(&self, algorithm: Algorithm) -> Result<&Tokens> {
        self.tokens.get(algorithm.name()).context("tokens of this algorithm")
    }

    pub fn template(&self, contents: Contents) -> Result<&Template> {
        self.templates.get(&contents).context("a store of this kind")
    }
}

/// Makes all that the cells of these sets need.
pub fn prepare(options: &Options, sets: &[Set]) -> Result<Ready> {
    for (program, package) in
        [("haproxy", "haproxy"), ("nginx", "nginx-light"), ("taskset", "util-linux"), ("setpriv", "util-linux")]
    {
        let mut look = Command::new(program);
        // A usage text or an error: both show that the program is installed.
        let there = look.arg("-h").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
        ensure!(there.is_ok(), "{program} is missing: apt install {package}");
    }
    let folder = tempfile::Builder::new().prefix("peers-").tempdir_in(&options.scratch)?;
    let public = folder.path().join("keys");
    std::fs::create_dir(&public)?;
    let keyring = keys::make(&public)?;
    let cells = || sets.iter().flat_map(|set| &set.cells);

    let begun = tokens::now();
    let mut made = BTreeMap::new();
    for algorithm in keys::ALGORITHMS {
        let of_it = cells().filter(|cell| cell.algorithm == algorithm);
        let Some(number) = of_it.map(|cell| cell.tokens(options.scale())).max() else { continue };
        let good = tokens::make(&keyring, algorithm, begun, number)?;
        made.insert(algorithm.name(), Tokens { good, bad: tokens::bad(&keyring, algorithm, begun)? });
        eprintln!("{number} tokens of {algorithm}");
    }

    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut templates = BTreeMap::new();
    for contents in cells().map(|cell| cell.contents(options.scale())) {
        if !templates.contains_key(&contents) {
            let place = folder.path().join(format!("template-{}", templates.len()));
            let template = runtime.block_on(Template::make(place, &public, begun, contents));
            templates.insert(contents, template.with_context(|| format!("a store with {contents:?}"))?);
            eprintln!("a store with {contents:?}");
        }
    }

    let stage = Stage {
        program: std::env::current_exe()?,
        rotogate: options.rotogate.canonicalize().context("--rotogate")?,
        envoy: options.envoy.canonicalize().context("--envoy")?,
        keys: public,
    };
    Ok(Ready { stage, tokens: made, templates, _folder: folder })
}
