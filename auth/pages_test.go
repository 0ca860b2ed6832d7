package auth_test

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"html"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"
	"testing"

	"github.com/bedplate/bedplate/auth"
)

const pages = "/_/auth"

// visitor returns a browser that says what browsers say.
func (s *site) visitor(t testing.TB) *browser {
	return s.browser(t).with("Accept", "text/html,application/xhtml+xml,*/*;q=0.8").with("Sec-Fetch-Site", "same-origin")
}

// A pageForm is a form as a browser reads it.
type pageForm struct {
	action string
	values url.Values
}

var (
	formTag  = regexp.MustCompile(`(?s)<form method="post"(?: action="([^"]*)")?>(.*?)</form>`)
	inputTag = regexp.MustCompile(`(?s)<input\s([^>]*)>`)
	attr     = regexp.MustCompile(`(?s)([a-z-]+)="([^"]*)"`)
)

// readForms returns the forms of the page at path.
func readForms(path, body string) (forms []pageForm) {
	for _, m := range formTag.FindAllStringSubmatch(body, -1) {
		f := pageForm{action: html.UnescapeString(m[1]), values: url.Values{}}
		if f.action == "" {
			f.action = path
		}
		for _, in := range inputTag.FindAllStringSubmatch(m[2], -1) {
			attrs := map[string]string{}
			for _, a := range attr.FindAllStringSubmatch(in[1], -1) {
				attrs[a[1]] = html.UnescapeString(a[2])
			}
			f.values.Set(attrs["name"], attrs["value"])
		}
		forms = append(forms, f)
	}
	return forms
}

// onlyForm returns the form of a page that has one.
func onlyForm(t testing.TB, path string, r reply) pageForm {
	t.Helper()
	forms := readForms(path, r.body)
	if r.status != 200 || len(forms) != 1 {
		t.Fatalf("%s: %d with %d forms: %s", path, r.status, len(forms), r.body)
	}
	return forms[0]
}

// submit opens a page, fills its form in, sends it and returns the answer.
func (b *browser) submit(path string, pairs ...string) reply {
	b.t.Helper()
	return b.send(onlyForm(b.t, path, b.get(path)), pairs...)
}

func (b *browser) send(f pageForm, pairs ...string) reply {
	b.t.Helper()
	for i := 0; i+1 < len(pairs); i += 2 {
		if !f.values.Has(pairs[i]) {
			b.t.Fatalf("form %s has no field %q: %v", f.action, pairs[i], f.values)
		}
		f.values.Set(pairs[i], pairs[i+1])
	}
	return b.do("POST", f.action, "application/x-www-form-urlencoded", f.values.Encode())
}

// follow opens where an answer leads, and further on, and returns the last
// answer and its path.
func (b *browser) follow(r reply) (reply, string) {
	b.t.Helper()
	path := ""
	for hops := 0; r.status == 303; hops++ {
		if path = r.location(); hops == 5 || !strings.HasPrefix(path, "/") {
			b.t.Fatalf("leads to %q", path)
		}
		r = b.get(path)
	}
	return r, path
}

// wantPage checks that r is a page with a text.
func wantPage(t testing.TB, what string, r reply, text string) {
	t.Helper()
	if r.status != 200 || !strings.Contains(r.body, text) {
		t.Errorf("%s: %d, want a page with %q, got %s", what, r.status, text, r.body)
	}
}

// A pageProvider is a provider that nobody visits.
type pageProvider struct{}

func (pageProvider) Provider() auth.Provider {
	return auth.Provider{Name: "acme", Display: `Acme <&"Co">`, Number: 99, Issuer: "https://acme.example"}
}

func (pageProvider) AuthURL(_ context.Context, req auth.AuthRequest) (string, error) {
	return "https://acme.example/authorize?state=" + req.State, nil
}

func (pageProvider) Exchange(context.Context, string, auth.AuthRequest) (auth.Identity, error) {
	return auth.Identity{}, auth.ErrUnauthorized
}

const pageToken = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUV"

// openPages are the pages that everybody can open, and where their forms go.
var openPages = []struct{ path, action string }{
	{"/login", api + "/login"},
	{"/login_mfa?mfa_token=" + pageToken, api + "/login_mfa"},
	{"/otp/request", api + "/otp/request"},
	{"/otp/login", api + "/otp/login"},
	{"/register", api + "/register"},
	{"/reset_password/request", api + "/reset_password/request"},
	{"/reset_password/update/" + pageToken, api + "/reset_password/update"},
	{"/logout", pages + "/logout"},
	{"/setup/" + pageToken, api + "/setup"},
}

