//! A real slapd with the users, and servers that lie.

mod lying;

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use http::StatusCode;
use support::pki::{Pki, write_private};
use support::proxy::{Proxy, unreachable};
use support::{Gate, Place, keep_secret, with};
use tempfile::TempDir;

use support::server::{Process, done, folder, free_port, program, unprivileged, write};

const ADMIN_PASSWORD: &str = "slapd-admin-password";
const GATE_PASSWORD: &str = "gate-directory-password";
const PASSWORD: &str = "correct horse battery";
const BASE: &str = "dc=example,dc=com";

const KEYS: &str = r#"kind = "ldap"
bind_dn = "cn=gate,dc=example,dc=com"
bind_password_file = "ldap.pw"
base = "ou=people,dc=example,dc=com"
filter = "(&(objectClass=person)(|(uid={username})(mail={username})))"
active = "(&(!(pwdAccountLockedTime=*))(!(employeeType=disabled)))"
valid_from = "pwdChangedTime"
scopes = ["read"]
profile = { email = "mail", name = "displayName" }
groups = { base = "ou=groups,dc=example,dc=com", scopes = { admins = ["write", "admin"] }, roles = true, nested = 2 }
"#;

/// The entries: people, nested groups, and the account of the gate.
fn entries() -> String {
    let person = |uid: &str, more: &str| {
        format!(
            "dn: uid={uid},ou=people,{BASE}\nobjectClass: inetOrgPerson\nuid: {uid}\ncn: {uid}\nsn: {uid}\n\
             displayName: The {uid}\nuserPassword: {PASSWORD}\n{more}\n"
        )
    };
    let group = |cn: &str, member: &str| {
        format!("dn: cn={cn},ou=groups,{BASE}\nobjectClass: groupOfNames\ncn: {cn}\nmember: {member},{BASE}\n\n")
    };
    [
        format!("dn: {BASE}\nobjectClass: dcObject\nobjectClass: organization\ndc: example\no: example\n\n"),
        format!("dn: ou=people,{BASE}\nobjectClass: organizationalUnit\nou: people\n\n"),
        format!("dn: ou=groups,{BASE}\nobjectClass: organizationalUnit\nou: groups\n\n"),
        format!(
            "dn: cn=policy,{BASE}\nobjectClass: device\nobjectClass: pwdPolicy\ncn: policy\npwdAttribute: userPassword\n\
             pwdLockout: TRUE\npwdMaxFailure: 3\n\n"
        ),
        format!(
            "dn: cn=gate,{BASE}\nobjectClass: organizationalRole\nobjectClass: simpleSecurityObject\ncn: gate\n\
             userPassword: {GATE_PASSWORD}\n\n"
        ),
        person("demo", "mail: demo@example.com\n"),
        person("eve", ""),
        // A name with all characters that have a meaning in a filter (RFC 4515 §3), and a name that is not ASCII.
        person("o*b(r)\\5Cen", "mail: odd@example.com\n"),
        person("\u{e5}sa", ""),
        group("staff", "uid=demo,ou=people"),
        group("admins", "cn=staff,ou=groups"),
        group("others", "uid=eve,ou=people"),
        // A distinguished name in which the group's name is escaped.
        format!(
            "dn: cn=R\\26D\\, \\+1,ou=groups,{BASE}\nobjectClass: groupOfNames\ncn: R&D, +1\n\
             member: uid=eve,ou=people,{BASE}\n\n"
        ),
    ]
    .concat()
}

struct Slapd {
    _process: Process,
    port: u16,
    tls_port: u16,
    _folder: TempDir,
}

