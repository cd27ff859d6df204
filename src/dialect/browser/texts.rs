//! The texts of the gate's own pages, in four languages.

use http::header::ACCEPT_LANGUAGE;
use http::{HeaderMap, HeaderValue};

/// A language of the gate's own pages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Language {
    /// English.
    #[default]
    En,
    /// German.
    De,
    /// French.
    Fr,
    /// Spanish.
    Es,
}

impl Language {
    /// All languages, with their codes (ISO 639-1).
    pub const ALL: [(&'static str, Self); 4] = [("en", Self::En), ("de", Self::De), ("fr", Self::Fr), ("es", Self::Es)];

    pub(crate) fn code(self) -> &'static str {
        Self::ALL.iter().find(|(_, language)| *language == self).map_or("en", |(code, _)| code)
    }

    fn from_range(range: &str) -> Option<Self> {
        let code = range.split('-').next().unwrap_or_default();
        Self::ALL.iter().find(|(known, _)| known.eq_ignore_ascii_case(code)).map(|(_, language)| *language)
    }

    /// Returns the language that a header `Accept-Language` prefers, or English if it accepts none of these languages (RFC
    /// 9110 §12.5.4).
    pub(crate) fn of_header(header: Option<&HeaderValue>) -> Self {
        let mut best = (0, Self::default());
        let ranges = header.and_then(|value| value.to_str().ok()).unwrap_or_default();
        for (range, weight) in weighted(ranges) {
            if let Some(language) = Self::from_range(range).filter(|_| weight > best.0) {
                best = (weight, language);
            }
        }
        best.1
    }

    pub(crate) fn of_headers(headers: &HeaderMap) -> Self {
        Self::of_header(headers.get(ACCEPT_LANGUAGE))
    }
}

/// Returns the ranges of a header such as `Accept`, with their weights in thousandths (RFC 9110 §12.4.2). A malformed
/// weight counts as zero.
pub(crate) fn weighted(value: &str) -> impl Iterator<Item = (&str, u16)> {
    value.split(',').map(|range| {
        let mut parts = range.split(';').map(str::trim);
        let name = parts.next().unwrap_or_default();
        let given = parts.find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")));
        (name, given.map_or(1000, |given| thousandths(given).unwrap_or(0)))
    })
}

fn thousandths(weight: &str) -> Option<u16> {
    let (whole, fraction) = weight.split_once('.').unwrap_or((weight, ""));
    let digits = fraction.len() <= 3 && fraction.bytes().all(|byte| byte.is_ascii_digit());
    match whole {
        "1" if digits && fraction.bytes().all(|byte| byte == b'0') => Some(1000),
        "0" if digits => format!("{fraction:0<3}").parse().ok(),
        _ => None,
    }
}

macro_rules! texts {
    ($($text:ident $name:literal: $en:literal, $de:literal, $fr:literal, $es:literal;)*) => {
        /// A text of the gate's own pages.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum Text { $( $text, )* }

        impl Text {
            /// All texts, with their names.
            pub(crate) const ALL: &[(&str, Self)] = &[ $( ($name, Self::$text), )* ];

            pub(crate) const fn name(self) -> &'static str {
                match self { $( Self::$text => $name, )* }
            }

            pub(crate) const fn in_language(self, language: Language) -> &'static str {
                let [en, de, fr, es] = match self { $( Self::$text => [$en, $de, $fr, $es], )* };
                match language {
                    Language::En => en,
                    Language::De => de,
                    Language::Fr => fr,
                    Language::Es => es,
                }
            }
        }
    };
}

