package auth_test

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"mime/multipart"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bedplate/bedplate/auth"
	"github.com/bedplate/bedplate/internal/totp"
	"github.com/bedplate/bedplate/sqlite"
)

// What a route does, as far as the page of another site can bring it about.
const (
	reads    = "reads"   // nothing changes, whoever asks
	renews   = "renews"  // nothing changes but the tokens of who asks
	acts     = "acts"    // for who is signed in
	form     = "form"    // for everybody, by what the body says
	jsonOnly = "json"    // likewise, but no page can send it
	capable  = "capable" // by a secret in the path, whoever shows it
	open     = "open"    // something small for everybody, by GET
	guarded  = "guarded" // by GET, from this site only
)

// A victim is somebody who is signed in, in a browser that sends its cookies
// along whatever SameSite says.
type victim struct {
	*browser
	site  *site
	email string
	id    auth.UserID
}

// A sent is a request that does what its route is for.
type sent struct {
	path string
	form []string // name, value, ...
	json object   // instead of a form
	file bool     // instead of a form: an image
}

type attackedRoute struct {
	route string
	kind  string
	use   func(t *testing.T, v *victim) sent
}

// attackedRoutes are all routes of the service and the pages, and how to use
// those that change something.
var attackedRoutes = []attackedRoute{
	{"POST /register", form, func(t *testing.T, v *victim) sent {
		return sent{form: []string{"email", "new-" + v.email, "password", good, "password_repeat", good}}
	}},
	{"POST /login", form, func(t *testing.T, v *victim) sent {
		return sent{form: []string{"email", v.email, "password", good}}
	}},
	{"POST /login_mfa", form, func(t *testing.T, v *victim) sent {
		d := v.site.enrol(t, v.browser)
		code := d.code()
		return sent{form: []string{"mfa_token", v.site.firstFactor(t, v.email), "totp", code}}
	}},
	{"POST /login_anonymous", form, func(t *testing.T, v *victim) sent { return sent{form: []string{"x", "y"}} }},
	{"POST /promote_anonymous", acts, func(t *testing.T, v *victim) sent {
		var tokens auth.Tokens
		v.site.browser(t).post(api+"/login_anonymous", object{}).json(t, &tokens)
		v.client.Jar.SetCookies(mustURL(t, v.base), []*http.Cookie{
			{Name: "auth_token", Value: tokens.AuthToken, Path: "/"}, {Name: "refresh_token", Value: tokens.RefreshToken, Path: "/"},
		})
		return sent{form: []string{"new_email", "promoted-" + v.email, "new_password", good, "new_password_repeat", good}}
	}},
	{"POST /refresh", jsonOnly, func(t *testing.T, v *victim) sent {
		return sent{json: object{"refresh_token": v.site.login(t, v.email).RefreshToken, "rotate": true}}
	}},
	{"GET /status", renews, nil},
	{"GET /logout", guarded, func(t *testing.T, v *victim) sent { return sent{} }},
	{"POST /logout", jsonOnly, func(t *testing.T, v *victim) sent {
		return sent{json: object{"refresh_token": v.site.login(t, v.email).RefreshToken}}
	}},
	{"POST /token", jsonOnly, func(t *testing.T, v *victim) sent {
		verifier := strings.Repeat("v", 43)
		sum := sha256.Sum256([]byte(verifier))
		r := v.site.browser(t).form(api+"/login", "email", v.email, "password", good, "response_type", "code",
			"redirect_uri", "app://x", "pkce_code_challenge", base64.RawURLEncoding.EncodeToString(sum[:]))
		return sent{json: object{"authorization_code": param(t, r.location(), "code"), "pkce_code_verifier": verifier}}
	}},
	{"GET /verify_email/trigger", open, func(t *testing.T, v *victim) sent {
		return sent{path: api + "/verify_email/trigger?email=" + v.email}
	}},
	{"GET /verify_email/confirm/{token}", reads, nil},
	{"POST /verify_email/confirm/{token}", capable, nil},
	{"POST /change_email/request", acts, changeEmail},
	{"POST /change_email", acts, changeEmail},
	{"GET /change_email/confirm/{token}", reads, nil},
	{"POST /change_email/confirm/{token}", capable, nil},
	{"POST /change_username", acts, func(t *testing.T, v *victim) sent {
		return sent{form: []string{"new_username", "u" + strings.NewReplacer("@example.com", "", "-", "").Replace(v.email)}}
	}},
	{"POST /change_password", acts, func(t *testing.T, v *victim) sent {
		return sent{form: []string{"old_password", good, "new_password", good + "8", "new_password_repeat", good + "8"}}
	}},
	{"POST /reset_password/request", form, func(t *testing.T, v *victim) sent { return sent{form: []string{"email", v.email}} }},
	{"POST /reset_password/update", form, func(t *testing.T, v *victim) sent {
		v.site.browser(t).post(api+"/reset_password/request", object{"email": v.email})
		reset := token(t, v.site.inbox.about(t, v.email, "password", 1))
		return sent{form: []string{"password_reset_token", reset, "password", good + "8", "password_repeat", good + "8"}}
	}},
	{"POST /otp/request", form, func(t *testing.T, v *victim) sent { return sent{form: []string{"email", v.email}} }},
	{"POST /otp/login", form, func(t *testing.T, v *victim) sent {
		v.site.browser(t).post(api+"/otp/request", object{"email": v.email})
		return sent{form: []string{"email", v.email, "code", otpCode(t, v.site.inbox.about(t, v.email, "code", 1))}}
	}},
	{"GET /totp/register", open, func(t *testing.T, v *victim) sent { return sent{} }}, // an offer, which does nothing
	{"POST /totp/confirm", acts, func(t *testing.T, v *victim) sent {
		otpauth, secret := offer(t, v.browser)
		return sent{form: []string{"totp_url", otpauth, "totp", totp.Code(secret, v.site.clock.Now())}}
	}},
	{"POST /totp/unregister", acts, enrolled},
	{"GET /totp/recovery_codes", reads, nil},
	{"POST /totp/recovery_codes", acts, enrolled},
	{"GET /oauth/providers", reads, nil},
	{"GET /oauth/identities", reads, nil},
	{"DELETE /oauth/identities/{identity}", acts, func(t *testing.T, v *victim) sent {
		v.site.exec(t, `INSERT INTO _user_identity VALUES ('https://acme.example', ?, ?, 99, 0, 0)`, v.email, v.id[:])
		return sent{path: api + "/oauth/identities/acme"}
	}},
	{"GET /oauth/{provider}/login", guarded, func(t *testing.T, v *victim) sent { return sent{path: api + "/oauth/acme/login"} }},
	{"GET /oauth/{provider}/callback", reads, func(t *testing.T, v *victim) sent {
		return sent{path: api + "/oauth/acme/callback?code=x&state=" + pageToken}
	}},
	{"POST /oauth/{provider}/link", acts, func(t *testing.T, v *victim) sent {
		return sent{path: api + "/oauth/acme/link", form: []string{"redirect_uri", "/settings"}}
	}},
	{"GET /sessions", reads, nil},
	{"DELETE /sessions", acts, func(t *testing.T, v *victim) sent { return sent{} }},
	{"DELETE /sessions/{id}", acts, func(t *testing.T, v *victim) sent { return sent{path: api + "/sessions/" + v.session(t)} }},
	{"DELETE /delete", acts, func(t *testing.T, v *victim) sent { return sent{} }},
	{"GET /delete", reads, nil},
	{"GET /avatar/{id}", reads, nil},
	{"POST /avatar", acts, func(t *testing.T, v *victim) sent { return sent{file: true} }},
	{"DELETE /avatar", acts, func(t *testing.T, v *victim) sent {
		v.upload(t, v.browser, api+"/avatar")
		return sent{}
	}},
	{"POST /setup", form, func(t *testing.T, v *victim) sent {
		link, err := v.site.SetupLink(t.Context())
		if err != nil || link == "" {
			t.Fatalf("setup link %q: %v", link, err)
		}
		return sent{form: []string{"token", link[strings.LastIndex(link, "/")+1:], "email", "root@example.com", "password", good, "password_repeat", good}}
	}},
	{"POST /api_keys", acts, func(t *testing.T, v *victim) sent {
		return sent{json: object{"name": "key", "scopes": []object{{"api": "*", "operations": []string{"*"}}}}}
	}},
	{"GET /api_keys", reads, nil},
	{"DELETE /api_keys/{id}", acts, func(t *testing.T, v *victim) sent {
		var key struct{ ID string }
		v.post(api+"/api_keys", object{"name": "key", "scopes": []object{{"api": "*", "operations": []string{"*"}}}}).json(t, &key)
		return sent{path: api + "/api_keys/" + key.ID}
	}},

	{"GET /login", reads, nil},
	{"GET /login_mfa", reads, nil},
	{"GET /otp/request", reads, nil},
	{"GET /otp/login", reads, nil},
	{"GET /register", reads, nil},
	{"GET /reset_password/request", reads, nil},
	{"GET /reset_password/update/{token}", reads, nil},
	{"GET /change_password", reads, nil},
	{"GET /setup/{token}", reads, nil},
	{"GET /logout (page)", reads, nil},
	{"POST /logout (page)", acts, func(t *testing.T, v *victim) sent { return sent{path: pages + "/logout", form: []string{"x", "y"}} }},
	{"GET /profile", reads, nil},
	{"POST /profile/revoke", acts, func(t *testing.T, v *victim) sent {
		return sent{path: pages + "/profile/revoke", form: []string{"session", v.session(t)}}
	}},
}

