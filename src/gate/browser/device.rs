use std::sync::atomic::{AtomicU64, Ordering};

use http::header::{HeaderName, SET_COOKIE};
use http::request::Parts;
use http::{HeaderMap, HeaderValue};

use crate::dialect::browser::device::{PREFIX, SKIPPED, challenged, set_cookie};
use crate::gate::Inner;
use crate::gate::browser_request::session_cookie;
use rotogate_core::credential;
use rotogate_core::denial::Denial;
use rotogate_core::engine::PresentedDevice;
use rotogate_core::session::Binding;
use rotogate_core::token::device_cookie;
use rotogate_core::verify_cache::Verified;

const CLEAR_SITE_DATA: HeaderName = HeaderName::from_static("clear-site-data");

/// The values of the label `result` in the metrics of device proofs.
#[derive(Clone, Copy, Debug)]
pub(in crate::gate) enum DeviceResult {
    Registered,
    Refreshed,
    /// The proof is invalid, or the session is bound to another key.
    Refused,
    Over,
    Unavailable,
    /// The browser states why it does not have a device cookie.
    Skipped,
}

const NAMES: [&str; 6] = ["registered", "refreshed", "refused", "over", "unavailable", "skipped"];

#[derive(Debug, Default)]
pub(crate) struct BrowserDevices([AtomicU64; NAMES.len()]);

impl BrowserDevices {
    // Requirement B56.
    pub(in crate::gate) fn count(&self, result: DeviceResult) {
        if let Some(count) = self.0.get(result as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(in crate::gate) fn counts(&self) -> impl Iterator<Item = (&'static str, u64)> + use<'_> {
        NAMES.into_iter().zip(self.0.iter().map(|count| count.load(Ordering::Relaxed)))
    }
}

/// Returns `None` if the request has several device cookies.
pub(in crate::gate) fn shown_device(headers: &HeaderMap) -> Option<&[u8]> {
    let mut found = credential::cookies(headers, device_cookie::NAME);
    found.next().filter(|_| found.next().is_none())
}

impl Inner {
    pub(in crate::gate) fn presented_device(&self, headers: &HeaderMap) -> PresentedDevice {
        let mode = self.browser.as_ref().map_or(Binding::Off, |browser| browser.device);
        PresentedDevice::new(mode, shown_device(headers).filter(|_| mode != Binding::Off))
    }

    /// A session that is bound to a device also needs the device cookie.
    ///
    /// # Errors
    /// [`Denial::DeviceProofMissing`].
    // Requirement B48.
    pub(in crate::gate) fn device_proved<'a>(
        &self,
        shown: impl FnOnce() -> Option<&'a [u8]>,
        caller: &Verified,
    ) -> Result<(), Denial> {
        let Some(browser) = self.browser.as_ref().filter(|browser| browser.device != Binding::Off) else {
            return Ok(());
        };
        let keyring = || self.engine.keyring();
        let is_admitted = caller.admits_device(browser.device, shown, keyring, self.engine.clock().now());
        if is_admitted { Ok(()) } else { Err(Denial::DeviceProofMissing) }
    }

    /// Adds the next challenge to a refusal. An invalid device cookie is cleared, so that the browser gets a new one
    /// before its next request.
    // Requirement B50.
    pub(in crate::gate) fn ask_for_device(&self, parts: &Parts, denial: Denial, headers: &mut HeaderMap) {
        if denial != Denial::DeviceProofMissing {
            return;
        }
        if parts.headers.contains_key(&SKIPPED) {
            self.running.browser_devices.count(DeviceResult::Skipped);
        }
        let value = session_cookie(&parts.headers).ok().flatten().and_then(|value| std::str::from_utf8(value).ok());
        if let Some(cookie) = value.and_then(|value| self.engine.session_cookie(value)) {
            challenged(headers, self.engine.device_challenge(&cookie), cookie.session());
        }
        headers.append(SET_COOKIE, set_cookie("", 0));
    }

    /// The service's reply must not end a device binding or begin another.
    // Requirement B27.
    pub(in crate::gate) fn keep_binding(&self, headers: &mut HeaderMap) {
        if self.browser.as_ref().is_none_or(|browser| browser.device == Binding::Off) {
            return;
        }
        let ours: Vec<_> = headers.keys().filter(|name| name.as_str().starts_with(PREFIX)).cloned().collect();
        ours.iter().for_each(|name| drop(headers.remove(name)));
        if let Some(kept) = headers.get_all(CLEAR_SITE_DATA).iter().find_map(without_cookies) {
            headers.remove(CLEAR_SITE_DATA);
            headers.extend(kept.map(|kept| (CLEAR_SITE_DATA, kept)));
        }
    }
}

/// Returns `None` if `Clear-Site-Data` does not contain `cookies`.
fn without_cookies(value: &HeaderValue) -> Option<Option<HeaderValue>> {
    let all: Vec<_> = value.to_str().ok()?.split(',').map(str::trim).collect();
    if all.contains(&"\"*\"") {
        return Some(Some(HeaderValue::from_static("\"cache\", \"storage\", \"executionContexts\"")));
    }
    let kept: Vec<_> = all.iter().copied().filter(|kind| *kind != "\"cookies\"").collect();
    (kept.len() < all.len()).then(|| HeaderValue::try_from(kept.join(", ")).ok().filter(|kept| !kept.is_empty()))
}

#[cfg(test)]
mod tests;