impl Slapd {
    fn start(pki: Option<&Pki>) -> Self {
        for secret in [ADMIN_PASSWORD, GATE_PASSWORD, PASSWORD] {
            keep_secret(secret);
        }
        let slapd = program("slapd", &["/usr/sbin".into(), "/usr/libexec".into()]);
        let folder = folder();
        let file = |name: &str| folder.path().join(name).display().to_string();
        std::fs::create_dir(folder.path().join("db")).unwrap();
        support::server::give(&folder.path().join("db"));
        let mut config = "include /etc/ldap/schema/core.schema\ninclude /etc/ldap/schema/cosine.schema\n\
                          include /etc/ldap/schema/inetorgperson.schema\nmodulepath /usr/lib/ldap\nmoduleload back_mdb\n\
                          moduleload ppolicy\nmoduleload memberof\n"
            .to_owned();
        if let Some(pki) = pki {
            let pair = pki.issue(&["localhost"]);
            write(&folder.path().join("ca.pem"), &pki.root_pem());
            write(&folder.path().join("cert.pem"), &pair.cert);
            write(&folder.path().join("key.pem"), &pair.key);
            config += &format!(
                "TLSCACertificateFile {}\nTLSCertificateFile {}\nTLSCertificateKeyFile {}\n",
                file("ca.pem"),
                file("cert.pem"),
                file("key.pem")
            );
        }
        config += &format!(
            "database mdb\nsuffix \"{BASE}\"\nrootdn \"cn=admin,{BASE}\"\nrootpw {ADMIN_PASSWORD}\ndirectory {}\n\
             dbnosync\noverlay memberof\noverlay ppolicy\nppolicy_default \"cn=policy,{BASE}\"\n\
             access to attrs=userPassword by anonymous auth by * none\n\
             access to * by dn.exact=\"cn=gate,{BASE}\" read by * none\n",
            file("db")
        );
        write(&folder.path().join("slapd.conf"), &config);
        for _ in 0..5 {
            let (port, tls_port) = (free_port(), free_port());
            let mut command = unprivileged(&slapd);
            let mut urls = format!("ldap://127.0.0.1:{port}/");
            if pki.is_some() {
                urls += &format!(" ldaps://127.0.0.1:{tls_port}/");
            }
            command.args(["-d", "0", "-f", &file("slapd.conf"), "-h", &urls]);
            let ready = || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok();
            if let Some(process) = Process::start(&mut command, ready) {
                let slapd = Self { _process: process, port, tls_port, _folder: folder };
                slapd.change("ldapadd", &entries());
                return slapd;
            }
        }
        panic!("slapd does not start");
    }

    /// Runs `ldapadd` or `ldapmodify` as the administrator.
    fn change(&self, tool: &str, ldif: &str) {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), ldif).unwrap();
        let url = format!("ldap://127.0.0.1:{}", self.port);
        let admin = format!("cn=admin,{BASE}");
        let mut command = Command::new(program(tool, &[]));
        command.args(["-x", "-e", "relax", "-H", &url, "-D", &admin, "-w", ADMIN_PASSWORD, "-f"]).arg(file.path());
        done(&mut command);
    }

    /// Changes an attribute of a person; `None` deletes it.
    fn set(&self, uid: &str, attribute: &str, value: Option<&str>) {
        let how = match value {
            Some(value) => format!("replace: {attribute}\n{attribute}: {value}\n"),
            None => format!("delete: {attribute}\n"),
        };
        self.change("ldapmodify", &format!("dn: uid={uid},ou=people,{BASE}\nchangetype: modify\n{how}"));
    }

    fn place(&self, keys: &str) -> Place {
        let plain = format!("{KEYS}url = \"ldap://127.0.0.1:{}\"\ndangerous_plaintext = true\n", self.port);
        place(if keys.is_empty() { &plain } else { keys })
    }
}

fn place(keys: &str) -> Place {
    let place = Place::new(&with(support::CONFIG, "directory", keys));
    write_private(&place.path("ldap.pw"), &format!("{GATE_PASSWORD}\n"));
    place
}

async fn status(gate: &Gate, username: &str, password: &str) -> StatusCode {
    gate.log_in(username, password).await.status
}