texts! {
    LogIn "log_in":
        "Log in",
        "Anmelden",
        "Se connecter",
        "Iniciar sesión";
    Username "username":
        "User name",
        "Benutzername",
        "Nom d’utilisateur",
        "Nombre de usuario";
    Password "password":
        "Password",
        "Passwort",
        "Mot de passe",
        "Contraseña";
    Account "account":
        "Account",
        "Konto",
        "Compte",
        "Cuenta";
    LogOut "log_out":
        "Log out",
        "Abmelden",
        "Se déconnecter",
        "Cerrar sesión";
    Continue "continue":
        "Continue",
        "Weiter",
        "Continuer",
        "Continuar";
    Privacy "privacy":
        "Privacy",
        "Datenschutz",
        "Confidentialité",
        "Privacidad";
    StartPage "start_page":
        "Go to the start page",
        "Zur Startseite",
        "Aller à la page d’accueil",
        "Ir a la página de inicio";
    TryAgain "try_again":
        "Try again",
        "Erneut versuchen",
        "Réessayer",
        "Intentar de nuevo";
    RequestId "request_id":
        "Request ID",
        "Anfragenummer",
        "Numéro de la requête",
        "Número de solicitud";
    Details "details":
        "Details",
        "Einzelheiten",
        "Détails",
        "Detalles";
    NoAccess "no_access":
        "No access",
        "Kein Zugriff",
        "Accès refusé",
        "Acceso denegado";
    NoAccessAdvice "no_access_text":
        "You are logged in, but this page is not open to your account. Ask your administrator if you need it.",
        "Sie sind angemeldet, aber diese Seite ist für Ihr Konto nicht freigegeben. Wenn Sie sie brauchen, wenden Sie sich an Ihre Administration.",
        "Vous êtes connecté, mais votre compte n’a pas accès à cette page. Si vous en avez besoin, adressez-vous à votre administrateur.",
        "Ha iniciado sesión, pero su cuenta no tiene acceso a esta página. Si la necesita, consulte con su administrador.";
    ForeignAdvice "foreign_text":
        "Another website sent this request, so it was not carried out. Open the page here and try again.",
        "Diese Anfrage kam von einer anderen Website und wurde deshalb nicht ausgeführt. Öffnen Sie die Seite hier und versuchen Sie es erneut.",
        "Cette demande venait d’un autre site et n’a donc pas été exécutée. Ouvrez la page ici, puis réessayez.",
        "Esta solicitud procede de otro sitio web y no se ha ejecutado. Abra la página aquí e inténtelo de nuevo.";
    NotFound "not_found":
        "Page not found",
        "Seite nicht gefunden",
        "Page introuvable",
        "Página no encontrada";
    NotFoundAdvice "not_found_text":
        "There is no page at this address. Check the address, or go to the start page.",
        "Unter dieser Adresse gibt es keine Seite. Prüfen Sie die Adresse oder gehen Sie zur Startseite.",
        "Il n’y a pas de page à cette adresse. Vérifiez l’adresse ou allez à la page d’accueil.",
        "No hay ninguna página en esta dirección. Compruebe la dirección o vaya a la página de inicio.";
    TooMany "too_many":
        "Too many requests",
        "Zu viele Anfragen",
        "Trop de demandes",
        "Demasiadas solicitudes";
    TooManyAdvice "too_many_text":
        "You have sent too many requests. Wait {seconds} seconds, then try again.",
        "Sie haben zu viele Anfragen gesendet. Warten Sie {seconds} Sekunden und versuchen Sie es dann erneut.",
        "Vous avez envoyé trop de demandes. Attendez {seconds} secondes, puis réessayez.",
        "Ha enviado demasiadas solicitudes. Espere {seconds} segundos e inténtelo de nuevo.";
    Unavailable "unavailable":
        "Not available at the moment",
        "Zurzeit nicht verfügbar",
        "Indisponible pour le moment",
        "No disponible en este momento";
    UnavailableAdvice "unavailable_text":
        "The application does not answer at the moment. Try again in a minute.",
        "Die Anwendung antwortet zurzeit nicht. Versuchen Sie es in einer Minute erneut.",
        "L’application ne répond pas pour le moment. Réessayez dans une minute.",
        "La aplicación no responde en este momento. Inténtelo de nuevo en un minuto.";
    BadRequest "bad_request":
        "That did not work",
        "Das hat nicht funktioniert",
        "Cela n’a pas fonctionné",
        "No ha funcionado";
    BadRequestAdvice "bad_request_text":
        "This request could not be processed. Go back, reload the page and try again.",
        "Diese Anfrage konnte nicht verarbeitet werden. Gehen Sie zurück, laden Sie die Seite neu und versuchen Sie es erneut.",
        "Cette demande n’a pas pu être traitée. Revenez en arrière, rechargez la page, puis réessayez.",
        "No se ha podido procesar la solicitud. Vuelva atrás, recargue la página e inténtelo de nuevo.";
    TooLargeAdvice "too_large_text":
        "What you sent is too large. Go back and send less, or a smaller file.",
        "Was Sie gesendet haben, ist zu groß. Gehen Sie zurück und senden Sie weniger oder eine kleinere Datei.",
        "Votre envoi est trop volumineux. Revenez en arrière et envoyez moins de données ou un fichier plus petit.",
        "Lo que ha enviado es demasiado grande. Vuelva atrás y envíe menos datos o un archivo más pequeño.";
    FaultAdvice "fault_text":
        "An error occurred. Try again in a minute. If it happens again, tell your administrator.",
        "Ein Fehler ist aufgetreten. Versuchen Sie es in einer Minute erneut. Tritt er wieder auf, melden Sie ihn Ihrer Administration.",
        "Une erreur s’est produite. Réessayez dans une minute. Si elle se reproduit, signalez-la à votre administrateur.",
        "Se ha producido un error. Inténtelo de nuevo en un minuto. Si se repite, avise a su administrador.";
    WrongPassword "wrong_password":
        "The user name or the password is wrong.",
        "Der Benutzername oder das Passwort ist falsch.",
        "Le nom d’utilisateur ou le mot de passe est incorrect.",
        "El nombre de usuario o la contraseña no son correctos.";
    TooManyAttempts "too_many_attempts":
        "Too many attempts. Try again in {seconds} seconds.",
        "Zu viele Versuche. Versuchen Sie es in {seconds} Sekunden erneut.",
        "Trop de tentatives. Réessayez dans {seconds} secondes.",
        "Demasiados intentos. Inténtelo de nuevo en {seconds} segundos.";
    TooManySessions "too_many_sessions":
        "You are logged in at too many places. Log out at one of them, then log in again.",
        "Sie sind an zu vielen Orten angemeldet. Melden Sie sich an einem davon ab und dann hier wieder an.",
        "Vous êtes connecté à trop d’endroits. Déconnectez-vous de l’un d’eux, puis reconnectez-vous ici.",
        "Tiene demasiadas sesiones abiertas. Cierre una de ellas e inicie sesión de nuevo.";
    LoginUnavailable "login_unavailable":
        "The login does not work at the moment. Try again in a minute.",
        "Die Anmeldung ist zurzeit nicht möglich. Versuchen Sie es in einer Minute erneut.",
        "La connexion n’est pas possible pour le moment. Réessayez dans une minute.",
        "No es posible iniciar sesión en este momento. Inténtelo de nuevo en un minuto.";
    LoginIncomplete "login_incomplete":
        "Enter your user name and your password.",
        "Geben Sie Ihren Benutzernamen und Ihr Passwort ein.",
        "Saisissez votre nom d’utilisateur et votre mot de passe.",
        "Introduzca su nombre de usuario y su contraseña.";
    LoginForeign "login_foreign":
        "This login did not come from the login page here. Open the page that you want to visit and log in there.",
        "Diese Anmeldung kam nicht von der Anmeldeseite hier. Öffnen Sie die gewünschte Seite und melden Sie sich dort an.",
        "Cette connexion ne venait pas de la page de connexion d’ici. Ouvrez la page souhaitée et connectez-vous là.",
        "Este inicio de sesión no procede de la página de aquí. Abra la página que desea visitar e inicie sesión allí.";
    NotLoggedIn "not_logged_in":
        "Not logged in",
        "Nicht angemeldet",
        "Non connecté",
        "Sesión no iniciada";
    LogInAgain "log_in_again":
        "Log in again",
        "Erneut anmelden",
        "Se reconnecter",
        "Iniciar sesión de nuevo";
    LoginCancelled "login_cancelled":
        "You cancelled the login, or your account may not use this application. Log in again, or ask your administrator.",
        "Sie haben die Anmeldung abgebrochen, oder Ihr Konto darf diese Anwendung nicht benutzen. Melden Sie sich erneut an oder fragen Sie Ihre Administration.",
        "Vous avez annulé la connexion, ou votre compte ne peut pas utiliser cette application. Reconnectez-vous ou adressez-vous à votre administrateur.",
        "Ha cancelado el inicio de sesión o su cuenta no puede usar esta aplicación. Inicie sesión de nuevo o consulte con su administrador.";
    LoginLost "login_lost":
        "This login took too long, or it began in another browser or without cookies. Log in again.",
        "Diese Anmeldung hat zu lange gedauert, oder sie begann in einem anderen Browser oder ohne Cookies. Melden Sie sich erneut an.",
        "Cette connexion a pris trop de temps, ou elle a commencé dans un autre navigateur ou sans cookies. Reconnectez-vous.",
        "Este inicio de sesión ha tardado demasiado, o empezó en otro navegador o sin cookies. Inicie sesión de nuevo.";
    LoginFailed "login_failed":
        "The login could not be completed. Log in again. If it fails again, tell your administrator.",
        "Die Anmeldung konnte nicht abgeschlossen werden. Melden Sie sich erneut an. Gelingt es wieder nicht, melden Sie es Ihrer Administration.",
        "La connexion n’a pas pu aboutir. Reconnectez-vous. Si elle échoue encore, prévenez votre administrateur.",
        "No se ha podido completar el inicio de sesión. Inténtelo de nuevo. Si vuelve a fallar, avise a su administrador.";
    LoginRepeated "login_repeated":
        "You are logged in, but this page needs a login that your account does not have. Ask your administrator.",
        "Sie sind angemeldet, aber diese Seite braucht eine Anmeldung, die Ihr Konto nicht hat. Fragen Sie Ihre Administration.",
        "Vous êtes connecté, mais cette page exige une connexion que votre compte ne permet pas. Adressez-vous à votre administrateur.",
        "Ha iniciado sesión, pero esta página exige un tipo de acceso que su cuenta no tiene. Consulte con su administrador.";
    ProviderUnavailable "provider_unavailable":
        "The login service does not answer at the moment. Try again in a minute.",
        "Der Anmeldedienst antwortet zurzeit nicht. Versuchen Sie es in einer Minute erneut.",
        "Le service de connexion ne répond pas pour le moment. Réessayez dans une minute.",
        "El servicio de inicio de sesión no responde en este momento. Inténtelo de nuevo en un minuto.";
    LoggedIn "logged_in":
        "You are logged in",
        "Sie sind angemeldet",
        "Vous êtes connecté",
        "Ha iniciado sesión";
    LoggedOut "logged_out":
        "You are logged out",
        "Sie sind abgemeldet",
        "Vous êtes déconnecté",
        "Ha cerrado la sesión";
    LoggedOutAdvice "logged_out_text":
        "You can close this window now.",
        "Sie können dieses Fenster jetzt schließen.",
        "Vous pouvez fermer cette fenêtre.",
        "Ya puede cerrar esta ventana.";
    LogOutAdvice "log_out_text":
        "Do you want to log out in this browser?",
        "Möchten Sie sich in diesem Browser abmelden?",
        "Voulez-vous vous déconnecter dans ce navigateur ?",
        "¿Quiere cerrar la sesión en este navegador?";
    NotLoggedOut "not_logged_out":
        "Not logged out",
        "Nicht abgemeldet",
        "Non déconnecté",
        "Sesión no cerrada";
    NotLoggedOutAdvice "not_logged_out_text":
        "You may still be logged in. Try again in a minute.",
        "Möglicherweise sind Sie noch angemeldet. Versuchen Sie es in einer Minute erneut.",
        "Vous êtes peut-être encore connecté. Réessayez dans une minute.",
        "Es posible que la sesión siga abierta. Inténtelo de nuevo en un minuto.";
    NotSent "not_sent":
        "Your entry was not sent. Log in, then send it again.",
        "Ihre Eingabe wurde nicht gesendet. Melden Sie sich an und senden Sie sie dann erneut.",
        "Votre saisie n’a pas été envoyée. Connectez-vous, puis envoyez-la de nouveau.",
        "Lo que ha introducido no se ha enviado. Inicie sesión y envíelo de nuevo.";
    NotSentStronger "not_sent_stronger":
        "This page requires another login. Your entry was not sent. Log in, then send it again.",
        "Diese Seite verlangt eine weitere Anmeldung. Ihre Eingabe wurde nicht gesendet. Melden Sie sich an und senden Sie sie dann erneut.",
        "Cette page exige une nouvelle connexion. Votre saisie n’a pas été envoyée. Connectez-vous, puis envoyez-la de nouveau.",
        "Esta página exige un nuevo inicio de sesión. Lo que ha introducido no se ha enviado. Inicie sesión y envíelo de nuevo.";
}

