//! The second half of step 6: the key and the certificate that a token is bound to. A token that is bound to a key
//! needs a proof that its caller has the key (RFC 9449 §7). A token that is bound to a client certificate needs a
//! connection with that certificate (RFC 8705 §3). The proof and the certificate are checked for every request, even if
//! the token is in the cache.

use http::header::CACHE_CONTROL;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method};

use super::Inner;
use super::origin::origin_of;
use rotogate_core::credential::Scheme;
use rotogate_core::denial::{Denial, ProofFlaw};
use rotogate_core::dpop::memory::ProofName;
use rotogate_core::dpop::{self, CheckedProof, Dpop, Expected, HttpScheme, OnceProof, TargetUri, UsedProof};
use rotogate_core::fault::Error;
use rotogate_core::headers::{self, Peer};
use rotogate_core::refusal::Schemes;
use rotogate_core::reply::Reply;
use rotogate_core::route::{Hosts, Route, authority};
use rotogate_core::session::Binding;
use rotogate_core::thumbprint::CertificateThumbprint;
use rotogate_core::token::claims::AccessToken;

#[derive(Debug)]
pub(super) struct External {
    public: Option<(HttpScheme, String)>,
    named: Hosts,
}

impl External {
    pub(super) fn new(public_url: &str, hosts: &[String], routes: &[Route]) -> Self {
        let public = origin_of(public_url).and_then(|origin| {
            let (scheme, authority) = origin.split_once("://")?;
            Some((HttpScheme::parse(scheme)?, authority.to_owned()))
        });
        let mut named = Hosts::default();
        // `*` does not name a host. With `*`, the gate would accept a proof for an attacker's host.
        for host in hosts.iter().chain(routes.iter().flat_map(|route| &route.hosts)).filter(|host| *host != "*") {
            // Invalid hosts were already refused when the gate was built.
            let _ = named.add(host);
        }
        Self { public, named }
    }
}

pub(super) fn certificate_of(parts: &Parts) -> Option<CertificateThumbprint> {
    parts.extensions.get::<Peer>()?.certificate()
}

#[derive(Debug)]
pub(super) struct PresentedProof {
    headers: HeaderMap,
    method: Method,
    target: Option<TargetUri>,
}

impl Inner {
    pub(super) fn dpop(&self) -> Option<&Dpop> {
        self.uses_dpop.then(|| &*self.running.dpop)
    }

    /// Returns `None` if the request's host is not a host of the gate.
    fn target(&self, parts: &Parts) -> Option<TargetUri> {
        let named = authority::check(parts).ok()?;
        #[cfg(feature = "axum")]
        let whole = super::nested::whole(parts);
        #[cfg(not(feature = "axum"))]
        let whole: Option<http::Uri> = None;
        let path = whole.as_ref().unwrap_or(&parts.uri).path();
        let host = named.host().trim_end_matches('.');
        let External { public, named: hosts } = &self.external;
        match public {
            Some((scheme, public)) if authority::host_of(public).eq_ignore_ascii_case(host) => {
                TargetUri::new(*scheme, public, path)
            }
            _ if hosts.admit(host) => {
                let peer = parts.extensions.get::<Peer>()?;
                let scheme = headers::scheme(&parts.headers, peer, &self.trusted_proxies);
                TargetUri::new(HttpScheme::parse(scheme.to_str().ok()?)?, named.as_str(), path)
            }
            _ => None,
        }
    }

    /// Checks the key and certificate that a token is bound to. The proof is marked as used only once the request is
    /// permitted: see [`use_proof`](Self::use_proof).
    pub(super) fn possession(
        &self,
        parts: &Parts,
        presented: Scheme,
        token: &AccessToken,
    ) -> Result<Option<CheckedProof>, Denial> {
        if let Some(certificate) = token.certificate() {
            match certificate_of(parts) {
                None => return Err(Denial::NoCertificate),
                Some(presented) if presented != *certificate => return Err(Denial::OtherCertificate),
                Some(_) => {}
            }
        }
        match (presented, token.proved_by()) {
            (Scheme::Bearer, None) => Ok(None),
            (Scheme::Bearer, Some(_)) => Err(Denial::UnprovedBinding),
            (Scheme::Dpop, None) => Err(Denial::UnboundToken),
            (Scheme::Dpop, Some((key, hash))) => {
                let dpop = self.dpop().ok_or(Denial::UnprovedBinding)?;
                let expected = Expected { method: &parts.method, target: self.target(parts), token: Some((hash, key)) };
                let keyring = self.engine.keyring();
                dpop.check(&parts.headers, &expected, keyring.refresh_keys(), self.engine.clock().now()).map(Some)
            }
        }
    }

