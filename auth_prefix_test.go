package bedplate_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"
	"testing"

	"github.com/bedplate/bedplate/auth"
)

// K1: everything works below a prefix that the backend only knows from its
// configuration, links in mails and redirects included.
func TestAuthBelowPrefix(t *testing.T) {
	t.Parallel()
	const prefix = "/a/b"
	mails := make(inbox, 10)
	server := httptest.NewUnstartedServer(nil)
	site := "http://" + server.Listener.Addr().String()
	cfg := authConfig(t.TempDir())
	cfg.Auth.SiteURL, cfg.Auth.Prefix, cfg.Auth.PagesPrefix, cfg.Auth.Mailer = site, prefix+"/api/auth/v1", prefix+"/_/auth", mails
	b := open(t, cfg)
	mux := http.NewServeMux()
	mux.Handle(prefix+"/", http.StripPrefix(prefix, b.Handler()))
	mux.Handle("GET /private", b.Auth.Middleware(b.Auth.RequireUser(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, "private page of ", auth.FromContext(r.Context()).Email)
	}))))
	server.Config.Handler = mux
	server.Start()
	defer server.Close()

	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Jar: jar, Timeout: patience}
	send := func(method, target string, form url.Values) (status int, at, body string) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), method, target, strings.NewReader(form.Encode()))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Accept", "text/html")
		if method == http.MethodPost {
			req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		}
		res, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		text, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		return res.StatusCode, res.Request.URL.Path, string(text)
	}
	// crawl follows what a page of ours names, to see that all of it exists.
	seen := map[string]bool{}
	attribute := regexp.MustCompile(`\b(href|action|src)="(/[^"]*)"`)
	var crawl func(page string)
	crawl = func(page string) {
		for _, m := range attribute.FindAllStringSubmatch(page, -1) {
			path, _, _ := strings.Cut(m[2], "?")
			if seen[m[1]+path] {
				continue
			}
			seen[m[1]+path] = true
			if !strings.HasPrefix(path, prefix+"/") {
				t.Errorf("a page leads to %s, outside %s", m[0], prefix)
				continue
			}
			status, _, body := send(http.MethodGet, site+path, nil)
			if m[1] == "action" && status == http.StatusMethodNotAllowed {
				continue
			}
			if status != http.StatusOK && status != http.StatusUnauthorized {
				t.Errorf("a page leads to %s, which answers %d", m[0], status)
			}
			crawl(body)
		}
	}

	for _, path := range []string{"/api/auth/v1", "/_/auth", "/_/auth/", "/_/auth/nowhere", "/api/auth/v1/nowhere"} {
		if status, at, _ := send(http.MethodGet, site+prefix+path, nil); status != 404 || at != prefix+path {
			t.Errorf("%s: %d at %s, want 404", path, status, at)
		}
	}
	status, at, page := send(http.MethodGet, site+"/private", nil)
	if status != 200 || at != prefix+"/_/auth/login" {
		t.Fatalf("without a sign-in: %d at %s", status, at)
	}
	crawl(page)
	if !seen["action"+prefix+"/api/auth/v1/login"] || !seen["href"+prefix+"/_/auth/register"] {
		t.Errorf("the pages lead to %v", seen)
	}

	const email = "ada@example.com"
	send(http.MethodPost, site+prefix+"/api/auth/v1/register", url.Values{"email": {email}, "password": {testPassword}, "password_repeat": {testPassword}})
	link := regexp.MustCompile(`http://\S+/confirm/\w+`).FindString(mails.wait(t).Text)
	if !strings.HasPrefix(link, site+prefix+"/api/auth/v1/verify_email/confirm/") {
		t.Fatalf("link %q in the mail", link)
	}
	if status, _, page = send(http.MethodGet, link, nil); status != 200 || !strings.Contains(page, "<form") {
		t.Errorf("the page behind the link: %d %s", status, page)
	}
	send(http.MethodPost, link, url.Values{})
	if status, at, page = send(http.MethodPost, site+prefix+"/api/auth/v1/login", url.Values{
		"email": {email}, "password": {testPassword}, "redirect_uri": {"/private"},
	}); status != 200 || at != "/private" || page != "private page of "+email {
		t.Errorf("after the sign-in: %d at %s: %s", status, at, page)
	}
	for _, path := range []string{"/_/auth/profile", "/_/auth/logout", "/_/auth/change_password"} {
		status, at, page := send(http.MethodGet, site+prefix+path, nil)
		if status != 200 || at != prefix+path {
			t.Errorf("%s: %d at %s", path, status, at)
		}
		for _, m := range attribute.FindAllStringSubmatch(page, -1) {
			if !strings.HasPrefix(m[2], prefix+"/") {
				t.Errorf("%s leads to %s, outside %s", path, m[0], prefix)
			}
		}
	}
	if status, _, _ = send(http.MethodGet, site+prefix+"/.well-known/jwks.json", nil); status != 200 {
		t.Errorf("keys: %d", status)
	}
	send(http.MethodPost, site+prefix+"/api/auth/v1/reset_password/request", url.Values{"email": {email}})
	link = regexp.MustCompile(`http://\S+/update/\w+`).FindString(mails.wait(t).Text)
	if status, at, _ = send(http.MethodGet, link, nil); status != 200 || !strings.HasPrefix(at, prefix+"/_/auth/reset_password/update/") {
		t.Errorf("the page of a reset link %q: %d at %s", link, status, at)
	}
	if link, err := b.Auth.SetupLink(t.Context()); err != nil || !strings.HasPrefix(link, site+prefix+"/_/auth/setup/") {
		t.Errorf("link for the first administrator %q, %v", link, err)
	} else if status, _, page := send(http.MethodGet, link, nil); status != 200 || !strings.Contains(page, `action="`+prefix+`/api/auth/v1/setup"`) {
		t.Errorf("its page: %d %s", status, page)
	}
}
