package auth_test

import (
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/bedplate/bedplate/auth"
)

func TestBodies(t *testing.T) {
	t.Parallel()
	s := newSite(t, auth.Config{Limits: wideLimits()})
	s.addUser(t, "ada@example.com")
	b := s.browser(t)
	part := func(name, value string) string {
		return "--b\r\nContent-Disposition: form-data; name=\"" + name + "\"\r\n\r\n" + value + "\r\n"
	}
	login := `{"email":"ada@example.com","password":"` + good + `"}`
	form := "email=ada%40example.com&password=" + url.QueryEscape(good)
	multi := part("email", "ada@example.com") + part("password", good)
	for _, test := range []struct {
		name, contentType, body string
		want                    int
	}{
		{"JSON", "application/json", login, 200},
		{"JSON with charset", "application/json; charset=utf-8", login, 200},
		{"JSON with BOM", "application/json", "\ufeff" + login, 400},
		{"JSON and more", "application/json", login + login, 400},
		{"JSON cut", "application/json", login[:len(login)-1], 400},
		{"JSON array", "application/json", "[" + login + "]", 400},
		{"JSON null", "application/json", "null", 400},
		{"JSON empty", "application/json", "", 400},
		{"JSON duplicate", "application/json", `{"email":"eve@example.com",` + login[1:], 400},
		{"JSON escaped duplicate", "application/json", `{"\u0065mail":"eve@example.com",` + login[1:], 400},
		{"JSON other case", "application/json", `{"EMAIL":"eve@example.com",` + login[1:], 200},
		{"JSON deep", "application/json", `{"x":` + strings.Repeat("[", 10_000) + strings.Repeat("]", 10_000) + `,` + login[1:], 400},
		{"JSON many members", "application/json", `{"x":1` + strings.Repeat(`,"x":1`, 5000) + "}", 400},
		{"JSON other members", "application/json", `{"a":1,"b":[1],"c":{"d":null},"e":true,"rotate":"x",` + login[1:], 200},
		{"JSON number for text", "application/json", `{"email":1,"password":"x"}`, 400},
		{"JSON object for text", "application/json", `{"email":{"$gt":""},"password":{"$gt":""}}`, 400},
		{"JSON array for a password", "application/json", `{"email":"ada@example.com","password":["` + good + `"]}`, 401},
		{"JSON null password", "application/json", `{"email":"ada@example.com","password":null}`, 401},
		{"JSON without a name", "application/json", `{"password":"x"}`, 400},
		{"JSON bad address", "application/json", `{"email":"ada","password":"x"}`, 400},
		{"JSON bad name", "application/json", `{"username":"a'--","password":"x"}`, 400},
		{"form", "application/x-www-form-urlencoded", form, 200},
		{"form duplicate", "application/x-www-form-urlencoded", form + "&email=eve%40example.com", 400},
		{"form bad escape", "application/x-www-form-urlencoded", form + "&x=%zz", 400},
		{"form semicolon", "application/x-www-form-urlencoded", form + ";x=y", 400},
		{"form empty", "application/x-www-form-urlencoded", "", 400},
		{"multipart", "multipart/form-data; boundary=b", multi + "--b--\r\n", 200},
		{"multipart duplicate", "multipart/form-data; boundary=b", multi + part("email", "eve@example.com") + "--b--\r\n", 400},
		{"multipart cut", "multipart/form-data; boundary=b", multi[:len(multi)-5], 400},
		{"multipart without an end", "multipart/form-data; boundary=b", multi, 400},
		{"multipart without a boundary", "multipart/form-data", multi, 400},
		{"multipart of another boundary", "multipart/form-data; boundary=c", multi, 400},
		{"multipart nameless", "multipart/form-data; boundary=b", multi + "--b\r\n\r\nx\r\n--b--\r\n", 400},
		{"multipart file", "multipart/form-data; boundary=b", multi + "--b\r\nContent-Disposition: form-data; name=\"f\"; filename=\"x\"\r\n\r\nx\r\n--b--\r\n", 400},
		{"no type", "", login, 400},
		{"text", "text/plain", login, 400},
		{"XML", "application/xml", "<x/>", 400},
		{"two types", "text/plain, application/json", login, 400},
	} {
		r := b.do("POST", api+"/login", test.contentType, test.body)
		if r.status != test.want || test.want == 400 && r.body == "" || test.want == 401 && r.body != "" {
			t.Errorf("%s: %d %q, want %d", test.name, r.status, r.body, test.want)
		}
	}
	// Too large: by what the request says, and by what comes.
	pad := func(n int) string { return `{"pad":"` + strings.Repeat("x", n) + `",` + login[1:] }
	for path, chunked := range map[string]int{"/login": 400, "/refresh": 413} {
		if r := b.do("POST", api+path, "application/json", pad(63<<10)); r.status == 413 || r.status == 400 {
			t.Errorf("%s of 63 KiB: %d %s", path, r.status, r.body)
		}
		if r := b.do("POST", api+path, "application/json", pad(64<<10)); r.status != 413 && r.status != chunked {
			t.Errorf("%s of more than 64 KiB: %d %s", path, r.status, r.body)
		}
		req, err := http.NewRequestWithContext(t.Context(), "POST", s.url+api+path, struct{ *strings.Reader }{strings.NewReader(pad(64 << 10))})
		if err != nil {
			t.Fatal(err)
		}
		req.ContentLength = -1
		req.Header.Set("Content-Type", "application/json")
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close()
		if res.StatusCode != chunked {
			t.Errorf("%s of more than 64 KiB in chunks: %d, want %d", path, res.StatusCode, chunked)
		}
	}
	for path, want := range map[string]int{"?%zz": 400, "?a=b;c": 400, "?redirect_uri=%2F": 200} {
		if r := b.post(api+"/login"+path, object{"email": "ada@example.com", "password": good}); r.status != want {
			t.Errorf("query %s: %d %s", path, r.status, r.body)
		}
	}
}