func TestPages(t *testing.T) {
	t.Parallel()
	s := newSite(t, auth.Config{
		AppName: `<b>&"App'`, OTP: true, Identifier: auth.RequireUsername, Providers: []auth.IdentityProvider{pageProvider{}},
	})
	for _, p := range openPages {
		r := s.visitor(t).get(pages + p.path)
		checkPage(t, p.path, r)
		if f := onlyForm(t, pages+p.path, r); f.action != p.action {
			t.Errorf("%s: form goes to %q, want %q", p.path, f.action, p.action)
		}
		head := s.visitor(t).do("HEAD", pages+p.path, "", "")
		if head.status != 200 || head.body != "" || head.header.Get("Content-Security-Policy") != r.header.Get("Content-Security-Policy") {
			t.Errorf("HEAD %s: %d %q", p.path, head.status, head.body)
		}
	}
	for _, path := range []string{"/profile", "/change_password"} {
		s.visitor(t).get(pages+path).wantRedirect(t, path, pages+"/login?redirect_uri="+url.QueryEscape(pages+path))
	}
	r := s.visitor(t).get(pages + "/login")
	for _, want := range []string{
		`href="/api/auth/v1/oauth/acme/login?redirect_uri=%2F_%2Fauth%2Fprofile"`, `Acme &lt;&amp;&#34;Co&#34;&gt;`,
		`href="/_/auth/register"`, `href="/_/auth/otp/request"`, `href="/_/auth/reset_password/request"`,
		`autocomplete="username"`, `autocomplete="current-password"`,
	} {
		wantPage(t, "login", r, want)
	}
	wantPage(t, "login_mfa", s.visitor(t).get(pages+"/login_mfa?mfa_token="+pageToken), `autocomplete="one-time-code"`)
	wantPage(t, "register", s.visitor(t).get(pages+"/register"), `autocomplete="new-password"`)
}

// checkPage checks what holds for every page.
func checkPage(t testing.TB, what string, r reply) {
	t.Helper()
	for name, want := range map[string]string{
		"Content-Type":               "text/html; charset=utf-8",
		"Cache-Control":              "no-store",
		"Referrer-Policy":            "same-origin",
		"X-Content-Type-Options":     "nosniff",
		"Cross-Origin-Opener-Policy": "same-origin",
	} {
		if got := r.header.Get(name); got != want {
			t.Errorf("%s: header %s is %q, want %q", what, name, got, want)
		}
	}
	_, style, _ := strings.Cut(r.body, "<style>")
	style, _, _ = strings.Cut(style, "</style>")
	sum := sha256.Sum256([]byte(style))
	policy := r.header.Get("Content-Security-Policy")
	for _, want := range []string{
		"default-src 'none'; ", "style-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'; ", "form-action 'self'",
		"frame-ancestors 'none'", "base-uri 'none'",
	} {
		if !strings.Contains(policy, want) {
			t.Errorf("%s: policy %q without %q", what, policy, want)
		}
	}
	if len(style) < 1000 || !strings.Contains(style, "prefers-color-scheme: dark") {
		t.Errorf("%s: style sheet %q", what, style)
	}
	rest := strings.Replace(r.body, style, "", 1)
	if bad := regexp.MustCompile(`(?i)<script|<b>|style=|\son[a-z]+=|javascript:|ZgotmplZ|<nil>|<no value>`).FindString(rest); bad != "" {
		t.Errorf("%s: %q in %s", what, bad, rest)
	}
	for _, in := range inputTag.FindAllStringSubmatch(r.body, -1) {
		id := regexp.MustCompile(`^id="([^"]+)"`).FindStringSubmatch(in[1])
		if id == nil && !strings.HasPrefix(in[1], `type="hidden"`) || id != nil && !strings.Contains(r.body, `<label for="`+id[1]+`">`) {
			t.Errorf("%s: input without label: %s", what, in[0])
		}
	}
}

