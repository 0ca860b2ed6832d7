package auth_test

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"image"
	"image/jpeg"
	"image/png"
	"mime/multipart"
	"net/http"
	"net/textproto"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bedplate/bedplate/auth"
	"github.com/bedplate/bedplate/sqlite"
)

// newAccount makes a verified user with the password good.
func newAccount(t testing.TB, s *site, email string) auth.UserID {
	t.Helper()
	id, err := s.CreateUser(t.Context(), auth.CreateUser{Email: email, Password: good, Verified: true})
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// cookieLogin signs a browser in by a form.
func cookieLogin(t testing.TB, s *site, email string) *browser {
	t.Helper()
	b := s.browser(t)
	if r := b.form(api+"/login", "email", email, "password", good); r.status != 200 {
		t.Fatalf("login: %d %s", r.status, r.body)
	}
	return b
}

type sessionList struct {
	Sessions []struct {
		ID                     string
		Current, Cookie        bool
		Created, Seen, Expires int64
		Method                 string
		Device, Address        string
	}
}

func sessionsOf(t testing.TB, b *browser) (l sessionList) {
	t.Helper()
	r := b.get(api + "/sessions")
	if r.status != 200 {
		t.Fatalf("sessions: %d %s", r.status, r.body)
	}
	r.json(t, &l)
	return l
}

func wantStatus(t testing.TB, what string, r reply, status int) {
	t.Helper()
	if r.status != status {
		t.Errorf("%s: status %d %q, want %d", what, r.status, r.body, status)
	}
}

func TestSessions(t *testing.T) {
	t.Parallel()
	s := newSite(t, auth.Config{RefreshTTL: 24 * time.Hour})
	id := newAccount(t, s, "a@example.com")
	newAccount(t, s, "b@example.com")
	begun := s.clock.Now()
	old := s.as(t, s.login(t, "a@example.com"))
	s.login(t, "b@example.com")
	s.clock.Add(time.Minute)
	b := s.browser(t).with("User-Agent", "Walker/1\t(\u202eTest)")
	if r := b.form(api+"/login", "email", "a@example.com", "password", good); r.status != 200 {
		t.Fatalf("login: %d %s", r.status, r.body)
	}

	l := sessionsOf(t, b)
	if len(l.Sessions) != 2 {
		t.Fatalf("%d sessions, want 2", len(l.Sessions))
	}
	first, second := l.Sessions[0], l.Sessions[1]
	now := s.clock.Now().Unix()
	if first.Created != now || first.Seen != now || first.Expires != now+24*3600 {
		t.Errorf("times of %+v, want %d", first, now)
	}
	if !first.Current || second.Current || !first.Cookie || second.Cookie || second.Created != begun.Unix() {
		t.Errorf("not the newest first, or not the current one: %+v", l)
	}
	if first.Method != "password" || !strings.HasPrefix(first.Device, "Walker/1") || strings.ContainsAny(first.Device, "\t\u202e") || first.Address != "127.0.0.1" {
		t.Errorf("session is described as %+v", first)
	}
	if l := sessionsOf(t, old); l.Sessions[0].Current || !l.Sessions[1].Current {
		t.Error("the other session is not current in its own list")
	}
	listed, err := s.Sessions(t.Context(), id)
	if err != nil || len(listed) != 2 || listed[0].ID != first.ID || !listed[1].Created.Equal(begun) {
		t.Errorf("Sessions: %+v, %v", listed, err)
	}
	wantStatus(t, "list without a session", s.browser(t).get(api+"/sessions"), 401)

	s.clock.Add(24*time.Hour - time.Minute)
	if listed, err := s.Sessions(t.Context(), id); err != nil || len(listed) != 1 {
		t.Errorf("after the first has expired: %+v, %v", listed, err)
	}
}

func TestEndSessions(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		path          string
		status        int
		asker, others bool // still alive
	}{
		{"/sessions", 200, false, false},
		{"/sessions?others=false", 200, false, false},
		{"/sessions?others=true", 200, true, false},
		{"/sessions?others=yes", 400, true, true},
		{"/sessions/SELF", 200, false, true},
		{"/sessions/OTHER", 200, true, false},
	} {
		t.Run(strings.ReplaceAll(c.path[1:], "/", " "), func(t *testing.T) {
			t.Parallel()
			s := newSite(t, auth.Config{RedirectSchemes: []string{"app"}})
			newAccount(t, s, "a@example.com")
			newAccount(t, s, "b@example.com")
			tokens, stranger := s.login(t, "a@example.com"), s.as(t, s.login(t, "b@example.com"))
			other := s.as(t, tokens)
			asker := cookieLogin(t, s, "a@example.com")
			self, path := "", c.path
			for _, x := range sessionsOf(t, asker).Sessions {
				if x.Current {
					self = x.ID
					path = strings.Replace(path, "SELF", x.ID, 1)
				} else {
					path = strings.Replace(path, "OTHER", x.ID, 1)
				}
			}
			if self == "" {
				t.Fatal("no current session")
			}
			for _, b := range []*browser{asker, other, stranger} { // now it is cached
				wantStatus(t, "before", b.get("/private"), 200)
			}
			r := asker.do("DELETE", api+path, "", "")
			wantStatus(t, "end", r, c.status)
			alive := func(b *browser) bool { return b.get("/private").status == 200 }
			if got := alive(other); got != c.others {
				t.Errorf("the other session lives: %v, want %v", got, c.others)
			}
			if r := s.browser(t).post(api+"/refresh", object{"refresh_token": tokens.RefreshToken}); (r.status == 200) != c.others {
				t.Errorf("its refresh token: %d", r.status)
			}
			if got := alive(asker); got != c.asker {
				t.Errorf("the asking session lives: %v, want %v", got, c.asker)
			}
			if dropped := len(r.header["Set-Cookie"]) == 2; dropped == c.asker {
				t.Errorf("cookies dropped: %v", r.header["Set-Cookie"])
			}
			if !alive(stranger) {
				t.Error("a session of another user has ended")
			}
		})
	}
}

