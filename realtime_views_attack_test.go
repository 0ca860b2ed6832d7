package bedplate_test

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/url"
	"path/filepath"
	"strings"
	"testing"

	"github.com/bedplate/bedplate"
	"github.com/bedplate/bedplate/records"
)

// APIs over one table have different rules and columns: their streams share
// nothing, also with the same filter and for the same user.
func TestAttackAPIsOverOneTable(t *testing.T) {
	t.Parallel()
	cfg := liveConfig(t.TempDir())
	api := records.API{Table: "post", Authenticated: records.Read, Subscriptions: true}
	for name, change := range map[string]func(a *records.API){
		"full": func(*records.API) {},
		"thin": func(a *records.API) { a.Exclude = []string{"secret", "author"} },
		"bare": func(a *records.API) { a.Exclude = []string{"secret", "author", "text"} },
		"none": func(a *records.API) { a.ReadRule = `_ROW_.id < 0` },
		"even": func(a *records.API) { a.ReadRule, a.Exclude = `_ROW_.id % 2 = 0`, []string{"author"} },
	} {
		a := api
		a.Name = name
		change(&a)
		cfg.Records = append(cfg.Records, a)
	}
	l := newLive(t, cfg)
	ada, tokens := l.login(t, "ada")
	_, other := l.login(t, "bob")
	path := func(api string) string { return "/api/records/v1/" + api + "/subscribe/*?filter[id][$gte]=1" }
	streams := map[string][]*stream{}
	for _, api := range []string{"full", "thin", "bare", "none", "even", "posts", "staff"} {
		for _, token := range []string{tokens.AuthToken, other.AuthToken} {
			streams[api] = append(streams[api], l.bearing(t, token, path(api)))
		}
	}
	since := streams["full"][0].lastID
	for id := range 3 {
		l.exec(t, `INSERT INTO post (id, author, text, secret, _hidden) VALUES (?, ?, 't', 's', 'h')`, id, ada[:])
	}
	l.exec(t, `DELETE FROM post WHERE id > 0`)
	row := map[string]func(id int) string{
		"full":  func(id int) string { return fmt.Sprintf(`{"author":%q,"id":%d,"secret":"s","text":"t"}`, ada, id) },
		"posts": func(id int) string { return fmt.Sprintf(`{"author":%q,"id":%d,"text":"t"}`, ada, id) },
		"thin":  func(id int) string { return fmt.Sprintf(`{"id":%d,"text":"t"}`, id) },
		"bare":  func(id int) string { return fmt.Sprintf(`{"id":%d}`, id) },
		"even":  func(id int) string { return fmt.Sprintf(`{"id":%d,"secret":"s","text":"t"}`, id) },
	}
	check := func(api string, user int, s *stream) {
		t.Helper()
		ids := []int{1, 2}
		if api == "even" {
			ids = ids[1:]
		}
		if row[api] == nil || api == "posts" && user > 0 {
			return
		}
		var want []string
		for _, event := range []string{"Insert", "Delete"} {
			for _, id := range ids {
				want = append(want, fmt.Sprintf(`{%q:%s,"seq":%d}`, event, row[api](id), len(want)+1))
			}
		}
		s.want(want...)
	}
	for api, of := range streams {
		for user, s := range of {
			check(api, user, s)
			// From the log it is the same.
			check(api, user, l.bearing(t, []string{tokens.AuthToken, other.AuthToken}[user], path(api)+"&since="+since))
		}
	}
	for _, s := range append(append(streams["none"], streams["staff"]...), streams["posts"][1]) {
		select {
		case f := <-s.frames:
			t.Errorf("somebody who may see nothing gets %+v", f)
		default:
		}
	}
}

