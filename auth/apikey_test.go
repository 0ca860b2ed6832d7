package auth_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bedplate/bedplate/auth"
	"github.com/bedplate/bedplate/sqlite"
)

type apiKey struct {
	ID, Key, Name, Prefix string
	Scopes                []auth.Scope
	Created, Expires      int64
	Seen                  *int64
}

// everything is the body of a request for a key that may do all.
var everything = object{"name": "machine", "scopes": []object{{"api": "*", "operations": []string{"*"}}}}

// newAPIKey makes an API key in a session.
func newAPIKey(t testing.TB, b *browser, body object) (k apiKey) {
	t.Helper()
	r := b.post(api+"/api_keys", body)
	if r.status != 200 {
		t.Fatalf("make an API key: %d %s", r.status, r.body)
	}
	r.json(t, &k)
	return k
}

func apiKeys(t testing.TB, b *browser) []apiKey {
	t.Helper()
	r := b.get(api + "/api_keys")
	if r.status != 200 {
		t.Fatalf("list API keys: %d %s", r.status, r.body)
	}
	var l struct {
		Keys []apiKey `json:"api_keys"`
	}
	r.json(t, &l)
	return l.Keys
}

// withKey returns a client with an API key.
func withKey(t testing.TB, s *site, key string) *browser {
	return s.browser(t).with("Authorization", "Bearer "+key)
}

// caller returns the user that the middleware finds in a request.
func caller(t testing.TB, s *site, r *http.Request) (u *auth.User) {
	t.Helper()
	s.Middleware(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		u = auth.FromContext(r.Context())
	})).ServeHTTP(httptest.NewRecorder(), r)
	return u
}

func callerWithKey(t testing.TB, s *site, key string) *auth.User {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), "GET", "/", nil)
	r.Header.Set("Authorization", "Bearer "+key)
	return caller(t, s, r)
}

var apiKeyForm = regexp.MustCompile(`^bpk_[A-Za-z0-9]{43}$`)

func TestAPIKey(t *testing.T) {
	t.Parallel()
	s := newSite(t, auth.Config{})
	id := newAccount(t, s, "a@example.com")
	b := s.as(t, s.login(t, "a@example.com"))
	if keys := apiKeys(t, b); keys == nil || len(keys) != 0 {
		t.Errorf("keys at first: %v, want an empty array", keys)
	}
	now := s.clock.Now().Unix()
	k := newAPIKey(t, b, object{"name": " nightly export ", "scopes": []object{{"api": "posts", "operations": []string{"read", "schema"}}}})
	if !apiKeyForm.MatchString(k.Key) || k.Name != "nightly export" || k.Prefix != k.Key[:8] || k.Created != now || k.Expires != now+90*24*3600 {
		t.Errorf("new key: %+v", k)
	}

	u := callerWithKey(t, s, k.Key)
	if u == nil || u.ID != id || u.Email != "a@example.com" || u.Credential != auth.APIKey || u.Session != "" || !u.Authenticated.IsZero() {
		t.Fatalf("caller: %+v", u)
	}
	r := b.get(api + "/api_keys")
	if strings.Contains(r.body, k.Key) || strings.Contains(r.body, `"key"`) {
		t.Errorf("the list shows the key: %s", r.body)
	}
	keys := apiKeys(t, b)
	if len(keys) != 1 || keys[0].ID != k.ID || keys[0].Prefix != k.Prefix || len(keys[0].Scopes) != 1 || !slices.Equal(keys[0].Scopes[0].Operations, []string{"read", "schema"}) {
		t.Errorf("list: %+v", keys)
	}

	machine := withKey(t, s, k.Key)
	wantStatus(t, "use", machine.get("/machine"), 200)
	wantStatus(t, "delete", b.do("DELETE", api+"/api_keys/"+k.ID, "", ""), 200)
	wantStatus(t, "use of a key that was removed", machine.get("/machine"), 401)
	wantStatus(t, "delete again", b.do("DELETE", api+"/api_keys/"+k.ID, "", ""), 404)
}