// A code that was given out before is no way back in.
func TestEndSessionsEndsCodes(t *testing.T) {
	t.Parallel()
	for _, query := range []string{"", "?others=true"} {
		s := newSite(t, auth.Config{RedirectSchemes: []string{"app"}})
		newAccount(t, s, "a@example.com")
		b := s.as(t, s.login(t, "a@example.com"))
		verifier := strings.Repeat("v", 43)
		r := s.browser(t).post(api+"/login", object{
			"email": "a@example.com", "password": good, "response_type": "code", "redirect_uri": "app://host/back",
			"pkce_code_challenge": "7w_YNF9DSfIdPf_pRjSq646_kPr-2-o9NAl16JGghdM",
		})
		_, code, ok := strings.Cut(r.location(), "code=")
		if !ok {
			t.Fatalf("no code: %d %q %q", r.status, r.body, r.location())
		}
		wantStatus(t, "end", b.do("DELETE", api+"/sessions"+query, "", ""), 200)
		wantStatus(t, "code", b.post(api+"/token", object{"authorization_code": code, "pkce_code_verifier": verifier}), 404)
	}
}

func TestB8_SessionsOfOthers(t *testing.T) {
	t.Parallel()
	s := newSite(t, auth.Config{})
	newAccount(t, s, "victim@example.com")
	newAccount(t, s, "attacker@example.com")
	victim, attacker := s.as(t, s.login(t, "victim@example.com")), s.as(t, s.login(t, "attacker@example.com"))
	target := sessionsOf(t, victim).Sessions[0].ID
	if l := sessionsOf(t, attacker); len(l.Sessions) != 1 || l.Sessions[0].ID == target {
		t.Errorf("the attacker sees %+v", l)
	}
	var first reply
	for i, id := range []string{
		target,
		"AAAAAAAAAAAAAAAAAAAAAA", // unknown
		target + "=", target[:21], "x", "%00", "%27%20OR%201=1", strings.Repeat("A", 4000),
	} {
		r := attacker.do("DELETE", api+"/sessions/"+id, "", "")
		r.header.Del("Date")
		if i == 0 {
			first = r
		}
		if r.status != 404 || r.body != first.body || fmt.Sprint(r.header) != fmt.Sprint(first.header) {
			t.Errorf("session %.30q: %d %q %v, want the same as for another's: %d %q %v", id, r.status, r.body, r.header, first.status, first.body, first.header)
		}
	}
	wantStatus(t, "victim", victim.get("/private"), 200)
	victimID, attackerID := s.userID(t, "victim@example.com"), s.userID(t, "attacker@example.com")
	if err := s.EndSession(t.Context(), attackerID, target); err != auth.ErrNotFound {
		t.Errorf("EndSession of another's session: %v", err)
	}
	if err := s.EndSession(t.Context(), victimID, target); err != nil {
		t.Error(err)
	}
	if err := s.EndSession(t.Context(), victimID, target); err != auth.ErrNotFound {
		t.Errorf("EndSession again: %v", err)
	}
	wantStatus(t, "victim's ended session", victim.get("/private"), 401)
}