// Positions tell nobody how much is written where they cannot see it.
func TestAttackPositions(t *testing.T) {
	t.Parallel()
	l := newLive(t, liveConfig(t.TempDir()))
	ada, tokens := l.login(t, "ada")
	l.exec(t, `INSERT INTO note (id) VALUES (1)`)
	head := func() string { return l.as("").send("GET", notes+"/1", "").Header().Get("Change-Cursor") }
	seen := map[string]bool{}
	epoch, _, _ := strings.Cut(head(), ".")
	for range 20 {
		for range 2 { // the same position, and another one
			cursor := head()
			at, sealed, _ := strings.Cut(cursor, ".")
			raw, err := base64.RawURLEncoding.DecodeString(sealed)
			if at != epoch || err != nil || len(raw) != 16 || seen[cursor] || seen[string(raw[:8])] || seen[string(raw[8:])] {
				t.Fatalf("position %q", cursor)
			}
			seen[cursor], seen[string(raw[:8])], seen[string(raw[8:])] = true, true, true
		}
		l.exec(t, `INSERT INTO post (author, text) VALUES (?, 'x')`, ada[:])
	}
	before := head()
	s := l.stream(t, notes+"/subscribe/*?since="+before)
	l.exec(t, `INSERT INTO post (author, text) SELECT author, text FROM post`)
	l.exec(t, `UPDATE note SET text = 'a'`)
	f, _ := s.next()
	if f.data != `{"Update":{"author":null,"id":1,"text":"a"},"seq":1}` || len(f.id) != len(before) {
		t.Errorf("%+v", f)
	}
	// Positions that are made up, of another history, or spoiled in one place
	// are all answered alike.
	gap := ""
	for i := range before {
		spoiled := []byte(before)
		if spoiled[i] ^= 1; strings.ContainsAny(string(spoiled[i:i+1]), "/:@[`{,^\\") {
			spoiled[i] = 'A'
		}
		if string(spoiled) == before {
			continue
		}
		s := l.stream(t, notes+"/subscribe/*", "Last-Event-ID", string(spoiled))
		f, _ := s.next()
		if gap == "" {
			gap = f.data
		}
		if !strings.Contains(f.data, `"status":2`) || f.data != gap {
			t.Errorf("position %s: %s", spoiled, f.data)
		}
		s.close()
	}
	for _, made := range []string{"0", "1.1", epoch + ".1", epoch + ".-1", epoch + ".", ".", "x\r\n", strings.Repeat("9", 5000), epoch + "." + strings.Repeat("A", 22)} {
		s := l.stream(t, posts+"/subscribe/*?since="+url.QueryEscape(made), "Authorization", "Bearer "+tokens.AuthToken)
		if f, _ := s.next(); f.data != gap {
			t.Errorf("position %.40s: %s", made, f.data)
		}
		s.close()
	}
}

// Keys with any characters are watched as what they are, and reach the wire
// as data.
func TestAttackHostileKeys(t *testing.T) {
	t.Parallel()
	cfg := liveConfig(t.TempDir())
	cfg.Migrations = sqlFile(`CREATE TABLE note (id INTEGER PRIMARY KEY, text TEXT, author INTEGER) STRICT;
		CREATE TABLE profile (user INTEGER PRIMARY KEY) STRICT;
		CREATE TABLE post (id INTEGER PRIMARY KEY, author BLOB, text TEXT, secret TEXT, _hidden TEXT) STRICT;
		CREATE TABLE word (w TEXT PRIMARY KEY COLLATE NOCASE, owner TEXT) STRICT;
		CREATE TABLE data (d BLOB PRIMARY KEY CHECK (is_uuid(d)), owner TEXT) STRICT;`)
	api := records.API{Name: "word", Table: "word", World: records.Read, Subscriptions: true}
	cfg.Records = append(cfg.Records, api, records.API{Name: "data", Table: "data", World: records.Read, Subscriptions: true})
	l := newLive(t, cfg)
	keys := []string{
		"a/b", "..", ".", "%", "%2F", "a?b#c", "a b+c", "ä€😀", "a\nid: 1\n\ndata: x", "a\r\r", "\u2028", `"}`, "'; DROP TABLE word --", "subscribe", "/subscribe/", "**", "A", "\"", "\\", "a\tb",
	}
	watched := map[string]*stream{}
	for _, key := range keys {
		l.exec(t, `INSERT INTO word VALUES (?, 'x')`, key)
		watched[key] = l.stream(t, "/api/records/v1/word/subscribe/"+strings.ReplaceAll(url.PathEscape(key), ".", "%2E"))
	}
	other := l.stream(t, "/api/records/v1/word/subscribe/a") // is "A"
	all := l.stream(t, "/api/records/v1/word/subscribe/*")
	for i, key := range keys {
		l.exec(t, `UPDATE word SET owner = ? WHERE w = ?`, fmt.Sprint("o", i), key)
	}
	event := func(i int, key string, seq int) string {
		b, err := json.Marshal(key)
		if err != nil {
			t.Fatal(err)
		}
		return fmt.Sprintf(`{"Update":{"owner":"o%d","w":%s},"seq":%d}`, i, b, seq)
	}
	same := func(f frame, want string) {
		t.Helper()
		var got, expected map[string]any
		if json.Unmarshal([]byte(f.data), &got) != nil || json.Unmarshal([]byte(want), &expected) != nil || fmt.Sprint(got) != fmt.Sprint(expected) {
			t.Errorf("got %s, want %s", f.data, want)
		}
	}
	for i, key := range keys {
		f, _ := all.next()
		same(f, event(i, key, i+1))
		f, _ = watched[key].next()
		same(f, event(i, key, 1))
		if key == "A" {
			f, _ = other.next()
			same(f, event(i, key, 1))
		}
	}
	// All spellings of one UUID are one record.
	id := []byte("\x00*/\x00\n\xff\x7f.\xbf\"'\x00 \x80?#")
	l.exec(t, `INSERT INTO data VALUES (?, 'x')`, id)
	digits := hex.EncodeToString(id)
	text := strings.Join([]string{digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]}, "-")
	var same16 []*stream
	for _, spelling := range []string{text, strings.ToUpper(text), base64.URLEncoding.EncodeToString(id)} {
		same16 = append(same16, l.stream(t, "/api/records/v1/data/subscribe/"+url.PathEscape(spelling)))
	}
	l.exec(t, `UPDATE data SET owner = 'o'`)
	for _, s := range same16 {
		s.want(fmt.Sprintf(`{"Update":{"d":%q,"owner":"o"},"seq":1}`, base64.URLEncoding.EncodeToString(id)))
	}
	// Other spellings of the route are no way around it.
	for _, path := range []string{"word%2Fsubscribe%2FA", "word/subscribe%2FA", "word/subscribe/A/", "word/subscribe/A/subscribe/A", "/subscribe/A", "word/subscribe/", "word/Subscribe/A"} {
		res := l.get(t, "/api/records/v1/"+path)
		if res.header.Get("Content-Type") == "text/event-stream" {
			t.Errorf("%s is a stream", path)
		}
	}
}