func TestPagesThatAreOff(t *testing.T) {
	t.Parallel()
	s := newSite(t, auth.Config{NoPasswords: true})
	b := s.visitor(t)
	for _, path := range []string{
		"/otp/request", "/otp/login", "/register", "", "/", "/login/", "/x", "/setup/", "/setup/a.b", "/setup/" + strings.Repeat("a", 200),
		"/reset_password/update/", "/reset_password/update/%3Cb%3E", "/setup/a/b/c/d",
	} {
		r := b.get(pages + path)
		if path == "" {
			continue // the mux's
		}
		r.want(t, "page "+path, 404, "")
	}
	r := b.form(pages + "/login")
	r.want(t, "POST login", 405, "")
	if r.header.Get("Allow") != "GET" {
		t.Errorf("Allow %q", r.header.Get("Allow"))
	}
	b.get(pages+"/profile/revoke").want(t, "GET revoke", 405, "")
	if body := b.get(pages + "/login").body; strings.Contains(body, "/register") || strings.Contains(body, "/otp/") {
		t.Errorf("links to pages that are off: %s", body)
	}
}

// What a query says is shown as text or not at all.
func TestPagesHostileQuery(t *testing.T) {
	t.Parallel()
	s := newSite(t, auth.Config{OTP: true, RedirectSchemes: []string{"my-app"}})
	evil := `"><script>alert(1)</script><b x='` + "\u202e\n\x00" + strings.Repeat("x", 5000)
	query := url.Values{}
	for _, name := range []string{"alert", "email", "username", "code", "x"} {
		query.Set(name, evil)
	}
	query.Set("redirect_uri", `/a?b="><b>'&amp;`)
	query.Set("redirect_uri", `my-app:/x?"><script>'&amp;`)
	for _, p := range openPages {
		path := pages + p.path + "?"
		if strings.Contains(p.path, "?") {
			path = pages + p.path + "&"
		}
		r := s.visitor(t).get(path + query.Encode())
		checkPage(t, p.path, r)
		if r.status != 200 || len(r.body) > 12000 || !strings.Contains(r.body, "&lt;script&gt;alert(1)") || strings.ContainsAny(r.body, "\u202e\x00") {
			t.Errorf("%s: %d, %d bytes: %s", p.path, r.status, len(r.body), r.body)
		}
		if f := onlyForm(t, path, r); strings.HasPrefix(p.action, pages) && f.values.Get("redirect_uri") != query.Get("redirect_uri") {
			t.Errorf("%s: target became %q", p.path, f.values.Get("redirect_uri"))
		}
	}
	b := s.visitor(t)
	r := b.get(pages + "/login_mfa?mfa_token=" + url.QueryEscape(evil))
	r.wantRedirect(t, "token that is none", pages+"/login")
	b.get(pages+"/login?%zz").want(t, "query", 400, "*")
	r = s.visitor(t).with("Sec-Fetch-Site", "cross-site").get(pages + "/login?alert=Call+us+now")
	if r.status != 200 || strings.Contains(r.body, "Call us") {
		t.Errorf("another site has put a message on the page: %d %s", r.status, r.body)
	}
	wantPage(t, "message", b.get(pages+"/login?alert=Call+us+now"), `<p class="alert" role="alert">Call us now</p>`)
}

func TestC6_PagesRedirects(t *testing.T) {
	t.Parallel()
	s := newSite(t, auth.Config{OTP: true})
	for _, p := range openPages {
		if strings.HasPrefix(p.path, "/setup") {
			continue // goes nowhere else
		}
		separator := "?"
		if strings.Contains(p.path, "?") {
			separator = "&"
		}
		for _, uri := range []string{
			"//evil.example", `/\evil.example`, "https:evil.example", "https://site.example@evil.example", "http://site.example.evil.example",
			"/%2f%2fevil.example", "/\tx", "/\r\nx", "javascript:alert(1)", "data:text/html,x", "https://site.example", "my-app:/x",
			"http://site.example:81/", "relative", strings.Repeat("/x", 2000),
		} {
			r := s.browser(t).get(pages + p.path + separator + "redirect_uri=" + url.QueryEscape(uri))
			if r.status != 400 || strings.Contains(r.body, "evil") {
				t.Errorf("%s, %q: %d %s", p.path, uri, r.status, r.body)
			}
		}
	}
	for _, query := range []string{
		"response_type=code", "response_type=x", "response_type=code&redirect_uri=/a", "response_type=code&redirect_uri=/a&pkce_code_challenge=x",
		"pkce_code_challenge=" + strings.Repeat("a", 43), "mfa_redirect_uri=//evil.example", "err_redirect_uri=//evil.example",
	} {
		if r := s.browser(t).get(pages + "/login?" + query); r.status != 400 {
			t.Errorf("%s: %d", query, r.status)
		}
	}
}

