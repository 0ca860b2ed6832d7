package records_test

import (
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/bedplate/bedplate/records"
)

const docSchema = `CREATE TABLE doc (id INTEGER PRIMARY KEY, owner INTEGER, n INTEGER NOT NULL DEFAULT 0, v TEXT, _note TEXT, private TEXT) STRICT;
	INSERT INTO doc (id, owner, v) VALUES (1, 1, 'one'), (2, 2, 'two')`

func TestEntityTags(t *testing.T) {
	t.Parallel()
	db := openDB(t, docSchema)
	h := serve(t, db,
		records.API{Name: "doc", Table: "doc", World: everything, Exclude: []string{"private"}},
		records.API{Name: "own", Table: "doc", World: everything, ReadRule: "_ROW_.owner IS _USER_.id"},
		records.API{Name: "blind", Table: "doc", World: records.Update | records.Delete},
	)
	first := get(h, "", "/doc/1")
	tag := first.header.Get("Etag")
	if !strings.HasPrefix(tag, `"`) || first.header.Get("Cache-Control") != "private, no-cache" {
		t.Fatalf("tag %q, %v", tag, first.header)
	}
	if again := get(h, "1", "/doc/1"); again.header.Get("Etag") != tag {
		t.Errorf("another tag for the same: %q", again.header.Get("Etag"))
	}
	for _, none := range []string{tag, "W/" + tag, `"x", ` + tag, "*", `"x",` + tag + ` , "y"`} {
		if r := call(h, "", "GET", "/doc/1", "", "If-None-Match", none); r.status != 304 || r.body != "" || r.header.Get("Etag") != tag {
			t.Errorf("%s: %v", none, r)
		}
	}
	for _, none := range []string{`"x"`, tag[:len(tag)-1], "x" + tag, ""} { // one that cannot be read is ignored here
		wantStatus(t, call(h, "", "GET", "/doc/1", "", "If-None-Match", none), 200)
	}

	// What the caller does not see does not change the tag, and the rest does.
	execSQL(t, db, `UPDATE doc SET _note = 'x', private = 'y' WHERE id = 1`)
	if now := get(h, "", "/doc/1").header.Get("Etag"); now != tag {
		t.Errorf("hidden columns show in the tag")
	}
	patch := func(api, body string, header ...string) response {
		return call(h, "", "PATCH", "/"+api+"/1", body, header...)
	}
	want(t, patch("doc", `{"n":1}`, "If-Match", `"other"`), 412, "")
	want(t, patch("doc", `{"n":1}`, "If-Match", "W/"+tag), 412, "")
	want(t, patch("doc", `{"n":1}`, "If-None-Match", tag), 412, "")
	want(t, patch("doc", `{"n":1}`, "If-None-Match", "*"), 412, "")
	for _, bad := range []string{`x`, `"`, `"a" "b"`, `,`, strings.Repeat(`"a",`, 40)} {
		want(t, patch("doc", `{"n":1}`, "If-Match", bad), 400, "Invalid entity tag")
	}
	if got := one(t, db, `SELECT n FROM doc WHERE id = 1`); got != "0" {
		t.Errorf("n is %s", got)
	}
	changed := patch("doc", `{"n":1}`, "If-Match", `"other", `+tag)
	next := changed.header.Get("Etag")
	if changed.status != 200 || next == tag || next != get(h, "", "/doc/1").header.Get("Etag") {
		t.Errorf("%v, tag %q", changed, next)
	}
	want(t, patch("doc", `{"n":2}`, "If-Match", tag), 412, "")
	want(t, patch("doc", `{"n":2}`, "If-Match", "*"), 200, "")
	want(t, patch("doc", `{}`, "If-Match", next), 412, "")
	want(t, call(h, "", "PATCH", "/doc/9", `{"n":2}`, "If-Match", "*"), 412, "")
	want(t, call(h, "", "PATCH", "/doc/9", `{"n":2}`, "If-None-Match", "*"), 404, "")
	want(t, call(h, "", "DELETE", "/doc/1", "", "If-Match", next), 412, "")
	want(t, call(h, "", "DELETE", "/doc/1", "", "If-Match", get(h, "", "/doc/1").header.Get("Etag")), 200, "deleted")

	// A tag is not a way to guess what one may not read.
	two := get(h, "2", "/own/2").header.Get("Etag")
	for _, header := range [][]string{{"If-Match", two}, {"If-Match", `"x"`}, {"If-Match", "*"}} {
		hidden := call(h, "1", "PATCH", "/own/2", `{"n":3}`, header...)
		missing := call(h, "1", "PATCH", "/own/99", `{"n":3}`, header...)
		blind := call(h, "2", "PATCH", "/blind/2", `{"n":3}`, header...)
		if hidden.same() != missing.same() || hidden.status != 412 || blind.status != 412 {
			t.Errorf("%v: hidden %v, missing %v, without permission to read %v", header, hidden, missing, blind)
		}
	}
	wantStatus(t, call(h, "2", "PATCH", "/own/2", `{"n":3}`, "If-Match", two), 200)
}

