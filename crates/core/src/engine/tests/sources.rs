//! Sources of users: no user of one gets the subject, the issuer or the roles of another: I67.

use proptest::prelude::*;

use super::support::{AUDIENCE, HOUR, ISSUER, LEEWAY, T0, World, scope, secs};
use crate::claim::OwnClaims;
use crate::client::{Client, ExchangeRules};
use crate::denial::Denial;
use crate::engine::{AccountRule, ApplicationLogin, Arrival, AssertedLogin, Origin, TokenExchange};
use crate::fault::Error;
use crate::policy::judge_roles;
use crate::route::RoutePolicy;
use crate::session::VouchedBy;
use crate::token::claims::{AccessToken, MintedClaims, TokenStyle};
use crate::token::keyring::Keyring;
use crate::token::mint;
use crate::token::verify::{
    AssertionGrants, IdJagRules, IssuerKeys, IssuerRules, JagSubject, OWN, ProvedGrant, ProvedUser, RulesError,
    UsableOnce, UserSource, Verifier, bare_source,
};

const THEIRS: [&str; 2] = ["https://one.test", "https://two.test"];

/// How a user of a source gets a subject of the gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Use {
    /// A login with a password.
    Password,
    /// A session that the application starts.
    Application,
    /// The same, for a user for whom the first issuer vouches.
    Vouched,
    /// A user of the directory for whom the first issuer's assertion speaks.
    Directory,
    Browser(usize),
    Assertion(usize),
    Exchange(usize),
}

const OWN_USES: [Use; 4] = [Use::Password, Use::Application, Use::Vouched, Use::Directory];

impl Use {
    fn issuer(self) -> &'static str {
        match self {
            Self::Password | Self::Application | Self::Vouched | Self::Directory => ISSUER,
            Self::Browser(at) | Self::Assertion(at) | Self::Exchange(at) => THEIRS[at],
        }
    }
}

struct Sources {
    world: World,
    prefixes: [String; 2],
    theirs: Keyring,
}

impl Sources {
    /// The gate with these issuers; `None` if the rules refuse them beside each other.
    async fn new(prefixes: [&str; 2], has_own: bool) -> Option<Self> {
        let (world, theirs) = (World::new().await, Keyring::ephemeral().unwrap());
        let keys = || IssuerKeys::from_jwks(theirs.jwks().to_string().as_bytes(), None).unwrap();
        let rules = |at: usize| {
            let mut rules = IssuerRules::external(THEIRS[at], vec![AUDIENCE.into()], keys()).named(format!("i{at}"));
            rules.subject_prefix = prefixes[at].into();
            rules.logs_in_browsers = true;
            let id_jag = IdJagRules { clients: Vec::new(), max_age: HOUR, subject: JagSubject::Issuer };
            rules.grants = AssertionGrants { id_jag: Some(id_jag), jwt_bearer: None };
            rules.scopes(scope("read")).roles(["roles"]).unwrap()
        };
        let sources = [UserSource::Issuer(prefixes[0]), UserSource::Issuer(prefixes[1]), UserSource::Own];
        if bare_source(&sources[..2 + usize::from(has_own)]).is_some() {
            return None;
        }
        let own = IssuerRules::own(ISSUER, vec![AUDIENCE.into()], &world.engine.keyring(), LEEWAY);
        let verifier = Verifier::new(vec![own, rules(0), rules(1)]).ok()?;
        world.engine.set_sources(verifier.sources().clone());
        world.checker.set_verifier(verifier);
        Some(Self { world, prefixes: prefixes.map(str::to_owned), theirs })
    }

    fn at_issuer(&self, at: usize, raw: &str) -> String {
        format!("{}{raw}", self.prefixes[at])
    }

    async fn start(&self, subject: &str, vouched_by: Option<VouchedBy>, at_provider: bool) -> Result<String, Error> {
        let mut claims = OwnClaims::new();
        claims.insert(OwnClaims::ROLES, ["admin"]).unwrap();
        let start = ApplicationLogin {
            vouched_by,
            subject,
            account: None,
            client: "web",
            scope: scope("read"),
            claims,
            profile: &self.world.profile,
            origin: &Origin::default(),
        };
        if !at_provider {
            return Ok(self.world.engine.start(start).await?.access_token.expose().to_owned());
        }
        let begun = self.world.engine.start_at_provider(start, "browser").await?;
        let keyring = self.world.engine.keyring();
        let now = self.world.engine.clock().now();
        let issued = self.world.engine.pair(&keyring, &begun.session, now, crate::engine::IssueKind::Replayed);
        Ok(issued.unwrap().access_token.expose().to_owned())
    }