// Session ids have 128 bits, all of them random.
func TestB10_SessionIDs(t *testing.T) {
	t.Parallel()
	s := newSite(t, auth.Config{})
	const users, logins = 4, 90 // a user has at most 100 sessions
	seen := map[string]bool{}
	ones := make([]int, 128)
	for u := range users {
		email := fmt.Sprintf("u%d@example.com", u)
		id := newAccount(t, s, email)
		for range logins {
			s.login(t, email)
		}
		list, err := s.Sessions(t.Context(), id)
		if err != nil || len(list) != logins {
			t.Fatalf("%d sessions, %v", len(list), err)
		}
		for _, x := range list {
			raw, err := base64.RawURLEncoding.Strict().DecodeString(x.ID)
			if err != nil || len(raw) != 16 || seen[x.ID] {
				t.Fatalf("session id %q: %v, seen before: %v", x.ID, err, seen[x.ID])
			}
			seen[x.ID] = true
			countBits(ones, raw)
		}
	}
	checkBits(t, ones, users*logins)
}

func countBits(ones []int, raw []byte) {
	for i := range ones {
		ones[i] += int(raw[i/8] >> (i % 8) & 1)
	}
}

// checkBits fails for a bit that is more than 7 standard deviations away from
// being set half of the times: once in billions of runs.
func checkBits(t testing.TB, ones []int, n int) {
	t.Helper()
	for i, k := range ones {
		if d := 2*k - n; d*d > 49*n {
			t.Errorf("bit %d is set in %d of %d", i, k, n)
		}
	}
}

