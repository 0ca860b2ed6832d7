package bedplate_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bedplate/bedplate/realtime"
	"github.com/bedplate/bedplate/records"
)

// A ticket opens one stream, however many ask at once, and is nobody else's.
func TestAttackTicketRace(t *testing.T) {
	t.Parallel()
	l := newLive(t, liveConfig(t.TempDir()))
	ada, tokens := l.login(t, "ada")
	ticket := func(token string) string {
		t.Helper()
		w := l.as(token).send("POST", "/api/realtime/v1/ticket", "")
		var made struct{ Ticket string }
		if err := json.Unmarshal(w.Body.Bytes(), &made); err != nil || made.Ticket == "" {
			t.Fatalf("ticket: %d %s", w.Code, w.Body)
		}
		return made.Ticket
	}
	one := ticket(tokens.AuthToken)
	var opened atomic.Int64
	var clients sync.WaitGroup
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	for i := range 100 {
		clients.Go(func() {
			req, err := http.NewRequestWithContext(ctx, http.MethodGet, l.url+[]string{posts, notes}[i%2]+"/subscribe/*?ticket="+one, nil)
			if err != nil {
				t.Error(err)
				return
			}
			res, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Error(err)
				return
			}
			switch res.StatusCode {
			case 200:
				opened.Add(1) // the body stays open until the end
			case 401:
				res.Body.Close()
			default:
				t.Errorf("status %d", res.StatusCode)
			}
		})
	}
	clients.Wait()
	if n := opened.Load(); n != 1 {
		t.Errorf("%d streams with one ticket", n)
	}
	// What has happened to its owner meanwhile counts.
	for name, then := range map[string]func(){
		"promoted": func() { check(t, l.Auth.SetAdmin(t.Context(), ada, true)) },
		"demoted":  func() { check(t, l.Auth.SetAdmin(t.Context(), ada, false)) },
		"disabled": func() { check(t, l.Auth.SetDisabled(t.Context(), ada, true)) },
	} {
		if name == "demoted" {
			check(t, l.Auth.SetAdmin(t.Context(), ada, true))
		}
		text := ticket(l.again(t, "ada").AuthToken)
		then()
		if res := l.get(t, posts+"/subscribe/*?ticket="+text); res.status != 401 {
			t.Errorf("%s: %d", name, res.status)
		}
		check(t, l.Auth.SetDisabled(t.Context(), ada, false))
		check(t, l.Auth.SetAdmin(t.Context(), ada, false))
	}
	// The ticket of an API key carries its scopes, for channels and APIs.
	_, key := l.apiKey(t, l.again(t, "ada").AuthToken, `[{"api":"notes","operations":["read"]}]`, 60)
	for path, status := range map[string]int{notes + "/subscribe/*": 200, posts + "/subscribe/*": 403, "/api/records/v1/staff/subscribe/*": 403, "/api/realtime/v1/any": 403} {
		if res := l.get(t, path+"?ticket="+ticket(key)); res.status != status {
			t.Errorf("%s with a key's ticket: %d, want %d", path, res.status, status)
		}
	}
	// And nobody can hold more than a handful.
	token := l.again(t, "ada").AuthToken
	full := 0
	for range 150 {
		if l.as(token).send("POST", "/api/realtime/v1/ticket", "").Code == 503 {
			full++
		}
	}
	if full == 0 {
		t.Error("150 tickets for one user")
	}
}

// A Check that takes long is not asked again meanwhile, and who cannot be
// checked is let go.
func TestAttackSlowCheck(t *testing.T) {
	t.Parallel()
	cfg := liveConfig(t.TempDir())
	cfg.Auth = nil
	cfg.Migrations = sqlFile(`CREATE TABLE note (id INTEGER PRIMARY KEY, text TEXT, author INTEGER) STRICT;`)
	cfg.Records = cfg.Records[:1]
	type who struct{}
	cfg.Caller = func(ctx context.Context) records.Caller {
		id, _ := ctx.Value(who{}).(string)
		return records.Caller{ID: id}
	}
	var slow atomic.Bool
	var running, most atomic.Int64
	cfg.Realtime = &realtime.Config{
		Identify: func(context.Context) realtime.Identity { return realtime.Identity{User: "ada"} },
		Check: func(ctx context.Context, ids []realtime.Identity) ([]bool, error) {
			if !slow.Load() {
				return slices.Repeat([]bool{true}, len(ids)), nil
			}
			most.Store(max(most.Load(), running.Add(1)))
			defer running.Add(-1)
			<-ctx.Done()
			return nil, ctx.Err()
		},
	}
	l := newLive(t, cfg)
	s := l.stream(t, notes+"/subscribe/*")
	l.exec(t, `INSERT INTO note (id) VALUES (1)`)
	s.want(`{"Insert":{"author":null,"id":1,"text":null},"seq":1}`)
	slow.Store(true)
	s.ends()
	if most.Load() != 1 {
		t.Errorf("asked %d times at once", most.Load())
	}
}

