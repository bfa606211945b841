//! Links: found in HTML without a parser, and resolved without an allocation.

/// How many bytes are looked at in one step; the compiler makes a few vector instructions of that.
const STEP: usize = 32;

/// Where a link leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Target<'a> {
    /// To the same host.
    Here,
    /// To this host (and port) by `http`.
    There(&'a str),
    /// To a host that is not spoken to: another scheme of the web.
    Elsewhere,
    /// To no page: mail, a script, a place in the same page.
    Nowhere,
}

/// Calls `found` with the value of each `href` in a page.
pub(crate) fn each_href<'a>(html: &'a [u8], mut found: impl FnMut(&'a str)) {
    let mut at = 0;
    while let Some(name) = find_href(html, at) {
        at = name + 4;
        if is_in_anchor(&html[..name])
            && let Some((value, end)) = value(html, at)
        {
            at = end;
            // Many links lead to a place in their own page.
            if !value.starts_with(b"#")
                && let Ok(text) = std::str::from_utf8(value)
            {
                found(text);
            }
        }
    }
}

/// Whether the next attribute is one of `<a>` or `<area>`: not a style sheet's, nor in the text of a script.
fn is_in_anchor(before: &[u8]) -> bool {
    let near = &before[before.len().saturating_sub(400)..];
    let tag = near
        .iter()
        .rposition(|b| matches!(b, b'<' | b'>'))
        .map_or(&[][..], |at| &near[at..]);
    let name = tag.split(u8::is_ascii_whitespace).next().unwrap_or(&[]);
    let is_apart = matches!(tag, [.., b] if b.is_ascii_whitespace() || matches!(b, b'"' | b'\''));
    is_apart && (name.eq_ignore_ascii_case(b"<a") || name.eq_ignore_ascii_case(b"<area"))
}

/// The next `href`, in any case, from `at` on.
fn find_href(html: &[u8], mut at: usize) -> Option<usize> {
    let matches = |i: usize| html[i..i + 4].eq_ignore_ascii_case(b"href");
    // `h` and, three further on, `f`: in 32 places at once.
    while let Some(window) = html.get(at..at + STEP + 3) {
        let (h, f) = (&window[..STEP], &window[3..]);
        let hit = h.iter().zip(f).fold(0, |hit, (h, f)| {
            hit | (u8::from(h | 0x20 == b'h') & u8::from(f | 0x20 == b'f'))
        });
        if hit != 0
            && let Some(found) = (at..at + STEP).find(|&i| html[i] | 0x20 == b'h' && matches(i))
        {
            return Some(found);
        }
        at += STEP;
    }
    (at..html.len().saturating_sub(3)).find(|&i| matches(i))
}

/// The value of an attribute whose name ends at `at`, and the place behind it.
fn value(html: &[u8], at: usize) -> Option<(&[u8], usize)> {
    let skip_space = |at: usize| at + html[at..].iter().take_while(|b| b.is_ascii_whitespace()).count();
    let equals = skip_space(at);
    if *html.get(equals)? != b'=' {
        return None;
    }
    let start = skip_space(equals + 1);
    match *html.get(start)? {
        quote @ (b'"' | b'\'') => {
            let rest = &html[start + 1..];
            let len = rest.iter().position(|&b| b == quote)?;
            Some((&rest[..len], start + 1 + len))
        }
        b'\\' => None, // HTML in a string of a script
        _ => {
            let rest = &html[start..];
            let len = rest.iter().position(|b| b.is_ascii_whitespace() || *b == b'>')?;
            Some((&rest[..len], start + len))
        }
    }
}

/// Resolves `link`, found in the page `base` (a path), into `path`: set unless the answer is elsewhere or nowhere.
pub(crate) fn resolve<'a>(base: &str, link: &'a str, path: &mut String) -> Target<'a> {
    let link = link.trim_ascii();
    let link = link.split_once('#').map_or(link, |(link, _)| link);
    if link.is_empty() {
        return Target::Nowhere;
    }
    let (target, link) = match split_authority(link) {
        Ok(parts) => parts,
        Err(target) => return target,
    };
    let (link, query) = match link.find('?') {
        Some(at) => link.split_at(at),
        None => (link, ""),
    };
    let base = base.split_once('?').map_or(base, |(base, _)| base);
    path.clear();
    if target != Target::Here || link.starts_with('/') {
        path.push('/');
    } else if link.is_empty() {
        path.push_str(base);
    } else {
        path.push_str(&base[..base.rfind('/').map_or(0, |at| at + 1)]);
    }
    // `path` ends in a slash before each segment.
    let mut segments = link.strip_prefix('/').unwrap_or(link).split('/').peekable();
    while let Some(segment) = segments.next() {
        match segment {
            "." => {}
            ".." => {
                path.pop();
                path.truncate(path.rfind('/').map_or(0, |at| at + 1));
                if path.is_empty() {
                    path.push('/');
                }
            }
            _ => {
                push_clean(path, segment);
                if segments.peek().is_some() {
                    path.push('/');
                }
            }
        }
    }
    push_clean(path, query);
    target
}