func TestDelete(t *testing.T) {
	t.Parallel()
	s := newSite(t, auth.Config{})
	s.exec(t, `CREATE TABLE note (id INTEGER PRIMARY KEY, owner BLOB REFERENCES _user(id) ON DELETE CASCADE) STRICT`)
	exists := func(id auth.UserID) bool {
		return countRows(t, s, `SELECT count(*) FROM _user WHERE id = ?`, id[:]) == 1
	}
	id := newAccount(t, s, "a@example.com")
	s.exec(t, `INSERT INTO note (owner) VALUES (?)`, id[:])
	b := cookieLogin(t, s, "a@example.com")
	tokens := s.login(t, "a@example.com")
	bearer := s.as(t, tokens)

	wantStatus(t, "DELETE by nobody", s.browser(t).do("DELETE", api+"/delete", "", ""), 401)
	wantStatus(t, "GET by nobody", s.browser(t).get(api+"/delete"), 405)
	wantStatus(t, "GET with cookies", b.get(api+"/delete"), 405)
	wantStatus(t, "GET with cookies and another header", b.with("Authorization", "Basic eDp5").get(api+"/delete"), 401)
	wantStatus(t, "HEAD with a token", bearer.do("HEAD", api+"/delete", "", ""), 405)
	wantStatus(t, "GET with a bad token", s.browser(t).with("Authorization", "Bearer x").get(api+"/delete"), 401)
	wantStatus(t, "DELETE from another site", b.with("Origin", "http://evil.example").do("DELETE", api+"/delete", "", ""), 403)
	if !exists(id) {
		t.Fatal("the account has gone")
	}
	r := b.do("DELETE", api+"/delete", "", "")
	if r.status != 200 || r.body != "deleted" || len(r.header["Set-Cookie"]) != 2 {
		t.Errorf("DELETE: %d %q %v", r.status, r.body, r.header["Set-Cookie"])
	}
	if exists(id) || countRows(t, s, `SELECT count(*) FROM note`) != 0 || countRows(t, s, `SELECT count(*) FROM _session`) != 0 {
		t.Error("the account, or what refers to it, is still there")
	}
	wantStatus(t, "its token", bearer.get("/private"), 401)
	wantStatus(t, "delete again", bearer.do("DELETE", api+"/delete", "", ""), 401)
	wantStatus(t, "its refresh token", b.post(api+"/refresh", object{"refresh_token": tokens.RefreshToken}), 401)
	wantStatus(t, "login", b.post(api+"/login", object{"email": "a@example.com", "password": good}), 401)

	id = newAccount(t, s, "a@example.com")
	if r := s.as(t, s.login(t, "a@example.com")).get(api + "/delete"); r.status != 200 || r.body != "deleted" || exists(id) {
		t.Errorf("GET with a token: %d %q", r.status, r.body)
	}
}

func TestDeleteRefused(t *testing.T) {
	t.Parallel()
	for name, table := range map[string]string{
		"fk":       `owner BLOB REFERENCES _user(id)`,
		"deferred": `owner BLOB REFERENCES _user(id) DEFERRABLE INITIALLY DEFERRED`,
		"not null": `owner BLOB NOT NULL REFERENCES _user(id) ON DELETE SET NULL`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, auth.Config{})
			s.exec(t, `CREATE TABLE note (id INTEGER PRIMARY KEY, `+table+`) STRICT`)
			id := newAccount(t, s, "a@example.com")
			s.exec(t, `INSERT INTO note (owner) VALUES (?)`, id[:])
			b := s.as(t, s.login(t, "a@example.com"))
			want := "sqlite constraint: " + strings.Replace(name, "deferred", "fk", 1)
			if r := b.do("DELETE", api+"/delete", "", ""); r.status != 400 || r.body != want {
				t.Errorf("%d %q, want 400 %q", r.status, r.body, want)
			}
			wantStatus(t, "the account", b.get("/private"), 200)
		})
	}
}

func TestDeleteRace(t *testing.T) {
	t.Parallel()
	s := newSite(t, auth.Config{})
	newAccount(t, s, "a@example.com")
	b := s.as(t, s.login(t, "a@example.com"))
	statuses := inParallel(16, func(int) int { return b.do("DELETE", api+"/delete", "", "").status })
	if statuses[200] != 1 || statuses[401] != 15 {
		t.Errorf("statuses %v, want one 200 and else 401", statuses)
	}
}

// inParallel counts the results of n calls at the same time.
func inParallel[T comparable](n int, f func(i int) T) map[T]int {
	var mu sync.Mutex
	var wg sync.WaitGroup
	results, start := map[T]int{}, make(chan struct{})
	for i := range n {
		wg.Go(func() {
			<-start
			r := f(i)
			mu.Lock()
			defer mu.Unlock()
			results[r]++
		})
	}
	close(start)
	wg.Wait()
	return results
}