// What a key may do is not what a session may do: it changes no account and
// makes no keys.
func TestAPIKeyIsNoSession(t *testing.T) {
	t.Parallel()
	s := newSite(t, auth.Config{})
	newAccount(t, s, "a@example.com")
	s.exec(t, `UPDATE _user SET admin = 1`)
	b := s.as(t, s.login(t, "a@example.com"))
	k := newAPIKey(t, b, everything)
	machine := withKey(t, s, k.Key)
	wantStatus(t, "use", machine.get("/machine"), 200)
	session := sessionsOf(t, b).Sessions[0].ID
	for _, c := range []struct{ method, path string }{
		{"POST", "/api_keys"}, {"GET", "/api_keys"}, {"DELETE", "/api_keys/" + k.ID},
		{"GET", "/sessions"}, {"DELETE", "/sessions"}, {"DELETE", "/sessions/" + session},
		{"DELETE", "/delete"}, {"GET", "/delete"}, {"POST", "/avatar"}, {"DELETE", "/avatar"},
	} {
		body, err := json.Marshal(everything)
		if err != nil {
			t.Fatal(err)
		}
		if r := machine.do(c.method, api+c.path, "application/json", string(body)); r.status != 401 {
			t.Errorf("%s %s with an API key: %d %q, want 401", c.method, c.path, r.status, r.body)
		}
	}
	wantStatus(t, "an administrator's key at an administrator's page", machine.get("/admin"), 403)
	if r := machine.get(api + "/status"); !strings.Contains(r.body, `"auth_token":null`) {
		t.Errorf("a token for a key: %s", r.body)
	}
	wantStatus(t, "session", b.get("/admin"), 200)
}

func TestAPIKeyNeedsFreshSession(t *testing.T) {
	t.Parallel()
	s := newSite(t, auth.Config{})
	id := newAccount(t, s, "a@example.com")
	tokens := s.login(t, "a@example.com")
	b := s.as(t, tokens)
	s.clock.Add(10*time.Minute + time.Second)
	wantStatus(t, "session of eleven minutes", b.post(api+"/api_keys", everything), 403)
	wantStatus(t, "nobody", s.browser(t).post(api+"/api_keys", everything), 401)

	// A token that is believed without asking is not enough for a key that
	// lives longer than it: here another process has ended its session.
	b = s.as(t, s.login(t, "a@example.com"))
	wantStatus(t, "now it is cached", b.get("/machine"), 200)
	s.exec(t, `DELETE FROM _session WHERE created = (SELECT max(created) FROM _session)`)
	wantStatus(t, "still cached", b.get("/machine"), 200)
	wantStatus(t, "ended session", b.post(api+"/api_keys", everything), 401)
	if n := countRows(t, s, `SELECT count(*) FROM _api_key WHERE user = ?`, id[:]); n != 0 {
		t.Errorf("%d keys", n)
	}
}

