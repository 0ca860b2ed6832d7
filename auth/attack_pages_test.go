package auth_test

import (
	"crypto/sha256"
	"encoding/base64"
	"net/http/httptest"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/bedplate/bedplate/auth"
	"github.com/bedplate/bedplate/internal/httpx"
)

// Every route is in the table, so that none is forgotten by the attacks below.
func TestC10_EveryRouteIsAttacked(t *testing.T) {
	t.Parallel()
	var known []string
	for _, r := range attackedRoutes {
		known = append(known, r.route)
		if method, _, _ := strings.Cut(r.route, " "); method != "GET" && (r.kind == reads || r.kind == renews || r.kind == open || r.kind == guarded) {
			t.Errorf("%s is not for GET", r.route)
		}
	}
	found := routesInCode(t)
	if len(found) < 40 {
		t.Fatalf("only %d routes found", len(found))
	}
	slices.Sort(known)
	slices.Sort(found)
	if !slices.Equal(known, found) {
		for _, r := range found {
			if !slices.Contains(known, r) {
				t.Errorf("%s is not in the table", r)
			}
		}
		for _, r := range known {
			if !slices.Contains(found, r) {
				t.Errorf("%s is in the table only", r)
			}
		}
	}
}

// foreign is what browsers say of a request that a page of another site has
// made them send, with and without https.
var foreign = [][2]string{
	{"Sec-Fetch-Site", "cross-site"}, {"Sec-Fetch-Site", "same-site"},
	{"Origin", "https://evil.example"}, {"Origin", "null"}, {"Origin", siteURL + ".evil.example"}, {"Origin", "https://site.example"},
}

// Pages of other sites and of sibling hosts make the victim's browser send
// everything that they can. Nothing changes, and nobody is signed in. The same
// request from a page of ours does what it is for.
func TestC9_C10_CrossSiteRequests(t *testing.T) {
	t.Parallel()
	s := attackedSite(t)
	for i, route := range attackedRoutes {
		method, path, _ := strings.Cut(strings.TrimSuffix(route.route, " (page)"), " ")
		v := s.newVictim(t, i)
		req := sent{}
		if route.use != nil {
			req = route.use(t, v)
		}
		if req.path == "" {
			req.path = concrete(route.route, path, v)
		}
		s.settle(t)
		but := ""
		if route.kind == renews {
			but = "_refresh_token"
		}
		before := s.state(t, but)
		check := func(what string, r reply, statuses ...int) {
			t.Helper()
			if !slices.Contains(statuses, r.status) && len(statuses) > 0 {
				t.Errorf("%s, %s: %d %q", route.route, what, r.status, r.body)
			}
			if c := cookies(r)["auth_token"]; c != nil && route.kind != renews {
				t.Errorf("%s, %s: signs in or out: %v", route.route, what, c)
			}
		}
		plain := v.with("Accept", "*/*")
		plain.header.Del("Sec-Fetch-Site")
		for _, h := range foreign {
			b := plain.with(h[0], h[1])
			what := h[0] + " " + h[1]
			// Links, images and redirects have no origin.
			if h[0] == "Sec-Fetch-Site" && route.kind != open {
				if h[1] == "same-site" && req.path == api+"/oauth/acme/login" {
					continue // where the application may be
				}
				statuses := []int{405}
				if method == "GET" || hasGET(route.route) {
					statuses = nil
				}
				for _, tried := range []string{"GET", "HEAD"} {
					check(tried+" "+what, b.with("X-HTTP-Method-Override", method).do(tried, req.path, "", ""), statuses...)
				}
			}
			if method == "GET" {
				continue
			}
			values := url.Values{}
			for i := 0; i+1 < len(req.form); i += 2 {
				values.Set(req.form[i], req.form[i+1])
			}
			refused := []int{403}
			switch {
			case route.kind == jsonOnly:
				refused = []int{415}
			case route.kind == capable:
				refused = []int{400} // the token is none
			}
			check("form, "+what, b.do(method, req.path, "application/x-www-form-urlencoded", values.Encode()), refused...)
			contentType, body := multipartForm(t, values)
			check("multipart, "+what, b.do(method, req.path, contentType, body), refused...)
			check("file, "+what, v.upload(t, b, req.path))
			query := req.path
			if len(values) > 0 {
				query += "?" + values.Encode()
			}
			check("query, "+what, b.do(method, query, "", ""), refused...)
			if route.kind == form {
				refused = []int{400} // it is not even read
			}
			check("text, "+what, b.do(method, req.path, "text/plain", req.text(t)), refused...)
			if route.kind == acts {
				check("JSON, "+what, b.do(method, req.path, "application/json", req.text(t)), 403)
			}
		}
		s.settle(t)
		if after := s.state(t, but); after != before {
			t.Errorf("%s: changed\n%s\nto\n%s", route.route, before, after)
			before = after
		}
		if route.kind == reads || route.kind == renews || route.kind == capable {
			continue
		}
		// From here it works.
		var r reply
		own := v.with("Sec-Fetch-Site", "same-origin")
		switch {
		case req.file:
			r = v.upload(t, own, req.path)
		case req.json != nil:
			r = own.post(req.path, req.json)
		case req.form != nil:
			r = own.form(req.path, req.form...)
		default:
			r = own.do(method, req.path, "", "")
		}
		if r.status != 200 && r.status != 303 || s.state(t, "") == before {
			t.Errorf("%s: the request of this site does nothing: %d %s", route.route, r.status, r.body)
		}
		if r.header.Get("Cache-Control") != "no-store" || r.header.Get("Referrer-Policy") != "no-referrer" {
			t.Errorf("%s: Cache-Control %q, Referrer-Policy %q", route.route, r.header.Get("Cache-Control"), r.header.Get("Referrer-Policy"))
		}
		s.settle(t)
	}
}