func countRows(t testing.TB, s *site, sql string, args ...any) (n int) {
	t.Helper()
	err := s.db.View(t.Context(), func(tx *sqlite.Tx) error {
		return tx.QueryRowContext(t.Context(), sql, args...).Scan(&n)
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// A filePart is a part of a multipart body.
type filePart struct {
	name, file, kind string
	data             []byte
}

func multipartBody(t testing.TB, parts ...filePart) (contentType, body string) {
	t.Helper()
	var buf bytes.Buffer
	w := multipart.NewWriter(&buf)
	for _, p := range parts {
		h := textproto.MIMEHeader{}
		disposition := fmt.Sprintf(`form-data; name=%q`, p.name)
		if p.file != "" {
			disposition += fmt.Sprintf(`; filename=%q`, p.file)
		}
		h.Set("Content-Disposition", disposition)
		h.Set("Content-Type", p.kind)
		part, err := w.CreatePart(h)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := part.Write(p.data); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return w.FormDataContentType(), buf.String()
}

func pngImage(t testing.TB, width, height int) []byte {
	t.Helper()
	var buf bytes.Buffer
	if err := png.Encode(&buf, image.NewGray(image.Rect(0, 0, width, height))); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func jpegImage(t testing.TB) []byte {
	t.Helper()
	var buf bytes.Buffer
	if err := jpeg.Encode(&buf, image.NewGray(image.Rect(0, 0, 8, 8)), nil); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func TestAvatar(t *testing.T) {
	t.Parallel()
	s := newSite(t, auth.Config{})
	id := newAccount(t, s, "a@example.com")
	b := s.as(t, s.login(t, "a@example.com"))
	path := api + "/avatar/" + id.String()
	public := s.browser(t)

	wantStatus(t, "none yet", public.get(path), 404)
	wantStatus(t, "unknown user", public.get(api+"/avatar/AAAAAAAAAAAAAAAAAAAAAA=="), 404)
	for _, bad := range []string{"x", "AAAAAAAAAAAAAAAAAAAAAA", "AAAAAAAAAAAAAAAAAAAAAB==", strings.Repeat("A", 500)} {
		if r := public.get(api + "/avatar/" + bad); r.status != 400 || r.body != "Invalid user id" {
			t.Errorf("avatar/%.30s: %d %q", bad, r.status, r.body)
		}
	}

	for kind, data := range map[string][]byte{"image/png": pngImage(t, 8, 8), "image/jpeg": jpegImage(t)} {
		// What the client says about the type is not believed.
		contentType, body := multipartBody(t, filePart{"file", "me.svg", "image/svg+xml", data})
		if r := b.do("POST", api+"/avatar", contentType, body); r.status != 200 || r.body != "" {
			t.Fatalf("put %s: %d %q", kind, r.status, r.body)
		}
		r := public.get(path)
		h := r.header
		if r.status != 200 || r.body != string(data) || h.Get("Content-Type") != kind || h.Get("X-Content-Type-Options") != "nosniff" ||
			!strings.Contains(h.Get("Content-Security-Policy"), "sandbox") || !strings.HasPrefix(h.Get("Cache-Control"), "public, max-age=") {
			t.Errorf("get %s: %d, %d bytes, %v", kind, r.status, len(r.body), h)
		}
		if r := public.with("If-None-Match", h.Get("ETag")).get(path); r.status != 304 || r.body != "" {
			t.Errorf("the same again: %d", r.status)
		}
		if r := public.with("If-None-Match", `"other"`).get(path); r.status != 200 {
			t.Errorf("with another ETag: %d", r.status)
		}
		if r := public.do("HEAD", path, "", ""); r.status != 200 || r.header.Get("Content-Length") != fmt.Sprint(len(data)) {
			t.Errorf("HEAD: %d %v", r.status, r.header)
		}
	}
	wantStatus(t, "delete by nobody", public.do("DELETE", api+"/avatar", "", ""), 401)
	wantStatus(t, "delete", b.do("DELETE", api+"/avatar", "", ""), 200)
	wantStatus(t, "after", public.get(path), 404)
	wantStatus(t, "delete again", b.do("DELETE", api+"/avatar", "", ""), 200)
}

func TestAvatarRefused(t *testing.T) {
	t.Parallel()
	s := newSite(t, auth.Config{})
	id := newAccount(t, s, "a@example.com")
	b := s.as(t, s.login(t, "a@example.com"))
	pixel := pngImage(t, 1, 1)
	file := func(data []byte) []filePart { return []filePart{{"file", "me.png", "image/png", data}} }
	huge := append(pngImage(t, 1, 1), make([]byte, 1<<20)...)
	bomb := pngImage(t, 1, 1)
	copy(bomb[16:24], []byte{0, 0, 0x20, 0, 0, 0, 0x20, 0}) // 8192 x 8192; the checksum is wrong too
	for name, c := range map[string]struct {
		parts []filePart
		text  string
	}{
		"no part":        {nil, ""},
		"other name":     {[]filePart{{"image", "me.png", "image/png", pixel}}, "Expected single 'file'"},
		"no file name":   {[]filePart{{"file", "", "image/png", pixel}}, "Expected single 'file'"},
		"two files":      {append(file(pixel), file(pixel)...), "Expected single 'file'"},
		"field behind":   {append(file(pixel), filePart{"x", "", "text/plain", nil}), "Expected single 'file'"},
		"field before":   {append([]filePart{{"x", "", "text/plain", nil}}, file(pixel)...), "Expected single 'file'"},
		"empty":          {file(nil), "expected a PNG or JPEG image"},
		"html":           {file([]byte("<html><script>alert(1)</script>")), "expected a PNG or JPEG image"},
		"svg":            {file([]byte(`<svg xmlns="http://www.w3.org/2000/svg" onload="alert(1)"/>`)), "expected a PNG or JPEG image"},
		"gif":            {file([]byte("GIF89a\x01\x00\x01\x00\x00\x00\x00")), "expected a PNG or JPEG image"},
		"png signature":  {file([]byte("\x89PNG\r\n\x1a\n<script>")), "expected a PNG or JPEG image"},
		"jpeg signature": {file([]byte("\xff\xd8\xff<script>")), "expected a PNG or JPEG image"},
		"too large":      {file(huge), "file too large"},
		"bomb":           {file(bomb), "expected a PNG or JPEG image"},
		"too wide":       {file(pngImage(t, 8193, 1)), "image too large"},
		"too many":       {file(pngImage(t, 4097, 4097)), "image too large"},
	} {
		contentType, body := multipartBody(t, c.parts...)
		if r := b.do("POST", api+"/avatar", contentType, body); r.status != 400 || c.text != "" && r.body != c.text {
			t.Errorf("%s: %d %q, want 400 %q", name, r.status, r.body, c.text)
		}
	}
	contentType, body := multipartBody(t, file(pixel)...)
	for name, c := range map[string]struct{ kind, body, text string }{
		"json":      {"application/json", `{"file":"x"}`, "expected multipart"},
		"no type":   {"", body, "expected multipart"},
		"cut short": {contentType, body[:len(body)-10], "invalid multipart body"},
		"boundless": {"multipart/form-data", body, "expected multipart"},
		"far over":  {contentType, body[:len(body)-10] + strings.Repeat("x", 2<<20), ""},
	} {
		if r := b.do("POST", api+"/avatar", c.kind, c.body); r.status != 400 || c.text != "" && r.body != c.text {
			t.Errorf("%s: %d %q, want 400 %q", name, r.status, r.body, c.text)
		}
	}
	wantStatus(t, "put by nobody", s.browser(t).do("POST", api+"/avatar", contentType, body), 401)
	wantStatus(t, "put from another site", cookieLogin(t, s, "a@example.com").with("Sec-Fetch-Site", "cross-site").do("POST", api+"/avatar", contentType, body), 403)
	wantStatus(t, "nothing was stored", b.get(api+"/avatar/"+id.String()), http.StatusNotFound)
}