    async fn assertion(&self, at: usize, raw: &str, by: JagSubject) -> Result<String, Error> {
        let mut claims = OwnClaims::new();
        claims.insert(OwnClaims::ROLES, ["admin"]).unwrap();
        let subject = self.at_issuer(at, raw).into();
        let user = ProvedUser {
            by,
            subject,
            at_issuer: raw.into(),
            account: None,
            scope: scope("read"),
            claims,
            resources: Vec::new(),
        };
        let id = uuid::Uuid::new_v4().to_string().into();
        let grant = ProvedGrant {
            client: "wiki".into(),
            user: Some(user),
            once: UsableOnce { kind: "grant", issuer: THEIRS[at].into(), id, until: T0.plus(HOUR) },
            issued_at: T0,
            bound_to: None,
            vouched_by: VouchedBy::new(THEIRS[at], raw),
        };
        let login = AssertedLogin {
            client: &Client::public("wiki"),
            grant: &grant,
            account: AccountRule::Any,
            scope: None,
            resource: None,
            profile: &self.world.profile,
            dialect: "oauth2",
            proof: None,
            certificate: None,
            arrived: Arrival::default(),
            origin: &Origin::default(),
        };
        Ok(self.world.engine.asserted(login).await?.access_token.expose().to_owned())
    }

    async fn exchange(&self, token: &str) -> Result<String, Error> {
        let subject = self.read(token)?;
        let rules = ExchangeRules {
            audiences: vec![AUDIENCE.into()],
            to: vec![AUDIENCE.into()],
            issuers: vec![OWN.into(), "i0".into(), "i1".into()],
            depth: 2,
            ..ExchangeRules::default()
        };
        let asked = TokenExchange {
            client: &Client::public("orders"),
            rules: &rules,
            subject: AccountRule::Any.admit(&subject)?,
            audience: None,
            scope: None,
            profile: &self.world.profile,
            proof: None,
            certificate: None,
            origin: &Origin::default(),
        };
        Ok(self.world.engine.exchange_token(asked).await?.access_token.expose().to_owned())
    }

    /// The token of a user with this name at the source.
    async fn token(&self, by: Use, raw: &str) -> Result<String, Error> {
        match by {
            Use::Password => {
                self.world.users.add(raw, None);
                Ok(self.world.login_as(raw).await?.access_token.expose().to_owned())
            }
            Use::Application => self.start(raw, None, false).await,
            Use::Vouched => self.start(raw, Some(VouchedBy::new(THEIRS[0], "x")), false).await,
            Use::Directory => {
                self.world.users.add(raw, None);
                self.assertion(0, raw, JagSubject::Directory).await
            }
            Use::Browser(at) => self.start(&self.at_issuer(at, raw), Some(VouchedBy::new(THEIRS[at], raw)), true).await,
            Use::Assertion(at) => self.assertion(at, raw, JagSubject::Issuer).await,
            Use::Exchange(at) => self.exchange(&self.theirs(at, raw)).await,
        }
    }

    /// A token of the issuer itself.
    fn theirs(&self, at: usize, raw: &str) -> String {
        let now = self.world.engine.clock().now();
        let mut own = OwnClaims::new();
        own.insert(OwnClaims::ROLES, ["admin"]).unwrap();
        let claims = MintedClaims {
            issuer: THEIRS[at],
            subject: raw,
            audience: &[AUDIENCE.into()],
            expires: now.plus(secs(300)),
            issued_at: now,
            jti: "j",
            client: "c",
            scope: &scope("read"),
            session: None,
            account: None,
            bound_to: None,
            certificate: None,
            vouched_by: None,
            delegation: None,
            own: Some(&own),
            style: TokenStyle::default(),
        };
        mint::mint(self.theirs.signer(), &claims).unwrap().expose().to_owned()
    }

    fn read(&self, token: &str) -> Result<AccessToken, Denial> {
        self.world.verify_ignoring_expiry(token, secs(0))
    }
}

fn any_use() -> impl Strategy<Value = Use> {
    let of = |it: fn(usize) -> Use| (0..2_usize).prop_map(it);
    let own = proptest::sample::select(OWN_USES.to_vec());
    prop_oneof![own, of(Use::Browser), of(Use::Assertion), of(Use::Exchange)]
}

/// Short names of few letters, so that prefixes and names meet often.
fn name() -> impl Strategy<Value = String> {
    proptest::collection::vec(proptest::sample::select(vec!["a", "b", "|"]), 1..4).prop_map(|it| it.concat())
}