// Wherever a request says where to go next, on every route and page, and in
// the body as well as in the query: nobody is sent to another site.
func TestC6_RedirectsOfEveryRoute(t *testing.T) {
	if testing.Short() {
		t.Skip("-short: some thousand requests, one after the other")
	}
	t.Parallel()
	s := attackedSite(t)
	hostile := []string{
		"//evil.example", "///evil.example", `/\evil.example`, `\\evil.example`, "https:evil.example", "https:/evil.example", "http:///evil.example",
		siteURL + "@evil.example", "http://site.example:80@evil.example", siteURL + ".evil.example", siteURL + ":81/", "https://site.example",
		"HTTP://SITE.EXAMPLE.evil.example", "http://s\u0456te.example", "http://xn--ste-xyz.example", "/%2f%2fevil.example", "/%2F/evil.example",
		"/%5cevil.example", "/%09/evil.example", "/\t/evil.example", "/a\r\nSet-Cookie: x=y", "/%0d%0aSet-Cookie:x=y", "javascript:alert(1)",
		"JaVaScRiPt:alert(1)", "data:text/html,x", "app:javascript", "apps://x", "https://listed.example/cb?x=1&y=2", "https://listed.example/cb",
		"https://listed.example.evil.example/cb?x=1", "https://other.example:8443/", "evil.example", "?x", "#x", " /", "/ ", ".", "/../x", "/x/..//evil.example",
		"/.//evil.example", strings.Repeat("/x", 1025),
		// What would act for who is signed in by then.
		api + "/logout", api + "/oauth/acme/login", siteURL + api + "/logout", "/%61pi/auth/v1/logout", "/api//auth/v1/logout", "/api/./auth/v1/logout",
	}
	v := s.newVictim(t, 0)
	for i, route := range attackedRoutes {
		method, path, _ := strings.Cut(strings.TrimSuffix(route.route, " (page)"), " ")
		target := concrete(route.route, path, v)
		if method == "DELETE" {
			continue // and nothing else; its answer has no place for a redirect
		}
		switch route.route {
		case "GET /login_mfa":
			target += "?mfa_token=" + pageToken
		case "GET /verify_email/trigger":
			target += "?email=" + v.email
		}
		for _, name := range []string{"redirect_uri", "mfa_redirect_uri", "err_redirect_uri"} {
			for _, uri := range hostile {
				pairs := url.Values{
					name: {uri}, "email": {"x-" + v.email}, "password": {good}, "password_repeat": {good}, "old_password": {"wrong"},
					"new_password": {good}, "totp": {"000000"}, "mfa_token": {pageToken}, "code": {"AAAAAA"}, "password_reset_token": {pageToken},
				}
				query := target + "?" + url.Values{name: {uri}}.Encode()
				if strings.Contains(target, "?") {
					query = target + "&" + url.Values{name: {uri}}.Encode()
				}
				replies := []reply{v.do(method, query, "application/x-www-form-urlencoded", "x=y")}
				if method == "POST" {
					replies = append(replies, v.do(method, target, "application/x-www-form-urlencoded", pairs.Encode()))
				}
				for _, r := range replies {
					at := r.location()
					if strings.HasPrefix(at, "/") && !strings.HasPrefix(at, "//") && !strings.Contains(at, "evil.example") && !strings.HasPrefix(at, api) ||
						at == "" || at == "https://acme.example/authorize?state="+param(t, at, "state") {
						continue
					}
					t.Errorf("%s, %s %q: %d to %q", route.route, name, uri, r.status, at)
				}
			}
		}
		if r := v.get("/whoami"); r.body == "anonymous" { // logout and delete are among the routes
			v = s.newVictim(t, i+1)
		}
	}
}