// The rows of the contract's sections 3.4 to 3.9 that no other test has.
func TestContractRegister(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		policy          auth.Identifier
		email, username string
		want            string // "registered", or what is wrong
	}{
		{auth.OnlyEmail, "x@localhost", "", "registered"},
		{auth.OnlyEmail, " x@example.com ", "", "registered"},
		{auth.OnlyEmail, "x@example.com", "xenia", "username not allowed"},
		{auth.OnlyEmail, "", "", "Missing email"},
		{auth.OnlyEmail, "x", "", "Invalid email"},
		{auth.OnlyEmail, "x@example.com\r\nBcc: y@example.com", "", "Invalid email"},
		{auth.RequireEmail, "x@example.com", "xenia", "registered"},
		{auth.RequireEmail, "x@example.com", "", "registered"},
		{auth.RequireEmail, "", "xenia", "Missing email"},
		{auth.OnlyUsername, "", "xenia", "registered"},
		{auth.OnlyUsername, "", "", "Missing username"},
		{auth.OnlyUsername, "x@example.com", "xenia", "Email not allowed"},
		{auth.RequireUsername, "", "xenia", "registered"},
		{auth.RequireUsername, "x@example.com", "xenia", "registered"},
		{auth.RequireUsername, "x@example.com", "", "Missing username"},
		{auth.RequireEmailAndUsername, "x@example.com", "xenia", "registered"},
		{auth.RequireEmailAndUsername, "", "xenia", "Missing Email"},
		{auth.RequireEmailAndUsername, "x@example.com", "", "Missing username"},
		{auth.OnlyUsername, "", "xy", "username too short"},
		{auth.OnlyUsername, "", strings.Repeat("x", 33), "username too long"},
		{auth.OnlyUsername, "", strings.Repeat("x", 32), "registered"},
		{auth.OnlyUsername, "", "1xenia", "username contains invalid characters"},
		{auth.OnlyUsername, "", "xen ia", "username contains invalid characters"},
		{auth.OnlyUsername, "", "x\u0435nia", "username contains invalid characters"}, // Cyrillic in Latin
		{auth.OnlyUsername, "", "Z\u00fcrich8", "registered"},
	} {
		s := newSite(t, auth.Config{Identifier: test.policy})
		r := s.browser(t).post(api+"/register", object{"email": test.email, "username": test.username, "password": good, "password_repeat": good})
		if want := map[bool]int{true: 200, false: 400}[test.want == "registered"]; r.status != want || r.body != test.want {
			t.Errorf("%d %q %q: %d %s, want %s", test.policy, test.email, test.username, r.status, r.body, test.want)
		}
		if test.email == "" && test.want == "registered" { // there is nothing to verify
			if r := s.browser(t).post(api+"/login", object{"email_or_username": strings.ToUpper(test.username), "password": good}); r.status != 200 {
				t.Errorf("login of %s: %d", test.username, r.status)
			}
		}
	}
	s := newSite(t, auth.Config{})
	b := s.browser(t)
	if r := b.post(api+"/register", object{"email": "x@example.com", "password": good, "password_repeat": good + "x"}); r.status != 400 || r.body != "Passwords don't match" {
		t.Errorf("%d %s", r.status, r.body)
	}
	if r := b.form(api+"/register", "email", "x@example.com", "password", "x", "password_repeat", "x", "redirect_uri", "/r?a=b#c"); r.status != 303 || r.location() != "/r?a=b&alert=Password+too+short#c" {
		t.Errorf("%d %s", r.status, r.location())
	}
	r := b.post(api+"/register", object{"email": "x@example.com", "password": good, "password_repeat": good, "redirect_uri": "/r"})
	if u, err := url.Parse(r.location()); err != nil || r.status != 303 || u.Path != "/r" || !strings.HasPrefix(u.Query().Get("alert"), "Registered x@example.com. ") {
		t.Errorf("%d %s", r.status, r.location())
	}
	if got := b.login("x@example.com", good); got != 401 {
		t.Errorf("login before the address is verified: %d", got)
	}
	closed := newSite(t, auth.Config{NoPasswords: true})
	if r := closed.browser(t).post(api+"/register", object{"email": "", "redirect_uri": "//x"}); r.status != 403 || r.body != "" {
		t.Errorf("without passwords: %d %s", r.status, r.body)
	}
}