// text is the request as JSON.
func (r sent) text(t *testing.T) string {
	t.Helper()
	body := r.json
	for i := 0; i+1 < len(r.form); i += 2 {
		body = plus(body, r.form[i], r.form[i+1])
	}
	text, err := json.Marshal(body)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// hasGET reports whether there is a GET on the path of a route.
func hasGET(route string) bool {
	_, path, _ := strings.Cut(route, " ")
	for _, r := range attackedRoutes {
		if r.route == "GET "+path {
			return true
		}
	}
	return false
}

func changeEmail(t *testing.T, v *victim) sent {
	var status struct {
		CSRF string `json:"csrf_token"`
	}
	v.get(api+"/status").json(t, &status)
	return sent{form: []string{"new_email", "other-" + v.email, "csrf_token", status.CSRF}}
}

func enrolled(t *testing.T, v *victim) sent {
	d := v.site.enrol(t, v.browser)
	return sent{form: []string{"totp", d.code()}}
}

// session returns the name of the session of the victim's browser.
func (v *victim) session(t *testing.T) string {
	t.Helper()
	var list struct{ Sessions []struct{ ID string } }
	v.get(api+"/sessions").json(t, &list)
	if len(list.Sessions) == 0 {
		t.Fatal("no sessions")
	}
	return list.Sessions[0].ID
}

func (v *victim) upload(t *testing.T, b *browser, path string) reply {
	t.Helper()
	contentType, body := multipartBody(t, filePart{"file", "me.png", "image/png", pngImage(t, 1, 1)})
	return b.do("POST", path, contentType, body)
}

func (s *site) newVictim(t *testing.T, n int) *victim {
	t.Helper()
	v := &victim{browser: s.visitor(t), site: s, email: fmt.Sprintf("victim-%d@example.com", n)}
	v.id = s.addUser(t, v.email)
	want(t, "login", v.form(api+"/login", "email", v.email, "password", good), 200, "logged in")
	s.settle(t)
	return v
}

// settle waits until the worker has nothing to do.
func (s *site) settle(t testing.TB) {
	t.Helper()
	s.inbox.until(t, func() bool { return s.count(t, "_outbox") == 0 })
}

// state returns what requests can change. It does not have what has expired,
// which goes by itself.
func (s *site) state(t *testing.T, but string) string {
	t.Helper()
	var out strings.Builder
	err := s.db.View(t.Context(), func(tx *sqlite.Tx) error {
		for _, table := range []string{
			"_user", "_session", "_refresh_token", "_one_time", "_user_identity", "_recovery_code", "_known_device", "_api_key", "_avatar",
			"_throttle", "_outbox",
		} {
			if table == but {
				continue
			}
			where := "?1 > 0"
			switch table {
			case "_one_time":
				where = "expires > ?1"
			case "_throttle":
				where = "tat > 1000000 * ?1"
			}
			rows, err := tx.QueryContext(t.Context(), "SELECT * FROM "+table+" WHERE "+where, s.clock.Now().Unix())
			if err != nil {
				return err
			}
			columns, err := rows.Columns()
			if err != nil {
				return err
			}
			for rows.Next() {
				values := make([]any, len(columns))
				for i := range values {
					values[i] = new(any)
				}
				if err := rows.Scan(values...); err != nil {
					return err
				}
				out.WriteString(table)
				for i, name := range columns {
					if v := *values[i].(*any); name != "updated" {
						fmt.Fprintf(&out, " %s=%x", name, v)
					}
				}
				out.WriteByte('\n')
			}
			if err := rows.Err(); err != nil {
				return err
			}
			_ = rows.Close()
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out.String()
}

// routesInCode returns the routes that the package's sources add.
func routesInCode(t *testing.T) (routes []string) {
	t.Helper()
	files, err := os.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	added := regexp.MustCompile(`\badd\("([A-Z]+ /[^"]*)"`)
	for _, f := range files {
		if !strings.HasSuffix(f.Name(), ".go") || strings.HasSuffix(f.Name(), "_test.go") {
			continue
		}
		source, err := os.ReadFile(f.Name())
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range added.FindAllStringSubmatch(string(source), -1) {
			route := m[1]
			if f.Name() == "pages.go" && slices.Contains([]string{"GET /logout", "POST /logout"}, route) {
				route += " (page)"
			}
			routes = append(routes, route)
		}
	}
	return routes
}

func attackedSite(t *testing.T) *site {
	t.Helper()
	return newSite(t, auth.Config{
		OTP: true, Anonymous: true, Identifier: auth.RequireEmail, RedirectSchemes: []string{"app"},
		RedirectURIs: []string{"https://listed.example/cb?x=1", "https://Other.example:8443/"},
		Providers:    []auth.IdentityProvider{pageProvider{}}, Limits: wideLimits(), FreshTTL: 24 * time.Hour, AccessTTL: 24 * time.Hour,
	})
}

// concrete returns a path of a route.
func concrete(route, path string, v *victim) string {
	prefix := api
	for _, p := range []string{
		"GET /login", "GET /login_mfa", "GET /otp", "GET /register", "GET /reset_password", "GET /change_password", "GET /setup", "GET /profile",
		"GET /logout (page)", "POST /logout (page)", "POST /profile",
	} {
		if strings.HasPrefix(route, p) {
			prefix = pages
		}
	}
	return prefix + strings.NewReplacer("{token}", pageToken, "{provider}", "acme", "{id}", v.id.String(), "{identity}", "acme").Replace(path)
}

func multipartForm(t *testing.T, values url.Values) (contentType, body string) {
	t.Helper()
	var out strings.Builder
	w := multipart.NewWriter(&out)
	for name := range values {
		if err := w.WriteField(name, values.Get(name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return w.FormDataContentType(), out.String()
}