#[tokio::test]
async fn i26_a_slapd_has_the_users_and_every_name_is_one_value() {
    let slapd = Slapd::start(None);
    let place = slapd.place("");
    let said = place.done(&["check", "--online"], "").stdout;
    assert!(said.contains("directory: groups.base: ou=groups,dc=example,dc=com: found"), "{said}");
    let gate = place.start();

    let tokens = gate.log_in("demo", PASSWORD).await.tokens();
    let answer = gate.get("/x", &tokens.access).await;
    let subject = answer.echoed("x-auth-subject");
    assert_eq!(subject.iter().map(|subject| subject.len()).collect::<Vec<_>>(), [36], "entryUUID: {subject:?}");
    assert_eq!(answer.echoed("x-auth-scope"), ["read write admin"], "by a group in a group");
    gate.refresh(&tokens.refresh).await.tokens();
    for spelling in ["DEMO", "Demo@Example.COM"] {
        let again = gate.log_in(spelling, PASSWORD).await.tokens();
        assert_eq!(gate.get("/x", &again.access).await.echoed("x-auth-subject"), subject, "{spelling}");
    }
    for (name, expected) in [("eve", "read"), ("o*b(r)\\en", "read"), ("odd@example.com", "read"), ("\u{e5}sa", "read")]
    {
        let tokens = gate.log_in(name, PASSWORD).await.tokens();
        assert_eq!(gate.get("/x", &tokens.access).await.echoed("x-auth-scope"), [expected], "{name}");
        gate.refresh(&tokens.refresh).await.tokens();
    }
    for name in ["*", "d*", "demo)(uid=*", "*)(objectClass=*", "demo\0", " demo", "nobody", "\u{e5}s"] {
        assert_eq!(status(&gate, name, PASSWORD).await, StatusCode::BAD_REQUEST, "{name:?}");
    }
    for password in ["wrong password", "\0", "correct horse battery\0", "correct horse batter"] {
        assert_eq!(status(&gate, "eve", password).await, StatusCode::BAD_REQUEST, "{password:?}");
        // Three consecutive wrong passwords would lock the user.
        assert_eq!(status(&gate, "eve", PASSWORD).await, StatusCode::OK);
    }
    // Two entries with one mail address.
    slapd.set("eve", "mail", Some("demo@example.com"));
    assert_eq!(status(&gate, "demo@example.com", PASSWORD).await, StatusCode::SERVICE_UNAVAILABLE);
    assert!(gate.log().contains("more than one entry"));
    assert_eq!(status(&gate, "demo", PASSWORD).await, StatusCode::OK);
}

#[tokio::test]
async fn i48_a_user_of_an_ldap_directory_takes_as_many_guesses_as_nobody() {
    let slapd = Slapd::start(None);
    slapd.set("\u{e5}sa", "employeeType", Some("disabled"));
    let place = slapd.place("");
    place.write_config(&with(
        &std::fs::read_to_string(place.path("gateway.toml")).unwrap(),
        "limits",
        "login_per_account = \"5/1h\"",
    ));
    let gate = place.start();
    let names = ["demo", "eve", "\u{e5}sa", "nobody", "else"];
    assert_eq!(super::guesses::guesses(&gate, names).await, [5; 5]);
}

/// The configuration with another `groups`.
fn with_groups(slapd: &Slapd, groups: &str) -> Place {
    let (keys, _) = KEYS.split_once("groups =").unwrap();
    slapd.place(&format!(
        "{keys}url = \"ldap://127.0.0.1:{}/\"\ndangerous_plaintext = true\ngroups = {{ {groups} }}\n",
        slapd.port
    ))
}