// Filters that take long hold up whoever has them, and nobody else.
func TestAttackSlowFilters(t *testing.T) {
	t.Parallel()
	l := newLive(t, liveConfig(t.TempDir()))
	ada, tokens := l.login(t, "ada")
	all, some := l.stream(t, notes+"/subscribe/*"), l.stream(t, notes+"/subscribe/*?filter[author]=7")
	mine := l.bearing(t, tokens.AuthToken, posts+"/subscribe/*")
	l.exec(t, `INSERT INTO note (id, author) VALUES (1, 7)`)
	for i := range 3 { // it is seen that this costs little
		l.exec(t, `UPDATE note SET text = ?`, fmt.Sprint(i))
	}
	for _, s := range []*stream{all, some} {
		for range 4 {
			s.next()
		}
	}
	const filters, rows = 20, 32
	var slow []*stream
	for i := range filters {
		slow = append(slow, l.stream(t, notes+"/subscribe/*?filter[$or][0][id]=70&filter[$or][1][text][$like]="+url.QueryEscape("%"+strings.Repeat("a", 230)+fmt.Sprint("b", i))))
	}
	begin := time.Now()
	l.exec(t, `WITH RECURSIVE n(i) AS (SELECT 2 UNION ALL SELECT i + 1 FROM n WHERE i < ?1) INSERT INTO note (id, author, text) SELECT i, 7, replace(hex(zeroblob(8000)), '0', 'a') FROM n`, rows)
	for range rows - 1 {
		all.next()
	}
	t.Logf("all: %v", time.Since(begin))
	for id := 70; id < 73; id++ { // and from then on
		l.exec(t, `INSERT INTO note (id, author) VALUES (?, 7)`, id)
		all.next()
		t.Logf("all: %v", time.Since(begin))
	}
	l.exec(t, `INSERT INTO post (author, text) VALUES (?, 'x')`, ada[:])
	mine.want(fmt.Sprintf(`{"Insert":{"author":%q,"id":1,"text":"x"},"seq":1}`, ada))
	took := time.Since(begin)
	for range rows + 2 {
		some.next()
	}
	t.Logf("some: %v", time.Since(begin))
	for _, s := range slow { // nothing is lost for them either
		if f, _ := s.next(); f.data != `{"Insert":{"author":7,"id":70,"text":null},"seq":1}` {
			t.Error(f)
		}
	}
	whole := time.Since(begin)
	t.Logf("slow: %v", whole)
	if took > whole/2 { // which is all of it for who is held up
		t.Errorf("others get their events after %v, those with slow filters after %v", took, whole)
	}
}

// A rule that cannot be judged in time tells nobody anything, and everybody it
// concerns that something is missing. Others go on.
func TestAttackSlowRule(t *testing.T) {
	t.Parallel()
	cfg := liveConfig(t.TempDir())
	cfg.SQLite.MaxStatement = 500 * time.Millisecond // which is ample for the others
	slow := cfg.Records[0]
	slow.Name, slow.ReadRule = "slow", `CASE WHEN _ROW_.id = 1 THEN (SELECT count(*) FROM n, n AS m, n AS o, n AS p WHERE n.i + m.i + o.i + p.i > 0) > 0 ELSE 1 END`
	cfg.Records = append(cfg.Records, slow)
	cfg.Migrations = sqlFile(`
		CREATE TABLE note (id INTEGER PRIMARY KEY, text TEXT, author INTEGER) STRICT;
		CREATE TABLE profile (user INTEGER PRIMARY KEY) STRICT;
		CREATE TABLE post (id INTEGER PRIMARY KEY, author BLOB, text TEXT NOT NULL, secret TEXT, _hidden TEXT) STRICT;
		CREATE TABLE n (i INTEGER); WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c WHERE i < 2000) INSERT INTO n SELECT i FROM c`)
	l := newLive(t, cfg)
	all, some := l.stream(t, notes+"/subscribe/*"), l.stream(t, "/api/records/v1/slow/subscribe/*")
	for id := range 4 {
		l.exec(t, `INSERT INTO note (id) VALUES (?)`, id)
	}
	gaps, seen := 0, ""
	for seen != "023" {
		f, open := some.next()
		switch id := regexp.MustCompile(`"id":(.)`).FindStringSubmatch(f.data); {
		case !open:
			some = l.stream(t, "/api/records/v1/slow/subscribe/*?since="+some.lastID)
		case id != nil:
			seen += id[1]
		case strings.Contains(f.data, `"status":2`):
			gaps++
		}
		if len(seen) > 3 || gaps > 1 {
			t.Fatalf("seen %s, %d gaps", seen, gaps)
		}
	}
	if gaps != 1 {
		t.Errorf("%d gaps", gaps)
	}
	for id := range 4 {
		all.want(fmt.Sprintf(`{"Insert":{"author":null,"id":%d,"text":null},"seq":%d}`, id, id+1))
	}
}
