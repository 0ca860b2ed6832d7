package bedplate_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/bedplate/bedplate/auth"
	"github.com/bedplate/bedplate/records"
	"github.com/bedplate/bedplate/sqlite"
)

const posts = "/api/records/v1/posts"

// apiKey makes an API key in a session.
func (l *live) apiKey(t testing.TB, token, scopes string, seconds int) (id, key string) {
	t.Helper()
	var made struct{ ID, Key string }
	body := l.as(token).want(t, "POST", "/api/auth/v1/api_keys", fmt.Sprintf(`{"name":"x","scopes":%s,"expires_in":%d}`, scopes, seconds), 200, "bpk_")
	if err := json.Unmarshal([]byte(body), &made); err != nil {
		t.Fatal(err)
	}
	return made.ID, made.Key
}

func TestH1_SubscribeToWhatIsNotYours(t *testing.T) {
	t.Parallel()
	cfg := liveConfig(t.TempDir())
	cfg.Records = append(cfg.Records, records.API{Name: "writeonly", Table: "note", World: records.Create, Subscriptions: true})
	l := newLive(t, cfg)
	ada, tokens := l.login(t, "ada")
	bob, other := l.login(t, "bob")
	for _, author := range []auth.UserID{ada, bob} {
		l.as(tokens.AuthToken).want(t, "POST", posts, fmt.Sprintf(`{"author":%q,"text":"x"}`, author), 200, "")
	}
	_, key := l.apiKey(t, tokens.AuthToken, `[{"api":"notes","operations":["*"]},{"api":"posts","operations":["create"]}]`, 60)
	for _, tt := range []struct {
		token, path string
		status      int
	}{
		{"", "posts/subscribe/*", 403},
		{"", "posts/subscribe/1", 403},
		{other.AuthToken + "x", "posts/subscribe/*", 403},
		{other.AuthToken, "posts/subscribe/1", 403},  // ada's
		{other.AuthToken, "posts/subscribe/99", 403}, // nobody's
		{other.AuthToken, "posts/subscribe/x", 400},
		{key, "posts/subscribe/*", 403}, // not in its scopes
		{key, "posts/subscribe/1", 403},
		{"", "writeonly/subscribe/*", 403},
		{tokens.AuthToken, "profiles/subscribe/*", 403}, // without subscriptions
		{tokens.AuthToken, "_user/subscribe/*", 405},
		{tokens.AuthToken, "post/subscribe/*", 405},
		{tokens.AuthToken, "_change/subscribe/*", 405},
		{tokens.AuthToken, "notes/subscribe/99", 404},
		{tokens.AuthToken, "posts/subscribe/*?filter[_hidden]=x", 400},
		{tokens.AuthToken, "posts/subscribe/*?filter[secret]=x", 400},
		{tokens.AuthToken, "posts/subscribe/*?filter[nope]=x", 400},
		{tokens.AuthToken, "posts/subscribe/*?filter[text][$nope]=x", 400},
		{tokens.AuthToken, "posts/subscribe/*?filter[text]=%zz", 400},
		{tokens.AuthToken, "posts/subscribe/*?ws=true", 400},
	} {
		res := l.get(t, "/api/records/v1/"+tt.path, "Authorization", "Bearer "+tt.token)
		if res.status != tt.status {
			t.Errorf("%s: %d, want %d", tt.path, res.status, tt.status)
		}
	}
	mine, his := l.bearing(t, tokens.AuthToken, posts+"/subscribe/*"), l.bearing(t, other.AuthToken, posts+"/subscribe/*")
	all := `UPDATE post SET text = 'y', secret = 'secret', _hidden = 'secret'`
	l.exec(t, all)
	mine.want(fmt.Sprintf(`{"Update":{"author":%q,"id":1,"text":"y"},"seq":1}`, ada))
	his.want(fmt.Sprintf(`{"Update":{"author":%q,"id":2,"text":"y"},"seq":1}`, bob))
}