func TestAPIKeyRequest(t *testing.T) {
	t.Parallel()
	s := newSite(t, auth.Config{})
	newAccount(t, s, "a@example.com")
	b := s.as(t, s.login(t, "a@example.com"))
	scopes := `[{"api":"posts","operations":["read"]}]`
	manyScopes := "[" + strings.Repeat(`{"api":"posts","operations":["read"]},`, 50) + `{"api":"posts","operations":["read"]}]`
	for _, c := range []struct {
		body   string
		status int
		ttl    int64
	}{
		{`{"name":"x","scopes":` + scopes + `}`, 200, 90 * 24 * 3600},
		{`{"name":"x","scopes":` + scopes + `,"expires_in":1}`, 200, 1},
		{`{"name":"x","scopes":` + scopes + `,"expires_in":31536000}`, 200, 31536000},
		{`{"name":"` + strings.Repeat("ü", 100) + `","scopes":[{"api":"*","operations":["create","read","update","delete","schema"]},{"api":"A_1","operations":["*"]}]}`, 200, 90 * 24 * 3600},
		{`{"name":"x","scopes":` + scopes + `,"expires_in":31536001}`, 400, 0},
		{`{"name":"x","scopes":` + scopes + `,"expires_in":0}`, 400, 0},
		{`{"name":"x","scopes":` + scopes + `,"expires_in":-1}`, 400, 0},
		{`{"name":"x","scopes":` + scopes + `,"expires_in":9223372036854775808}`, 400, 0},
		{`{"name":"x","scopes":` + scopes + `,"expires_in":1.5}`, 400, 0},
		{`{"name":"x","scopes":` + scopes + `,"expires_in":"60"}`, 400, 0},
		{`{"name":"x","scopes":` + scopes + `,"expires_in":null}`, 400, 0},
		{`{"scopes":` + scopes + `}`, 400, 0},
		{`{"name":"","scopes":` + scopes + `}`, 400, 0},
		{`{"name":"  ","scopes":` + scopes + `}`, 400, 0},
		{`{"name":"a\nb","scopes":` + scopes + `}`, 400, 0},
		{`{"name":"a\u0000b","scopes":` + scopes + `}`, 400, 0},
		{`{"name":"` + strings.Repeat("ü", 101) + `","scopes":` + scopes + `}`, 400, 0},
		{`{"name":7,"scopes":` + scopes + `}`, 400, 0},
		{`{"name":"x"}`, 400, 0},
		{`{"name":"x","scopes":[]}`, 400, 0},
		{`{"name":"x","scopes":null}`, 400, 0},
		{`{"name":"x","scopes":{}}`, 400, 0},
		{`{"name":"x","scopes":["*"]}`, 400, 0},
		{`{"name":"x","scopes":` + manyScopes + `}`, 400, 0},
		{`{"name":"x","scopes":[{"api":"posts"}]}`, 400, 0},
		{`{"name":"x","scopes":[{"api":"posts","operations":[]}]}`, 400, 0},
		{`{"name":"x","scopes":[{"api":"posts","operations":"read"}]}`, 400, 0},
		{`{"name":"x","scopes":[{"api":"posts","operations":["list"]}]}`, 400, 0},
		{`{"name":"x","scopes":[{"api":"posts","operations":["Read"]}]}`, 400, 0},
		{`{"name":"x","scopes":[{"api":"posts","operations":["read","read"]}]}`, 400, 0},
		{`{"name":"x","scopes":[{"api":"","operations":["read"]}]}`, 400, 0},
		{`{"name":"x","scopes":[{"api":"po*","operations":["read"]}]}`, 400, 0},
		{`{"name":"x","scopes":[{"api":"` + strings.Repeat("x", 129) + `","operations":["read"]}]}`, 400, 0},
		{`{"name":"x","scopes":[{"api":"posts","operations":["read"],"rows":1}]}`, 400, 0},
		{`{"name":"x","scopes":` + scopes + `,"expires":60}`, 400, 0},
		{`{"name":"x","Name":"y","scopes":` + scopes + `}`, 400, 0},
		{`{"name":"x","name":"x","scopes":` + scopes + `}`, 400, 0},
		{`{"name":"x","scopes":` + scopes + `}{}`, 400, 0},
		{`[]`, 400, 0},
		{``, 400, 0},
		{`{"name":"` + strings.Repeat("x", 64<<10) + `"}`, 413, 0},
	} {
		r := b.do("POST", api+"/api_keys", "application/json", c.body)
		if r.status != c.status {
			t.Errorf("%.120s: %d %q, want %d", c.body, r.status, r.body, c.status)
		}
		if r.status == 200 {
			var k apiKey
			r.json(t, &k)
			if k.Expires-k.Created != c.ttl {
				t.Errorf("%.120s: lives %d s, want %d", c.body, k.Expires-k.Created, c.ttl)
			}
		}
	}
	wantStatus(t, "form", b.form(api+"/api_keys", "name", "x"), 415)
	browser := cookieLogin(t, s, "a@example.com")
	wantStatus(t, "another site", browser.with("Sec-Fetch-Site", "cross-site").post(api+"/api_keys", everything), 403)
}

func TestAPIKeyScopes(t *testing.T) {
	t.Parallel()
	s := newSite(t, auth.Config{})
	newAccount(t, s, "a@example.com")
	tokens := s.login(t, "a@example.com")
	k := newAPIKey(t, s.as(t, tokens), object{"name": "x", "scopes": []object{
		{"api": "posts", "operations": []string{"read", "create"}},
		{"api": "notes", "operations": []string{"*"}},
		{"api": "*", "operations": []string{"schema"}},
	}})
	u := callerWithKey(t, s, k.Key)
	if u == nil {
		t.Fatal("nobody")
	}
	for _, c := range []struct {
		api, operation string
		want           bool
	}{
		{"posts", "read", true}, {"posts", "create", true}, {"posts", "update", false}, {"posts", "delete", false},
		{"notes", "delete", true}, {"other", "read", false}, {"other", "schema", true}, {"posts", "schema", true},
		{"Posts", "read", false}, {"posts", "*", false}, {"*", "read", false}, {"", "", false},
	} {
		if got := u.Allows(c.api, c.operation); got != c.want {
			t.Errorf("Allows(%q, %q) = %v", c.api, c.operation, got)
		}
	}
	if session := callerWithKey(t, s, tokens.AuthToken); session == nil || !session.Allows("other", "read") {
		t.Error("a session is limited by scopes")
	}
	if nobody := (*auth.User)(nil); nobody.Allows("other", "read") {
		t.Error("nobody may read")
	}
	if u := (&auth.User{Credential: auth.APIKey}); u.Allows("other", "read") {
		t.Error("a key without scopes is not limited")
	}
}

