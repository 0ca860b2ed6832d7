package auth

import (
	"regexp"
	"strings"
	"unicode"

	"golang.org/x/text/unicode/norm"
)

// A name is what a user is known by: one of the two is set, or in a
// registration both.
type name struct{ email, username string }

// account is what limits count attempts for; two spellings of one name are
// one.
func (n name) account() string {
	if n.email != "" {
		return "email/" + strings.ToLower(n.email)
	}
	return "username/" + strings.ToLower(n.username)
}

// mailbox is what limits count mails for: an address without what follows a
// plus, since one mailbox has all of those.
func (n name) mailbox() string {
	local, domain, _ := strings.Cut(n.email, "@")
	if untagged, _, tagged := strings.Cut(local, "+"); tagged {
		n.email = untagged + "@" + domain
	}
	return n.account()
}

// loginName reads the name from a sign-in or a request for a mail: under
// email_or_username, email or username.
func loginName(f *form) (n name, err error) {
	var either string
	if either = strings.TrimSpace(f.param("email_or_username")); either != "" {
		if strings.Contains(either, "@") {
			n.email = either
		} else {
			n.username = either
		}
	} else if n.email = strings.TrimSpace(f.param("email")); n.email == "" {
		n.username = strings.TrimSpace(f.param("username"))
	}
	switch {
	case n.email != "":
		n.email, err = cleanEmail(n.email)
	case n.username != "":
		n.username, err = cleanUsername(n.username)
	default:
		err = badRequest("missing email or username")
	}
	return n, err
}

// htmlEmail is the syntax of an address in HTML forms
// (https://html.spec.whatwg.org/#valid-e-mail-address). It has no quotes, no
// comments and no characters beyond ASCII.
var htmlEmail = regexp.MustCompile(`^[a-zA-Z0-9.!#$%&'*+/=?^_{|}~` + "`" +
	`-]+@[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?(?:\.[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?)*$`)

// cleanEmail checks an address. It keeps its case; addresses that differ in
// nothing else are the same to the database.
func cleanEmail(s string) (string, error) {
	s = strings.TrimSpace(s)
	if len(s) > 254 || !htmlEmail.MatchString(s) {
		return "", badRequest("Invalid email")
	}
	return s, nil
}

// cleanUsername checks a name and brings it into the form in which it is
// kept: compatibility characters and letters beyond ASCII in lower case, so
// that no two names look alike but for the case of ASCII letters, which the
// database ignores, and all letters of one script.
func cleanUsername(s string) (string, error) {
	if len(s) > 256 {
		return "", badRequest("username too long")
	}
	s = strings.Map(func(c rune) rune {
		if c > unicode.MaxASCII {
			return unicode.ToLower(c)
		}
		return c
	}, norm.NFKC.String(strings.TrimSpace(s)))
	s = norm.NFKC.String(s)
	switch {
	case len(s) < 3:
		return "", badRequest("username too short")
	case len(s) > 32:
		return "", badRequest("username too long")
	}
	var script *unicode.RangeTable
	for i, c := range s {
		switch {
		case unicode.IsLetter(c):
			of := scriptOf(c)
			if script != nil && script != of {
				return "", badRequest("username contains invalid characters")
			}
			script = of
		case unicode.IsDigit(c) && i > 0:
		default:
			return "", badRequest("username contains invalid characters")
		}
	}
	return s, nil
}

// scriptOf returns the script of a letter. Those that are written together in
// East Asia count as one.
func scriptOf(c rune) *unicode.RangeTable {
	for _, script := range []*unicode.RangeTable{unicode.Latin, unicode.Han, unicode.Cyrillic, unicode.Greek} {
		if unicode.Is(script, c) {
			return script
		}
	}
	for _, script := range []*unicode.RangeTable{unicode.Hiragana, unicode.Katakana, unicode.Hangul, unicode.Bopomofo} {
		if unicode.Is(script, c) {
			return unicode.Han
		}
	}
	if unicode.Is(unicode.Common, c) {
		return unicode.Han // such as the Japanese length mark
	}
	for _, script := range unicode.Scripts {
		if unicode.Is(script, c) {
			return script
		}
	}
	return nil
}

// newName reads the names of a new account and checks them against
// Config.Identifier.
func (s *Service) newName(email, username string) (n name, err error) {
	n = name{strings.TrimSpace(email), strings.TrimSpace(username)}
	refuse := func(text string) (name, error) { return name{}, badRequest(text) }
	switch policy := s.cfg.Identifier; {
	case policy == OnlyEmail && n.username != "":
		return refuse("username not allowed")
	case (policy == OnlyEmail || policy == RequireEmail) && n.email == "":
		return refuse("Missing email")
	case policy == OnlyUsername && n.email != "":
		return refuse("Email not allowed")
	case (policy == OnlyUsername || policy == RequireUsername) && n.username == "":
		return refuse("Missing username")
	case policy == RequireEmailAndUsername && n.email == "":
		return refuse("Missing Email")
	case policy == RequireEmailAndUsername && n.username == "":
		return refuse("Missing username")
	}
	if n.email != "" {
		if n.email, err = cleanEmail(n.email); err != nil {
			return name{}, err
		}
	}
	if n.username != "" {
		n.username, err = cleanUsername(n.username)
	}
	return n, err
}