/// Takes `scheme://authority` or `//authority` off a link.
fn split_authority(link: &str) -> Result<(Target<'_>, &str), Target<'_>> {
    let after = if let Some(rest) = link.strip_prefix("//") {
        rest
    } else {
        let colon = link.bytes().position(|b| matches!(b, b':' | b'/' | b'?'));
        match colon
            .filter(|&at| link.as_bytes()[at] == b':')
            .map(|at| link.split_at(at))
        {
            None => return Ok((Target::Here, link)),
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => match rest.strip_prefix("://") {
                Some(rest) => rest,
                None => return Err(Target::Nowhere),
            },
            Some((scheme, _)) if scheme.eq_ignore_ascii_case("https") => return Err(Target::Elsewhere),
            Some(_) => return Err(Target::Nowhere),
        }
    };
    let end = after.find(['/', '?']).unwrap_or(after.len());
    let (authority, path) = after.split_at(end);
    Ok((Target::There(authority.strip_suffix(":80").unwrap_or(authority)), path))
}

/// Appends what may stand in a request line as it is, `&amp;` as `&`, and all else percent-encoded.
fn push_clean(path: &mut String, text: &str) {
    let is_clean = |b: u8| b.is_ascii_graphic() && b != b'"' && b != b'<' && b != b'>';
    if text.bytes().all(|b| is_clean(b) && b != b'&') {
        return path.push_str(text);
    }
    for b in text.replace("&amp;", "&").bytes() {
        if is_clean(b) {
            path.push(char::from(b));
        } else {
            let hex = |digit: u8| char::from(b"0123456789ABCDEF"[usize::from(digit)]);
            path.extend(['%', hex(b >> 4), hex(b & 15)]);
        }
    }
}

/// Whether a path looks as if there were a page: not a style sheet, a picture, an archive.
pub(crate) fn may_be_page(path: &str) -> bool {
    const OTHER: &[&str] = &[
        "css", "js", "json", "png", "jpg", "jpeg", "gif", "svg", "ico", "webp", "woff", "woff2", "ttf", "pdf", "zip",
        "gz", "xz", "tar", "mp4", "mp3", "xml", "txt", "map", "wasm", "rs",
    ];
    let path = path.split_once('?').map_or(path, |(path, _)| path);
    if path.ends_with(".html") {
        return true;
    }
    let name = path.rsplit_once('/').map_or(path, |(_, name)| name);
    let ending = name.rsplit_once('.').map(|(_, ending)| ending);
    !ending.is_some_and(|ending| OTHER.iter().any(|other| ending.eq_ignore_ascii_case(other)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hrefs(html: &str) -> Vec<&str> {
        let mut all = Vec::new();
        each_href(html.as_bytes(), |href| all.push(href));
        all
    }

    #[test]
    fn hrefs_are_found() {
        assert_eq!(hrefs(r#"<a href="a">x</a><A class='c' HREF = 'b'>"#), ["a", "b"]);
        assert_eq!(hrefs("<a href=c><a href=d class=e>"), ["c", "d"]);
        assert_eq!(
            hrefs(r#"<a data-href="no"><a href><a xhref="no"> href="never closed"#),
            [""; 0]
        );
        assert_eq!(hrefs(r#"<link href="a.css">"<a href=\"x\">" href="y""#), [""; 0]);
        assert_eq!(hrefs(""), [""; 0]);
        assert_eq!(hrefs("href"), [""; 0]);
    }

    #[test]
    fn hrefs_are_found_wherever_they_stand() {
        for before in 0..100 {
            for after in [0, 1, 50] {
                let html = format!("{}<a href=\"x\"{}", "h".repeat(before), "f".repeat(after));
                assert_eq!(hrefs(&html), ["x"], "{before} {after}");
            }
        }
    }

    #[test]
    fn links_are_resolved() {
        let cases = [
            ("/a/b.html", "c.html", "/a/c.html"),
            ("/a/b.html", "../c.html#x", "/c.html"),
            ("/a/b.html", "../../../c", "/c"),
            ("/a/b.html", "./d/./e/", "/a/d/e/"),
            ("/a/b.html", "..", "/"),
            ("/a/b/", "x/../y", "/a/b/y"),
            ("/a/b.html", "/x/y", "/x/y"),
            ("/a/b.html?q=/z", "c", "/a/c"),
            ("/a/b.html", "?q=../1", "/a/b.html?q=../1"),
            ("/a/", "b c\r\nd\u{e9}", "/a/b%20c%0D%0Ad%C3%A9"),
            ("/", "a?x=1&amp;y=2", "/a?x=1&y=2"),
            ("/", "  a ", "/a"),
            ("/", "a/b:c", "/a/b:c"),
        ];
        for (base, link, expected) in cases {
            let mut path = String::from("old");
            assert_eq!(resolve(base, link, &mut path), Target::Here, "{link}");
            assert_eq!(path, expected, "{base} + {link}");
        }
    }

    #[test]
    fn other_hosts_are_told() {
        let mut path = String::new();
        let mut at = |link: &'static str| (resolve("/a/b", link, &mut path), path.clone());
        assert_eq!(at("http://h:8/x"), (Target::There("h:8"), String::from("/x")));
        assert_eq!(at("HTTP://h:80"), (Target::There("h"), String::from("/")));
        assert_eq!(at("//h?q").0, Target::There("h"));
        assert_eq!(at("https://h/").0, Target::Elsewhere);
        for nowhere in ["", "#x", "mailto:a@b", "javascript:x/y", "data:,x", "http:x"] {
            assert_eq!(at(nowhere).0, Target::Nowhere, "{nowhere}");
        }
    }

    #[test]
    fn pages_are_told_from_other_files() {
        assert!(
            ["/", "/a", "/a.html", "/a.b/c", "/a.html?x.css", "/v1.2/"]
                .into_iter()
                .all(may_be_page)
        );
        assert!(!["/a.css", "/a/b.PNG", "/x.tar.gz?y"].into_iter().any(may_be_page));
    }
}