fn prefix() -> impl Strategy<Value = String> {
    proptest::sample::select(vec!["", "a", "ab", "a|", "b|", "ab|", "a|b|", "|", "client:", "client:a|"])
        .prop_map(str::to_owned)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn i67_no_subject_of_one_source_is_ever_taken_for_that_of_another(
        prefixes in [prefix(), prefix()],
        uses in [any_use(), any_use()],
        names in [name(), name()],
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let has_own = uses.iter().any(|by| OWN_USES.contains(by));
            let Some(gate) = Sources::new([&prefixes[0], &prefixes[1]], has_own).await else { return };
            let mut subjects = Vec::new();
            for (by, name) in uses.into_iter().zip(&names) {
                let Ok(token) = gate.token(by, name).await else { continue };
                for token in [Ok(token.clone()), gate.exchange(&token).await].into_iter().flatten() {
                    let read = gate.read(&token).unwrap();
                    // An application, or a directory, may name a user of the issuer that vouches.
                    let is_vouched = matches!(by, Use::Vouched | Use::Directory) && read.subject.starts_with(&prefixes[0]);
                    let source = if is_vouched { THEIRS[0] } else { by.issuer() };
                    assert_eq!(read.vouching_issuer().url(), source, "{by:?} {name} {prefixes:?}");
                    subjects.push((read.subject, source));
                }
            }
            for (subject, source) in &subjects {
                let same = subjects.iter().filter(|(other, _)| other == subject);
                assert!(same.into_iter().all(|(_, other)| other == source), "{subjects:?}");
            }
        });
    }
}

#[tokio::test]
async fn i67_honest_sources_beside_each_other_pass_and_each_has_its_issuer_and_its_roles() {
    let gate = Sources::new(["one|", "two|"], true).await.unwrap();
    let policy = |name: &str| RoutePolicy::default().role_of(name, "admin");
    let all = (0..2).flat_map(|at| [Use::Browser(at), Use::Assertion(at), Use::Exchange(at)]);
    for by in OWN_USES.into_iter().chain(all) {
        let token = gate.token(by, "root").await.unwrap_or_else(|error| panic!("{by:?}: {error:?}"));
        let read = gate.read(&token).unwrap();
        assert_eq!((read.vouching_issuer().url(), read.is_of_own_user()), (by.issuer(), by.issuer() == ISSUER));
        for name in ["self", "i0", "i1"] {
            let policy = policy(name);
            let has_role = judge_roles(&policy, &policy.roles, &policy.all_roles, &read).is_ok();
            let vouches = *read.vouching_issuer().name() == *name && !read.roles().names().is_empty();
            assert_eq!(has_role, vouches, "{by:?} {name}");
        }
        // What is exchanged for it is of the same user.
        let again = gate.read(&gate.exchange(&token).await.unwrap()).unwrap();
        assert_eq!((again.vouching_issuer().url(), &again.subject), (by.issuer(), &read.subject));
    }
    // One issuer alone needs no prefix.
    assert!(Sources::new(["", "two|"], false).await.is_none());
}

#[tokio::test]
async fn i67_a_subject_with_the_prefix_of_an_issuer_needs_that_issuer_to_vouch() {
    let gate = Sources::new(["one|", "two|"], true).await.unwrap();
    for by in OWN_USES {
        let refused = gate.token(by, "two|root").await;
        assert!(refused.is_err(), "{by:?}: {refused:?}");
    }
    for by in [Use::Vouched, Use::Directory] {
        let read = gate.read(&gate.token(by, "one|root").await.unwrap()).unwrap();
        assert_eq!(read.vouching_issuer().url(), THEIRS[0], "{by:?}");
    }
    // A session of the gate's own user that began before the issuer was added.
    let sources = gate.world.checker.trusted();
    gate.world.engine.set_sources(std::sync::Arc::default());
    let earlier = gate.start("two|bob", None, false).await.unwrap();
    let own = IssuerRules::own(ISSUER, vec![AUDIENCE.into()], &gate.world.engine.keyring(), LEEWAY);
    let verifier = Verifier::new(std::iter::once(own).chain(sources).collect()).unwrap();
    gate.world.engine.set_sources(verifier.sources().clone());
    assert!(matches!(gate.read(&earlier), Err(Denial::BadClaim(_))));
    // The issuer's user without its prefix, as after a change of the rules.
    let start = |subject| gate.start(subject, Some(VouchedBy::new(THEIRS[0], "root")), true);
    assert!(matches!(start("root").await, Err(Error::Denied(Denial::ProviderLogin(_)))));
    assert!(matches!(start("two|root").await, Err(Error::Denied(Denial::ProviderLogin(_)))));
    assert!(start("one|root").await.is_ok());
}