// A table whose name is spelled anew is another one: streams end, and whoever
// comes back is told that something may be missing.
func TestAttackTableSpelledAnew(t *testing.T) {
	t.Parallel()
	l := newLive(t, liveConfig(t.TempDir()))
	var all []*stream
	for range 3 {
		all = append(all, l.stream(t, notes+"/subscribe/*"))
	}
	l.exec(t, `ALTER TABLE note RENAME TO x`)
	l.exec(t, `ALTER TABLE x RENAME TO NOTE`)
	l.exec(t, `INSERT INTO note (id, text) VALUES (1, 'x')`)
	for _, s := range all {
		for _, open := s.next(); open; _, open = s.next() {
		}
	}
	l.listening(t, 0)
	s := l.stream(t, notes+"/subscribe/*?since="+all[0].lastID)
	if f, _ := s.next(); !strings.Contains(f.data, `"status":2`) {
		t.Error(f)
	}
	l.exec(t, `INSERT INTO note (id, text) VALUES (2, 'x')`)
	for range 2 { // the first may be known by the gap alone
		if f, _ := s.next(); strings.Contains(f.data, `"id":2,`) {
			return
		}
	}
	t.Error("nothing of the new row")
}

// A table that is dropped and made anew, with other columns in the places of
// those that nobody may see, shows none of them.
func TestAttackTableMadeAnew(t *testing.T) {
	t.Parallel()
	l := newLive(t, liveConfig(t.TempDir()))
	ada, tokens := l.login(t, "ada")
	bob, other := l.login(t, "bob")
	s, his := l.bearing(t, tokens.AuthToken, posts+"/subscribe/*"), l.bearing(t, other.AuthToken, posts+"/subscribe/*")
	l.exec(t, `INSERT INTO post (id, author, text, secret, _hidden) VALUES (1, ?, 'public', 'SECRET', 'SECRET')`, ada[:])
	l.exec(t, `DROP TABLE post; CREATE TABLE post (secret TEXT, _hidden TEXT, id INTEGER PRIMARY KEY, text TEXT NOT NULL, author BLOB, more TEXT) STRICT`)
	l.exec(t, `INSERT INTO post (id, author, text, secret, _hidden) VALUES (2, ?, 'public', 'SECRET', 'SECRET'), (3, ?, 'hers', 'SECRET', 'SECRET')`, bob[:], ada[:])
	for s, id := range map[*stream]string{s: `"id":3,`, his: `"id":2,`} {
		gaps := 0
		for f, open := s.next(); ; f, open = s.next() {
			if !open {
				s = l.bearing(t, map[string]string{`"id":3,`: tokens.AuthToken, `"id":2,`: other.AuthToken}[id], posts+"/subscribe/*?since="+s.lastID)
				continue
			}
			if strings.Contains(f.data, "SECRET") {
				t.Errorf("shown: %s", f.data)
			}
			if strings.Contains(f.data, `"status":2`) {
				gaps++
			}
			if strings.Contains(f.data, id) {
				break
			}
			if strings.Contains(f.data, `"id":2,`) || strings.Contains(f.data, `"id":3,`) {
				t.Errorf("of somebody else: %s", f.data)
			}
		}
		if gaps == 0 {
			t.Error("no word of what may be missing")
		}
	}
}

