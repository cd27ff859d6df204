//! Reads the corpora of this folder.

/// One line of `paths.tsv`, whose head says what the columns are.
#[derive(Debug)]
pub(crate) struct Spelling {
    /// The bytes on the wire.
    pub(crate) target: Vec<u8>,
    /// The text in the file.
    pub(crate) written: &'static str,
    pub(crate) anonymous: u16,
    pub(crate) bearer: u16,
    pub(crate) forwarded: Option<&'static str>,
}

/// All of `paths.tsv`.
pub(crate) fn paths() -> Vec<Spelling> {
    let lines = include_str!("paths.tsv").lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let spellings = lines.map(|line| {
        let columns: Vec<&str> = line.split('\t').collect();
        let [written, anonymous, bearer, forwarded, _class] = columns[..] else { panic!("not five columns: {line:?}") };
        Spelling {
            target: unescape(written),
            written,
            anonymous: anonymous.parse().unwrap(),
            bearer: bearer.parse().unwrap(),
            forwarded: Some(forwarded).filter(|forwarded| *forwarded != "-"),
        }
    });
    spellings.collect()
}

/// `\xNN` and `\\`.
fn unescape(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = text;
    while let Some((plain, escape)) = rest.split_once('\\') {
        out.extend(plain.bytes());
        rest = if let Some(rest) = escape.strip_prefix('\\') {
            out.push(b'\\');
            rest
        } else {
            let digits = escape.strip_prefix('x').and_then(|hex| hex.get(..2));
            out.push(u8::from_str_radix(digits.unwrap_or_else(|| panic!("a lone backslash: {text:?}")), 16).unwrap());
            &escape[3..]
        };
    }
    out.extend(rest.bytes());
    out
}