func TestH2_RowsThatLeaveTheView(t *testing.T) {
	t.Parallel()
	l := newLive(t, liveConfig(t.TempDir()))
	ada, tokens := l.login(t, "ada")
	bob, other := l.login(t, "bob")
	_, third := l.login(t, "eve")
	mine, his, hers := l.bearing(t, tokens.AuthToken, posts+"/subscribe/*"), l.bearing(t, other.AuthToken, posts+"/subscribe/*"),
		l.bearing(t, third.AuthToken, posts+"/subscribe/*")
	l.exec(t, `INSERT INTO post (id, author, text) VALUES (1, ?, 'old')`, ada[:])
	one := l.bearing(t, tokens.AuthToken, posts+"/subscribe/1")
	l.exec(t, `UPDATE post SET author = ?, text = 'new', secret = 's', _hidden = 'h'`, bob[:])
	l.exec(t, `DELETE FROM post`)
	l.exec(t, `INSERT INTO post (id, author, text) VALUES (2, ?, 'end')`, ada[:])

	old := fmt.Sprintf(`{"author":%q,"id":1,"text":"old"}`, ada)
	fresh := fmt.Sprintf(`{"author":%q,"id":1,"text":"new"}`, bob)
	// Ada does not see what it has become, nor Bob what it was.
	mine.want(`{"Insert":`+old+`,"seq":1}`, `{"Delete":`+old+`,"seq":2}`, fmt.Sprintf(`{"Insert":{"author":%q,"id":2,"text":"end"},"seq":3}`, ada))
	his.want(`{"Update":`+fresh+`,"seq":1}`, `{"Delete":`+fresh+`,"seq":2}`)
	f, _ := one.next()
	var lost struct{ Error struct{ Status int } }
	if err := json.Unmarshal([]byte(f.data), &lost); err != nil || lost.Error.Status != 1 || strings.Contains(f.data, "new") {
		t.Errorf("the record that is not ada's any more: %s", f.data)
	}
	one.ends()
	// Whoever resumes from before is told the same, and eve nothing at all.
	l.exec(t, `INSERT INTO post (id, author, text) SELECT 3, id, 'eve' FROM _user WHERE email = 'eve@example.com'`)
	f, _ = hers.next()
	if !strings.Contains(f.data, `"text":"eve"},"seq":1}`) {
		t.Errorf("eve gets %s", f.data)
	}
}

