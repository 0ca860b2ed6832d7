package auth

import (
	"net/url"
	"strings"
	"testing"
	"unicode/utf8"
)

// FuzzRedirectTarget checks what is accepted as browsers read it, by the rules
// of the URL standard that differ from Go's: backslashes are slashes, tabs and
// line breaks vanish, spaces at the ends too.
func FuzzRedirectTarget(f *testing.F) {
	for _, s := range []string{
		"/", "/a?b=c#d", "//evil.example", "/\\evil.example", "/\t/evil.example", "https://site.example/x", "https://site.example:443/",
		"https:site.example", "https:///evil.example", "https://site.example@evil.example", "myapp://x", "javascript:alert(1)", "/%2f%2fevil",
		"/a/../..//evil.example", "https://allowed.example/cb", "https://allowed.example/cb2", " /", "/\u2028/", "/api/auth/v1/logout",
	} {
		f.Add(s)
	}
	site, err := url.Parse("https://site.example")
	if err != nil {
		f.Fatal(err)
	}
	s := &Service{site: site, cfg: Config{
		SiteURL: "https://site.example", Prefix: "/api/auth/v1",
		RedirectURIs: []string{"https://allowed.example/cb"}, RedirectSchemes: []string{"myapp"},
	}}
	f.Fuzz(func(t *testing.T, uri string) {
		target, err := s.redirectTarget(uri)
		if err != nil {
			return
		}
		if target != uri {
			t.Errorf("%q became %q", uri, target)
		}
		read := strings.Map(func(c rune) rune {
			switch c {
			case '\t', '\n', '\r':
				return -1
			case '\\':
				return '/'
			}
			return c
		}, strings.Trim(uri, "\x00\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\x0c\x0d\x0e\x0f\x10\x11\x12\x13\x14\x15\x16\x17\x18\x19\x1a\x1b\x1c\x1d\x1e\x1f "))
		lower := strings.ToLower(read)
		switch {
		case uri == "https://allowed.example/cb":
		case strings.HasPrefix(read, "/") && !strings.HasPrefix(read, "//"):
		case lower == "https://site.example", strings.HasPrefix(lower, "https://site.example/"), strings.HasPrefix(lower, "https://site.example?"),
			strings.HasPrefix(lower, "https://site.example#"):
		case strings.HasPrefix(lower, "myapp:"):
		default:
			t.Errorf("%q leads elsewhere", uri)
		}
	})
}

func FuzzCleanUsername(f *testing.F) {
	for _, s := range []string{"ada", "Ada99", "9lives", "ÉÉÉ", "ﬁx1", "аdа", "日本ー語", "İstanbul", "ab\x00c", strings.Repeat("x", 300)} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		name, err := cleanUsername(s)
		if err != nil {
			return
		}
		if again, err := cleanUsername(name); err != nil || again != name {
			t.Errorf("%q became %q, and that %q (%v)", s, name, again, err)
		}
		if !utf8.ValidString(name) || len(name) < 3 || len(name) > 32 || strings.ContainsAny(name, "@ \x00") {
			t.Errorf("%q became %q", s, name)
		}
	})
}
