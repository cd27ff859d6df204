//! `[endpoints.page]`, and what it refuses.

use super::*;

const HEAD: &str = "[[endpoints]]\ndialect = \"browser\"\n";
const REST: &str = "[[upstreams]]\nname = \"app\"\nurls = [\"echo:\"]\n[[routes]]\npath = \"/app/{*rest}\"\n\
                    credentials = [\"session\"]\nupstream = \"app\"\n";

fn with(page: &str) -> Vec<String> {
    said(&format!("{HEAD}{page}{REST}"))
}

#[test]
fn b66_a_page_is_a_word_a_path_or_a_table() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("a.svg"), "<svg xmlns=\"http://www.w3.org/2000/svg\"/>").unwrap();
    let logo = folder.path().join("a.svg").display().to_string();
    let whole = format!(
        "[endpoints.page]\ntitle = \"Acme\"\nlogo = \"{logo}\"\ncolor = \"#0F766E\"\nprivacy = \"/privacy\"\n\
         language = \"de\"\naccount = true\nhelp = {{ en = \"Call <us>\", fr = \"Appelez-nous\" }}\n\
         [endpoints.page.texts]\nusername = \"Staff number\"\npassword = {{ de = \"Kennwort\" }}\n"
    );
    for page in ["", "page = \"built-in\"\n", "page = {}\n", "page = \"none\"\n", "page = \"/in\"\n", &whole] {
        let config = read(&format!("{MINIMAL}{HEAD}{page}{REST}")).unwrap_or_else(|error| panic!("{page}: {error}"));
        // The printed configuration means the same when it is read again.
        let again = read(&config.to_toml()).unwrap();
        assert_eq!(again.endpoints, config.endpoints, "{page}");
    }
    let settings = |text: &str| {
        let config = read(&format!("{MINIMAL}{HEAD}{text}{REST}")).unwrap();
        config.endpoints[0].browser.as_ref().unwrap().page.clone()
    };
    let PageKey::BuiltIn(page) = settings(&whole) else { panic!("a table") };
    assert_eq!((page.title.as_deref(), page.account, page.texts.len()), (Some("Acme"), true, 2));
    assert!(page.logo.is_some() && page.language.is_some() && page.help.is_some());
    // At a provider, the table is for errors and logouts.
    let at_provider = "[[issuers]]\nname = \"kc\"\nurl = \"https://id.example\"\naudience = [\"api\"]\ndiscovery = true\n\
                       subject_prefix = \"kc|\"\n[[endpoints]]\ndialect = \"browser\"\nprovider = \"kc\"\n\
                       client = { id = \"web\" }\npage = { title = \"Acme\"@ }\n";
    assert_eq!(said(&format!("{}{REST}", at_provider.replace('@', ""))), Vec::<String>::new());
    let asked = said(&format!("{}{REST}", at_provider.replace('@', ", account = true")));
    assert!(
        asked.len() == 1 && asked[0].contains("endpoints[0].page.account: only applies to a login with"),
        "{asked:?}"
    );
}

#[test]
fn b66_what_a_page_cannot_show_is_refused_where_it_stands() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, bytes: &[u8]| {
        std::fs::write(folder.path().join(name), bytes).unwrap();
        folder.path().join(name).display().to_string()
    };
    let script = file("s.svg", b"<svg xmlns=\"http://www.w3.org/2000/svg\"><script/></svg>");
    let large = file("l.png", &[&b"\x89PNG\r\n\x1a\n"[..], &[0; 64 << 10]].concat());
    for (key, expected) in [
        (format!("logo = \"{script}\""), "page.logo: ".to_owned() + &script + ": contains the element `<script>`"),
        (format!("logo = \"{large}\""), "page.logo: ".to_owned() + &large + ": is larger than 64 KiB"),
        ("logo = \"missing.png\"".to_owned(), "page.logo: /etc/rotogate/missing.png: cannot be read".to_owned()),
        ("privacy = \"javascript:alert(1)\"".to_owned(), "page.privacy: expected a path such as".to_owned()),
        ("color = \"red\"".to_owned(), "page.color: expected a colour such as \"#1d4ed8\"".to_owned()),
        ("language = \"it\"".to_owned(), "page.language: expected".to_owned()),
        ("help = { it = \"x\" }".to_owned(), "page.help: has no language \"it\"".to_owned()),
        ("help = \"\"".to_owned(), "page.help: expected".to_owned()),
        (format!("title = \"{}\"", "x".repeat(81)), "page.title: expected a text of at most 80".to_owned()),
        ("colour = \"#123456\"".to_owned(), "page.colour: ".to_owned()),
        (
            "texts = { usernam = \"x\" }".to_owned(),
            "page.texts.usernam: is not a text of the gate's pages; did you mean \"username\"?".to_owned(),
        ),
        ("texts = { username = 1 }".to_owned(), "page.texts.username: expected".to_owned()),
    ] {
        let lines = with(&format!("[endpoints.page]\n{key}\n"));
        assert!(lines.len() == 1 && lines[0].contains(&format!("endpoints[0].{expected}")), "{key}: {lines:?}");
    }
    let both = with("account = \"acme\"\npage = { account = true }\n");
    assert!(both.len() == 1 && both[0].contains("endpoints[0].page.account: conflicts with `account`"), "{both:?}");
    let wrong = with("page = 1\n");
    assert!(wrong.len() == 1 && wrong[0].contains("or a table such as { title = \"Acme\" }, found 1"), "{wrong:?}");
}
