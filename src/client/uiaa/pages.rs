//! The web pages of stages: plain HTML, which works without any script but the one that tells the
//! client at the end.

use ruma::UserId;

use crate::config::Policy;

/// What the specification has the last page do.
const DONE_SCRIPT: &str = r#"if (window.onAuthDone) {
    window.onAuthDone();
} else if (window.opener && window.opener.postMessage) {
    window.opener.postMessage("authDone", "*");
}"#;

/// Stands in a body for the script, until its nonce is known.
const SCRIPT: &str = "<!-- script -->";

/// A whole page.
pub(super) fn whole(body: &str, nonce: &str) -> String {
    let body = body.replace(SCRIPT, &format!("<script nonce=\"{nonce}\">{DONE_SCRIPT}</script>"));
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>Authentication</title>\n\
         <style>body {{ font-family: sans-serif; max-width: 30em; margin: 2em auto; padding: 0 1em }} \
         label, li {{ display: block; margin: 1em 0 }}</style>\n</head>\n<body>\n{body}\n</body>\n</html>\n"
    )
}

/// The stage is done.
pub(super) fn done() -> String {
    format!("<p>Thank you. You may now close this window and go back to your client.</p>\n{SCRIPT}")
}

/// `m.login.dummy`
pub(super) fn dummy() -> String {
    form(None, "<p>Nothing has to be shown here.</p>", "Continue")
}

/// `m.login.password`
pub(super) fn password(owner: Option<&UserId>, error: Option<&str>) -> String {
    let who = match owner {
        Some(user) => format!("<p>Confirm that you are <b>{}</b>.</p>", escaped(user.as_str())),
        None => field("user", "text", "username", "User name"),
    };
    let fields = who + &field("password", "password", "current-password", "Password");
    form(error, &fields, "Confirm")
}

/// `m.login.registration_token`
pub(super) fn registration_token(error: Option<&str>) -> String {
    form(error, &field("token", "text", "off", "Registration token"), "Continue")
}

/// `m.login.terms`
pub(super) fn terms(policies: &[Policy]) -> String {
    let mut fields = "<p>Please read and accept:</p>\n<ul>\n".to_owned();
    for policy in policies {
        let links = policy.languages.iter().map(|(language, text)| {
            let (name, url) = (escaped(&text.name), escaped(&text.url));
            let language = escaped(language);
            format!("<a href=\"{url}\" hreflang=\"{language}\" target=\"_blank\" rel=\"noopener\">{name}</a>")
        });
        let links = links.collect::<Vec<_>>().join(" / ");
        fields += &format!("<li><label><input type=\"checkbox\" required> {links}</label></li>\n");
    }
    form(None, &(fields + "</ul>"), "I accept")
}

fn form(error: Option<&str>, fields: &str, button: &str) -> String {
    let error = error.map(|error| format!("<p role=\"alert\">{}</p>\n", escaped(error)));
    let error = error.unwrap_or_default();
    format!("{error}<form method=\"post\">\n{fields}\n<button>{button}</button>\n</form>")
}

fn field(name: &str, kind: &str, autocomplete: &str, label: &str) -> String {
    format!(
        "<label>{label} <input name=\"{name}\" type=\"{kind}\" autocomplete=\"{autocomplete}\" \
         required></label>\n"
    )
}

/// A text as it stands in HTML, within elements and within attributes.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_text_becomes_html() {
        let page = password(None, Some("<script>\"'&"));
        assert!(page.contains("&lt;script&gt;&quot;&#39;&amp;"), "{page}");
        assert!(whole(&done(), "n").contains("<script nonce=\"n\">if (window.onAuthDone)"));
    }
}