// What the pages of other origins may read, with the CORS of the reference
// server in each of its settings: never with cookies.
func TestC11_ReferenceServerCORS(t *testing.T) {
	t.Parallel()
	s := newSite(t, auth.Config{})
	s.addUser(t, "ada@example.com")
	b := s.visitor(t)
	want(t, "login", b.form(api+"/login", "email", "ada@example.com", "password", good), 200, "logged in")
	for _, test := range []struct {
		allowed []string
		origin  string
		want    bool
	}{
		{nil, "https://app.example", false},
		{[]string{"https://app.example"}, "https://app.example", true},
		{[]string{"https://app.example"}, "null", false},
		{[]string{"https://app.example"}, "https://app.example.evil.example", false},
		{[]string{"https://app.example"}, "https://evil-app.example", false},
		{[]string{"https://app.example"}, "https://sub.app.example", false},
		{[]string{"https://app.example"}, "http://app.example", false},
		{[]string{"https://app.example"}, "https://app.example:8443", false},
		{[]string{"https://app.example"}, "https://APP.example", false},
		{[]string{"*"}, "null", true}, // as for everybody: without cookies
		{[]string{"*"}, "https://evil.example", true},
	} {
		cors, err := httpx.NewCORS(test.allowed...)
		if err != nil {
			t.Fatal(err)
		}
		server := httptest.NewServer(cors.Handler(s.At(api)))
		page := *b
		page.base = server.URL // another port, which is none to cookies
		from := page.with("Origin", test.origin).with("Sec-Fetch-Site", "cross-site")
		for _, method := range []string{"GET", "POST", "DELETE", "OPTIONS"} {
			for _, path := range []string{"/status", "/sessions", "/api_keys", "/oauth/identities"} {
				r := from.with("Access-Control-Request-Method", "DELETE").do(method, api+path, "application/json", "{}")
				got := r.header.Get("Access-Control-Allow-Origin")
				if (got != "") != test.want || got != "" && got != test.origin || got == "*" {
					t.Errorf("%v, %s %s from %s: allows %q", test.allowed, method, path, test.origin, got)
				}
				if c, ok := r.header["Access-Control-Allow-Credentials"]; ok {
					t.Errorf("%s %s from %s: credentials %v", method, path, test.origin, c)
				}
				if vary := strings.Join(r.header.Values("Vary"), ","); !strings.Contains(vary, "Origin") {
					t.Errorf("%s %s: Vary %q", method, path, vary)
				}
			}
		}
		server.Close()
	}
	want(t, "whoami", b.get("/whoami"), 200, "ada@example.com")
}