#[cfg(test)]
mod tests {
    use super::*;

    fn language(header: &str) -> Language {
        Language::of_header(Some(&HeaderValue::from_bytes(header.as_bytes()).unwrap()))
    }

    #[test]
    fn b66_the_language_is_the_one_that_the_browser_prefers_and_english_for_a_wrong_header() {
        for (header, expected) in [
            ("de-DE,de;q=0.9,en;q=0.8", Language::De),
            ("pt-BR, fr;q=0.5, es;q=0.7, *;q=0.1", Language::Es),
            ("en;q=0.3, FR-ca;q=0.9", Language::Fr),
            ("es", Language::Es),
            ("en, de", Language::En),
            ("de;q=0, en", Language::En),
            // None of ours, and headers that no browser sends.
            ("ja", Language::En),
            ("*", Language::En),
            ("", Language::En),
            ("de;q=2", Language::En),
            ("de;q=0.1234", Language::En),
            ("de;q=-1", Language::En),
            ("de;q=NaN", Language::En),
            ("den", Language::En),
            (";;;,,,q=1", Language::En),
            ("\u{e9}de", Language::En),
        ] {
            assert_eq!(language(header), expected, "{header}");
        }
        assert_eq!(Language::of_header(None), Language::En);
    }

    #[test]
    fn b66_no_header_brings_its_reader_down() {
        bolero::check!().with_type::<String>().for_each(|header| {
            if let Ok(value) = HeaderValue::try_from(header.as_str()) {
                let _ = Language::of_header(Some(&value));
            }
            assert!(weighted(header).all(|(_, weight)| weight <= 1000));
        });
    }

    #[test]
    fn b65_b66_each_text_exists_in_each_language_begins_with_a_capital_and_keeps_its_placeholder() {
        for (name, text) in Text::ALL {
            let all = Language::ALL.map(|(_, language)| text.in_language(language));
            for said in all {
                let first = said.chars().find(|first| !matches!(first, '¿' | '¡')).unwrap();
                assert!(first.is_uppercase(), "{name}: {said}");
                assert!(!said.contains(['<', '>', '&', '"']), "{name}: {said}");
                assert_eq!(said.contains("{seconds}"), all[0].contains("{seconds}"), "{name}: {said}");
                assert_eq!(said.ends_with('.') || said.ends_with('?'), all[0].ends_with(['.', '?']), "{name}: {said}");
            }
        }
    }
}