func TestContractAnonymous(t *testing.T) {
	t.Parallel()
	s := newSite(t, auth.Config{Anonymous: true, Identifier: auth.RequireEmail})
	b := s.browser(t)
	if r := b.do("POST", api+"/login_anonymous", "", ""); r.status != 400 {
		t.Errorf("without a type: %d", r.status)
	}
	var tokens auth.Tokens
	b.post(api+"/login_anonymous", object{}).json(t, &tokens)
	c := claims(t, tokens.AuthToken)
	if name, _ := c["username"].(string); len(name) != 10 || !strings.HasPrefix(name, "anon") || c["email"] != nil {
		t.Errorf("claims %v", c)
	}
	me := s.as(t, tokens)
	for name, test := range map[string]struct {
		b    *browser
		body object
		want int
		text string
	}{
		"nobody":         {b, object{"new_password": good, "new_email": "x@example.com"}, 401, ""},
		"bad token":      {b.with("Authorization", "Bearer x"), object{"new_password": good, "new_email": "x@example.com"}, 401, ""},
		"no address":     {me, object{"new_password": good}, 400, "Missing email"},
		"short password": {me, object{"new_password": "x", "new_email": "x@example.com"}, 400, "Password too short"},
		"no match":       {me, object{"new_password": good, "new_password_repeat": "x", "new_email": "x@example.com"}, 400, "Passwords don't match"},
	} {
		if r := test.b.post(api+"/promote_anonymous", test.body); r.status != test.want || r.body != test.text {
			t.Errorf("%s: %d %s", name, r.status, r.body)
		}
	}
	if r := me.post(api+"/promote_anonymous", object{"new_password": good, "new_email": "ada@example.com", "new_username": "ada"}); r.status != 200 || r.body != "promoted" {
		t.Errorf("promote: %d %s", r.status, r.body)
	}
	if r := me.post(api+"/promote_anonymous", object{"new_password": good, "new_email": "eve@example.com"}); r.status != 424 || r.body != "" {
		t.Errorf("promote twice: %d %s", r.status, r.body)
	}
	if got := s.refreshes(t, tokens.RefreshToken); got != 401 {
		t.Errorf("refresh before the address is verified: %d", got)
	}
	if got := me.whoami(); got != "ada" {
		t.Errorf("the token that is still good: %s", got)
	}
	verify := s.mailed(t, "ada@example.com", "/verify_email/confirm/")
	if r := b.form(api + "/verify_email/confirm/" + verify); r.status != 200 {
		t.Errorf("verify: %d %s", r.status, r.body)
	}
	if got := b.login("ada@example.com", good); got != 200 {
		t.Errorf("login: %d", got)
	}
	off := newSite(t, auth.Config{})
	if r := off.browser(t).post(api+"/login_anonymous", object{}); r.status != 404 {
		t.Errorf("where it is off: %d", r.status)
	}
}

func TestUnknownRoutes(t *testing.T) {
	t.Parallel()
	s := newSite(t, auth.Config{})
	b := s.browser(t)
	for path, want := range map[string]int{
		"": 404, "/": 404, "/x": 404, "/login/": 404, "/login/x/y/z/a/b": 404, "/LOGIN": 404, "/%6cogin": 405, "/verify_email/confirm/": 404, "/register": 405,
	} {
		r := b.get(api + path)
		if r.status != want && path != "" || r.status >= 500 || want == 405 && r.header.Get("Allow") != "POST" {
			t.Errorf("GET %s: %d %s", path, r.status, r.header.Get("Allow"))
		}
	}
	for _, method := range []string{"PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "X"} {
		if r := b.with("X-HTTP-Method-Override", "POST").do(method, api+"/login", "", ""); r.status != 405 || r.body != "" {
			t.Errorf("%s: %d %s", method, r.status, r.body)
		}
	}
	r := b.get(api + "/status")
	for name, want := range map[string]string{"Cache-Control": "no-store", "Referrer-Policy": "no-referrer", "X-Content-Type-Options": "nosniff"} {
		if got := r.header.Get(name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
}