    pub(super) fn use_proof(&self, proof: &CheckedProof) -> Result<Option<Box<UsedProof>>, Denial> {
        let owed = self.running.dpop.use_once(proof, self.engine.clock().now(), &**self.engine.store())?;
        let renews_nonce = proof.renews_nonce();
        Ok((renews_nonce || owed.is_some()).then(|| Box::new(UsedProof { renews_nonce, owed })))
    }

    /// Marks a permitted request's proof as used in the shared store.
    ///
    /// # Errors
    /// The proof was used at another gate, or the store cannot determine whether it was used.
    pub(super) async fn count_proof(&self, name: ProofName) -> Result<(), Denial> {
        let counted = self.running.dpop.use_in_store(name, &**self.engine.store()).await;
        self.running.faults.tell(&counted, || self.engine.clock().source().monotonic());
        match counted {
            Ok(()) => Ok(()),
            Err(Error::Denied(denial)) => Err(denial),
            Err(Error::Failed(fault)) => Err(Denial::ProofsUnavailable(fault.retry_after())),
        }
    }

    pub(super) fn presented_proof(&self, parts: &Parts) -> Option<PresentedProof> {
        if self.dpop().is_none() || !dpop::is_offered(&parts.headers) {
            return None;
        }
        let mut headers = HeaderMap::new();
        for value in parts.headers.get_all(&dpop::PROOF) {
            headers.append(dpop::PROOF.clone(), value.clone());
        }
        Some(PresentedProof { headers, method: parts.method.clone(), target: self.target(parts) })
    }

    /// Checks the proof of a client that requests tokens.
    ///
    /// # Errors
    /// The proof is invalid, or a required proof is missing.
    pub(super) fn proof_of_client(
        &self,
        presented: Option<&PresentedProof>,
        of: Binding,
    ) -> Result<Option<OnceProof<'_>>, Denial> {
        let check = || {
            let (Some(dpop), Some(presented)) = (self.dpop(), presented) else { return Ok(None) };
            let PresentedProof { headers, method, target } = presented;
            let expected = Expected { method, target: target.clone(), token: None };
            let keyring = self.engine.keyring();
            let proof = dpop.check(headers, &expected, keyring.refresh_keys(), self.engine.clock().now())?;
            Ok(Some(OnceProof { dpop, proof }))
        };
        match of {
            Binding::Off => Ok(None),
            Binding::Optional => check(),
            Binding::Required => check()?.map(Some).ok_or(ProofFlaw::Missing.into()),
        }
    }

    /// A bound session stays bound, even if its client no longer has to send proofs.
    pub(super) fn proof_of_refresh(
        &self,
        presented: Option<&PresentedProof>,
        of: Binding,
    ) -> Result<Option<OnceProof<'_>>, Denial> {
        match of {
            // The engine decides whether the session requires a proof.
            Binding::Off => Ok(self.proof_of_client(presented, Binding::Optional).ok().flatten()),
            Binding::Optional | Binding::Required => self.proof_of_client(presented, of),
        }
    }

    /// Returns the certificate to which new tokens are bound.
    ///
    /// # Errors
    /// The client must use a certificate, but its connection does not have one.
    pub(super) fn certificate_of_client(
        presented: Option<CertificateThumbprint>,
        of: Binding,
    ) -> Result<Option<CertificateThumbprint>, Denial> {
        match of {
            Binding::Off => Ok(None),
            Binding::Optional => Ok(presented),
            Binding::Required => presented.map(Some).ok_or(Denial::MalformedRequest(
                "this client must present its certificate in the TLS handshake (RFC 8705)",
            )),
        }
    }

    /// A bound session stays bound, even if its client no longer needs a certificate.
    pub(super) fn certificate_of_refresh(
        presented: Option<CertificateThumbprint>,
        of: Binding,
    ) -> Result<Option<CertificateThumbprint>, Denial> {
        Self::certificate_of_client(presented, of).map(|_| presented)
    }

    pub(super) const fn schemes(&self, dpop_required: bool) -> Schemes {
        match (self.uses_dpop, dpop_required) {
            (false, _) => Schemes::Bearer,
            (true, false) => Schemes::Both,
            (true, true) => Schemes::Dpop,
        }
    }

    pub(super) fn give_nonce(&self, denial: Denial, reply: &mut Reply) {
        if denial == Denial::BadProof(ProofFlaw::Nonce)
            && let Some(nonce) = self.dpop_nonce()
        {
            reply.headers_mut().insert(dpop::NONCE.clone(), nonce);
            reply.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        }
    }

    /// `None` if nonces are not required.
    pub(super) fn dpop_nonce(&self) -> Option<HeaderValue> {
        self.dpop()?.nonce(self.engine.keyring().refresh_keys(), self.engine.clock().now())
    }
}