func TestAPIKeyExpires(t *testing.T) {
	t.Parallel()
	s := newSite(t, auth.Config{})
	newAccount(t, s, "a@example.com")
	body := object{"name": "short", "scopes": everything["scopes"], "expires_in": 20}
	k := newAPIKey(t, s.as(t, s.login(t, "a@example.com")), body)
	machine := withKey(t, s, k.Key)
	wantStatus(t, "at once", machine.get("/machine"), 200)
	s.clock.Add(19 * time.Second)
	wantStatus(t, "a second before", machine.get("/machine"), 200)
	s.clock.Add(time.Second) // less than the time between two looks into the database
	wantStatus(t, "at the end", machine.get("/machine"), 401)

	// An expired one is shown until the next is made.
	b := s.as(t, s.login(t, "a@example.com"))
	if keys := apiKeys(t, b); len(keys) != 1 || keys[0].ID != k.ID {
		t.Errorf("keys: %+v", keys)
	}
	next := newAPIKey(t, b, everything)
	if keys := apiKeys(t, b); len(keys) != 1 || keys[0].ID != next.ID {
		t.Errorf("keys: %+v", keys)
	}
}

func TestAPIKeySeen(t *testing.T) {
	t.Parallel()
	s := newSite(t, auth.Config{})
	newAccount(t, s, "a@example.com")
	tokens := s.login(t, "a@example.com")
	b := s.as(t, tokens)
	k := newAPIKey(t, b, everything)
	if keys := apiKeys(t, b); keys[0].Seen != nil {
		t.Errorf("seen before its first use: %d", *keys[0].Seen)
	}
	machine := withKey(t, s, k.Key)
	var want int64
	for _, step := range []struct {
		after time.Duration
		note  bool
	}{{0, true}, {time.Minute, false}, {3 * time.Minute, false}, {time.Minute, true}, {time.Hour - 6*time.Minute, true}} {
		s.clock.Add(step.after)
		wantStatus(t, "use", machine.get("/machine"), 200)
		if step.note {
			want = s.clock.Now().Unix()
		}
		if keys := apiKeys(t, b); keys[0].Seen == nil || *keys[0].Seen != want {
			t.Errorf("%v later: seen %v, want %d", step.after, keys[0].Seen, want)
		}
	}
}

// A writer that is busy does not hold up who only reads.
func TestAPIKeyDoesNotWaitForWriter(t *testing.T) {
	t.Parallel()
	s := newSite(t, auth.Config{})
	newAccount(t, s, "a@example.com")
	k := newAPIKey(t, s.as(t, s.login(t, "a@example.com")), everything)
	held, release := make(chan struct{}), make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		_ = s.db.Update(t.Context(), func(*sqlite.Tx) error {
			close(held)
			<-release
			return nil
		})
	})
	<-held
	r := withKey(t, s, k.Key).get("/machine")
	close(release)
	wg.Wait()
	wantStatus(t, "use", r, 200)
}

func TestAPIKeyLimit(t *testing.T) {
	t.Parallel()
	s := newSite(t, auth.Config{})
	newAccount(t, s, "a@example.com")
	b := s.as(t, s.login(t, "a@example.com"))
	statuses := inParallel(64, func(int) int { return b.post(api+"/api_keys", everything).status })
	if statuses[200] != 50 || statuses[409] != 14 {
		t.Errorf("statuses %v, want 50 keys", statuses)
	}
	keys := apiKeys(t, b)
	if len(keys) != 50 {
		t.Fatalf("%d keys", len(keys))
	}
	wantStatus(t, "delete", b.do("DELETE", api+"/api_keys/"+keys[7].ID, "", ""), 200)
	wantStatus(t, "another", b.post(api+"/api_keys", everything), 200)
	wantStatus(t, "one too many", b.post(api+"/api_keys", everything), 409)
}

func TestB8_APIKeysOfOthers(t *testing.T) {
	t.Parallel()
	s := newSite(t, auth.Config{})
	newAccount(t, s, "victim@example.com")
	newAccount(t, s, "attacker@example.com")
	k := newAPIKey(t, s.as(t, s.login(t, "victim@example.com")), everything)
	attacker := s.as(t, s.login(t, "attacker@example.com"))
	if keys := apiKeys(t, attacker); len(keys) != 0 {
		t.Errorf("the attacker sees %+v", keys)
	}
	var first reply
	for i, id := range []string{k.ID, "AAAAAAAAAAAAAAAAAAAAAA", k.ID[:21], k.Key, k.Prefix, "%00"} {
		r := attacker.do("DELETE", api+"/api_keys/"+id, "", "")
		r.header.Del("Date")
		if i == 0 {
			first = r
		}
		if r.status != 404 || r.body != first.body || fmt.Sprint(r.header) != fmt.Sprint(first.header) {
			t.Errorf("key %q: %d %q %v", id, r.status, r.body, r.header)
		}
	}
	wantStatus(t, "the victim's key", withKey(t, s, k.Key).get("/machine"), 200)
}