// Whoever expands or selects columns gets weak tags, which do not stand for a
// version of the record.
func TestWeakTags(t *testing.T) {
	t.Parallel()
	h := serve(t, openDB(t, `CREATE TABLE p (id INTEGER PRIMARY KEY) STRICT; CREATE TABLE c (id INTEGER PRIMARY KEY, p INTEGER REFERENCES p(id)) STRICT;
		INSERT INTO p VALUES (1); INSERT INTO c VALUES (1, 1)`),
		records.API{Name: "c", Table: "c", World: everything, Expand: []string{"p"}})
	for _, target := range []string{"/c/1?expand=p", "/c", "/c?limit=1", "/c?count=true"} {
		r := get(h, "", target)
		tag := r.header.Get("Etag")
		if !strings.HasPrefix(tag, `W/"`) {
			t.Errorf("%s: tag %q", target, tag)
			continue
		}
		want(t, call(h, "", "GET", target, "", "If-None-Match", tag), 304, "")
		want(t, call(h, "", "PATCH", "/c/1", `{}`, "If-Match", tag), 412, "")
	}
	before := get(h, "", "/c").header.Get("Etag")
	wantStatus(t, call(h, "", "POST", "/c", `{}`), 200)
	wantStatus(t, call(h, "", "GET", "/c", "", "If-None-Match", before), 200)
}

// Of all who change one version, one does.
func TestOneWinnerPerVersion(t *testing.T) {
	t.Parallel()
	const writers, rounds = 50, 40
	db := openDB(t, docSchema)
	h := serve(t, db, records.API{Name: "doc", Table: "doc", World: everything})
	for round := range rounds {
		tag := get(h, "", "/doc/1").header.Get("Etag")
		var won atomic.Int64
		var wg sync.WaitGroup
		for w := range writers {
			wg.Add(1)
			go func() {
				defer wg.Done()
				r := call(h, "", "PATCH", "/doc/1", fmt.Sprintf(`{"n":%d,"v":"%d"}`, round*writers+w+1, w), "If-Match", tag)
				switch r.status {
				case 200:
					won.Add(1)
				case 412:
				default:
					t.Errorf("%v", r)
				}
			}()
		}
		wg.Wait()
		if n := won.Load(); n != 1 {
			t.Fatalf("round %d: %d of %d writers have changed the same version", round, n, writers)
		}
	}
}

// Whoever has a list of another caller is not told to go on with it: the
// cursor in it would be of no use.
func TestListTagIsTheCallers(t *testing.T) {
	t.Parallel()
	h := serve(t, openDB(t, docSchema), records.API{Name: "doc", Table: "doc", World: everything})
	anonymous := get(h, "", "/doc?limit=1").header.Get("Etag")
	wantStatus(t, call(h, "", "GET", "/doc?limit=1", "", "If-None-Match", anonymous), 304)
	wantStatus(t, call(h, "7", "GET", "/doc?limit=1", "", "If-None-Match", anonymous), 200)
}