// Answers that carry a code or a token are kept by nobody, and no other site
// gets to know them.
func TestC14_AnswersWithSecrets(t *testing.T) {
	t.Parallel()
	s := attackedSite(t)
	_, d := s.addMFAUser(t, "ada@example.com")
	s.addUser(t, "eve@example.com")
	link, err := s.SetupLink(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	b, eve := s.visitor(t), s.visitor(t)
	sum := sha256.Sum256([]byte(strings.Repeat("v", 43)))
	challenge := base64.RawURLEncoding.EncodeToString(sum[:])
	listed := "https://listed.example/cb?x=1"
	replies := map[string]reply{}
	r := b.form(api+"/login", "email", "ada@example.com", "password", good)
	replies["mfa redirect"] = r
	mfaPage := r.location()
	replies["mfa page"] = b.get(mfaPage + "&redirect_uri=" + url.QueryEscape(listed))
	replies["mfa JSON"] = s.browser(t).post(api+"/login", object{"email": "ada@example.com", "password": good})
	replies["second factor"] = b.form(api+"/login_mfa", "mfa_token", param(t, mfaPage, "mfa_token"), "totp", d.code())
	code := b.form(api+"/login", "email", "eve@example.com", "password", good, "response_type", "code", "redirect_uri", listed, "pkce_code_challenge", challenge)
	replies["code"] = code
	replies["token"] = eve.post(api+"/token", object{"authorization_code": param(t, code.location(), "code"), "pkce_code_verifier": strings.Repeat("v", 43)})
	replies["login form"] = eve.form(api+"/login", "email", "eve@example.com", "password", good, "redirect_uri", listed)
	replies["status"] = eve.get(api + "/status")
	replies["login"] = s.browser(t).post(api+"/login", object{"email": "eve@example.com", "password": good})
	var tokens auth.Tokens
	replies["login"].json(t, &tokens)
	replies["refresh"] = s.browser(t).post(api+"/refresh", object{"refresh_token": tokens.RefreshToken})
	replies["anonymous"] = s.browser(t).post(api+"/login_anonymous", object{})
	replies["API key"] = s.as(t, tokens).post(api+"/api_keys", object{"name": "key", "scopes": []object{{"api": "*", "operations": []string{"*"}}}})
	replies["TOTP secret"] = s.as(t, tokens).get(api + "/totp/register?png=true")
	replies["recovery codes"] = b.form(api+"/totp/recovery_codes", "totp", d.code())
	replies["to the provider"] = b.get(api + "/oauth/acme/login?redirect_uri=" + url.QueryEscape(listed))
	replies["callback"] = b.get(api + "/oauth/acme/callback?code=x&state=" + param(t, replies["to the provider"].location(), "state"))
	replies["setup page"] = b.get(strings.TrimPrefix(link, siteURL))
	replies["reset page"] = b.get(pages + "/reset_password/update/" + pageToken + "?redirect_uri=" + url.QueryEscape(listed))
	replies["confirm page"] = b.get(api + "/verify_email/confirm/" + pageToken + "?redirect_uri=" + url.QueryEscape(listed))
	replies["used link"] = b.form(api + "/verify_email/confirm/" + pageToken + "?redirect_uri=" + url.QueryEscape(listed))
	replies["OTP page"] = b.get(pages + "/otp/login?email=eve@example.com&code=ABCDEF&redirect_uri=" + url.QueryEscape(listed))
	secrets := regexp.MustCompile(`href="(?:https?:)?//`)
	for name, r := range replies {
		if r.status >= 400 && name != "mfa JSON" && name != "callback" && name != "used link" {
			t.Errorf("%s: %d %s", name, r.status, r.body)
		}
		if got := r.header.Get("Cache-Control"); got != "no-store" {
			t.Errorf("%s: Cache-Control %q", name, got)
		}
		policy := "no-referrer"
		if strings.HasPrefix(r.header.Get("Content-Type"), "text/html") {
			policy = "same-origin" // see pageHeader
		}
		if got := r.header.Get("Referrer-Policy"); got != policy {
			t.Errorf("%s: Referrer-Policy %q", name, got)
		}
		if csp := r.header.Get("Content-Security-Policy"); !strings.Contains(csp, "default-src 'none'") || !strings.Contains(csp, "frame-ancestors 'none'") {
			t.Errorf("%s: Content-Security-Policy %q", name, csp)
		}
		if r.header.Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("%s: may be sniffed", name)
		}
		if at := secrets.FindString(r.body); at != "" {
			t.Errorf("%s: links to other places: %s", name, r.body)
		}
		if at := r.location(); strings.HasPrefix(at, "https://listed.example") && name != "code" && at != listed {
			t.Errorf("%s: tells another site %q", name, at)
		}
	}
}

// A message is shown when a redirect of this site has brought it, not when a
// link in a mail or on another site has.
func TestPagesMessagesOfStrangers(t *testing.T) {
	t.Parallel()
	s := newSite(t, auth.Config{})
	for site, shown := range map[string]bool{"same-origin": true, "same-site": false, "cross-site": false, "none": false} {
		r := s.visitor(t).with("Sec-Fetch-Site", site).get(pages + "/login?alert=Call+us+now")
		if r.status != 200 || strings.Contains(r.body, "Call us now") != shown {
			t.Errorf("%s: %d %s", site, r.status, r.body)
		}
	}
}