#[tokio::test]
async fn i26_groups_that_an_attribute_names_are_read_and_the_server_says_what_they_are_called() {
    let slapd = Slapd::start(None);
    let scopes =
        r#"scopes = { staff = ["list"], admins = ["write", "admin"], others = ["other"], "R&D, +1" = ["odd"] }"#;
    let scopes_of = async |gate: &Gate, tokens: &support::Tokens| {
        let scopes = gate.get("/x", &tokens.access).await.echoed("x-auth-scope").concat();
        scopes.split(' ').map(str::to_owned).collect::<BTreeSet<_>>()
    };
    let set = |scopes: &str| scopes.split(' ').map(str::to_owned).collect::<BTreeSet<_>>();
    for (nested, expected) in [("", "read list"), (", nested = 1", "read list write admin")] {
        let place = with_groups(&slapd, &format!("attribute = \"memberOf\", {scopes}{nested}"));
        place.done(&["check", "--online"], "");
        let gate = place.start();
        let demo = gate.log_in("demo", PASSWORD).await.tokens();
        assert_eq!(scopes_of(&gate, &demo).await, set(expected), "{nested}");
        let demo = gate.refresh(&demo.refresh).await.tokens();
        assert_eq!(scopes_of(&gate, &demo).await, set(expected), "{nested}");
    }
    let place = with_groups(&slapd, &format!("attribute = \"memberOf\", {scopes}"));
    let gate = place.start();
    let eve = gate.log_in("eve", PASSWORD).await.tokens();
    assert_eq!(scopes_of(&gate, &eve).await, set("read other odd"));
    // A change of the groups counts at the next refresh.
    let odd = format!("cn=R\\26D\\, \\+1,ou=groups,{BASE}");
    slapd.change("ldapmodify", &format!("dn: {odd}\nchangetype: delete\n"));
    let eve = gate.refresh(&eve.refresh).await.tokens();
    assert_eq!(scopes_of(&gate, &eve).await, set("read other"));

    // Any attribute whose values are names is allowed. A deleted group gives no role.
    let place = with_groups(&slapd, &format!("attribute = \"seeAlso\", {scopes}"));
    let gate = place.start();
    for (group, expected) in [("gone", "read"), ("staff", "read list")] {
        slapd.set("eve", "seeAlso", Some(&format!("cn={group},ou=groups,{BASE}")));
        let eve = gate.log_in("eve", PASSWORD).await.tokens();
        assert_eq!(scopes_of(&gate, &eve).await, set(expected), "{group}");
    }
}

#[tokio::test]
async fn i23_i28_disabled_locked_and_changed_users_are_refused_at_login_and_refresh() {
    let slapd = Slapd::start(None);
    let place = slapd.place("");
    let gate = place.start();
    for (attribute, value) in [("employeeType", "disabled"), ("pwdAccountLockedTime", "000001010000Z")] {
        let held = gate.log_in("eve", PASSWORD).await.tokens();
        slapd.set("eve", attribute, Some(value));
        assert_eq!(status(&gate, "eve", PASSWORD).await, StatusCode::BAD_REQUEST, "{attribute}");
        let answer = gate.refresh(&held.refresh).await;
        assert_eq!((answer.status, answer.error().as_str()), (StatusCode::BAD_REQUEST, "invalid_grant"), "{attribute}");
        slapd.set("eve", attribute, None);
    }
    let held = gate.log_in("eve", PASSWORD).await.tokens();
    for _ in 0..3 {
        assert_eq!(status(&gate, "eve", "wrong password").await, StatusCode::BAD_REQUEST);
    }
    assert_eq!(status(&gate, "eve", PASSWORD).await, StatusCode::BAD_REQUEST, "locked by the server");
    assert_eq!(gate.refresh(&held.refresh).await.error(), "invalid_grant");
    slapd.set("eve", "pwdAccountLockedTime", None);

    let held = gate.log_in("eve", PASSWORD).await.tokens();
    slapd.set("eve", "userPassword", Some("another horse battery"));
    assert_eq!(gate.refresh(&held.refresh).await.error(), "invalid_grant", "the password was changed since");
    assert_eq!(status(&gate, "eve", PASSWORD).await, StatusCode::BAD_REQUEST);
    let held = gate.log_in("eve", "another horse battery").await.tokens();
    let held = gate.refresh(&held.refresh).await.tokens();
    slapd.change("ldapmodify", &format!("dn: uid=eve,ou=people,{BASE}\nchangetype: delete\n"));
    assert_eq!(gate.refresh(&held.refresh).await.error(), "invalid_grant", "removed");
}