// A row that changes hands, seen through filters on either side.
func TestAttackRowsThatMoveBehindFilters(t *testing.T) {
	t.Parallel()
	l := newLive(t, liveConfig(t.TempDir()))
	ada, tokens := l.login(t, "ada")
	bob, other := l.login(t, "bob")
	l.exec(t, `INSERT INTO post (id, author, text) VALUES (1, ?, 'a')`, ada[:])
	open := func(token, filter string) *stream { return l.bearing(t, token, posts+"/subscribe/*?"+filter) }
	a, notA, hisA, hisB := open(tokens.AuthToken, "filter[text]=a"), open(tokens.AuthToken, "filter[text][$ne]=a"),
		open(other.AuthToken, "filter[text]=a"), open(other.AuthToken, "filter[text]=b")
	l.exec(t, `UPDATE post SET text = 'b', author = ?`, bob[:]) // to bob, out of the filter
	l.exec(t, `UPDATE post SET text = 'a'`)                     // within bob's
	l.exec(t, `UPDATE post SET author = ?, id = 2`, ada[:])     // back, with another key
	l.exec(t, `UPDATE post SET text = 'c'`)                     // within ada's
	l.exec(t, `UPDATE post SET author = NULL`)                  // nobody's
	l.exec(t, `DELETE FROM post`)                               // which nobody sees
	row := func(author any, id int, text string) string {
		return fmt.Sprintf(`{"author":"%v","id":%d,"text":%q}`, author, id, text)
	}
	a.want(`{"Delete":`+row(ada, 1, "a")+`,"seq":1}`, `{"Insert":`+row(ada, 2, "a")+`,"seq":2}`, `{"Delete":`+row(ada, 2, "a")+`,"seq":3}`)
	notA.want(`{"Update":`+row(ada, 2, "c")+`,"seq":1}`, `{"Delete":`+row(ada, 2, "c")+`,"seq":2}`)
	hisA.want(`{"Update":`+row(bob, 1, "a")+`,"seq":1}`, `{"Delete":`+row(bob, 1, "a")+`,"seq":2}`)
	hisB.want(`{"Update":`+row(bob, 1, "b")+`,"seq":1}`, `{"Delete":`+row(bob, 1, "b")+`,"seq":2}`)
	l.exec(t, `INSERT INTO post (id, author, text) VALUES (9, ?, 'a'), (10, ?, 'z'), (11, ?, 'a'), (12, ?, 'b')`, ada[:], ada[:], bob[:], bob[:])
	for s, want := range map[*stream]string{a: row(ada, 9, "a"), notA: row(ada, 10, "z"), hisA: row(bob, 11, "a"), hisB: row(bob, 12, "b")} {
		if f, _ := s.next(); !strings.HasPrefix(f.data, `{"Insert":`+want) {
			t.Errorf("%s, want %s", f.data, want)
		}
	}
}

// Tables of equal name in several files are told apart, with their rules.
func TestAttackAttachedNames(t *testing.T) {
	t.Parallel()
	cfg := liveConfig(t.TempDir())
	cfg.Databases = []bedplate.Database{{
		Name: "other", Path: filepath.Join(filepath.Dir(cfg.Path), "other.db"),
		Migrations: sqlFile(`CREATE TABLE post (id INTEGER PRIMARY KEY, author BLOB, text TEXT NOT NULL, secret TEXT, _hidden TEXT) STRICT;`),
	}}
	twin := cfg.Records[1]
	twin.Name, twin.Table, twin.Exclude = "twins", "other.post", nil
	cfg.Records = append(cfg.Records, twin)
	l := newLive(t, cfg)
	ada, tokens := l.login(t, "ada")
	here, there := l.bearing(t, tokens.AuthToken, posts+"/subscribe/*"), l.bearing(t, tokens.AuthToken, "/api/records/v1/twins/subscribe/*")
	position := here.lastID
	l.exec(t, `INSERT INTO other.post (author, text, secret) VALUES (?, 'there', 's')`, ada[:])
	l.exec(t, `INSERT INTO main.post (author, text, secret) VALUES (?, 'here', 's')`, ada[:])
	here.want(fmt.Sprintf(`{"Insert":{"author":%q,"id":1,"text":"here"},"seq":1}`, ada))
	there.want(fmt.Sprintf(`{"Insert":{"author":%q,"id":1,"secret":"s","text":"there"},"seq":1}`, ada))
	// A position of one file is none of the other.
	s := l.bearing(t, tokens.AuthToken, "/api/records/v1/twins/subscribe/*?since="+position)
	if f, _ := s.next(); !strings.Contains(f.data, `"status":2`) {
		t.Error(f)
	}
}