// Keys have 256 bits, and their characters are equally likely.
func TestB10_APIKeys(t *testing.T) {
	t.Parallel()
	s := newSite(t, auth.Config{})
	seen, chars, ones, n := map[string]bool{}, map[rune]int{}, make([]int, 128), 0
	for u := range 4 {
		email := fmt.Sprintf("u%d@example.com", u)
		newAccount(t, s, email)
		b := s.as(t, s.login(t, email))
		for range 50 {
			k := newAPIKey(t, b, everything)
			if !apiKeyForm.MatchString(k.Key) || seen[k.Key] || seen[k.ID] {
				t.Fatalf("key %q, id %q", k.Key, k.ID)
			}
			seen[k.Key], seen[k.ID] = true, true
			for _, c := range k.Key[4:] {
				chars[c]++
				n++
			}
		}
		for _, k := range apiKeys(t, b) {
			countBits(ones, idBytes(t, k.ID))
		}
	}
	checkBits(t, ones, 200)
	mean := n / 62
	for c, k := range chars {
		if d := k - mean; d*d > 49*mean {
			t.Errorf("character %q: %d times, want about %d", c, k, mean)
		}
	}
	if len(chars) != 62 {
		t.Errorf("%d different characters, want 62", len(chars))
	}
}

// A logBuffer is where tests read what was logged.
type logBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// An API key counts in the Authorization header and nowhere else, and is
// neither logged nor stored.
func TestB14_APIKeyElsewhere(t *testing.T) {
	t.Parallel()
	log := new(logBuffer)
	s := newSite(t, auth.Config{Logger: slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug}))})
	newAccount(t, s, "a@example.com")
	k := newAPIKey(t, s.as(t, s.login(t, "a@example.com")), everything)
	wantStatus(t, "header", withKey(t, s, k.Key).get("/machine"), 200)

	nobody := func(what string, b *browser, path string) {
		t.Helper()
		if r := b.get(path); r.body != "anonymous" {
			t.Errorf("key in %s: %d %q", what, r.status, r.body)
		}
	}
	b := s.browser(t)
	for _, name := range []string{"api_key", "apikey", "key", "token", "access_token", "auth_token", "Authorization"} {
		nobody("query parameter "+name, b, "/whoami?"+name+"="+k.Key)
		nobody("query parameter "+name, b, "/whoami?"+name+"=Bearer%20"+k.Key)
		nobody("cookie "+name, b.with("Cookie", name+"="+k.Key), "/whoami")
	}
	nobody("path", b, "/whoami?"+k.Key)
	for name, value := range map[string]string{
		"Cookie": "auth_token=" + k.Key + "; refresh_token=" + k.Key, "X-Api-Key": k.Key, "X-Auth-Token": k.Key,
		"Refresh-Token": k.Key, "Referer": s.url + "/?" + k.Key,
	} {
		nobody("header "+name, b.with(name, value), "/whoami")
	}
	for _, value := range []string{
		k.Key, "bearer" + k.Key, "Bearer  " + k.Key, "Basic " + k.Key, "Bearer " + k.Key + ",", "Bearer " + k.Key + " x",
		"Bearer " + strings.ToUpper(k.Key), "Bearer " + k.Key[4:], "Bearer " + k.Key[:46], "Bearer " + k.Key + "A", "Bearer " + k.Prefix, "Bearer bpk_",
	} {
		nobody("header Authorization: "+value, b.with("Authorization", value), "/whoami")
	}
	wantStatus(t, "as a refresh token", b.post(api+"/refresh", object{"refresh_token": k.Key}), 401)

	// An error of the database, with the key in the request.
	s.exec(t, `ALTER TABLE _api_key RENAME TO gone`)
	s.clock.Add(time.Minute)
	wantStatus(t, "without a table", withKey(t, s, k.Key).get("/whoami?api_key="+k.Key), 500)
	if log.String() == "" {
		t.Fatal("nothing was logged")
	}
	if secret := k.Key[8:]; strings.Contains(log.String(), secret) {
		t.Errorf("the key was logged: %s", log.String())
	} else if fileHolds(t, s, secret) {
		t.Error("the key is in the database")
	}
}

// fileHolds reports whether the database, as it is on the disk, contains text.
func fileHolds(t testing.TB, s *site, text string) bool {
	t.Helper()
	for _, name := range []string{s.path, s.path + "-wal"} {
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(data, []byte(text)) {
			return true
		}
	}
	return false
}