#[tokio::test]
async fn i27_starttls_that_is_refused_and_certificates_that_are_wrong_are_faults() {
    let pki = Pki::new();
    let (slapd, plain) = (Slapd::start(Some(&pki)), Slapd::start(None));
    let keys = |url: String, more: &str| format!("{KEYS}url = \"{url}\"\nca = \"ca.pem\"\n{more}");
    let start_tls = "starttls = true\n";
    let good = [
        keys(format!("ldaps://localhost:{}", slapd.tls_port), ""),
        keys(format!("ldap://localhost:{}", slapd.port), start_tls),
    ];
    for keys in &good {
        let place = place(keys);
        std::fs::write(place.path("ca.pem"), pki.root_pem()).unwrap();
        let gate = place.start();
        assert_eq!(status(&gate, "demo", PASSWORD).await, StatusCode::OK, "{keys}");
    }
    let other = Pki::new().root_pem();
    for (keys, ca) in [
        (&good[0], &other),
        (&good[1], &other),
        (&keys(format!("ldaps://127.0.0.1:{}", slapd.tls_port), ""), &pki.root_pem()),
        (&keys(format!("ldap://127.0.0.1:{}", slapd.port), start_tls), &pki.root_pem()),
        (&keys(format!("ldap://localhost:{}", plain.port), start_tls), &pki.root_pem()),
        (&keys(format!("ldaps://localhost:{}", plain.port), ""), &pki.root_pem()),
    ] {
        let place = place(keys);
        std::fs::write(place.path("ca.pem"), ca).unwrap();
        let gate = place.start();
        let answer = gate.log_in("demo", PASSWORD).await;
        assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "{keys}: {answer:?}");
        assert!(gate.log().contains("cause=connect"), "{keys}");
        assert_eq!(place.run(&["check", "--online"], "").code, Some(2), "{keys}");
    }
}

#[tokio::test]
async fn i22_a_slapd_that_ends_is_a_fault_and_the_refresh_token_works_with_the_second_server() {
    let (first, second) = (Slapd::start(None), Slapd::start(None));
    let urls = format!("[\"ldap://127.0.0.1:{}\", \"ldap://127.0.0.1:{}\"]", first.port, second.port);
    // The two servers are not replicas, so the subject is an attribute that both have.
    let keys = format!("{KEYS}url = {urls}\ndangerous_plaintext = true\nsubject = \"uid\"\n");
    let place = place(&keys);
    let gate = place.start();
    let mut held = gate.log_in("demo", PASSWORD).await.tokens();
    drop(first);
    support::until("the second server answers", async || {
        let answer = gate.refresh(&held.refresh).await;
        if answer.status == StatusCode::OK {
            held = answer.tokens();
            return true;
        }
        assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "{answer:?}");
        false
    })
    .await;
    drop(second);
    assert_eq!(gate.refresh(&held.refresh).await.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(gate.get("/x", &held.access).await.status, StatusCode::OK);
}

/// A first server that is gone, or is there and does not answer, from the start or suddenly, costs one request at most.
#[tokio::test]
async fn i22_a_first_server_that_is_silent_leaves_time_for_the_second() {
    let slapd = Slapd::start(None);
    let place_with = |first: u16, timeout: &str| {
        let urls = format!("[\"ldap://127.0.0.1:{first}\", \"ldap://127.0.0.1:{}\"]", slapd.port);
        place(&format!("{KEYS}url = {urls}\ndangerous_plaintext = true\ntimeout = \"{timeout}\"\n"))
    };
    let (gone, _listener) = unreachable().await;
    let proxy = Proxy::to(slapd.port).await;
    proxy.hold(true);
    for (first, timeout) in [(gone, "5s"), (gone, "2s"), (proxy.port, "2s")] {
        let place = place_with(first, timeout);
        let gate = place.start();
        let answer = gate.log_in("demo", PASSWORD).await;
        assert_eq!(answer.status, StatusCode::OK, "{timeout}: {answer:?}");
        gate.refresh(&answer.tokens().refresh).await.tokens();
    }
    let place = place_with(proxy.port, "3s");
    super::silence::goes_silent(&place.start(), &proxy, PASSWORD).await;
}