#[tokio::test]
async fn i67_an_assertion_and_an_exchange_need_the_prefix_of_their_issuer_when_they_are_granted() {
    let gate = Sources::new(["one|", "two|"], true).await.unwrap();
    let theirs = gate.theirs(0, "root");
    let granted =
        async || (gate.assertion(0, "root", JagSubject::Issuer).await.is_ok(), gate.exchange(&theirs).await.is_ok());
    assert_eq!(granted().await, (true, true));
    // The rules change after the credential was judged.
    let sources = gate.world.checker.trusted();
    gate.world.engine.set_sources(std::sync::Arc::default());
    assert_eq!(granted().await, (false, false));
    // An issuer without a prefix that is the only source of users: its tokens are not exchanged.
    let own = IssuerRules::own(ISSUER, vec![AUDIENCE.into()], &gate.world.engine.keyring(), LEEWAY);
    let mut bare = sources.into_iter().next().unwrap();
    bare.subject_prefix = "".into();
    let verifier = Verifier::new(vec![own, bare]).unwrap();
    gate.world.engine.set_sources(verifier.sources().clone());
    gate.world.checker.set_verifier(verifier);
    assert!(gate.exchange(&theirs).await.is_err());
}

#[tokio::test]
async fn i67_the_users_of_an_issuer_that_left_the_rules_do_not_become_our_own() {
    let gate = Sources::new(["one|", "two|"], true).await.unwrap();
    let token = gate.token(Use::Assertion(0), "root").await.unwrap();
    let own = IssuerRules::own(ISSUER, vec![AUDIENCE.into()], &gate.world.engine.keyring(), LEEWAY);
    let verifier = Verifier::new(vec![own]).unwrap();
    gate.world.engine.set_sources(verifier.sources().clone());
    gate.world.checker.set_verifier(verifier);
    let read = gate.read(&token).unwrap();
    assert_eq!((read.vouching_issuer().url(), read.is_of_own_user()), (THEIRS[0], false));
    assert!(!read.is_at_provider() && read.roles().names().len() == 1);
    let policy = RoutePolicy::default().role_of(OWN, "admin");
    assert!(judge_roles(&policy, &policy.roles, &policy.all_roles, &read).is_err());
}

#[test]
fn i67_prefixes_that_meet_are_refused_and_others_pass() {
    let keys = || IssuerKeys::from_jwks(Keyring::ephemeral().unwrap().jwks().to_string().as_bytes(), None).unwrap();
    let check = |prefixes: &[&str]| {
        let rules = prefixes.iter().enumerate().map(|(at, prefix)| {
            let mut rules = IssuerRules::external(format!("https://{at}.test"), vec!["api".into()], keys());
            rules.subject_prefix = (*prefix).into();
            rules
        });
        Verifier::new(rules.collect())
    };
    for good in [&["", ""][..], &["kc"], &["kc|", "okta|"], &["kc|", "kc2|", ""], &["kc:", "kc/"], &["kc|a|", "kc|b|"]]
    {
        assert!(check(good).is_ok(), "{good:?}");
    }
    for bad in [
        &["kc|", "kc|"][..],
        &["kc", "ab|"],
        &["kc|", "kc|a|"],
        &["client:"],
        &["c"],
        &["client:x|"],
        &["k|", "", "k|"],
    ] {
        assert!(matches!(check(bad), Err(RulesError::Rule { .. })), "{bad:?}");
    }
    // The only source of users needs no prefix. The clients of the gate stay its own.
    let mut sole = IssuerRules::external("https://sole.test", vec!["api".into()], keys());
    sole.logs_in_browsers = true;
    let verifier = Verifier::new(vec![sole.clone()]).unwrap();
    let of = |subject: &str| verifier.sources().issuer_of(subject).map(|issuer| &**issuer);
    assert_eq!([of("root"), of("client:wiki")], [Some("https://sole.test"), None]);
    sole.logs_in_browsers = false;
    assert_eq!(Verifier::new(vec![sole]).unwrap().sources().issuer_of("root"), None, "it names no subjects here");
    let issuer = UserSource::Issuer;
    for (sources, bare) in [
        (&[][..], None),
        (&[issuer("")], None),
        (&[UserSource::Own, issuer("a|"), issuer("b|")], None),
        (&[UserSource::Own, issuer("")], Some(1)),
        (&[issuer("a|"), issuer("")], Some(1)),
        (&[issuer(""), issuer("")], Some(0)),
    ] {
        assert_eq!(bare_source(sources), bare, "{sources:?}");
    }
}