// A stream ends after what ends the credential it was opened with, and
// the streams of others do not.
func TestH3_StreamsEndWithTheirCredential(t *testing.T) {
	t.Parallel()
	cfg := liveConfig(t.TempDir())
	clock := new(testClock)
	cfg.Auth.Now = clock.Now
	l := newLive(t, cfg)
	ctx := t.Context()
	type user struct {
		name   string
		id     auth.UserID
		tokens auth.Tokens
		keyID  string
	}
	elsewhere := func(u user) caller { return l.as(l.again(t, u.name).AuthToken) }
	ways := map[string]struct {
		seconds int // of an API key that is used instead of a session; 0: none
		admin   bool
		end     func(u user)
	}{
		"logout": {end: func(u user) {
			l.as("").want(t, "POST", "/api/auth/v1/logout", `{"refresh_token":"`+u.tokens.RefreshToken+`"}`, 200, "")
		}},
		"ended by its owner": {end: func(u user) {
			elsewhere(u).want(t, "DELETE", "/api/auth/v1/sessions?others=true", "", 200, "")
		}},
		"ended by another process": {end: func(u user) { l.exec(t, `DELETE FROM _session WHERE user = ?`, u.id[:]) }},
		"password reset": {end: func(u user) {
			l.as("").want(t, "POST", "/api/auth/v1/reset_password/request", `{"email":"`+u.name+`@example.com"}`, 200, "")
			token := regexp.MustCompile(`/update/([A-Za-z0-9]{20,})`)
			m := l.inbox.wait(t)
			for m.To != u.name+"@example.com" || !token.MatchString(m.Text) {
				m = l.inbox.wait(t)
			}
			l.as("").want(t, "POST", "/api/auth/v1/reset_password/update",
				`{"password_reset_token":"`+token.FindStringSubmatch(m.Text)[1]+`","password":"`+testPassword+`x","password_repeat":"`+testPassword+`x"}`, 200, "")
		}},
		"password set": {end: func(u user) { check(t, l.Auth.SetPassword(ctx, u.id, testPassword+"x")) }},
		"password changed elsewhere": {end: func(u user) {
			elsewhere(u).want(t, "POST", "/api/auth/v1/change_password",
				`{"old_password":"`+testPassword+`","new_password":"`+testPassword+`x"}`, 200, "")
		}},
		"disabled":             {end: func(u user) { check(t, l.Auth.SetDisabled(ctx, u.id, true)) }},
		"deleted":              {end: func(u user) { check(t, l.Auth.DeleteUser(ctx, u.id)) }},
		"promoted":             {end: func(u user) { check(t, l.Auth.SetAdmin(ctx, u.id, true)) }},
		"demoted":              {admin: true, end: func(u user) { check(t, l.Auth.SetAdmin(ctx, u.id, false)) }},
		"key's owner disabled": {seconds: 3600, end: func(u user) { check(t, l.Auth.SetDisabled(ctx, u.id, true)) }},
		"key revoked": {seconds: 3600, end: func(u user) {
			l.as(u.tokens.AuthToken).want(t, "DELETE", "/api/auth/v1/api_keys/"+u.keyID, "", 200, "")
		}},
		"key expired": {seconds: 600, end: func(user) { clock.Add(601 * time.Second) }},
	}
	users, streams := map[string]user{}, map[string]*stream{}
	for way, tt := range ways {
		u := user{name: fmt.Sprintf("user%d", len(users))}
		u.id = newUser(t, l.Backend, u.name)
		if tt.admin {
			check(t, l.Auth.SetAdmin(ctx, u.id, true))
		}
		u.tokens = l.again(t, u.name)
		token := u.tokens.AuthToken
		if tt.seconds > 0 {
			u.keyID, token = l.apiKey(t, token, `[{"api":"notes","operations":["*"]}]`, tt.seconds)
		}
		users[way], streams[way] = u, l.bearing(t, token, notes+"/subscribe/*")
	}
	_, other := l.login(t, "bob")
	stay := []*stream{l.bearing(t, other.AuthToken, notes+"/subscribe/*"), l.stream(t, notes+"/subscribe/*")}
	l.listening(t, len(ways)+len(stay))
	for way, tt := range ways {
		tt.end(users[way])
	}
	for way, s := range streams {
		t.Log(way)
		s.ends()
	}
	l.listening(t, len(stay))
	l.as("").want(t, "POST", notes, `{"text":"still here"}`, 200, "")
	for _, s := range stay {
		s.want(`{"Insert":{"author":null,"id":1,"text":"still here"},"seq":1}`)
	}
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// Streams of an API whose table is gone end, too, and new ones are refused.
func TestH3_RemovedAPI(t *testing.T) {
	t.Parallel()
	cfg := liveConfig(t.TempDir())
	var log syncBuffer
	cfg.Logger = slog.New(slog.NewTextHandler(&log, nil))
	l := newLive(t, cfg)
	all, one := l.stream(t, notes+"/subscribe/*"), func() *stream {
		l.exec(t, `INSERT INTO note (id) VALUES (1)`)
		return l.stream(t, notes+"/subscribe/1")
	}()
	check(t, l.DB.Update(t.Context(), func(tx *sqlite.Tx) error {
		_, inserted := tx.ExecContext(t.Context(), `INSERT INTO note (id) VALUES (2)`)
		_, dropped := tx.ExecContext(t.Context(), `DROP TABLE note`)
		return errors.Join(inserted, dropped)
	}))
	for _, s := range []*stream{all, one} {
		for _, open := s.next(); open; _, open = s.next() { // what was, and that it has ended
		}
	}
	for line := range strings.Lines(log.String()) {
		if !strings.Contains(line, "record APIs do not fit the schema") { // which is no fault of streams
			t.Error(line)
		}
	}
	if res := l.get(t, notes+"/subscribe/*"); res.status != 500 {
		t.Errorf("a new stream: %d", res.status)
	}
}

// A stream opened with a cookie ends with its session, too.
func TestH3_CookieStreams(t *testing.T) {
	t.Parallel()
	l := newLive(t, liveConfig(t.TempDir()))
	id := newUser(t, l.Backend, "ada")
	_, cookie := signIn(t, l.Handler(), "ada@example.com")
	s := l.stream(t, posts+"/subscribe/*", "Cookie", cookie.header.Get("Cookie"))
	l.exec(t, `INSERT INTO post (author, text) VALUES (?, 'x')`, id[:])
	s.want(fmt.Sprintf(`{"Insert":{"author":%q,"id":1,"text":"x"},"seq":1}`, id))
	check(t, l.Auth.EndSessions(t.Context(), id))
	s.ends()
}

// An expired token holds no stream either, by the clock of the sign-in.
func TestH3_Expiry(t *testing.T) {
	t.Parallel()
	cfg := liveConfig(t.TempDir())
	clock := new(testClock)
	cfg.Auth.Now = clock.Now
	l := newLive(t, cfg)
	_, tokens := l.login(t, "ada")
	s := l.bearing(t, tokens.AuthToken, posts+"/subscribe/*")
	clock.Add(time.Hour + 2*time.Minute)
	s.ends()
	if res := l.get(t, posts+"/subscribe/*", "Authorization", "Bearer "+tokens.AuthToken); res.status != 403 {
		t.Errorf("again: %d", res.status)
	}
}

// An EventSource on another origin has a ticket, which is good once, for half
// a minute and for as long as what it was bought with; a token in a query is
// none, and no ticket is in the log.
func TestH5_Tickets(t *testing.T) {
	t.Parallel()
	cfg := liveConfig(t.TempDir())
	clock := new(testClock)
	cfg.Auth.Now = clock.Now
	var log syncBuffer
	cfg.Logger = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	l := newLive(t, cfg)
	ada, tokens := l.login(t, "ada")
	bob, other := l.login(t, "bob")
	secrets := []string{tokens.AuthToken, tokens.RefreshToken, other.AuthToken}
	ticket := func(c caller) string {
		t.Helper()
		w := c.send("POST", "/api/realtime/v1/ticket", "")
		var made struct{ Ticket string }
		if err := json.Unmarshal(w.Body.Bytes(), &made); err != nil || w.Code != 200 || len(made.Ticket) < 20 || w.Header().Get("Cache-Control") != "no-store" {
			t.Fatalf("ticket: %d %s %v", w.Code, w.Body, w.Header())
		}
		secrets = append(secrets, made.Ticket)
		return made.Ticket
	}
	path := func(ticket string) string { return posts + "/subscribe/*?ticket=" + url.QueryEscape(ticket) }
	refused := func(what, path string, status int, header ...string) {
		t.Helper()
		if res := l.get(t, path, header...); res.status != status {
			t.Errorf("%s: %d, want %d", what, res.status, status)
		}
	}
	mine := l.as(tokens.AuthToken)

	one := ticket(mine)
	s := l.stream(t, path(one))
	refused("used", path(one), 401)
	refused("used, by its owner", path(one), 401, "Authorization", "Bearer "+tokens.AuthToken)
	refused("token in the query", posts+"/subscribe/*?auth_token="+tokens.AuthToken+"&token="+tokens.AuthToken+"&access_token="+tokens.AuthToken, 403)
	refused("token as ticket", path(tokens.AuthToken), 401)
	refused("made up", path(strings.Repeat("A", 26)), 401)

	// It is good for streams alone, and makes no other ticket.
	two := ticket(mine)
	refused("list", posts+"?ticket="+two, 403)
	l.as("").want(t, "POST", "/api/realtime/v1/ticket?ticket="+two, "", 401, "")
	l.as("").want(t, "GET", "/api/auth/v1/sessions?ticket="+two, "", 401, "")

	// It stands for whoever has bought it, whatever else the request shows.
	his := l.stream(t, path(ticket(l.as(other.AuthToken))), "Authorization", "Bearer "+tokens.AuthToken)
	l.exec(t, `INSERT INTO post (author, text) VALUES (?, 'a'), (?, 'b')`, ada[:], bob[:])
	s.want(fmt.Sprintf(`{"Insert":{"author":%q,"id":1,"text":"a"},"seq":1}`, ada))
	his.want(fmt.Sprintf(`{"Insert":{"author":%q,"id":2,"text":"b"},"seq":1}`, bob))

	// A page of another origin cannot get one by cookies.
	_, cookie := signIn(t, l.Handler(), "ada@example.com")
	foreign := caller{l.Handler(), http.Header{"Cookie": cookie.header["Cookie"], "Origin": {"https://evil.example"}, "Sec-Fetch-Site": {"cross-site"}}}
	foreign.want(t, "POST", "/api/realtime/v1/ticket", "", 403, "")
	if w := cookie.send("POST", "/api/realtime/v1/ticket", ""); w.Code != 200 {
		t.Errorf("ticket by a cookie: %d", w.Code)
	}

	late := ticket(mine)
	clock.Add(31 * time.Second)
	refused("late", path(late), 401)
	// An API key's ticket has its scopes.
	_, key := l.apiKey(t, tokens.AuthToken, `[{"api":"notes","operations":["read"]}]`, 60)
	refused("scopes", path(ticket(l.as(key))), 403)

	// Neither ticket nor stream outlives the session.
	three := ticket(mine)
	check(t, l.Auth.EndSessions(t.Context(), ada))
	refused("ended", path(three), 401)
	s.ends()
	for _, secret := range secrets {
		if strings.Contains(log.String(), secret) {
			t.Errorf("the log holds %s", secret)
		}
	}
}