#[test]
fn i45_check_reports_every_mistake_of_the_section() {
    let good = format!("{KEYS}url = \"ldaps://ldap.example.com\"\n");
    let groups = |keys: &str| {
        format!("{}groups = {{ {keys} }}\n", good.split_once("groups =").map_or("", |(head, _)| head))
            + "url = \"ldaps://ldap.example.com\"\n"
    };
    let said = |keys: &str| {
        let place = place(keys);
        let ran = place.run(&["check"], "");
        assert_eq!(ran.code, Some(2), "{keys}: {ran:?}");
        ran.stderr
    };
    for (keys, expected) in [
        ("kind = \"ldap\"\n", "directory.url: missing"),
        ("kind = \"ldap\"\n", "directory.base: missing"),
        ("kind = \"ldap\"\n", "directory.filter: missing"),
        (&good.replace("ldaps://", "http://"), "directory.url: expected ldaps://host"),
        (&good.replace("ldaps://", "ldap://"), "directory.url: contains ldap://, which sends passwords unencrypted"),
        (&format!("{good}starttls = true\n"), "directory.starttls: only applies to ldap://"),
        (&good.replace("(uid={username})", "(uid={user})"), "directory.filter: a brace beside {username}"),
        (&good.replace("{username})))\"", "{username}))\""), "directory.filter: is not an LDAP filter"),
        (
            &good.replace("(employeeType=disabled)", "(employeeType={username})"),
            "directory.active: a brace beside {now}",
        ),
        (&good.replace("ldap.pw", "missing.pw"), "missing.pw"),
        (&good.replace("bind_dn", "# bind_dn"), "directory.bind_dn: missing"),
        (&good.replace("nested = 2", "nested = 9"), "directory.groups.nested: expected a whole number from 0 to 5"),
        (&good.replace("email = \"mail\"", "email = \"ma il\""), "expected the name of an attribute"),
        (&format!("{good}claims = {{ sub = \"uid\" }}\n"), "directory.claims: the claim \"sub\" is reserved"),
        (
            &format!("{good}claims = {{ roles = \"title\" }}\n"),
            "directory.claims: sets `roles`, and so does `groups.roles`",
        ),
        (&format!("{good}authenticate = \"SELECT 1\"\n"), "directory.authenticate: unknown key"),
        (
            &groups("roles = true"),
            "directory.groups.base: missing; expected the DN below which the gate searches groups, or `attribute`",
        ),
        (
            &groups("attribute = \"memberOf\", filter = \"(member={dn})\""),
            "directory.groups.attribute: cannot be combined with `filter`; remove one of the two",
        ),
        (
            &groups("attribute = \"memberOf\", base = \"ou=x\""),
            "directory.groups.base: only applies to a search with `filter`",
        ),
        (&groups("attribute = \"member of\""), "directory.groups.attribute: expected the name of an attribute"),
    ] {
        assert!(said(keys).contains(expected), "{expected}: {}", said(keys));
    }
    let place = place(&good);
    place.done(&["check"], "");
    let printed = place.done(&["check", "--print"], "").stdout;
    assert!(printed.contains("admins = [") && !printed.contains(GATE_PASSWORD), "{printed}");
    let ad = "kind = \"ldap\"\npreset = \"ad\"\nurl = \"ldaps://dc1.example.com\"\nbase = \"dc=example,dc=com\"\n";
    let place = super::ldap::place(ad);
    let printed = place.done(&["check", "--print"], "").stdout;
    for shown in ["objectGUID", "sAMAccountName={username}", "1.2.840.113556.1.4.803:=2", "pwdLastSet"] {
        assert!(printed.contains(shown), "{shown}: {printed}");
    }
    assert!(Path::new(&place.path("ldap.pw")).exists());
}