// Browsers that apply form-action to redirects let those through that were
// checked, and no others.
func TestPagesFormAction(t *testing.T) {
	t.Parallel()
	s := newSite(t, auth.Config{
		OTP: true, RedirectSchemes: []string{"my-app"},
		RedirectURIs: []string{"https://other.example:8443/cb", "https://a;b.example/x", "com.example://cb/"},
	})
	for uri, want := range map[string]string{
		"":                              "'self'",
		"/a?b=https://evil.example":     "'self'",
		"my-app:/x":                     "'self' my-app:",
		"my-app://host/x":               "'self' my-app:",
		"https://other.example:8443/cb": "'self' https://other.example:8443",
		"com.example://cb/":             "'self' com.example:",
		siteURL + "/x":                  "'self' " + siteURL,
		"https://a;b.example/x":         "'self'",
	} {
		confirm := api + "/verify_email/confirm/x"
		for _, page := range []string{"/login", "/login_mfa?mfa_token=" + pageToken, "/otp/login", "/reset_password/update/x", "/logout", confirm} {
			path := page
			if page != confirm {
				path = pages + page
			}
			separator := "?"
			if strings.Contains(path, "?") {
				separator = "&"
			}
			r := s.browser(t).get(path + separator + "redirect_uri=" + url.QueryEscape(uri))
			if policy := r.header.Get("Content-Security-Policy"); r.status != 200 || !strings.Contains(policy, "; form-action "+want+";") {
				t.Errorf("%s, %q: %d, policy %q, want %s", page, uri, r.status, policy, want)
			}
		}
	}
}

// The pages may be seen under another path than their public one.
func TestPagesPrefix(t *testing.T) {
	t.Parallel()
	s := newSite(t, auth.Config{Prefix: "/a/api", PagesPrefix: "/a/pages"})
	mux := http.NewServeMux()
	mux.Handle("/a/", http.StripPrefix("/a", s.PagesAt("/pages")))
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	b := s.browser(t)
	b.base = server.URL
	r := b.get("/a/pages/login")
	if f := onlyForm(t, "", r); f.action != "/a/api/login" || f.values.Get("redirect_uri") != "/a/pages/profile" || f.values.Get("err_redirect_uri") != "/a/pages/login" {
		t.Errorf("form %+v", f)
	}
	wantPage(t, "links", r, `href="/a/pages/register"`)
	b.get("/a/pages/profile").wantRedirect(t, "profile", "/a/pages/login?redirect_uri=%2Fa%2Fpages%2Fprofile")
	b.get("/pages/login").want(t, "outside", 404, "*")
}

// Errors are for people where people are browsing, and as in the contract
// everywhere else.
func TestErrorPages(t *testing.T) {
	t.Parallel()
	s := newSite(t, auth.Config{})
	b := s.visitor(t)
	r := b.form(api+"/login", "email", "ada@example.com", "password", "x")
	checkPage(t, "error", r)
	if r.status != 401 || !strings.Contains(r.body, "password or code is wrong") {
		t.Errorf("sign-in of a browser: %d %s", r.status, r.body)
	}
	r = b.form(api + "/verify_email/confirm/" + pageToken)
	if r.status != 400 || !strings.Contains(r.body, "This link is too old or was used before.") {
		t.Errorf("old link: %d %s", r.status, r.body)
	}
	r = b.with("Sec-Fetch-Site", "cross-site").form(api+"/login", "email", "ada@example.com", "password", "x")
	if r.status != 403 || !strings.Contains(r.body, "another site") {
		t.Errorf("form of another site: %d %s", r.status, r.body)
	}
	program := s.browser(t)
	program.form(api+"/login", "email", "ada@example.com", "password", "x").want(t, "program", 401, "")
	program.form(api+"/verify_email/confirm/"+pageToken).want(t, "program", 400, "invalid token")
	b.get(api+"/nothing").want(t, "unknown path", 404, "")
	b.get(api+"/login").want(t, "method", 405, "")
	b.with("Authorization", "Bearer x").form(api+"/change_password").want(t, "bearer", 401, "")
}
